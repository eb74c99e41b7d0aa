"""What a request over HTTP is made of besides the conversation, and where it goes: plain data, no network."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast
from urllib.parse import urlsplit

from flowkit.codec import JSON
from flowkit.models.wire.thinking import Api, Dialect, Thinking
from flowkit.models.wire.vendors import is_host, thinks

DEFAULT_BASE_URL = "https://api.openai.com/v1"

PLACEHOLDER_KEY = "no-key"
"""Sent to servers for which no key was given: local ones take any, but the header must hold something."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where requests go and as whom; equal servers share a client.

    `timeout_s` bounds the silence before the answer and within it. `max_retries` is how often a run asks again when a
    request was refused with 408, 409, 429 or 5xx or found no connection, where its own attempts are fewer; the `openai`
    package repeats nothing, so that there is one place that waits and tells of it. `api_version` is that of
    Azure's older addresses.
    """

    base_url: str
    api_key: str = field(default=PLACEHOLDER_KEY, repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    api_version: str | None = None
    timeout_s: float = 600.0
    max_retries: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one model behind one address; nothing in it is secret but a password in the address.

    `extra_body` is the way out: its fields stand in the body as they are, over those that are worked out, and None
    takes one out. `json_schema` says that the server holds an answer to a schema. `text_calls` looks for calls in the
    text. `include_usage` asks for the tokens at the end of a stream; a few old servers refuse the question.
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

    @property
    def source(self) -> str:
        """Interface, server and model: signatures and encrypted thinking of another model are refused by most."""
        return f"{self.api} {plain_url(self.base_url)} {self.model}"

    def to_json(self) -> dict[str, JSON]:
        return {item.name: _plain(getattr(self, item.name)) for item in fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, JSON]) -> "Settings":
        """What `to_json` wrote; fields that aren't known are left out."""
        known = {item.name for item in fields(cls)}
        return cls(**cast(dict[str, Any], {name: value for name, value in data.items() if name in known}))


def usual_api(model: str, base_url: str) -> Api:
    """The interface of a model for which none is named.

    OpenAI's models that think take no tools over Chat Completions from gpt-5.5 on, and lose their thoughts there
    between calls.

    >>> usual_api("gpt-5.6", DEFAULT_BASE_URL), usual_api("gpt-5.6", "https://gateway.example/v1")
    ('responses', 'chat')
    """
    return "responses" if is_host(base_url, "openai.com") and thinks(model) else "chat"


def takes_json_schema(base_url: str, api: Api) -> bool:
    """Whether a server holds an answer to a schema; DeepSeek's refuses one over Chat Completions.

    https://api-docs.deepseek.com/guides/json_mode
    """
    return api == "responses" or not is_host(base_url, "deepseek.com")


def plain_url(base_url: str) -> str:
    """The address without a user, a password or a query, which may be secret.

    >>> plain_url("https://me:secret@gateway.example:8443/v1/?key=1")
    'https://gateway.example:8443/v1'
    """
    parts = urlsplit(base_url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def _plain(value: Any) -> JSON:
    return dict(cast(Mapping[str, JSON], value)) if isinstance(value, Mapping) else value
