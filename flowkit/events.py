"""What a watcher of a run is told, and the log that tells it.

Events are made by one run, in order; `seq` counts from 0 without gaps in the log, and a merged event carries the
last `seq` it stands for. Nothing in the run ever waits for a watcher: each reads the log at its own pace, and text,
thinking, arguments and progress that have piled up by then are merged into one event.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any, ClassVar, Literal, TypeVar, cast

from flowkit.codec import JSON
from flowkit.long_values import cut_value
from flowkit.masking import show_arguments
from flowkit.messages import FinishReason, Usage
from flowkit.references import ToolCall

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
        """A flat object; `type` first. Of a value above 64 KiB it has the beginning, and its size as `truncated`."""
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
    """`model` is None for a recipe, `inputs` for an agent; `message` is what the user said to it, as text.

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
    """A request goes out; `attempt` counts from 1 within the turn.

    `model` is who is asked: a router or a fallback by its own name, since who will answer isn't known yet.
    """

    turn: int
    model: str
    attempt: int = 1
    type: ClassVar[str] = "turn.started"


@dataclass(frozen=True, slots=True)
class TurnRetried(Event):
    """Attempt `attempt` of the turn failed by `error`, and the model is asked again after `delay_s`."""

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
    """Its arguments are final; secrets are masked, `repaired` tells what was put right."""

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
    """It runs; `early` when the model had not ended its turn.

    `effect` is what its tool may do; None for what is no tool, such as an `each`, or a model that is asked.
    """

    call: str
    attempt: int = 1
    early: bool = False
    effect: Literal["read", "idempotent", "write"] | None = None
    type: ClassVar[str] = "call.started"


@dataclass(frozen=True, slots=True)
class CallProgress(Event):
    """What its tool reports; `total` is None when it isn't known."""

    call: str
    done: float
    total: float | None = None
    note: str = ""
    type: ClassVar[str] = "call.progress"


@dataclass(frozen=True, slots=True)
class CallRetried(Event):
    """It failed and will be tried again after `delay_s`; `error_type` is the class of what was raised."""

    call: str
    error: str
    delay_s: float
    error_type: str | None = None
    type: ClassVar[str] = "call.retried"


