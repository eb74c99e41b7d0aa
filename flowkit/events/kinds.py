"""The kinds of events, each a flat value that becomes one JSON object."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, cast

from flowkit.codec import JSON
from flowkit.long_values import cut_value
from flowkit.messages import FinishReason, Usage

RunStatus = Literal["done", "waiting", "limit", "cancelled", "in_doubt", "failed"]
WaitingFor = Literal["calls", "approval", "resource", "slot"]


@dataclass(frozen=True, slots=True)
class Event:
    """The part all events share: the run's id, the place in its log, seconds since it began."""

    run: str
    seq: int
    t: float
    type: ClassVar[str] = "event"
    long: ClassVar[str | None] = None
    """The field whose value may be long."""

    def to_json(self) -> dict[str, JSON]:
        """Convert to a flat object, `type` first; a value above 64 KiB is cut, with its size as `truncated`."""
        data: dict[str, JSON] = {"type": self.type}
        for name in _field_names(type(self)):
            data[name] = _plain(getattr(self, name))
        if self.long is not None:
            data[self.long], size = cut_value(data[self.long])
            if size is not None:
                data["truncated"] = size
        return data


@dataclass(frozen=True, slots=True)
class RunStarted(Event):
    """`model` is None for a recipe, `inputs` for an agent; `message` is the user's message, as text.

    `at_wall` is when it began, or was gone on with, in seconds since 1970: `t` counts from there.
    """

    name: str
    model: str | None = None
    user: str | None = None
    session: str | None = None
    inputs: JSON = None
    message: str | None = None
    at_wall: float | None = None
    type: ClassVar[str] = "run.started"
    long: ClassVar[str | None] = "inputs"


@dataclass(frozen=True, slots=True)
class TurnStarted(Event):
    """A request is sent; `attempt` counts from 1 within the turn.

    `model` is the called model: a router or a fallback has its own name, since the answering model isn't known
    yet.
    """

    turn: int
    model: str
    attempt: int = 1
    type: ClassVar[str] = "turn.started"


@dataclass(frozen=True, slots=True)
class TurnRetried(Event):
    """Attempt `attempt` of the turn failed by `error`, and is retried after `delay_s`."""

    turn: int
    error: str
    delay_s: float
    attempt: int = 1
    type: ClassVar[str] = "turn.retried"


@dataclass(frozen=True, slots=True)
class ThinkingDelta(Event):
    """`call` names the step whose model speaks; None for the agent's own.

    `at` is how many characters (code points) of this turn came before: `text[:at] + piece` may be done twice.
    """

    text: str
    turn: int = 0
    call: str | None = None
    at: int = 0
    type: ClassVar[str] = "thinking.delta"


@dataclass(frozen=True, slots=True)
class TextDelta(Event):
    """`call` names the step whose model speaks; None for the agent's own.

    `at` is how many characters (code points) of this turn came before: `text[:at] + piece` may be done twice.
    """

    text: str
    turn: int = 0
    call: str | None = None
    at: int = 0
    type: ClassVar[str] = "text.delta"


@dataclass(frozen=True, slots=True)
class OutputPartial(Event):
    """The answer so far, as JSON. Missing parts haven't arrived; existing parts stay or grow.

    `call` is the output tool's call with these arguments; None for an answer as text. In a retried turn it
    starts over. A slow watcher receives only the latest, and a journal doesn't store them.
    """

    output: JSON
    turn: int = 0
    call: str | None = None
    type: ClassVar[str] = "output.partial"
    long: ClassVar[str | None] = "output"


@dataclass(frozen=True, slots=True)
class CallNew(Event):
    """A call has begun to exist; `parent` is the call or step that made it."""

    call: str
    name: str
    parent: str | None = None
    type: ClassVar[str] = "call.new"


@dataclass(frozen=True, slots=True)
class CallArguments(Event):
    """A fragment of its arguments, as streamed."""

    call: str
    fragment: str
    type: ClassVar[str] = "call.arguments"


