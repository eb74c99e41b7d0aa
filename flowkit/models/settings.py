"""What a request to a server over HTTP is made of, besides the conversation: plain data, no network, no secret."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast
from urllib.parse import urlsplit

from flowkit.codec import JSON
from flowkit.models.thinking import Api, Dialect, Thinking

DEFAULT_BASE_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one model behind one address.

    `extra_body` is the way out: its fields stand in the body as they are, over those that are worked out.
    `include_usage` asks for the tokens at the end of a stream; a few old servers refuse the question.
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


def plain_url(base_url: str) -> str:
    """The address without a user, a password or a query, which may be secret.

    >>> plain_url("https://me:secret@gateway.example:8443/v1/?key=1")
    'https://gateway.example:8443/v1'
    """
    parts = urlsplit(base_url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def _plain(value: Any) -> JSON:
    return dict(cast(Mapping[str, JSON], value)) if isinstance(value, Mapping) else value
