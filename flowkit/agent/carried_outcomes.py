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


def carry(message: AssistantMessage, ended: Mapping[str, Outcome]) -> AssistantMessage:
    """The message with these outcomes, by the ids that the calls will have in the run that goes on."""
    if not ended:
        return message
    data: dict[str, JSON] = {node: _to_json(outcome) for node, outcome in ended.items()}
    return replace(message, provider=(*message.provider, ProviderData(_SOURCE, _KIND, data)))


def unload(messages: Sequence[Message]) -> tuple[tuple[Message, ...], dict[str, Outcome]]:
    """The messages without what they carry, and the outcomes that they carried."""
    ended: dict[str, Outcome] = {}
    unloaded: list[Message] = []
    for message in messages:
        if isinstance(message, AssistantMessage):
            carried = [item for item in message.provider if (item.source, item.kind) == (_SOURCE, _KIND)]
            for item in carried:
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