@dataclass(frozen=True, slots=True)
class CallFinished(Event):
    """Its result; `age_s` is how old a result from the cache is, None for one from a run.

    `source` is `run`, `cache`, `flight` (it joined an equal call), or `journal` (it was recorded before a crash).
    `ended_s` is when it ended, where that was before this event: an early run is told of when its call is sealed.
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
    """`error` is what the model reads; `ended_s` is as in `CallFinished`.

    `error_type` is the class of what was raised; None where nothing was, as for arguments that aren't taken.
    """

    call: str
    error: str
    ended_s: float | None = None
    error_type: str | None = None
    type: ClassVar[str] = "call.failed"


@dataclass(frozen=True, slots=True)
class CallSkipped(Event):
    """What it needed failed: `because` names that ancestor, or the condition that was not met."""

    call: str
    because: str
    type: ClassVar[str] = "call.skipped"


@dataclass(frozen=True, slots=True)
class CallDenied(Event):
    """A person said no."""

    call: str
    reason: str = ""
    type: ClassVar[str] = "call.denied"


@dataclass(frozen=True, slots=True)
class CallCancelled(Event):
    """Stopped, or dropped before it ran; `waits` when it waits for a person, so that the run may go on with it."""

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
    """A write that may have happened."""

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
    """What the person decided, and who; `arguments` are those it runs with when the person changed them."""

    call: str
    approved: bool
    reason: str = ""
    by: str | None = None
    arguments: JSON = None
    type: ClassVar[str] = "approval.decided"


@dataclass(frozen=True, slots=True)
class UsageReported(Event):
    """Tokens of one answer of this turn, and what they cost; None where the price isn't known.

    `call` names the step whose model answered; None for the agent's own.
    """

    turn: int
    usage: Usage
    cost_usd: float | None = None
    call: str | None = None
    type: ClassVar[str] = "usage"


@dataclass(frozen=True, slots=True)
class TurnFinished(Event):
    """The turn's last word; `error` when it broke.

    `model` is who answered, which is known only now where a router or a fallback was asked.
    """

    turn: int
    reason: FinishReason
    error: str | None = None
    model: str | None = None
    type: ClassVar[str] = "turn.finished"


NOTICES: dict[str, str] = {
    "failed": "Something went wrong on our side. Please try again later.",
    "limit": "This took more than it may. Please try again with a smaller request.",
    "in_doubt": "We can't tell yet whether this was done. Please don't repeat it; somebody will look.",
}
"""What a customer may read of a run that ended so: nothing of the cause."""


@dataclass(frozen=True, slots=True)
class RunFinished(Event):
    """Always the last event; every call that was opened is closed before it.

    `tips` tell what a tool's declaration cost: "treated as write; as read it would have started 0.8 s sooner".
    `error` is the cause, for who runs the service; `notice` is a neutral sentence, which a customer may read.
    """

    status: RunStatus
    output: JSON = None
    error: str | None = None
    tips: tuple[str, ...] = ()
    notice: str | None = None
    type: ClassVar[str] = "run.finished"
    long: ClassVar[str | None] = "output"


E = TypeVar("E", bound=Event)
Enter = Callable[[str], Callable[[], None]]
"""Given the id of a call that begins an attempt; what it returns is called when the attempt has ended."""


class _Held:
    """A listener as a log holds it, so that one that listens twice ends each by itself."""

    __slots__ = ("_listener",)

    def __init__(self, listener: Callable[[Event], None]) -> None:
        self._listener = listener

    def __call__(self, event: Event) -> None:
        self._listener(event)


class EventLog:
    """The events of one run, kept in order; `emit` and `note` from the loop's thread only.

    While nobody watches, an event is kept as plain values and becomes an object when somebody looks: a run may have
    millions. `first_seq` is where a run that goes on after a crash begins to count; set it before the first event.
    """

    def __init__(self, run_id: str, now: Callable[[], float]) -> None:
        self.run_id = run_id
        self.first_seq = 0
        self.is_closed = False
        self._built: list[Event] = []
        # For each: its class, its `t`, how many values follow, the values. One list of plain values is smaller
        # than a tuple for each, and gives the garbage collector nothing to look for.
        self._notes: list[Any] = []
        # Asyncio's own clock is this function behind a method; it is asked several times for every call.
        self._clock = time.monotonic if getattr(now, "__func__", None) is asyncio.BaseEventLoop.time else now
        self._began = self._clock()
        self._wakers: set[asyncio.Future[None]] = set()
        # Changed by making it anew: a listener may leave while it is told of an event.
        self._listeners: tuple[Callable[[Event], None], ...] = ()
        self._request_listeners: tuple[Callable[[object, object], None], ...] = ()
        self.around: tuple[Enter, ...] = ()
        """What is entered around each attempt at a call; empty for nearly all runs."""
        self.on_close: list[Callable[[], None]] = []
        """Called when no more events come."""
        self._is_followed = False
        """Whether somebody has to be told at once: a listener, or a watcher that has read everything."""

    @property
    def began(self) -> float:
        """When it began, on the clock of its event loop."""
        return self._began

    @property
    def events(self) -> list[Event]:
        """Every event so far."""
        if self._notes:
            seq = self.first_seq + len(self._built)
            notes = iter(self._notes)
            for kind in notes:
                t, count = next(notes), next(notes)
                values = [_finish(value) for value in islice(notes, count)]
                self._built.append(kind(self.run_id, seq, t, *values))
                seq += 1
            self._notes.clear()
        return self._built

    def now(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self._began

    def emit(self, kind: type[E], *values: Any, **named: Any) -> E:
        """Add an event of this kind; `run`, `seq` and `t` are filled in."""
        events = self.events
        event = kind(self.run_id, self.first_seq + len(events), self._clock() - self._began, *values, **named)
        self._add(event)
        return event

    def note(self, kind: type[Event], *values: Any) -> float:
        """Like `emit`, for who only wants to know when it was: its `t`.

        A `ToolCall` among the values stands for its arguments, which are made JSON when somebody looks.
        """
        t = self._clock() - self._began
        if self._is_followed:
            self._add(kind(self.run_id, self.first_seq + len(self.events), t, *map(_finish, values)))
        else:
            notes = self._notes
            notes += (kind, t, len(values))
            notes += values
        return t

    def note_sealed(self, node_id: str, name: str, parent: str | None, call: ToolCall) -> float:
        """Note a call that is sealed as it begins to exist, as most of a graph's are: two events at one instant."""
        if self._is_followed:
            self.note(CallNew, node_id, name, parent)
            return self.note(CallSealed, node_id, call)
        t = self._clock() - self._began
        self._notes += (CallNew, t, 3, node_id, name, parent, CallSealed, t, 2, node_id, call)
        return t

    def _add(self, event: Event) -> None:
        self._built.append(event)
        for listen in self._listeners:
            listen(event)
        if self._wakers:
            self._wake()

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` with every later event, at once; return what ends that.

        It must be quick and must not raise. It may end itself while it is told of an event.
        """
        held = _Held(listener)
        self._listeners = (*self._listeners, held)
        self._is_followed = True

        def stop() -> None:
            self._listeners = tuple(other for other in self._listeners if other is not held)
            self._is_followed = bool(self._listeners or self._wakers)

        return stop

    def surround(self, enter: "Enter") -> None:
        """Call `enter` with a call's id before each attempt at it, and what that gives behind it, in the same task."""
        self.around = (*self.around, enter)

    def listen_to_requests(self, listener: Callable[[object, object], None]) -> None:
        """Call `listener` with the model and its `ModelRequest` before each `turn.started`."""
        self._request_listeners = (*self._request_listeners, listener)

    def tell_request(self, model: object, request: object) -> None:
        """Show a request that goes out now to who asked for it; it is no event, and nothing keeps it."""
        for listen in self._request_listeners:
            listen(model, request)

    def close(self) -> None:
        """No more events come; watchers end when they have read what is there."""
        self.is_closed = True
        self._wake()
        told, self.on_close = self.on_close, []
        for tell in told:
            tell()

    async def watch(self, after: int = -1) -> AsyncIterator[Event]:
        """Every event with a `seq` greater than `after`; ends when the log is closed."""
        while True:
            # Asked anew each time: who watches before the first event doesn't know yet where the count begins.
            while (position := max(0, after + 1 - self.first_seq)) < (end := len(self.events)):
                for event in merge(self.events[position:end]):
                    yield event
                after = self.first_seq + end - 1
            if self.is_closed:
                return
            waker = self.make_waker()
            try:
                await waker
            finally:
                self.drop_waker(waker)

    def make_waker(self) -> asyncio.Future[None]:
        """A future that the next event, or the end, makes done; for a reader that has read everything."""
        waker = asyncio.get_running_loop().create_future()
        self._wakers.add(waker)
        self._is_followed = True
        return waker

    def drop_waker(self, waker: asyncio.Future[None]) -> None:
        """Forget a waker that nobody waits for any more."""
        self._wakers.discard(waker)
        self._is_followed = bool(self._listeners or self._wakers)  # a watcher may leave while it waits

    def _wake(self) -> None:
        for waker in self._wakers:
            if not waker.done():
                waker.set_result(None)
        self._wakers.clear()
        self._is_followed = bool(self._listeners)


def merge(events: list[Event]) -> Iterator[Event]:
    """The same events with neighbouring pieces of one text, one call's arguments or one call's progress joined."""
    held: Event | None = None
    for event in events:
        joined = None if held is None else _join(held, event)
        if joined is None:
            if held is not None:
                yield held
            held = event
        else:
            held = joined
    if held is not None:
        yield held


def _join(first: Event, second: Event) -> Event | None:
    match first, second:
        case (TextDelta(), TextDelta()) | (ThinkingDelta(), ThinkingDelta()):
            if (first.turn, first.call) == (second.turn, second.call):
                return replace(second, text=first.text + second.text, at=first.at)
        case CallArguments(), CallArguments():
            if first.call == second.call:
                return replace(second, fragment=first.fragment + second.fragment)
        case CallProgress(), CallProgress():
            if first.call == second.call:
                return second
        case _:
            pass
    return None


def _finish(value: Any) -> Any:
    return show_arguments(value.arguments) if isinstance(value, ToolCall) else value


_names: dict[type[Event], tuple[str, ...]] = {}


def _field_names(kind: type[Event]) -> tuple[str, ...]:
    if kind not in _names:
        _names[kind] = tuple(field.name for field in fields(kind))
    return _names[kind]


def _plain(value: Any) -> JSON:
    if isinstance(value, Usage):
        return value.to_json()
    return list(cast(tuple[JSON, ...], value)) if isinstance(value, tuple) else value
