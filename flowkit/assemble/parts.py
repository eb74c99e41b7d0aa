"""The parts of an answer while it is read, and the turn once it is complete."""

from dataclasses import dataclass
from typing import Literal

from flowkit.codec import JSON
from flowkit.errors import ModelError
from flowkit.messages import FinishReason, Usage
from flowkit.models.base import ProviderDelta, RefusalDelta, TextDelta, ThinkingDelta, UsageDelta


@dataclass(frozen=True, slots=True)
class CallOpened:
    """A call with a known name; `index` counts the calls of this turn from 0, in order of arrival."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallFragment:
    """A further piece of a call's arguments, for watchers."""

    index: int
    fragment: str


@dataclass(frozen=True, slots=True)
class CallReady:
    """A soft signal: the arguments have just closed to a non-empty object. They may still change."""

    index: int
    name: str
    arguments: dict[str, JSON]


@dataclass(frozen=True, slots=True)
class SealedCall:
    """The call is final.

    `arguments` are None with an `error` for the model when they can't be read, and without one when the call is
    `custom`: its input is the free text `raw`. `provider` must be sent back with the call. `wire_id` is the server's
    id, which may be missing or shared by several calls.
    """

    index: int
    id: str
    name: str
    arguments: dict[str, JSON] | None
    raw: str
    error: str | None = None
    provider: ProviderDelta | None = None
    wire_id: str | None = None
    custom: bool = False


@dataclass(frozen=True, slots=True)
class CallVoided:
    """An incomplete call. It must not run, even if its arguments parse."""

    index: int
    reason: str


Part = (
    TextDelta
    | ThinkingDelta
    | RefusalDelta
    | UsageDelta
    | CallOpened
    | CallFragment
    | CallReady
    | SealedCall
    | CallVoided
)

CallState = Literal["open", "sealed", "invalid", "void"]


@dataclass(frozen=True, slots=True)
class TurnCall:
    """One call of a turn. Only a `sealed` call can run; the `arguments` of a `void` call are those that arrived, if they parse."""

    index: int
    id: str
    name: str
    arguments: dict[str, JSON] | None
    raw: str
    state: CallState
    error: str | None = None
    wire_id: str | None = None
    custom: bool = False
    provider: ProviderDelta | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer as far as it has been read.

    `finish_reason` is the server's own word (for the Responses API `completed`, `incomplete` or `failed`), None when
    it gave none; `reason` is what it means. `error` says what broke the answer, also that it was cut off; where it is
    None the turn can be used, whatever `complete` says. `complete` means that it is known to be whole: it came to its
    end and no call is void; where a server gave no reason but only its end mark, that calls with arguments closed.
    `provider` is what has to go back in the next request; so has `thinking` where `thinking_field` names its field.
    `leaked` is the sign of a tool call in the text or thinking of a turn without calls: the server didn't recognise
    its model's calls. `ignored_choices` counts the other answers that were asked for and not read.
    """

    text: str = ""
    thinking: str = ""
    refusal: str = ""
    calls: tuple[TurnCall, ...] = ()
    finish_reason: str | None = None
    reason: FinishReason = "unknown"
    usage: Usage | None = None
    error: ModelError | None = None
    complete: bool = False
    provider: tuple[ProviderDelta, ...] = ()
    thinking_field: str | None = None
    leaked: str | None = None
    ignored_choices: int = 0
