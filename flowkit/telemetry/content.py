"""Message content as JSON text in an attribute: only if enabled, and within the size limit of an attribute."""

from collections.abc import Iterable

from flowkit.codec import JSON, dumps
from flowkit.messages import (
    AssistantMessage,
    Content,
    Message,
    RequestedCall,
    SystemMessage,
    Text,
    ToolMessage,
    ToolSpec,
    UserMessage,
)

LONGEST = 4096
"""Bytes of one attribute."""


def write(value: JSON) -> str:
    """Write a value as JSON, cut on a character."""
    return cut(dumps(value).decode())


def cut(text: str, longest: int = LONGEST) -> str:
    """Truncate a text to the size limit of an attribute.

    >>> len(cut("가" * 5000).encode())
    4095
    """
    data = text.encode(errors="replace")
    return text if len(data) <= longest else data[:longest].decode(errors="ignore")


def write_instructions(messages: Iterable[Message]) -> str | None:
    """Write the system's instructions; None if there are none."""
    said: list[JSON] = [_text(message.text) for message in messages if isinstance(message, SystemMessage)]
    return write(said) if said else None


def write_messages(messages: Iterable[Message]) -> str:
    """Write a conversation; if it is too long, drop the oldest messages."""
    kept: list[JSON] = []
    left = LONGEST - 2
    for message in reversed([message for message in messages if not isinstance(message, SystemMessage)]):
        shown = show_message(message)
        left -= len(dumps(shown)) + 1
        if left < 0 and kept:
            break
        kept.append(shown)
    return write(kept[::-1])


def write_said(role: str, said: JSON) -> str:
    """Write a run's input or output as one message."""
    # Cut first: a message that is cut on its outside is no JSON any more, and viewers don't show it.
    text = cut(said if isinstance(said, str) else dumps(said).decode(), LONGEST - 200)
    return write([{"role": role, "parts": [_text(text)]}])


def write_tools(tools: Iterable[ToolSpec]) -> str:
    """Write the tools that a model was offered."""
    return write([{"type": "function", "name": tool.name, "description": tool.description} for tool in tools])


def show_message(message: Message) -> JSON:
    """Show a message in the conventions' parts."""
    parts: list[JSON]
    match message:
        case SystemMessage(text=text):
            return {"role": "system", "parts": [_text(text)]}
        case UserMessage(content=content):
            parts = [_text(content)] if isinstance(content, str) else [_show_part(part) for part in content]
            return {"role": "user", "parts": parts}
        case AssistantMessage():
            said = message.text or message.refusal
            parts = [_text(said)] if said else []
            return {"role": "assistant", "parts": [*parts, *map(_show_call, message.calls)]}
        case ToolMessage():
            part: JSON = {"type": "tool_call_response", "id": message.call_id, "response": message.text}
            return {"role": "tool", "parts": [part]}


def _text(text: str) -> JSON:
    return {"type": "text", "content": text}


def _show_call(call: RequestedCall) -> JSON:
    # Without its arguments: what the model wrote isn't masked here. The call's own span has them, masked.
    return {"type": "tool_call", "id": call.id, "name": call.name}


def _show_part(part: Content) -> JSON:
    """Show a part of a user's message; of an image or a file its type and size, never the bytes or a signed address."""
    if isinstance(part, Text):
        return _text(part.text)
    head, _, data = part.address.partition(",")
    is_data = head.startswith("data:")
    kind = head.removeprefix("data:").partition(";")[0] if is_data else ""
    name = type(part).__name__.lower()
    return {"type": name, "mime_type": kind or None, "bytes": len(data) * 3 // 4 if is_data else None}
