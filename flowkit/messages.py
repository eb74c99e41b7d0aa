"""The messages of users, models and tools.

`Message` values are frozen and independent of any wire format; `models/` writes them for a server. `to_json` and
`message_from_json` are the form of journals, recordings and `history=`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from flowkit.codec import JSON, dumps, loads
from flowkit.media import Audio, Detail, File, Image, Media, read_all


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text in a user's message."""

    text: str

    def to_json(self) -> JSON:
        return {"type": "text", "text": self.text}


Content = Text | Media


@dataclass(frozen=True, slots=True)
class ProviderData:
    """Data that one server requires back: signatures, reasoning items, encrypted thinking.

    It is sent back only to a model with the same `source`.
    """

    source: str
    kind: str
    data: JSON

    def to_json(self) -> JSON:
        return {"source": self.source, "kind": self.kind, "data": self.data}


@dataclass(frozen=True, slots=True)
class RequestedCall:
    """A call as a model asked for it: `id` goes back with its result, `arguments` is the JSON text that was sealed."""

    id: str
    name: str
    arguments: str
    provider: ProviderData | None = None

    def to_json(self) -> JSON:
        return {
            "id": self.id,
            "name": self.name,
            "arguments": self.arguments,
            "provider": None if self.provider is None else self.provider.to_json(),
        }


@dataclass(frozen=True, slots=True)
class SystemMessage:
    """Instructions for the model."""

    text: str

    def to_json(self) -> dict[str, JSON]:
        return {"role": "system", "text": self.text}


@dataclass(frozen=True, slots=True)
class UserMessage:
    """A user's message, as one text or several parts."""

    content: str | tuple[Content, ...]

    def to_json(self) -> dict[str, JSON]:
        content: JSON = self.content if isinstance(self.content, str) else [part.to_json() for part in self.content]
        return {"role": "user", "content": content}


@dataclass(frozen=True, slots=True)
class AssistantMessage:
    """A model's message of one turn; `provider` holds its items in the order of arrival."""

    text: str = ""
    calls: tuple[RequestedCall, ...] = ()
    thinking: str = ""
    refusal: str = ""
    provider: tuple[ProviderData, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Nothing that a next request could carry."""
        return not (self.text or self.calls or self.refusal)

    def to_json(self) -> dict[str, JSON]:
        return {
            "role": "assistant",
            "text": self.text,
            "calls": [call.to_json() for call in self.calls],
            "thinking": self.thinking,
            "refusal": self.refusal,
            "provider": [item.to_json() for item in self.provider],
        }


@dataclass(frozen=True, slots=True)
class ToolMessage:
    """The one result of the call with this id, as the model reads it.

    `media` are the images, audio and files of the result, in the order in which the text names them.
    """

    call_id: str
    name: str
    text: str
    is_error: bool = False
    media: tuple[Media, ...] = ()

    def to_json(self) -> dict[str, JSON]:
        data: dict[str, JSON] = {
            "role": "tool",
            "call_id": self.call_id,
            "name": self.name,
            "text": self.text,
            "is_error": self.is_error,
        }
        if self.media:
            data["media"] = [media.to_json() for media in self.media]
        return data


Message = SystemMessage | UserMessage | AssistantMessage | ToolMessage


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request or of many; parts of a whole are counted in the whole, too.

    `thinking_tokens` are part of the output. `cached_tokens`, read from the server's cache, and `cache_write_tokens`,
    written into it, are part of the input; `cache_write_1h_tokens` are those of the writes that are kept for an hour.
    `cost_usd` is the charge that the server reported, or None. `billed` are the tokens that the server charges, if they
    are more than this answer's: it may have called other models, or itself several times.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    thinking_tokens: int = 0
    cost_usd: float | None = None
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    billed: "Usage | None" = None

    def __add__(self, other: "Usage") -> "Usage":
        costs = [cost for cost in (self.cost_usd, other.cost_usd) if cost is not None]
        billed = None
        if self.billed is not None or other.billed is not None:
            billed = (self.billed or self) + (other.billed or other)
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.thinking_tokens + other.thinking_tokens,
            sum(costs) if costs else None,
            self.cache_write_tokens + other.cache_write_tokens,
            self.cache_write_1h_tokens + other.cache_write_1h_tokens,
            billed,
        )

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def to_json(self) -> JSON:
        data: dict[str, JSON] = {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cached_tokens": self.cached_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "thinking_tokens": self.thinking_tokens,
            "cost_usd": self.cost_usd,
        }
        if self.cache_write_1h_tokens:
            data["cache_write_1h_tokens"] = self.cache_write_1h_tokens
        if self.billed is not None:
            data["billed"] = self.billed.to_json()
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, JSON]) -> "Usage":
        """Read the usage that `to_json` wrote, also one from before a field existed."""
        counts = {name: value for name, value in data.items() if isinstance(value, int | float)}
        cost, billed = counts.pop("cost_usd", None), data.get("billed")
        return cls(
            **{name: int(counts.get(name, 0)) for name in _COUNTS},
            cost_usd=cost,
            billed=cls.from_json(billed) if isinstance(billed, dict) else None,
        )


_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "thinking_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
)


FinishReason = Literal["stop", "tool_calls", "length", "content_filter", "error", "unknown"]
"""The reason that a turn ended; `function_call` becomes `tool_calls`, a missing reason `unknown`."""


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model sees it, under the name that is sent.

    `own_name` is the tool's name where that can't travel, as one in Hangul.
    """

    name: str
    description: str
    parameters: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    strict: bool = False
    own_name: str = ""


def text_of(content: str | tuple[Content, ...] | None) -> str:
    """Return the text of a user's message, without images and files."""
    if content is None or isinstance(content, str):
        return content or ""
    return " ".join(part.text for part in content if isinstance(part, Text))


def message_from_json(data: Mapping[str, JSON]) -> Message:
    """Read the message that `to_json` wrote; also the plain `{"role", "content"}` form of Chat Completions.

    Raises `ValueError` for an unknown role.
    """
    role = data.get("role")
    match role:
        case "system" | "developer":
            return SystemMessage(_text_from_json(data))
        case "user":
            content = data.get("content")
            return UserMessage(read_content(content if isinstance(content, str) else _items(content)) or "")
        case "assistant":
            calls = data.get("calls", data.get("tool_calls"))
            return AssistantMessage(
                text=_text_from_json(data),
                calls=tuple(map(_call_from_json, _items(calls))),
                thinking=str(data.get("thinking") or ""),
                refusal=str(data.get("refusal") or ""),
                provider=tuple(filter(None, map(_provider_from_json, _items(data.get("provider"))))),
            )
        case "tool":
            return ToolMessage(
                call_id=str(data.get("call_id", data.get("tool_call_id", ""))),
                name=str(data.get("name", "")),
                text=_text_from_json(data),
                is_error=bool(data.get("is_error", False)),
                media=read_all(_items(data.get("media"))),
            )
        case _:
            raise ValueError(f"a message's role is {role!r}, expected system, user, assistant or tool")


def make_writable(message: Message) -> Message:
    """Make the message writable as UTF-8: each lone surrogate becomes U+FFFD."""
    if isinstance(message, ToolMessage) and not message.media and _is_writable(message):
        return message  # most of a long conversation, looked at before each of its requests
    data = message.to_json()
    written = cast(Mapping[str, JSON], loads(dumps(data)))
    return message if written == data else message_from_json(written)


def _is_writable(message: ToolMessage) -> bool:
    try:
        f"{message.call_id}{message.name}{message.text}".encode()
    except UnicodeEncodeError:
        return False
    return True


def read_content(content: str | Sequence[str | Content | Mapping[str, JSON]]) -> str | tuple[Content, ...]:
    """Read the user's content from a text or from parts; texts and parts of Chat Completions are accepted, too.

    Raises `ValueError` for an unknown part.
    """
    if isinstance(content, str):
        return content
    return tuple(part if isinstance(part, Content) else _content_from_json(part) for part in content)


def _text_from_json(data: Mapping[str, JSON]) -> str:
    """Read the text of a message that has nothing else; Chat Completions also writes it as a list of parts."""
    content = data.get("text", data.get("content"))
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in _items(content))
    return "" if content is None else str(content)


