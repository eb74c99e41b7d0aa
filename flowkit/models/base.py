"""The interface of every model: one request in, deltas out.

A reader turns a server's bytes into `Delta` values without interpreting them; `assemble` decides which call a fragment
belongs to and when it is sealed.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from flowkit.codec import JSON
from flowkit.errors import ModelError
from flowkit.messages import FinishReason, Message, ProviderData, ToolSpec, Usage


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer."""

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """More of the thinking; `field` is the name of its field, for servers that require it back under that name."""

    text: str
    field: str = "reasoning_content"
    choice: int = 0


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    """More of a refusal."""

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ProviderDelta:
    """Data that must be sent back unchanged, or that marks the order of such data.

    Chat Completions: `kind` is the field of the message or call: `reasoning_details` (a list; pieces of one index
    belong together), `extra_content`. Responses API: each item that is done, in order; `kind` is its type. `reasoning`,
    and whatever else holds `encrypted_content`, is the whole item; of a `message` only `{"id", "phase", "text"}` and of
    a `function_call` or `custom_tool_call` only `{"id", "call_id"}`: they mark where these stood.
    """

    kind: str
    data: JSON

    def tag(self, source: str) -> ProviderData:
        """Return the data marked with where it came from."""
        return ProviderData(source, self.kind, self.data)


class CallDelta(NamedTuple):
    """A fragment of a tool call, as it was sent.

    A named tuple, since one is made for each fragment and a frozen dataclass of as many fields takes four times as long.

    `slot` is the server's index (`output_index` in the Responses API), None if omitted; an id, name or
    fragment that was absent, null or empty is None. `custom` marks a call with free text as its input. `provider` must
    be sent back with the call.
    """

    slot: int | None = None
    id: str | None = None
    name: str | None = None
    arguments: str | None = None
    choice: int = 0
    custom: bool = False
    provider: ProviderDelta | None = None


@dataclass(frozen=True, slots=True)
class CallDone:
    """The protocol's signal that the call in this slot is complete.

    `arguments` are the complete arguments, if sent. `ending` is `completed` if the server reports the call as complete,
    `cut` if it reports it as incomplete, and `arguments` if only the arguments ended. Arguments also end when an answer
    is cut off, so they show a complete call only if they are a non-empty object.
    """

    slot: int
    arguments: str | None = None
    name: str | None = None
    id: str | None = None
    ending: Literal["completed", "arguments", "cut"] = "arguments"


@dataclass(frozen=True, slots=True)
class UsageDelta:
    """Tokens so far; the last one counts, they aren't added up."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class FinishDelta:
    """The server's reason for ending this choice; `wire` is its own word for it, when it came from a server."""

    reason: FinishReason
    choice: int = 0
    wire: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorDelta:
    """The server broke off the answer with an error."""

    error: ModelError


@dataclass(frozen=True, slots=True)
class EndDelta:
    """The end mark in the body: `[DONE]`, or the Responses API's terminal event."""


Delta = (
    TextDelta
    | ThinkingDelta
    | RefusalDelta
    | CallDelta
    | CallDone
    | ProviderDelta
    | UsageDelta
    | FinishDelta
    | ErrorDelta
    | EndDelta
)


@dataclass(frozen=True, slots=True)
class NamedTool:
    """A `tool_choice` that forces this tool."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | NamedTool


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One request; frozen, so a retry or another model sends the same.

    `attempt` counts from 1 within a turn. `data` is the run's data, for a router's rule; it never leaves the process.
    `output_schema` requires an answer in JSON that fits it.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: ToolChoice = "auto"
    output_schema: Mapping[str, JSON] | None = None
    output_name: str = "output"
    max_tokens: int | None = None
    attempt: int = 1
    turn: int = 1
    data: object = field(default=None, compare=False)


class Model(Protocol):
    """Anything that answers a request with a stream of deltas."""

    @property
    def name(self) -> str:
        """The display name; prices are looked up by it."""
        ...

    @property
    def source(self) -> str:
        """The scope of its provider data: the same text, the same server and interface."""
        ...

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Open the answer; exiting the context closes the connection.

        Raises `ModelError` on entering when the server refuses, and `StreamError` while iterating when the body
        can't be read. A truncated body raises nothing: its deltas lack `FinishDelta` and `EndDelta`.
        """
        ...
