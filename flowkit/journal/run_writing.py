"""The changes of one run's driver, collected for the journal's writer.

No caller waits for finished reads and events. They are written together with a change that a caller waits for: a claim,
a write's result, or the end of the run. If no such change follows, they are written a moment later. So the writer wakes
a few times per run, not for each event. Each transaction is a consistent snapshot: the events before a claim are stored
with it.
"""

import asyncio
from collections import deque

from flowkit.events import Backlog, Event, EventLog, OutputPartial, RunFinished, dump_event, merge
from flowkit.journal.log import JournalLog
from flowkit.journal.records import RunSummary
from flowkit.journal.store import Changes, Ending, Put, TakeBack, TurnText

EVENTS_WITHIN_S = 0.05
"""How long an event may wait for others, unless something else of its run is written before."""
OWN_WRITE_BYTES = 2**16
"""A result of this size is written alone: where it can't be stored, nothing else is lost with it."""


class RunWriting:
    """The changes of one opening of a run; `_drain` runs in the writer's thread, all else in the loop's."""

    def __init__(self, log: JournalLog, run: RunSummary, token: str) -> None:
        self._log = log
        self._run = run
        self._token = token
        self._waiting: deque[Event | Backlog | Put] = deque()
        """The changes that no caller waits for; the writer's thread takes them."""
        self._is_asked = False
        """Whether the writer's thread was asked to take it."""
        self._followed: EventLog | None = None
        self._timer: asyncio.TimerHandle | None = None
        """Set while events of the followed log may wait."""
        self._drops_end = False
        self._is_turn_written = True
        self._lost_turn: BaseException | None = None
        """The error of the last turn's write, until it is raised."""

    def follow(self, log: EventLog) -> None:
        """Write the events of this log, those that it has and those that come."""
        self._followed = log
        log.tell_next(self._note_event)

    def unfollow(self) -> None:
        """Write no more events of it."""
        if self._timer is not None:
            self._timer.cancel()
        self._followed = self._timer = None

    def append_event(self, event: Event) -> None:
        """Write one event soon."""
        if self._keeps(type(event)) and not (self._is_leaving and _is_cancelled(event)):
            self._waiting.append(event)
            self._ask()

    async def write(
        self,
        put: Put | None = None,
        *,
        turn: TurnText | None = None,
        ending: Ending | None = None,
        is_durable: bool = False,
    ) -> None:
        """Write this, behind all that waits, and wait until it is committed; also raises the error of a lost turn."""
        self._take_backlog()
        nodes = () if put is None else (put,)

        def make() -> Changes | None:
            self._raise_lost_turn()
            return self._drain(nodes, turn=turn, ending=ending)

        await self._log.write(make, is_durable=is_durable)

    def post(self, put: Put) -> None:
        """Write this soon, with all that waits."""
        self._waiting.append(put)
        self._ask()

    def post_alone(self, nodes: tuple[Put, ...] = (), *, take_back: TakeBack | None = None) -> None:
        """Write this soon, apart from all else."""
        self._log.post(self._change(nodes, take_back=take_back))

    def post_turn(self, turn: TurnText, nodes: tuple[Put, ...]) -> None:
        """Write a turn and all pending changes soon; its error is raised by the next write."""
        self._is_turn_written = False
        self._take_backlog()
        self._log.post(lambda: self._drain(nodes, turn=turn), self._note_turn)

    async def wait_turn(self) -> None:
        """Wait until the last turn is written; raises its error, once."""
        if not self._is_turn_written:
            await self._log.run(lambda: None)  # the writer comes to this behind it
        self._raise_lost_turn()

    @property
    def _is_leaving(self) -> bool:
        return self._log.lets_go(self._run)

    def _note_event(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(EVENTS_WITHIN_S, self._end_wait)

    def _end_wait(self) -> None:
        """Write the pending changes, if they weren't written with another change, and wait for the next event."""
        self._take_backlog()
        self._timer = None
        if self._waiting:
            self._ask()
        if self._followed is not None:
            self._followed.tell_next(self._note_event)

    def _ask(self) -> None:
        """Hand the pending changes to the writer's thread."""
        self._take_backlog()
        if not self._is_asked:
            self._is_asked = True
            self._log.post(self._drain)

    def _take_backlog(self) -> None:
        if self._timer is None or self._followed is None:
            return  # nothing has come since the last time
        backlog = self._followed.take_backlog()
        if backlog.built or backlog.notes:
            self._drops_end = self._is_leaving
            self._waiting.append(backlog)

    def _note_turn(self, _: object, error: BaseException | None) -> None:
        self._lost_turn = error
        self._is_turn_written = True

    def _raise_lost_turn(self) -> None:
        error, self._lost_turn = self._lost_turn, None
        if error is not None:
            raise error

    def _drain(
        self, nodes: tuple[Put, ...] = (), *, turn: TurnText | None = None, ending: Ending | None = None
    ) -> Changes | None:
        """Add to a change all that waits; None where that makes nothing."""
        # Before the first `popleft`: a change added during the loop is taken now or requests another round.
        self._is_asked = False
        puts: list[Put] = []
        events: list[Event] = []
        while self._waiting:
            match self._waiting.popleft():
                case Put() as put:
                    puts.append(put)
                case Backlog() as backlog:
                    events += backlog.build(self._keeps)
                case event:
                    events.append(event)
        if not (puts or events or nodes or turn or ending):
            return None
        return self._change((*puts, *nodes), turn=turn, events=self._encode(events), ending=ending)

    def _change(
        self,
        nodes: tuple[Put, ...],
        *,
        turn: TurnText | None = None,
        events: tuple[tuple[int, str], ...] = (),
        take_back: TakeBack | None = None,
        ending: Ending | None = None,
    ) -> Changes:
        return Changes(self._run.number, self._run.run_id, self._token, nodes, turn, events, take_back, ending)

    def _encode(self, events: list[Event]) -> tuple[tuple[int, str], ...]:
        rows: list[tuple[int, str]] = []
        for event in merge(events):
            if self._drops_end and _is_cancelled(event):
                continue
            try:
                rows.append((event.seq, dump_event(event).decode()))
            except ValueError as error:  # the rest must not be lost with it
                self._log.count_lost(None, error)
        return tuple(rows)

    def _keeps(self, kind: type[Event]) -> bool:
        # The last event of a streamed output holds all of it.
        return kind is not OutputPartial and self._log.keeps(kind)


def _is_cancelled(event: Event) -> bool:
    """Return whether this event reports a cancelled run; after a shutdown the run is resumed elsewhere."""
    return isinstance(event, RunFinished) and event.status == "cancelled"
