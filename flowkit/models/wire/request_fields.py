"""Request fields that both interfaces share: settings, schemas, the text of arguments.

A conversation in which user and assistant take turns, for servers whose chat templates refuse any other.

A conversation holds two messages of one role in a row where a run failed, was stopped, or reached a limit. What is kept
stays as it was said; what is sent is joined.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from flowkit.codec import JSON, dumps, loads
from flowkit.messages import AssistantMessage, Content, Message, SystemMessage, Text, ToolMessage, UserMessage
from flowkit.models.base import ModelRequest
from flowkit.models.wire.settings import Settings
from flowkit.models.wire.thinking import Api, thinking_fields


def add_settings(body: dict[str, JSON], settings: Settings, api: Api) -> dict[str, JSON]:
    """Add temperature, thinking and the user's own fields, which override all others; None removes a field."""
    if settings.temperature is not None:
        body["temperature"] = settings.temperature
    body |= thinking_fields(
        settings.thinking,
        model=settings.model,
        base_url=settings.base_url,
        api=api,
        dialect=settings.thinking_dialect,
    )
    body |= settings.extra_body
    return {name: value for name, value in body.items() if value is not None}


def limit_tokens(request: ModelRequest, settings: Settings) -> int | None:
    """Return the smaller of the limits that the request and the settings set."""
    limits = [limit for limit in (request.max_tokens, settings.max_tokens) if limit is not None]
    return min(limits, default=None)


def may_name_format(request: ModelRequest, settings: Settings) -> bool:
    """Return True if a request can declare a JSON answer: some servers refuse that together with tools."""
    return settings.schema_with_tools or not request.tools


def holds_to_schema(request: ModelRequest, settings: Settings) -> bool:
    """Return whether the server accepts the schema of the answer; else the instructions have to hold it."""
    return settings.json_schema and may_name_format(request, settings)


def put_schema_into_words(messages: Sequence[Message], schema: Mapping[str, JSON]) -> tuple[Message, ...]:
    """Put the schema into the instructions; several chat templates allow only one system message."""
    text = f"Answer only with a JSON object that fits this JSON Schema:\n{dumps(dict(schema)).decode()}"
    match tuple(messages):
        case (SystemMessage(text=instructions), *rest):
            return (SystemMessage(f"{instructions}\n\n{text}"), *rest)
        case all_of_them:
            return (SystemMessage(text), *all_of_them)


def is_strict(schema: JSON) -> bool:
    """Return whether servers can enforce a schema: each object closed, each of its properties required.

    https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
    """
    if isinstance(schema, list):
        return all(map(is_strict, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if not (isinstance(properties, dict) and isinstance(required, list)):
            return False
        if schema.get("additionalProperties") is not False or set(properties) != set(map(str, required)):
            return False
        return all(map(is_strict, [*properties.values(), schema.get("$defs", {})]))
    return all(map(is_strict, schema.values()))


def safe_arguments(arguments: str) -> str:
    """Return the JSON text of a call's arguments; `{}` when it isn't an object, which servers refuse."""
    try:
        value = loads(arguments)
    except ValueError:
        return "{}"
    return arguments if isinstance(value, dict) else "{}"


def shorten_id(call_id: str, most: int) -> str:
    """Shorten an id that has more characters than the server accepts, the same for the same id.

    A conversation may come from another vendor or through a gateway; some of these put a signature into their ids.

    >>> shorten_id("call_1", 40), shorten_id("call_1__thought__" + "Ab3" * 50, 40)
    ('call_1', 'call_1__thought__Ab3Ab3Ab3Ab3Ab_60f9c8dc')
    """
    if len(call_id) <= most:
        return call_id
    return f"{call_id[: most - 9]}_{hashlib.sha256(call_id.encode()).hexdigest()[:8]}"


NO_ANSWER = "(no answer)"
"""What the assistant says where its turn ended behind its tools' results."""


def alternate(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Merge consecutive messages of one role, so that roles alternate.

    A short assistant message is inserted between a tool's result and a user's message.
    """
    sent: list[Message] = []
    for message in messages:
        last = sent[-1] if sent else None
        match last, message:
            case SystemMessage(), SystemMessage():
                sent[-1] = SystemMessage(f"{last.text}\n\n{message.text}")
            case UserMessage(), UserMessage():
                sent[-1] = UserMessage(_join(last.content, message.content))
            case AssistantMessage(calls=()), AssistantMessage():
                sent[-1] = replace(
                    message,
                    text="\n\n".join(filter(None, (last.text, message.text))),
                    refusal="\n\n".join(filter(None, (last.refusal, message.refusal))),
                    provider=(*last.provider, *message.provider),
                )
            case ToolMessage(), UserMessage():
                sent += (AssistantMessage(NO_ANSWER), message)
            case _:
                sent.append(message)
    return tuple(sent)


def _join(first: str | tuple[Content, ...], second: str | tuple[Content, ...]) -> str | tuple[Content, ...]:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n\n{second}"
    return (*_parts(first), *_parts(second))


def _parts(content: str | tuple[Content, ...]) -> tuple[Content, ...]:
    return (Text(content),) if isinstance(content, str) else content
