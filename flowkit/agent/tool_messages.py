"""Calls as messages: the model's calls, their results, and the data that travels beside them.

A model's answer becomes a message of the history. Outcomes become the tool messages that the model reads, and the tips
that the user reads.

A call that waits for a person may need others, such as a write, which must not run again after the decision. A run that
is resumed from its history alone has only messages, and there is none for a call that the model didn't make. So the
outcomes of such calls are stored as data of the assistant's message, under a source that no model has, and are never
sent to a model.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from flowkit.assemble import SealedCall, Turn
from flowkit.codec import JSON, dumps, loads
from flowkit.executor import Approve, Outcome
from flowkit.executor.outcomes import State
from flowkit.media import GONE, fill_media, name_media, show_media
from flowkit.messages import AssistantMessage, Message, ProviderData, RequestedCall, ToolMessage
from flowkit.references import ToolCall
from flowkit.tools import Tool
from flowkit.tools.long_results import DEFAULT_MAX_CHARS, READ_TOOL, LongResults
from flowkit.tools.toolsets import Toolset

_SOURCE = "flowkit"
_KIND = "ended"
_ASKED = "asked"
"""The source and the kind of the stored outcomes."""
SHORTEST_TIP_S = 0.05
"""A late start that cost less than this isn't worth telling."""


def make_tool_message(
    requested: RequestedCall, outcome: Outcome, tool: Tool[..., Any] | None, long: LongResults
) -> ToolMessage:
    """Make the call's one result message: its value, cut when long, or why there is none.

    A person's changes are reported here: the arguments in the message that asked stay as the model wrote them, since
    servers sign them.
    """
    changed = ""
    if isinstance(outcome.decision, Approve) and outcome.decision.arguments is not None:
        changed = f"a person approved this with other arguments, {dumps(outcome.call.arguments).decode()}:\n"
    if outcome.state != "finished":
        return ToolMessage(requested.id, requested.name, changed + (outcome.error or outcome.state), is_error=True)
    value, media = show_media(outcome.value)
    text = value if isinstance(value, str) else dumps(value).decode()
    if requested.name == READ_TOOL:
        # It is already one page, with its own hint for the next.
        return ToolMessage(requested.id, requested.name, text)
    limit = DEFAULT_MAX_CHARS if tool is None else tool.max_result_chars or DEFAULT_MAX_CHARS
    return ToolMessage(requested.id, requested.name, changed + long.show(requested.id, text, limit), media=media)


