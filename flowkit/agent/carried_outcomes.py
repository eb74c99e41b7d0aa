"""What has ended below calls that wait for a person, carried by the message that asked for them.

Such a call may need others, a write among them, which mustn't run again when it is decided. A run that goes on from the
history alone has nothing but messages, and there is none for a call that the model didn't make. So their ends travel as
data of the assistant's message, from a source that no model has: nothing of it is ever sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from flowkit.codec import JSON
from flowkit.executor import Outcome
from flowkit.executor.outcomes import State
from flowkit.messages import AssistantMessage, Message, ProviderData
from flowkit.references import ToolCall

_SOURCE = "flowkit"
_KIND = "ended"
_ASKED = "asked"


def carry(message: AssistantMessage, ended: Mapping[str, Outcome], question: str = "") -> AssistantMessage:
    """The message with these outcomes, by the ids that the calls will have in the run that goes on.

    `question` is another one for each time that a run waits: by it a decision that is sent twice is known.
    """
    carried = [ProviderData(_SOURCE, _ASKED, question)] if question else []
    if ended:
        data: dict[str, JSON] = {node: _to_json(outcome) for node, outcome in ended.items()}
        carried.append(ProviderData(_SOURCE, _KIND, data))
    return replace(message, provider=(*message.provider, *carried))


def find_question(messages: Sequence[Message]) -> str | None:
    """The question that the last calls of this conversation wait with, where a run has left one."""
    for message in reversed(messages):
        if isinstance(message, AssistantMessage):
            found = [item.data for item in message.provider if (item.source, item.kind) == (_SOURCE, _ASKED)]
            return str(found[-1]) if found else None
    return None


def unload(messages: Sequence[Message]) -> tuple[tuple[Message, ...], dict[str, Outcome]]:
    """The messages without what they carry, and the outcomes that they carried."""
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
