"""The rules that keep a conversation valid for the next request.

A server refuses a history in which a call has no result, or a result has no call. So after any interruption `mend`
adds exactly one result per call, directly after the message with the call, and drops results without a call.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from pydantic import BaseModel

from flowkit.codec import JSON
from flowkit.message_parts import read_message
from flowkit.messages import AssistantMessage, Message, RequestedCall, SystemMessage, ToolMessage

NOT_DECIDED = "denied: the user went on without deciding"
NOT_RUN = "not run: the turn broke off before it started"
LEFT_OUT = "left out: this result isn't shown any more; call the tool again if it is needed"
SHORT_CHARS = 1000
"""How much of a result is left when a server has refused the whole."""


def read_history(history: Iterable[Message | Mapping[str, JSON] | BaseModel]) -> tuple[Message, ...]:
    """Read messages of flowkit, their JSON, those of Chat Completions, or those of a web client in `parts`.

    Objects of the openai package are read, too. Raises `ValueError` with the position for anything else.
    """
    return tuple(read for position, message in enumerate(history) for read in _read(message, f"history[{position}]"))


def _read(message: object, place: str) -> Sequence[Message]:
    if isinstance(message, BaseModel):
        message = message.model_dump()
    if isinstance(message, Message):
        return (message,)
    if not isinstance(message, Mapping):
        raise ValueError(f"{place} is {message!r:.100}, expected a message or an object with role and content")
    try:
        return read_message(cast("Mapping[str, JSON]", message))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def unanswered(messages: Sequence[Message]) -> tuple[RequestedCall, ...]:
    """Return the calls of the last assistant message that have no result yet, when no message follows it."""
    answered: set[str] = set()
    for message in reversed(messages):
        match message:
            case ToolMessage(call_id=call_id):
                answered.add(call_id)
            case AssistantMessage(calls=calls):
                return tuple(call for call in calls if call.id not in answered)
            case _:
                return ()
    return ()


def shorten_results(
    messages: Sequence[Message], reason: str, *, only: Collection[str] | None = None, limit: int = SHORT_CHARS
) -> tuple[Message, ...]:
    """Truncate the conversation's long results to `limit` characters, for a server that refuses the whole ones.

    `reason` marks the truncated places. `only` names the calls with results that may be truncated. If none of these is
    long, all of them are left out. The calls stay.
    """
    may = [
        message
        for message in messages
        if isinstance(message, ToolMessage) and (only is None or message.call_id in only)
    ]
    long = [message for message in may if len(message.text) > limit or message.media]
    changed = {id(message): _shorten(message, reason, limit if long else 0) for message in long or may}
    return tuple(changed.get(id(message), message) for message in messages)


def _shorten(message: ToolMessage, reason: str, limit: int) -> ToolMessage:
    count = len(message.text)
    if not limit:
        return replace(message, text=f"[left out: {reason}]", media=())
    # The text names it, but the model can't see it any more: a server may also refuse an image that it can't read.
    left_out = f"\n[its images, audio and files are left out; {reason}]" if message.media else ""
    if count <= limit:
        return replace(message, text=message.text + left_out, media=())
    text = f"{message.text[:limit]}\n[cut: characters {limit} to {count} of {count}; {reason}]"
    return replace(message, text=text + left_out, media=())


def mend(
    messages: Sequence[Message],
    missing: str = NOT_DECIDED,
    *,
    keeps_instructions: bool = False,
    left_out: Collection[str] = (),
) -> tuple[Message, ...]:
    """Return the conversation with one result for each call; `missing` is the text of those that had none.

    `left_out` are the ids of calls with results that were removed on purpose.

    Results are in the order of their calls. Empty messages are dropped. Instructions are dropped unless they are to be
    kept, since each run writes its own. A call with the id of an earlier one gets another: some servers number the calls
    of each turn anew, and others refuse such a conversation.
    """
    mended: list[Message] = []
    taken: set[str] = set()
    position = 0
    while position < len(messages):
        message = messages[position]
        position += 1
        match message:
            case AssistantMessage():
                results: dict[str, list[ToolMessage]] = {}
                while position < len(messages) and isinstance(result := messages[position], ToolMessage):
                    results.setdefault(result.call_id, []).append(result)
                    position += 1
                called = _name_apart(message, taken)
                if not called.is_empty:
                    mended.append(called)
                for call, own in zip(message.calls, called.calls, strict=True):
                    lost = LEFT_OUT if call.id in left_out else missing
                    found = results.get(call.id)
                    result = found.pop(0) if found else ToolMessage(own.id, own.name, lost, is_error=True)
                    is_named = result.name and result.call_id == own.id
                    mended.append(result if is_named else replace(result, call_id=own.id, name=result.name or own.name))
            case ToolMessage():
                pass
            case SystemMessage() if not keeps_instructions:
                pass
            case _:
                mended.append(message)
    return tuple(mended)


def _name_apart(message: AssistantMessage, taken: set[str]) -> AssistantMessage:
    """Give each call an id that no earlier one has, the same whenever the conversation is read."""
    calls: list[RequestedCall] = []
    for call in message.calls:
        id, number = call.id or "call", 2
        while id in taken:
            id, number = f"{call.id or 'call'}_{number}", number + 1
        taken.add(id)
        calls.append(call if id == call.id else replace(call, id=id))
    return replace(message, calls=tuple(calls)) if calls != list(message.calls) else message


def count_turns(messages: Sequence[Message]) -> int:
    """Count the model's turns."""
    return sum(isinstance(message, AssistantMessage) for message in messages)


def call_ids(messages: Sequence[Message]) -> frozenset[str]:
    """Return the ids of every call so far, which later calls must not reuse."""
    return frozenset(call.id for message in messages if isinstance(message, AssistantMessage) for call in message.calls)


def rename_calls(messages: Sequence[Message], names: Mapping[str, str]) -> tuple[Message, ...]:
    """Rename the tools in the messages to the names that travel."""
    return tuple(_rename(message, names) for message in messages)


def _rename(message: Message, names: Mapping[str, str]) -> Message:
    match message:
        case AssistantMessage(calls=calls) if any(wire_name(call.name, names) != call.name for call in calls):
            return replace(message, calls=tuple(replace(call, name=wire_name(call.name, names)) for call in calls))
        case ToolMessage(name=name) if (alias := wire_name(name, names)) != name:
            return replace(message, name=alias)
        case _:
            return message


def wire_name(name: str, names: Mapping[str, str]) -> str:
    """Return the alias of a known tool; in an unknown name, replace the characters that no server accepts."""
    alias = names.get(name)
    if alias is not None:
        return alias
    cleaned = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "_-") else "_" for letter in name)
    return cleaned[:64] or "unknown"