async def fill_messages(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Restore the content to the media of the results; content that is no longer kept is replaced by a note."""
    if not any(isinstance(message, ToolMessage) and message.media for message in messages):
        return messages
    return await asyncio.to_thread(lambda: tuple(map(_fill, messages)))


def _fill(message: Message) -> Message:
    if not isinstance(message, ToolMessage) or not message.media:
        return message
    filled = [fill_media(media) for media in message.media]
    gone = [
        f"\n[{name_media(media, position)}: {GONE}]"
        for position, (media, found) in enumerate(zip(message.media, filled, strict=True), 1)
        if found is None
    ]
    return replace(message, text=message.text + "".join(gone), media=tuple(filter(None, filled)))


def make_tips(tools: Toolset, outcomes: Mapping[str, Outcome], ready_s: Mapping[str, float]) -> Iterator[str]:
    """Yield a tip for each tool with an undeclared effect: how much sooner it could have started, at most."""
    late: dict[str, float] = {}
    for node, complete_s in ready_s.items():
        outcome = outcomes.get(node)
        tool = None if outcome is None else tools.find(outcome.call.name)
        if outcome is None or outcome.started_s is None or tool is None or tool.declared_effect:
            continue
        late[tool.name] = max(outcome.started_s - complete_s, late.get(tool.name, 0.0))
    for name, late_s in late.items():
        if late_s >= SHORTEST_TIP_S:
            yield (
                f"{name}: its effect isn't declared, so it was treated as a write; "
                f"as a read it would have started {late_s:.1f} s sooner"
            )


def make_message(turn: Turn, calls: Iterable[tuple[str, SealedCall]], source: str) -> AssistantMessage:
    """Make the message of a turn with these calls under their tools' own names; `source` marks provider data."""
    return AssistantMessage(
        text=turn.text,
        calls=tuple(_make_call(name, sealed, source) for name, sealed in calls),
        thinking=turn.thinking,
        refusal=turn.refusal,
        provider=tuple(_list_provider_data(turn, source)),
    )


def explain_stop(message: AssistantMessage) -> str:
    """Return the server's reason for stopping, after a colon; an empty text without one."""
    for item in message.provider:
        if item.kind == "stop_details" and isinstance(item.data, dict):
            said = item.data.get("explanation") or item.data.get("category")
            return f": {said}" if isinstance(said, str) else ""
    return ""


def seal_again(call: RequestedCall, index: int) -> SealedCall:
    """Return the call as it was sealed when its message was made."""
    try:
        arguments = loads(call.arguments or "{}")
    except ValueError:
        arguments = None
    return SealedCall(index, call.id, call.name, arguments if isinstance(arguments, dict) else None, call.arguments)


def _make_call(name: str, sealed: SealedCall, source: str) -> RequestedCall:
    provider = sealed.provider
    return RequestedCall(
        id=sealed.id,
        name=name,
        arguments=_write_arguments(sealed),
        provider=None if provider is None else ProviderData(source, provider.kind, provider.data),
    )


def _write_arguments(sealed: SealedCall) -> str:
    """Return the model's own text if it equals the arguments, byte for byte; else serialize the arguments.

    Broken ones are sent back as an empty object, and the call's result explains why.
    """
    if sealed.arguments is None:
        return "{}"
    try:
        is_exact = loads(sealed.raw) == sealed.arguments
    except ValueError:
        is_exact = False
    return sealed.raw if is_exact else dumps(sealed.arguments).decode()


def _list_provider_data(turn: Turn, source: str) -> Iterator[ProviderData]:
    """List the data to send back; servers require thinking before calls, with its original name and position."""
    if turn.calls and turn.thinking and turn.thinking_field:
        yield ProviderData(source, turn.thinking_field, turn.thinking)
    for item in turn.provider:
        yield ProviderData(source, item.kind, item.data)


def carry(message: AssistantMessage, ended: Mapping[str, Outcome], question: str = "") -> AssistantMessage:
    """Attach these outcomes to the message, by the ids that the calls will have in the resumed run.

    `question` is unique for each time that a run waits, so that a repeated decision is recognized.
    """
    carried = [ProviderData(_SOURCE, _ASKED, question)] if question else []
    if ended:
        data: dict[str, JSON] = {node: _to_json(outcome) for node, outcome in ended.items()}
        carried.append(ProviderData(_SOURCE, _KIND, data))
    return replace(message, provider=(*message.provider, *carried))


def find_question(messages: Sequence[Message]) -> str | None:
    """Find the question that the last calls of this conversation wait with, if a run left one."""
    for message in reversed(messages):
        if isinstance(message, AssistantMessage):
            found = [item.data for item in message.provider if (item.source, item.kind) == (_SOURCE, _ASKED)]
            return str(found[-1]) if found else None
    return None


def unload(messages: Sequence[Message]) -> tuple[tuple[Message, ...], dict[str, Outcome]]:
    """Split the messages from the outcomes that they carry."""
    ended: dict[str, Outcome] = {}
    unloaded: list[Message] = []
    for message in messages:
        if isinstance(message, AssistantMessage):
            carried = [item for item in message.provider if item.source == _SOURCE]
            for item in carried:
                if item.kind == _KIND:
                    ended |= _read(cast(Mapping[str, Mapping[str, JSON]], item.data))
            if carried:
                message = replace(message, provider=tuple(item for item in message.provider if item not in carried))
        unloaded.append(message)
    return tuple(unloaded), ended


def _to_json(outcome: Outcome) -> JSON:
    return {
        "name": outcome.call.name,
        "state": outcome.state,
        "value": outcome.value,
        "error": outcome.error,
        "attempt": outcome.attempt,
    }


def _read(data: Mapping[str, Mapping[str, JSON]]) -> dict[str, Outcome]:
    return {
        node: Outcome(
            ToolCall(node, str(fields["name"])),
            cast(State, fields["state"]),
            fields["value"],
            cast(str | None, fields["error"]),
            attempt=cast(int, fields["attempt"]),
        )
        for node, fields in data.items()
    }
