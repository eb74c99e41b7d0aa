"""A model's own calls without the secrets that it wrote into them, and those kept apart.

A resumed run sends its model that model's own words, unchanged, and calls tools with them. So the journal keeps the
arguments of such calls beside the message that it shows, and only as long as the run may be resumed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from flowkit.codec import dumps, loads
from flowkit.masking import MASK
from flowkit.messages import AssistantMessage, Message, RequestedCall
from flowkit.tools.toolsets import Toolset


def hide_secrets(message: Message, tools: Toolset) -> tuple[Message, dict[str, str]]:
    """Return the message as others may see it, and the hidden arguments by call id."""
    if not isinstance(message, AssistantMessage) or not message.calls:
        return message, {}
    calls = tuple(_hide(call, tools) for call in message.calls)
    kept = {call.id: call.arguments for call, shown in zip(message.calls, calls, strict=True) if shown is not call}
    return (replace(message, calls=calls), kept) if kept else (message, kept)


def restore_secrets(message: AssistantMessage, kept: Mapping[str, str]) -> AssistantMessage:
    """Restore the message as the model wrote it."""
    if not kept:
        return message
    calls = tuple(replace(call, arguments=kept.get(call.id, call.arguments)) for call in message.calls)
    return replace(message, calls=calls)


def hide_history(history: Sequence[Message], tools: Toolset) -> tuple[tuple[Message, ...], dict[str, str]]:
    """Hide the secrets of a conversation; arguments are identified by the message's position and the call's id."""
    shown: list[Message] = []
    kept: dict[str, str] = {}
    for place, message in enumerate(history):
        hidden, arguments = hide_secrets(message, tools)
        shown.append(hidden)
        kept |= {f"{place}/{call}": text for call, text in arguments.items()}
    return tuple(shown), kept


def restore_history(history: Sequence[Message], kept: Mapping[str, str]) -> tuple[Message, ...]:
    """Restore the original conversation."""
    if not kept:
        return tuple(history)
    return tuple(
        restore_secrets(message, {call.id: kept.get(f"{place}/{call.id}", call.arguments) for call in message.calls})
        if isinstance(message, AssistantMessage)
        else message
        for place, message in enumerate(history)
    )


def _hide(call: RequestedCall, tools: Toolset) -> RequestedCall:
    tool = tools.resolve(call.name)
    is_unknown = tool is None and any(other.secrets for other in tools)
    if not is_unknown and (tool is None or not tool.secrets):
        return call
    try:
        arguments = loads(call.arguments)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        return replace(call, arguments="{}")
    if tool is None:
        return replace(call, arguments=dumps(dict.fromkeys(arguments, MASK)).decode())
    shown = tool.secrets.mask(tools.raise_arguments(tool.name, arguments))
    return replace(call, arguments=dumps(shown).decode())
