"""Read messages of other programs for `history=`; an unreadable message is an error, never an empty message.

Web clients store a message as `parts`, a list of texts, thinking, files, and calls with their results; one such message
becomes several of ours. All other formats have the text in `content`.
"""

from collections.abc import Iterator, Mapping, Sequence

from flowkit.codec import JSON, dumps
from flowkit.media import show_media
from flowkit.messages import (
    AssistantMessage,
    Content,
    Message,
    RequestedCall,
    SystemMessage,
    ToolMessage,
    UserMessage,
    message_from_json,
    read_content,
)

_PASSED_OVER = ("step-start", "source-url", "source-document")
_TEXTS = ("text", "input_text", "output_text", "refusal", None)
_WITHOUT_RESULT = "not run: the turn broke off before it started"


def read_message(data: Mapping[str, JSON]) -> Sequence[Message]:
    """Convert a message of another program.

    Raises `ValueError` with the expected key for an unreadable message.
    """
    role = data.get("role")
    parts = data.get("parts")
    if isinstance(parts, list) and not (data.get("content") or data.get("text")):
        return _read_parts(role, parts)
    _check(role, data)
    named = _find_words(data)
    # Ours are under `text` but for a user's, and others may write either.
    return (
        message_from_json(data if named is None else {**data, "content" if role == "user" else "text": data[named]}),
    )


def _find_words(data: Mapping[str, JSON]) -> str | None:
    """Find the key under which the text of a message stands."""
    return next((name for name in ("content", "text") if data.get(name) is not None), None)


def _check(role: JSON, data: Mapping[str, JSON]) -> None:
    """Refuse a message that would be read as empty."""
    named = _find_words(data)
    content = None if named is None else data[named]
    match role:
        case "user" | "system" | "developer" | "tool":
            if named is None:
                raise ValueError(f"a message of {role!r} has no 'content' (or 'parts'), only: {_names(data)}")
        case "assistant":
            calls = data.get("calls", data.get("tool_calls"))
            if named is None and not (calls or "content" in data or "text" in data or data.get("refusal")):
                raise ValueError(
                    f"a message of 'assistant' has no 'content', 'parts' or 'tool_calls', only: {_names(data)}"
                )
            for call in calls if isinstance(calls, list) else ():
                _check_call(call)
        case _:
            return
    if role == "tool" and not (data.get("call_id") or data.get("tool_call_id")):
        raise ValueError(f"a message of 'tool' has no 'tool_call_id', only: {_names(data)}")
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, dict):
                raise ValueError(f"a part of a message is {part!r:.60}, expected an object with type and text")
            if role != "user" and (part.get("type") not in _TEXTS or not isinstance(part.get("text"), str)):
                raise ValueError(f"a part of a message of {role!r} has type {part.get('type')!r}, expected text")
    elif content is not None and not isinstance(content, str):
        raise ValueError(f"'{named}' of a message is {content!r:.60}, expected text or a list of parts")


def _check_call(call: JSON) -> None:
    fields = call if isinstance(call, dict) else {}
    function = fields.get("function")
    body = function if isinstance(function, dict) else fields
    if not (fields.get("id") and body.get("name")):
        raise ValueError(
            f"a call of a message is {call!r:.100}, expected 'id' and 'function' with 'name' and 'arguments'"
        )


def _read_parts(role: JSON, parts: Sequence[JSON]) -> Sequence[Message]:
    objects: list[dict[str, JSON]] = []
    for part in parts:
        if not isinstance(part, dict):
            raise ValueError(f"a part of a message is {part!r:.60}, expected an object with type and text")
        kind = part.get("type")
        if kind in _PASSED_OVER or (isinstance(kind, str) and kind.startswith("data-")):
            continue
        objects.append({"type": "text", **part} if "type" not in part and isinstance(part.get("text"), str) else part)
    if not objects:
        raise ValueError("'parts' of a message hold nothing that is said, expected one of type text")
    match role:
        case "user":
            return (UserMessage(_join_texts(objects)),)
        case "system" | "developer":
            return (SystemMessage("".join(_text(part, role) for part in objects)),)
        case "assistant" | "model":
            return tuple(_read_steps(objects))
        case _:
            raise ValueError(f"a message's role is {role!r}, expected system, user, assistant or tool")


def _join_texts(parts: Sequence[dict[str, JSON]]) -> str | tuple[Content, ...]:
    """Join the texts where a user's message has nothing else."""
    if all(part.get("type") == "text" for part in parts):
        return "".join(_text(part, "user") for part in parts)
    return read_content([_as_file(part) for part in parts])


def _as_file(part: dict[str, JSON]) -> dict[str, JSON]:
    """Read a file as web clients write it: an address, and the kind of the file."""
    url, media = part.get("url"), str(part.get("mediaType") or "")
    if part.get("type") != "file" or not isinstance(url, str):
        return part
    if media.startswith("image/"):
        return {"type": "image", "url": url}
    if url.startswith("data:"):
        return {"type": "file", "name": part.get("filename"), "data_url": url}
    raise ValueError(f"a file of a message is at {url!r:.60}, expected a 'data:' URL")


def _text(part: Mapping[str, JSON], role: JSON) -> str:
    text = part.get("text")
    if part.get("type") not in ("text", "reasoning") or not isinstance(text, str):
        raise ValueError(f"a part of a message of {role!r} has type {part.get('type')!r}, expected text")
    return text


def _read_steps(parts: Sequence[dict[str, JSON]]) -> Iterator[Message]:
    """Yield a model's text and calls, then the results; text after them becomes a separate message."""
    text, thinking = "", ""
    calls: list[RequestedCall] = []
    results: list[ToolMessage] = []
    for part in parts:
        kind = str(part.get("type"))
        if kind == "dynamic-tool" or kind.startswith("tool-"):
            call, result = _read_tool(kind, part)
            calls.append(call)
            results.append(result)
            continue
        if calls:
            yield AssistantMessage(text, tuple(calls), thinking)
            yield from results
            text, thinking, calls, results = "", "", [], []
        if kind == "reasoning":
            thinking += _text(part, "assistant")
        else:
            text += _text(part, "assistant")
    if text or thinking or calls:
        yield AssistantMessage(text, tuple(calls), thinking)
        yield from results


def _read_tool(kind: str, part: Mapping[str, JSON]) -> tuple[RequestedCall, ToolMessage]:
    name = str(part.get("toolName") or "") if kind in ("dynamic-tool", "tool-call") else kind.removeprefix("tool-")
    id = part.get("toolCallId")
    if not (name and isinstance(id, str) and id):
        raise ValueError(f"a part of a message is {dict(part)!r:.100}, expected 'toolCallId' and the tool's name")
    call = RequestedCall(id, name, dumps(part.get("input") if part.get("input") is not None else {}).decode())
    error = part.get("errorText")
    output = part.get("output")
    if isinstance(error, str):
        return call, ToolMessage(id, name, error, is_error=True)
    if output is None and part.get("state") != "output-available":
        return call, ToolMessage(id, name, _WITHOUT_RESULT, is_error=True)
    value, media = show_media(output)
    return call, ToolMessage(id, name, value if isinstance(value, str) else dumps(value).decode(), media=media)


def _names(data: Mapping[str, JSON]) -> str:
    return ", ".join(repr(name) for name in data if name != "role") or "its role"
