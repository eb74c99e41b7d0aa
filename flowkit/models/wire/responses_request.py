"""Build a request body of the Responses API from the conversation and the settings.

Pure. Tools stand flat (`{"type": "function", "name": …}`), calls and results are items beside the messages, and the
conversation is ours: `store` is off, so reasoning items come back with their encrypted content and are sent again,
each before the call it led to. https://platform.openai.com/docs/api-reference/responses/create
"""

from collections.abc import Iterable, Sequence
from typing import assert_never, cast

from flowkit.codec import JSON
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
    ToolSpec,
    UserMessage,
)
from flowkit.models.base import ModelRequest, NamedTool
from flowkit.models.wire.request_fields import (
    add_settings,
    alternate,
    is_strict,
    limit_tokens,
    may_name_format,
    put_schema_into_words,
    safe_arguments,
    shorten_id,
)
from flowkit.models.wire.settings import Settings
from flowkit.models.wire.tool_media import explain_refusal, sort_media
from flowkit.models.wire.tool_schemas import object_schema
from flowkit.models.wire.vendors import family_of, is_openai_host, thinks

LEAST_OUTPUT_TOKENS = 16
"""OpenAI answers 400 to a smaller limit, as it is left at the end of a run with a limit on tokens."""

OPENAI_ID_CHARS = 64
"""OpenAI answers 400 to a call's longer id, and takes a longer one here than in Chat Completions."""

_CALLS = ("function_call", "custom_tool_call")


def build_responses_body(request: ModelRequest, settings: Settings) -> dict[str, JSON]:
    """Build the body of a streamed request."""
    messages = request.messages
    if request.output_schema is not None and not may_name_format(request, settings):
        messages = put_schema_into_words(messages, request.output_schema)
    if settings.alternate_roles:
        messages = alternate(messages)
    body: dict[str, JSON] = {
        "model": settings.model,
        "input": [item for message in messages for item in _items(message, settings)],
        "stream": True,
        "store": False,
    }
    # A model that doesn't think answers 400 when asked for its encrypted thinking.
    if thinks(settings.model) or (settings.thinking and family_of(settings.model) != "openai"):
        body["include"] = ["reasoning.encrypted_content"]
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        if request.tool_choice != "auto":
            body["tool_choice"] = _tool_choice(request)
    if request.output_schema is not None and may_name_format(request, settings):
        schema = dict(request.output_schema)
        form: dict[str, JSON] = {"type": "json_schema", "name": request.output_name, "schema": schema}
        body["text"] = {"format": {**form, "strict": is_strict(schema)}}
    max_tokens = limit_tokens(request, settings)
    if max_tokens is not None:
        body["max_output_tokens"] = max(max_tokens, LEAST_OUTPUT_TOKENS)
    return add_settings(body, settings, "responses")


def _items(message: Message, settings: Settings) -> Iterable[dict[str, JSON]]:
    match message:
        case SystemMessage(text=text):
            yield {"role": "system", "content": text}
        case UserMessage(content=str() as text):
            yield {"role": "user", "content": text}
        case UserMessage(content=()):  # a list without parts is refused
            yield {"role": "user", "content": ""}
        case UserMessage(content=parts):
            yield {"role": "user", "content": [_part(cast(Content, part)) for part in parts]}
        case AssistantMessage():
            yield from _assistant(message, settings)
        case ToolMessage(call_id=call_id, text=text):
            parts = [_part(sort_media(media, "responses")) for media in message.media]
            output: JSON = [_part(Text(text)), *parts] if parts else text
            yield {"type": "function_call_output", "call_id": _wire_id(call_id, settings), "output": output}
        case _:
            assert_never(message)


def _assistant(message: AssistantMessage, settings: Settings) -> Iterable[dict[str, JSON]]:
    """Yield the items of one answer, in the order in which they came when the server reported it.

    A reasoning item is refused without the item it led to, so it waits for that, and goes with a call that is gone.
    """
    marks = [item for item in message.provider if item.source == settings.source and isinstance(item.data, dict)]
    texts = [mark for mark in marks if mark.kind == "message"]
    # A text that was changed since (trimmed, guarded) stands for all that came.
    is_told = "".join(_field(mark, "text") for mark in texts) == message.text
    led_to = _pair_calls(marks, message.calls)
    reasoning: list[dict[str, JSON]] = []
    for position, mark in enumerate(marks):
        data = cast(dict[str, JSON], mark.data)
        match mark.kind:
            case "message":
                if is_told and _field(mark, "text"):
                    yield from reasoning
                    yield _said(_field(mark, "text"), data.get("phase"))
                    reasoning = []
            case kind if kind in _CALLS:
                if position in led_to:
                    yield from reasoning
                    yield _call(led_to[position], settings)
                reasoning = []
            case _:
                reasoning.append(data)
    text = message.refusal if is_told and texts else message.text or message.refusal
    rest = [call for call in message.calls if call not in led_to.values()]
    if text or rest:
        yield from reasoning
    if text:
        yield _said(text)
    for call in rest:
        yield _call(call, settings)


def _field(mark: ProviderData, name: str) -> str:
    return str(mark.data.get(name) or "") if isinstance(mark.data, dict) else ""


def _said(text: str, phase: JSON = None) -> dict[str, JSON]:
    said: dict[str, JSON] = {"role": "assistant", "content": text}
    return {**said, "phase": phase} if phase else said


def _pair_calls(marks: Sequence[ProviderData], calls: Sequence[RequestedCall]) -> dict[int, RequestedCall]:
    """Pair the marks, by position, with the calls that they stand for.

    One for each when there are as many, for an id that was already taken has been changed; else by their ids.
    """
    positions = [position for position, mark in enumerate(marks) if mark.kind in _CALLS]
    if len(positions) == len(calls):
        return dict(zip(positions, calls, strict=True))
    by_id = {call.id: call for call in calls}
    # Each call once, at its last mark: messages that were joined may hold marks of calls that are gone.
    found = ((position, by_id.pop(_field(marks[position], "call_id"), None)) for position in reversed(positions))
    return {position: call for position, call in found if call is not None}


def _call(call: RequestedCall, settings: Settings) -> dict[str, JSON]:
    id, arguments = _wire_id(call.id, settings), safe_arguments(call.arguments)
    return {"type": "function_call", "call_id": id, "name": call.name, "arguments": arguments}


def _wire_id(call_id: str, settings: Settings) -> str:
    return shorten_id(call_id, OPENAI_ID_CHARS) if is_openai_host(settings.base_url) else call_id


def _part(part: Content) -> JSON:
    match part:
        case Text(text=text):
            return {"type": "input_text", "text": text}
        case Image(url=url, detail=detail):
            return {"type": "input_image", "image_url": url, "detail": detail}
        case Audio():
            return {"type": "input_text", "text": f"[{explain_refusal(part, 'responses')}]"}
        case File(file_id=str() as file_id):
            return {"type": "input_file", "file_id": file_id}
        case File(name=name, data_url=data_url):
            return {"type": "input_file", "filename": name, "file_data": data_url or ""}
        case _:
            assert_never(part)


def _tool(tool: ToolSpec) -> JSON:
    # Unlike Chat Completions, this API is strict where nothing is said.
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": object_schema(tool.parameters),
        "strict": tool.strict,
    }


def _tool_choice(request: ModelRequest) -> JSON:
    choice = request.tool_choice
    return {"type": "function", "name": choice.name} if isinstance(choice, NamedTool) else choice
