"""Build a request body of Chat Completions from the conversation and the settings.

Pure. Tools stand nested (`{"type": "function", "function": {…}}`), a call's result is a message of its own, and what a
server gave for itself (signatures, its thinking) goes back under the field it came in, to the same server and model
only. https://platform.openai.com/docs/api-reference/chat/create
"""

import hashlib
import re
import string
from collections.abc import Iterable, Mapping
from typing import assert_never, cast

from flowkit.codec import JSON
from flowkit.messages import (
    AssistantMessage,
    Audio,
    Content,
    File,
    Image,
    Message,
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
    holds_to_schema,
    is_strict,
    limit_tokens,
    may_name_format,
    put_schema_into_words,
    safe_arguments,
    shorten_id,
)
from flowkit.models.wire.settings import Settings
from flowkit.models.wire.tool_media import AUDIO_TYPES, move_media
from flowkit.models.wire.tool_schemas import object_schema
from flowkit.models.wire.vendors import family_of, is_host, is_openai_host, short_name, thinks, version_of

FOREIGN_SIGNATURE = "skip_thought_signature_validator"
"""What Gemini 3 takes for a call that it didn't make itself; without a signature it answers 400.

https://ai.google.dev/gemini-api/docs/thought-signatures
"""


OPENAI_ID_CHARS = 40
"""OpenAI answers 400 to a call's longer id."""

_SENT_BACK = {"reasoning_content": str, "reasoning": str, "reasoning_details": list, "extra_content": dict}
"""The fields of a message that a server wants back, and what they hold; its thinking may also have come in others."""


def build_chat_body(request: ModelRequest, settings: Settings) -> dict[str, JSON]:
    """Build the body of a streamed request."""
    messages = move_media(request.messages)
    if request.output_schema is not None and not holds_to_schema(request, settings):
        messages = put_schema_into_words(messages, request.output_schema)
    if settings.alternate_roles:
        messages = alternate(messages)
    body: dict[str, JSON] = {
        "model": settings.model,
        "messages": [item for message in messages for item in _messages(message, settings)],
        "stream": True,
    }
    # Mistral's own server sends the tokens unasked, and answers 422 to fields that it doesn't know.
    if settings.include_usage and not is_host(settings.base_url, "mistral.ai"):
        body["stream_options"] = {"include_usage": True}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        if request.tool_choice != "auto":
            body["tool_choice"] = _tool_choice(request)
    if request.output_schema is not None and may_name_format(request, settings):
        body["response_format"] = _response_format(request.output_name, request.output_schema, settings)
    max_tokens = limit_tokens(request, settings)
    if max_tokens is not None:
        body[_max_tokens_field(settings)] = max_tokens
    return add_settings(body, settings, "chat")


def _response_format(name: str, schema: Mapping[str, JSON], settings: Settings) -> JSON:
    if not settings.json_schema:
        return {"type": "json_object"}
    form: dict[str, JSON] = {"name": name, "schema": dict(schema), "strict": is_strict(dict(schema))}
    return {"type": "json_schema", "json_schema": form}


def mistral_id(call_id: str) -> str:
    """Convert an id to Mistral's form: nine letters and digits, the same for the same id.

    https://github.com/vllm-project/vllm/issues/10821

    >>> mistral_id("aB3dE6gH9"), len(mistral_id("call_1"))
    ('aB3dE6gH9', 9)
    """
    if re.fullmatch(r"[a-zA-Z0-9]{9}", call_id):
        return call_id
    alphabet = string.ascii_letters + string.digits
    number = int.from_bytes(hashlib.sha256(call_id.encode()).digest())
    letters: list[str] = []
    for _ in range(9):
        number, position = divmod(number, len(alphabet))
        letters.append(alphabet[position])
    return "".join(letters)


def _messages(message: Message, settings: Settings) -> Iterable[dict[str, JSON]]:
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
            yield _assistant(message, settings)
        case ToolMessage(call_id=call_id, name=name, text=text):
            result: dict[str, JSON] = {"role": "tool", "tool_call_id": _wire_id(call_id, settings), "content": text}
            # Gemini answers 400 without it, and others to fields that they don't know.
            yield {**result, "name": name} if family_of(settings.model) == "gemini" else result
        case _:
            assert_never(message)


def _part(part: Content) -> JSON:
    match part:
        case Text(text=text):
            return {"type": "text", "text": text}
        case Image(url=url, detail=detail):
            return {
                "type": "image_url",
                "image_url": {"url": url} if detail == "auto" else {"url": url, "detail": detail},
            }
        case Audio():
            data = {"data": part.url.partition(",")[2], "format": AUDIO_TYPES.get(part.media_type, "wav")}
            return {"type": "input_audio", "input_audio": cast(JSON, data)}
        case File(file_id=str() as file_id):
            return {"type": "file", "file": {"file_id": file_id}}
        case File(name=name, data_url=data_url):
            return {"type": "file", "file": {"filename": name, "file_data": data_url or ""}}
        case _:
            assert_never(part)


def _assistant(message: AssistantMessage, settings: Settings) -> dict[str, JSON]:
    # A refusal goes back as what was said: few servers know its field.
    data: dict[str, JSON] = {"role": "assistant", "content": message.text or message.refusal or None}
    if message.calls:
        data["tool_calls"] = [_call(call, position, settings) for position, call in enumerate(message.calls)]
    for item in message.provider:
        if item.source == settings.source and item.kind in _SENT_BACK and isinstance(item.data, _SENT_BACK[item.kind]):
            data[item.kind] = item.data
    # DeepSeek answers 400 to a message without the field when it thinks, be the message its own or another model's.
    # https://api-docs.deepseek.com/guides/thinking_mode
    if family_of(settings.model) == "deepseek" and settings.thinking not in (False, 0, "none"):
        data.setdefault("reasoning_content", data.get("reasoning") or "")
    return data


def _call(call: RequestedCall, position: int, settings: Settings) -> JSON:
    data: dict[str, JSON] = {
        "id": _wire_id(call.id, settings),
        "type": "function",
        "function": {"name": call.name, "arguments": safe_arguments(call.arguments)},
    }
    provider = call.provider
    if provider is not None and provider.source == settings.source:
        data[provider.kind] = provider.data
    elif position == 0 and family_of(settings.model) == "gemini" and version_of(settings.model) >= (3, 0):
        # Only the first call of a message carries a signature, and only a foreign message lacks it there.
        data["extra_content"] = {"google": {"thought_signature": FOREIGN_SIGNATURE}}
    return data


def _wire_id(call_id: str, settings: Settings) -> str:
    if family_of(settings.model) == "mistral":
        return mistral_id(call_id)
    return shorten_id(call_id, OPENAI_ID_CHARS) if is_openai_host(settings.base_url) else call_id


def _tool(tool: ToolSpec) -> JSON:
    function: dict[str, JSON] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": object_schema(tool.parameters),
    }
    if tool.strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _tool_choice(request: ModelRequest) -> JSON:
    choice = request.tool_choice
    return {"type": "function", "function": {"name": choice.name}} if isinstance(choice, NamedTool) else choice


def _max_tokens_field(settings: Settings) -> str:
    # OpenAI's thinking models refuse the old name, most other servers don't know the new one.
    is_new = is_openai_host(settings.base_url) or (
        thinks(settings.model) and not short_name(settings.model).startswith("gpt-oss")
    )
    return "max_completion_tokens" if is_new else "max_tokens"