@dataclass(frozen=True, slots=True)
class CallSealed(Event):
    """Its arguments are final; secrets are masked, `repaired` lists the repairs."""

    call: str
    arguments: JSON
    repaired: tuple[str, ...] = ()
    type: ClassVar[str] = "call.sealed"
    long: ClassVar[str | None] = "arguments"


@dataclass(frozen=True, slots=True)
class CallWaiting(Event):
    """`on` names the calls or the resource it waits for."""

    call: str
    waiting_for: WaitingFor
    on: tuple[str, ...] = ()
    type: ClassVar[str] = "call.waiting"


@dataclass(frozen=True, slots=True)
class CallStarted(Event):
    """The call runs; `early` if the model's turn hadn't ended.

    `effect` is its tool's effect; None for nodes that are no tool, such as an `each` or a model call.
    """

    call: str
    attempt: int = 1
    early: bool = False
    effect: Literal["read", "idempotent", "write"] | None = None
    type: ClassVar[str] = "call.started"


@dataclass(frozen=True, slots=True)
class CallProgress(Event):
    """Progress reported by the tool; `total` is None if unknown."""

    call: str
    done: float
    total: float | None = None
    note: str = ""
    type: ClassVar[str] = "call.progress"


@dataclass(frozen=True, slots=True)
class CallRetried(Event):
    """The call failed and will be retried after `delay_s`; `error_type` is the class of the exception."""

    call: str
    error: str
    delay_s: float
    error_type: str | None = None
    type: ClassVar[str] = "call.retried"


@dataclass(frozen=True, slots=True)
class CallFinished(Event):
    """The call's result; `age_s` is the age of a cached result, None for a result of a run.

    `source` is `run`, `cache`, `flight` (it joined an equal call), or `journal` (it was recorded before a crash).
    `ended_s` is set if it finished before this event: an early run is reported when its call is sealed.
    """

    call: str
    value: JSON = None
    source: Literal["run", "cache", "flight", "journal"] = "run"
    age_s: float | None = None
    ended_s: float | None = None
    type: ClassVar[str] = "call.finished"
    long: ClassVar[str | None] = "value"


@dataclass(frozen=True, slots=True)
class CallFailed(Event):
    """The call failed. `error` is the message that the model reads; `ended_s` is as in `CallFinished`.

    `error_type` is the class of the exception; None without one, as for invalid arguments.
    """

    call: str
    error: str
    ended_s: float | None = None
    error_type: str | None = None
    type: ClassVar[str] = "call.failed"


@dataclass(frozen=True, slots=True)
class CallSkipped(Event):
    """A dependency failed: `because` names it, or the condition that was not met."""

    call: str
    because: str
    type: ClassVar[str] = "call.skipped"


@dataclass(frozen=True, slots=True)
class CallDenied(Event):
    """A person denied the call."""

    call: str
    reason: str = ""
    type: ClassVar[str] = "call.denied"


@dataclass(frozen=True, slots=True)
class CallCancelled(Event):
    """The call was stopped, or dropped before it ran.

    `waits` when it, or a call made for it, waits for a person, so that the run may resume with it.
    """

    call: str
    reason: str = ""
    waits: bool = False
    type: ClassVar[str] = "call.cancelled"


@dataclass(frozen=True, slots=True)
class CallVoid(Event):
    """Never sealed: the turn broke off before the call was complete."""

    call: str
    reason: str = ""
    type: ClassVar[str] = "call.void"


@dataclass(frozen=True, slots=True)
class CallInDoubt(Event):
    """A write that may have taken effect."""

    call: str
    reason: str = ""
    type: ClassVar[str] = "call.in_doubt"


@dataclass(frozen=True, slots=True)
class ApprovalAsked(Event):
    """A person has to decide on these arguments."""

    call: str
    name: str
    arguments: JSON
    type: ClassVar[str] = "approval.asked"
    long: ClassVar[str | None] = "arguments"


