"""A conversation in the form of the Messages API: two alternating roles, each with a list of blocks.

The server refuses a conversation with any other form, and would refuse it again, since the conversation stays. So
results are in one message directly after their calls, no text is blank, neighbours of one role are joined, and
thinking is sent back only with its signature and only to the model that it came from.
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never, cast
from urllib.parse import unquote_to_bytes

from flowkit.codec import JSON, loads
from flowkit.errors import ConfigurationError
from flowkit.messages import (
    AssistantMessage,
    Audio,
    Content,
    File,
    Image,
    Message,
    ProviderData,
    RequestedCall,
    SystemMessage,
    Text,
    ToolMessage,
    UserMessage,
)
from flowkit.models.wire.settings import Settings
from flowkit.models.wire.tool_media import explain_refusal, sort_media
from flowkit.models.wire.tool_schemas import rename_arguments

NO_RESULT = "no result"
"""What stands for a result that a conversation lacks; the server refuses a call without one."""

OPENING = "(the conversation begins here)"
"""What stands before an assistant that spoke first; the server wants the first word to be the user's."""

_THINKING = ("thinking", "redacted_thinking")
_BESIDE = ("container", "stop_details")
_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")

Block = dict[str, JSON]


def write_messages(
    messages: Sequence[Message], settings: Settings, *, keeps_thinking: bool = True, goes_on: bool = False
) -> list[dict[str, JSON]]:
    """Write the messages of a request; instructions are sent elsewhere."""
    answered = _find_results(messages)
    written: list[tuple[str, list[Block]]] = []
    position = 0
    for position, message in enumerate(messages):
        match message:
            case SystemMessage() | ToolMessage():
                continue
            case UserMessage(content=content):
                _add(written, "user", _user(content))
            case AssistantMessage():
                is_last = goes_on and position == len(messages) - 1
                blocks = _assistant(message, settings, keeps_thinking, served=None if is_last else answered)
                _add(written, "assistant", blocks)
                _add(written, "user", _results(message.calls, messages[position + 1 :]))
            case _:
                assert_never(message)
    if written and written[0][0] == "assistant":
        written.insert(0, ("user", [{"type": "text", "text": OPENING}]))
    if written and written[-1][0] == "assistant" and not goes_on:
        _trim_end(written[-1][1])
    return [{"role": role, "content": cast(JSON, blocks)} for role, blocks in written if blocks]


def find_container(messages: Sequence[Message], settings: Settings) -> str | None:
    """Find the container in which code waits for the results at the end of the conversation."""
    if not messages or not isinstance(messages[-1], ToolMessage):
        return None
    last = next((message for message in reversed(messages) if isinstance(message, AssistantMessage)), None)
    for item in () if last is None else reversed(last.provider):
        if item.kind == "container" and item.source == settings.source and isinstance(item.data, dict):
            id = item.data.get("id")
            return id if isinstance(id, str) else None
    return None


def begins_without_thinking(messages: JSON) -> bool:
    """Return whether the last message holds results of calls that were made without thinking first."""
    *_, before, last = [None, None, *cast(list[Block], messages)]
    if before is None or last is None:
        return False
    is_result = any(block["type"] == "tool_result" for block in cast(list[Block], last["content"]))
    return is_result and cast(list[Block], before["content"])[0]["type"] not in _THINKING


def wire_id(call_id: str) -> str:
    """Convert a call's id to the accepted letters, the same for the same id.

    >>> wire_id("toolu_01A"), wire_id("functions.now:0")
    ('toolu_01A', 'functions_now_0_46735f35')
    """
    if _ID.fullmatch(call_id):
        return call_id
    readable = re.sub(r"[^a-zA-Z0-9_-]", "_", call_id)[:48]
    return f"{readable}_{hashlib.sha256(call_id.encode()).hexdigest()[:8]}"


def _add(written: list[tuple[str, list[Block]]], role: str, blocks: Iterable[Block]) -> None:
    made = list(blocks)
    if made and written and written[-1][0] == role:
        written[-1][1].extend(made)
    elif made:
        written.append((role, made))


def _trim_end(blocks: list[Block]) -> None:
    """Remove trailing blanks, which the server refuses."""
    last = blocks[-1]
    if last["type"] == "text":
        blocks[-1] = {**last, "text": str(last["text"]).rstrip()}


def _user(content: str | tuple[Content, ...]) -> Iterable[Block]:
    return _parts((Text(content),) if isinstance(content, str) else content)


def _parts(content: Iterable[Content]) -> Iterable[Block]:
    for part in content:
        match part:
            case Text(text=text):
                if text.strip():
                    yield {"type": "text", "text": text}
            case Image(url=url):
                yield {"type": "image", "source": _source(url, "image")}
            case Audio():
                yield {"type": "text", "text": f"[{explain_refusal(part, 'anthropic')}]"}
            case File(name=name):
                yield _file(part, name)
            case _:
                assert_never(part)


def _file(file: File, name: str) -> Block:
    if file.file_id is not None:
        return {"type": "document", "source": {"type": "file", "file_id": file.file_id}}
    url = file.data_url or ""
    if url.startswith("data:image/"):
        return {"type": "image", "source": _source(url, name)}
    document: Block = {"type": "document", "source": _source(url, name)}
    return {**document, "title": name} if name else document


