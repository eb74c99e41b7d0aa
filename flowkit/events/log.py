"""The log of one run's events: kept in order, read by each watcher at its own pace."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import zip_longest
from typing import Any, TypeVar

from flowkit.events.backlog import Backlog, finish, merge
from flowkit.events.kinds import CallNew, CallSealed, CallStarted, CallWaiting, Event, list_values
from flowkit.references import ToolCall

E = TypeVar("E", bound=Event)
Enter = Callable[[str], Callable[[], None]]
"""Given the id of a call that begins an attempt; what it returns is called when the attempt has ended."""
NoteTakers = Mapping[type[Event], Callable[..., None]]
"""Who takes each kind of event as it is noted: given its `t` and its other values in order.

Values that are left out have their defaults. A `ToolCall` among the values stands for its arguments.
"""


class _Held:
    """A listener as a log holds it, so that one that listens twice can stop each registration alone."""

    __slots__ = ("_listener",)

    def __init__(self, listener: Callable[[Event], None]) -> None:
        self._listener = listener

    def __call__(self, event: Event) -> None:
        self._listener(event)


class EventLog:
    """The events of one run, in order. Call `emit` and `note` only from the loop's thread.

    Without watchers, an event is kept as plain values and becomes an object on first access: a run may have millions.
    `first_seq` is the first number of a run that resumes after a crash; set it before the first event.
    """

    def __init__(self, run_id: str, now: Callable[[], float]) -> None:
        self.run_id = run_id
        self.first_seq = 0
        self.is_closed = False
        self._built: list[Event] = []
        # For each: its class, its `t`, its values. One list of plain values is smaller than a tuple for each, and gives
        # the garbage collector nothing to look for. No value is a class, so the next class is where the next begins. An
        # event that was emitted stands behind `Event`: emitting one among a thousand notes builds none of them.
        self._notes: list[Any] = []
        self._counted = 0
        self._counted_to = 0
        """How many events the notes up to this place are; counted when somebody asks."""
        # Asyncio's own clock is this function behind a method; it is asked several times for every call.
        self._clock = time.monotonic if getattr(now, "__func__", None) is asyncio.BaseEventLoop.time else now
        self._began = self._clock()
        self._wakers: dict[asyncio.Future[None], None] = {}  # no set, which takes three times as much while it is empty
        # Changed by making it anew: a listener may leave while it is told of an event.
        self._listeners: tuple[Callable[[Event], None], ...] = ()
        self._note_takers: tuple[NoteTakers, ...] = ()
        self._request_listeners: tuple[Callable[[object, object], None], ...] = ()
        self.around: tuple[Enter, ...] = ()
        """What is entered around each attempt at a call; empty for nearly all runs."""
        self.on_close: list[Callable[[], None]] = []
        """Called when no more events come."""
        self._is_followed = False
        """Whether somebody has to be told at once: a listener, or a watcher that has read everything."""
        self._taken = self._taken_to = 0
        """How many events `take_backlog` has given, and up to which place of the notes."""
        self._tell_next: Callable[[], None] | None = None

    @property
    def began(self) -> float:
        """When it began, on the clock of its event loop."""
        return self._began

    @property
    def events(self) -> list[Event]:
        """Every event so far."""
        if self._notes:
            seq = self.first_seq + len(self._built)
            starts = [place for place, value in enumerate(self._notes) if type(value) is type]
            for start, end in zip_longest(starts, starts[1:]):
                kind, t, *values = self._notes[start:end]
                made = values[0] if kind is Event else kind(self.run_id, seq, t, *map(finish, values))
                self._built.append(made)
                seq += 1
            self._notes.clear()
            self._counted = self._counted_to = self._taken_to = 0
        return self._built

    def now(self) -> float:
        """Return the seconds since the run began."""
        return self._clock() - self._began

    def emit(self, kind: type[E], *values: Any, **named: Any) -> E:
        """Add an event of this kind; `run`, `seq` and `t` are filled in."""
        event = kind(self.run_id, self._next_seq(), self.now(), *values, **named)
        self._notes += (Event, event.t, event)
        self._tell_listeners(event)
        for takers in self._note_takers:
            if (take := takers.get(kind)) is not None:
                take(event.t, *list_values(event))
        if self._tell_next is not None:
            self._end_quiet(self._tell_next)
        return event

    def note(self, kind: type[Event], *values: Any) -> float:
        """Note an event as `emit` does, but return only its `t`; the event is built if someone listens.

        A `ToolCall` among the values stands for its arguments, which are converted to JSON on first access.
        """
        # A local first: Python 3.11 remembers where an attribute is, but takes `self._clock()` for a method and looks anew.
        clock = self._clock
        t = clock() - self._began
        if not self._is_followed:
            # In two steps: to unpack the values into one tuple makes a list of them first.
            notes = self._notes
            notes += (kind, t)
            notes += values
            return t
        event = kind(self.run_id, self._next_seq(), t, *map(finish, values)) if self._listeners else None
        # Also what is told is kept as plain values: a piece of an answer takes half as much, and there are thousands.
        self._notes += (kind, t, *values)
        self._tell_listeners(event)
        for takers in self._note_takers:
            if (take := takers.get(kind)) is not None:
                take(t, *values)
        if self._tell_next is not None:
            self._end_quiet(self._tell_next)
        return t

    # What each call of a graph notes, each with its own number of values: `note` takes any number, which makes a call
    # of it twice as slow.

    def note_sealed(self, node_id: str, name: str, parent: str | None, call: ToolCall) -> float:
        """Note a call that is sealed as it begins to exist, as most of a graph's are: two events at one instant."""
        if self._is_followed:
            self.note(CallNew, node_id, name, parent)
            return self.note(CallSealed, node_id, call)
        clock = self._clock
        t = clock() - self._began
        self._notes += (CallNew, t, node_id, name, parent, CallSealed, t, node_id, call)
        return t

    def note_started(self, node_id: str, attempt: int, early: bool, effect: str | None) -> float:
        """Note `call.started`."""
        if self._is_followed:
            return self.note(CallStarted, node_id, attempt, early, effect)
        clock = self._clock
        t = clock() - self._began
        self._notes += (CallStarted, t, node_id, attempt, early, effect)
        return t

    def note_waiting(self, node_id: str, names: tuple[str, ...]) -> float:
        """Note `call.waiting` of a call that waits for these calls."""
        if self._is_followed:
            return self.note(CallWaiting, node_id, "calls", names)
        clock = self._clock
        t = clock() - self._began
        self._notes += (CallWaiting, t, node_id, "calls", names)
        return t

    def note_value(self, kind: type[Event], node_id: str, value: object) -> float:
        """Note an event of a call that has one more value, such as its result."""
        if self._is_followed:
            return self.note(kind, node_id, value)
        clock = self._clock
        t = clock() - self._began
        self._notes += (kind, t, node_id, value)
        return t

    def _next_seq(self) -> int:
        self._count()
        return self.first_seq + len(self._built) + self._counted

    def _tell_listeners(self, event: Event | None) -> None:
        """Tell those who listen of an event, which is there if anybody does, and wake those who wait for one."""
        if event is not None:
            for listen in self._listeners:
                listen(event)
        if self._wakers:
            self._wake()

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` with every later event, at once; return a function that stops it.

        It must be quick and must not raise. It may stop itself while it handles an event.
        """
        held = _Held(listener)
        self._listeners = (*self._listeners, held)
        self._is_followed = True

        def stop() -> None:
            self._listeners = tuple(other for other in self._listeners if other is not held)
            self._look_who_follows()

        return stop

    def take_notes(self, takers: NoteTakers) -> Callable[[], None]:
        """Pass the plain values of every later event to the taker of its kind, at once; return a function that stops it.

        For listeners that look at every call of a run: no event has to be made for them. They are bound by the rules of
        `listen`.
        """
        self._note_takers = (*self._note_takers, takers)
        self._is_followed = True

        def stop() -> None:
            self._note_takers = tuple(other for other in self._note_takers if other is not takers)
            self._look_who_follows()

        return stop

    def tell_next(self, tell: Callable[[], None]) -> None:
        """Call `tell` once, after the next event. It must be quick and must not raise.

        With `take_backlog` it serves a reader that takes many events at a time, and costs the rest of them nothing.
        """
        self._tell_next = tell
        self._is_followed = True

    def take_backlog(self) -> Backlog:
        """Take the events since the last time, as they are kept; at first, since the run began."""
        self._count()
        first, self._taken = self._taken, len(self._built) + self._counted
        notes, self._taken_to = self._notes[self._taken_to :], len(self._notes)
        return Backlog(self.run_id, self.first_seq + first, self._built[first:], notes)

    def _count(self) -> None:
        # By a slice, which begins where `islice` would have to walk to: this is asked for each event that is told.
        self._counted += list(map(type, self._notes[self._counted_to :])).count(type)
        self._counted_to = len(self._notes)

    def _end_quiet(self, tell: Callable[[], None]) -> None:
        self._tell_next = None
        self._look_who_follows()
        tell()

    def _look_who_follows(self) -> None:
        self._is_followed = bool(self._listeners or self._note_takers or self._wakers or self._tell_next)

    def surround(self, enter: "Enter") -> None:
        """Call `enter` with a call's id before each attempt, and the function it returns after it, in the same task."""
        self.around = (*self.around, enter)

    def listen_to_requests(self, listener: Callable[[object, object], None]) -> None:
        """Call `listener` with the model and its `ModelRequest` before each `turn.started`."""
        self._request_listeners = (*self._request_listeners, listener)

    def tell_request(self, model: object, request: object) -> None:
        """Pass an outgoing request to the listeners; it is no event and isn't stored."""
        for listen in self._request_listeners:
            listen(model, request)

    def close(self) -> None:
        """Close the log: no more events come, and watchers stop when they have read all."""
        self.is_closed = True
        self._wake()
        told, self.on_close = self.on_close, []
        for tell in told:
            tell()

    async def watch(self, after: int = -1) -> AsyncIterator[Event]:
        """Yield the events with a `seq` greater than `after`; stop when the log is closed."""
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
        """Make a future that the next event or the close completes; for a reader that has read everything."""
        waker = asyncio.get_running_loop().create_future()
        self._wakers[waker] = None
        self._is_followed = True
        return waker

    def drop_waker(self, waker: asyncio.Future[None]) -> None:
        """Forget a waker that nobody waits for any more."""
        self._wakers.pop(waker, None)
        self._look_who_follows()  # a watcher may leave while it waits

    def _wake(self) -> None:
        for waker in self._wakers:
            if not waker.done():
                waker.set_result(None)
        self._wakers.clear()
        self._look_who_follows()
