"""The settings and the server of a request over HTTP: plain data, no network."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from inspect import isawaitable
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from flowkit.codec import JSON
from flowkit.errors import ConfigurationError
from flowkit.models.base import ModelRequest
from flowkit.models.wire.thinking import Api, Dialect, Thinking
from flowkit.models.wire.vendors import is_host, thinks

DEFAULT_BASE_URL = "https://api.openai.com/v1"

PLACEHOLDER_KEY = "no-key"
"""Sent to servers for which no key was given: local ones take any, but the header must hold something."""


ApiKey = str | Callable[[], str | Awaitable[str]]
"""A key, or a function that is asked for the one that is valid now, before each request."""

Headers = Mapping[str, str] | Callable[[ModelRequest], Mapping[str, str] | Awaitable[Mapping[str, str]]]
"""Headers of every request, or a function that gives those of one; `request.data` is the run's."""

NO_HEADERS: Mapping[str, str] = {}

HttpClient = Any
"""An `httpx2.AsyncClient`, or a function that makes one for the running event loop; typed there."""

Auth = Literal["bearer", "x-api-key"]
"""The header that carries the key."""

CONNECT_TIMEOUT_S = 10.0
"""How long a connection may take to open; a server that listens answers at once."""


@dataclass(frozen=True, slots=True)
class Timeout:
    """Time limits in seconds: for the connection, for the first byte, and between bytes."""

    connect: float = CONNECT_TIMEOUT_S
    first_byte: float = 600.0
    between: float = 600.0

    def __post_init__(self) -> None:
        for name in ("connect", "first_byte", "between"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"timeout: {name} is {getattr(self, name)!r}, expected seconds above 0")

    @property
    def is_split(self) -> bool:
        """True if the first byte has a different time limit than the next ones."""
        return self.first_byte != self.between


def as_timeout(given: float | timedelta | Timeout) -> Timeout:
    """Convert a user's timeout; one number sets all three, but a connection gets 10 seconds at most.

    >>> as_timeout(60)
    Timeout(connect=10.0, first_byte=60.0, between=60.0)
    """
    if isinstance(given, Timeout):
        return given
    seconds = given.total_seconds() if isinstance(given, timedelta) else float(given)
    return Timeout(min(CONNECT_TIMEOUT_S, seconds), seconds, seconds)


def fixed_headers(headers: Headers) -> tuple[tuple[str, str], ...]:
    """Return the headers that all requests have."""
    return () if callable(headers) else tuple(sorted(headers.items()))


async def headers_of(headers: Headers, request: ModelRequest) -> Mapping[str, str]:
    """Return the headers that only this request has."""
    if not callable(headers):
        return NO_HEADERS
    made = headers(request)
    return await made if isawaitable(made) else made


@dataclass(frozen=True, slots=True)
class ModelServer:
    """A server's address and credentials; equal servers share a client.

    `max_retries` is how often a run asks again when a request was refused with 408, 409, 429 or 5xx or found no
    connection, 0 for as often as its own attempts allow; the `openai` package repeats nothing, so that there is one place that
    waits and tells of it. `api_version` is that of Azure's older addresses. `key_setting` is the variable that errors
    name.
    """

    base_url: str
    api_key: ApiKey = field(default=PLACEHOLDER_KEY, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    api_version: str | None = None
    timeout: Timeout = Timeout()
    max_retries: int = 2
    auth: Auth = "bearer"
    key_setting: str = "OPENAI_API_KEY"
    http_client: HttpClient | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one model behind one address; nothing in it is secret but a password in the address.

    `extra_body` is the way out: its fields stand in the body as they are, over those that are worked out, and None
    takes one out. `json_schema` says that the server holds an answer to a schema. `text_calls` looks for calls in the
    text. `alternate_roles` joins messages of one role in a row; `schema_with_tools` says that a request may have both.
    `include_usage` asks for the tokens at the end of a stream; a few old servers refuse the question.
    `cache`, `thinking_display`, `server_tools`, `parallel_calls` and `eager_input` are words of the Messages API alone.
    """

    model: str
    base_url: str = DEFAULT_BASE_URL
    api: Api = "chat"
    thinking: Thinking = None
    thinking_dialect: Dialect | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    extra_body: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    include_usage: bool = True
    json_schema: bool = True
    text_calls: bool = False
    alternate_roles: bool = False
    schema_with_tools: bool = True
    cache: Literal["5m", "1h"] | None = None
    thinking_display: Literal["summarized", "omitted"] | None = None
    server_tools: tuple[Mapping[str, JSON], ...] = ()
    parallel_calls: bool = True
    eager_input: bool = False

    @property
    def source(self) -> str:
        """Interface, server and model: signatures and encrypted thinking of another model are refused by most."""
        return f"{self.api} {plain_url(self.base_url)} {self.model}"

    def to_json(self) -> dict[str, JSON]:
        return {item.name: _plain(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, JSON]) -> "Settings":
        """Read the result of `to_json`; unknown fields are ignored."""
        known = {item.name for item in fields(cls)}
        given = cast(dict[str, Any], {name: value for name, value in data.items() if name in known})
        if "server_tools" in given:
            given["server_tools"] = tuple(given["server_tools"])
        return cls(**given)


def usual_api(model: str, base_url: str) -> Api:
    """Return the default interface of a model.

    OpenAI's models that think take no tools over Chat Completions from gpt-5.5 on, and lose their thoughts there
    between calls.

    >>> usual_api("gpt-5.6", DEFAULT_BASE_URL), usual_api("gpt-5.6", "https://gateway.example/v1")
    ('responses', 'chat')
    """
    return "responses" if is_host(base_url, "openai.com") and thinks(model) else "chat"


def takes_json_schema(base_url: str, api: Api) -> bool:
    """Return whether a server enforces an answer's schema; DeepSeek's refuses one over Chat Completions.

    https://api-docs.deepseek.com/guides/json_mode
    """
    return api != "chat" or not is_host(base_url, "deepseek.com")


def plain_url(base_url: str) -> str:
    """Return the address without user, password and query, which may be secret.

    >>> plain_url("https://me:secret@gateway.example:8443/v1/?key=1")
    'https://gateway.example:8443/v1'
    """
    parts = urlsplit(base_url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def split_query(base_url: str) -> tuple[str, str]:
    """Split the address into what a request's path is appended to, and its query.

    >>> split_query("https://gateway.example/v1/?key=1")
    ('https://gateway.example/v1', 'key=1')
    """
    address, _, query = base_url.partition("#")[0].partition("?")
    return address.rstrip("/"), query


def _plain(value: Any) -> JSON:
    if isinstance(value, tuple):
        return [_plain(item) for item in cast(tuple[Any, ...], value)]
    return dict(cast(Mapping[str, JSON], value)) if isinstance(value, Mapping) else value