def _source(url: str, name: str) -> Block:
    """Return the source of an image or a document: its address, its content, or its text."""
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, _, data = url.removeprefix("data:").partition(",")
    media_type, *parameters = head.split(";")
    media_type = "image/jpeg" if media_type == "image/jpg" else media_type
    content = re.sub(r"\s", "", data) if "base64" in parameters else base64.b64encode(unquote_to_bytes(data)).decode()
    if media_type.startswith("image/") or media_type == "application/pdf":
        return {"type": "base64", "media_type": media_type, "data": content}
    if media_type.startswith("text/") or media_type in ("", "application/json"):
        text = base64.b64decode(content).decode(errors="replace")
        return {"type": "text", "media_type": "text/plain", "data": text}
    raise ConfigurationError(f"file {name!r}: {media_type!r} isn't taken; images, PDFs and texts are")


def _find_results(messages: Iterable[Message]) -> frozenset[str]:
    """Find the ids of the server's own calls that have a result somewhere."""
    return frozenset(
        str(item.data.get("tool_use_id"))
        for message in messages
        if isinstance(message, AssistantMessage)
        for item in message.provider
        if item.kind.endswith("_tool_result") and isinstance(item.data, dict)
    )


def _results(calls: Sequence[RequestedCall], behind: Iterable[Message]) -> list[Block]:
    """Return one result for each call, in the order of the calls."""
    found: dict[str, ToolMessage] = {}
    for message in behind:
        if isinstance(message, AssistantMessage):
            break
        if isinstance(message, ToolMessage):
            found.setdefault(message.call_id, message)
    return [_result(found.get(call.id) or ToolMessage(call.id, call.name, NO_RESULT, is_error=True)) for call in calls]


def _result(message: ToolMessage) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": wire_id(message.call_id)}
    if message.media:
        parts = (Text(message.text), *(sort_media(media, "anthropic") for media in message.media))
        block["content"] = list(_parts(parts))
    elif message.text.strip():
        block["content"] = message.text
    return {**block, "is_error": True} if message.is_error else block


def _assistant(
    message: AssistantMessage, settings: Settings, keeps_thinking: bool, served: frozenset[str] | None
) -> list[Block]:
    """Yield the blocks of one answer, as they came where this model answered.

    `served` are the server's own calls that have a result; one without would be refused, but where the server paused
    in it, for which `served` is None.
    """
    marks = [
        item
        for item in message.provider
        if item.source == settings.source and item.kind not in _BESIDE and isinstance(item.data, dict)
    ]
    # A text that was changed since (trimmed, guarded) stands for all that came.
    is_told = "".join(str(_data(mark).get("text") or "") for mark in marks if mark.kind == "text") == message.text
    led_to = _pair_calls(marks, message.calls)
    callers = {_called_by(mark) for mark in marks}
    blocks: list[Block] = []
    text = message.text or message.refusal
    is_said = False
    for position, mark in enumerate(marks):
        data = _data(mark)
        match mark.kind:
            case "text":
                if is_told and str(data.get("text") or "").strip():
                    blocks.append(data)
                elif not is_told and not is_said and text.strip():
                    blocks.append({"type": "text", "text": text})
                is_said = True
            case "tool_use":
                if position in led_to:
                    more = {name: value for name, value in data.items() if name != "id"}
                    blocks.append({**_call(led_to[position]), **more})
            case "thinking" | "redacted_thinking":
                if keeps_thinking and (mark.kind != "thinking" or data.get("signature")):
                    blocks.append(data)
            case "server_tool_use" | "mcp_tool_use":
                if served is None or data.get("id") in served or data.get("id") in callers:
                    blocks.append(data)
            case _:
                blocks += [data] if "type" in data else []
    if not is_said and text.strip():
        blocks.append({"type": "text", "text": text})
    # Calls behind the text: they are what the message ends with.
    blocks += [_call(call) for call in message.calls if call not in led_to.values()]
    while blocks and blocks[-1]["type"] in _THINKING:
        blocks.pop()  # what it led to is gone, and the server refuses it at the end
    return blocks


def _data(mark: ProviderData) -> Block:
    return cast(Block, mark.data)


def _called_by(mark: ProviderData) -> str | None:
    """Return the server's own call that contains the code that made this call."""
    caller = _data(mark).get("caller") if mark.kind == "tool_use" else None
    id = caller.get("tool_id") if isinstance(caller, dict) else None
    return id if isinstance(id, str) else None


def _pair_calls(marks: Sequence[ProviderData], calls: Sequence[RequestedCall]) -> dict[int, RequestedCall]:
    """Pair the marks, by position, with the calls that they stand for.

    One for each when there are as many, for an id that was already taken has been changed; else by their ids.
    """
    positions = [position for position, mark in enumerate(marks) if mark.kind == "tool_use"]
    if len(positions) == len(calls):
        return dict(zip(positions, calls, strict=True))
    by_id = {call.id: call for call in calls}
    # Each call once, at its last mark: messages that were joined may hold marks of calls that are gone.
    found = ((position, by_id.pop(str(_data(marks[position]).get("id")), None)) for position in reversed(positions))
    return {position: call for position, call in found if call is not None}


def _call(call: RequestedCall) -> Block:
    try:
        arguments = loads(call.arguments)
    except ValueError:
        arguments = {}
    read: Mapping[str, JSON] = arguments if isinstance(arguments, dict) else {}
    return {"type": "tool_use", "id": wire_id(call.id), "name": call.name, "input": rename_arguments(read)}