def _items(value: JSON) -> Sequence[Mapping[str, JSON]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else ()


def _content_from_json(data: str | Mapping[str, JSON]) -> Content:
    if isinstance(data, str):
        return Text(data)
    if not isinstance(data, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"a part of a message is {data!r:.60}, expected a text, an image, audio or a file")
    match data.get("type"):
        case "text" | "input_text":
            return Text(str(data.get("text", "")))
        case "image" | "image_url" | "input_image":
            image = data.get("image_url", data)
            if not isinstance(image, dict):
                return Image(str(image))
            return Image(str(image.get("url", "")), cast(Detail, image.get("detail") or "auto"))
        case "audio" if isinstance(data.get("url"), str):
            return Audio(str(data["url"]))
        case "file" | "input_file":
            file = data.get("file", data)
            return _file_from_json(file if isinstance(file, dict) else data)
        case kind:
            raise ValueError(f"a part of a message has type {kind!r}, expected text, image, audio or file")


def _file_from_json(data: Mapping[str, JSON]) -> File:
    data_url, file_id = data.get("data_url", data.get("file_data")), data.get("file_id")
    return File(
        str(data.get("name") or data.get("filename") or ""),
        data_url=data_url if isinstance(data_url, str) else None,
        file_id=file_id if isinstance(file_id, str) else None,
    )


def _call_from_json(data: Mapping[str, JSON]) -> RequestedCall:
    function = data.get("function")
    body = function if isinstance(function, dict) else data
    arguments = body.get("arguments", "")
    provider = data.get("provider")
    return RequestedCall(
        id=str(data.get("id", "")),
        name=str(body.get("name", "")),
        # Some servers, and the frameworks made for them, keep arguments as an object.
        arguments=arguments if isinstance(arguments, str) else dumps(arguments).decode(),
        provider=_provider_from_json(provider) if isinstance(provider, dict) else None,
    )


def _provider_from_json(data: Mapping[str, JSON]) -> ProviderData | None:
    return ProviderData(str(data.get("source", "")), str(data.get("kind", "")), data.get("data"))