@dataclass(frozen=True, slots=True)
class ApprovalDecided(Event):
    """A person's decision; `arguments` are the new arguments if the person changed them."""

    call: str
    approved: bool
    reason: str = ""
    by: str | None = None
    arguments: JSON = None
    type: ClassVar[str] = "approval.decided"


@dataclass(frozen=True, slots=True)
class UsageReported(Event):
    """Tokens of one answer of this turn, and their cost; None if the price isn't known.

    `call` names the step of the answering model; None for the agent's own model.
    """

    turn: int
    usage: Usage
    cost_usd: float | None = None
    call: str | None = None
    type: ClassVar[str] = "usage"


@dataclass(frozen=True, slots=True)
class TurnFinished(Event):
    """The turn ended; `error` is set if it broke off.

    `model` is the answering model, which for a router or a fallback is known only now.
    """

    turn: int
    reason: FinishReason
    error: str | None = None
    model: str | None = None
    type: ClassVar[str] = "turn.finished"


@dataclass(frozen=True, slots=True)
class NestedTurn(Event):
    """A turn of an agent inside the call `call`: it has started, is retried, or has ended.

    `reason` and `model`, the one that answered, are known at its end; `error` is why it broke off or is retried.
    """

    call: str
    turn: int
    state: Literal["started", "retried", "finished"]
    attempt: int = 1
    model: str | None = None
    reason: FinishReason | None = None
    error: str | None = None
    type: ClassVar[str] = "nested.turn"


@dataclass(frozen=True, slots=True)
class GuardDecided(Event):
    """A guard's verdict on a request, an answer, or the call `call`; `reason` is why it refused, secrets masked.

    One that `watches` runs beside the model, and reports that it passed when it has seen the whole.
    """

    guard: str
    on: Literal["request", "call", "answer"]
    verdict: Literal["passed", "changed", "refused", "failed"]
    reason: str = ""
    turn: int = 0
    call: str | None = None
    watches: bool = False
    type: ClassVar[str] = "guard.decided"


@dataclass(frozen=True, slots=True)
class BudgetChecked(Event):
    """The state of a budget before a turn; `resets_at` is seconds since 1970, None if it never resets."""

    budget: str
    turn: int
    usd: float
    left_usd: float
    resets_at: float | None = None
    type: ClassVar[str] = "budget.checked"


NOTICES: dict[str, str] = {
    "failed": "Something went wrong on our side. Please try again later.",
    "limit": "This took more than it may. Please try again with a smaller request.",
    "in_doubt": "We can't tell yet whether this was done. Please don't repeat it; somebody will look.",
}
"""What a customer may read of a run that ended so: nothing of the cause."""


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """Always the last event; every call that was opened is closed before it.

    `tips` report what a tool's declaration cost: "treated as write; as read it would have started 0.8 s sooner".
    `error` is the cause, for the operator of the service; `notice` is a neutral sentence, which a customer may read.
    """

    status: RunStatus
    output: JSON = None
    error: str | None = None
    tips: tuple[str, ...] = ()
    notice: str | None = None
    type: ClassVar[str] = "run.finished"
    long: ClassVar[str | None] = "output"


_names: dict[type[Event], tuple[str, ...]] = {}


def _field_names(kind: type[Event]) -> tuple[str, ...]:
    if kind not in _names:
        _names[kind] = tuple(field.name for field in fields(kind))
    return _names[kind]


def list_values(event: Event) -> tuple[Any, ...]:
    """List the values of an event that its kind has of its own, in their order."""
    return tuple(getattr(event, name) for name in _field_names(type(event))[3:])


def _plain(value: Any) -> JSON:
    if isinstance(value, Usage):
        return value.to_json()
    return list(cast(tuple[JSON, ...], value)) if isinstance(value, tuple) else value
