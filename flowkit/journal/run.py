"""One run in the journal, held by one driver.

What was recorded is in memory from the moment the run is opened, so `lookup` costs nothing. Everything written says
which driver wrote it: each opening raises the run's fence, and a driver that was thought dead and comes back finds
that its fence is no longer the run's and can change nothing.

A node's way: a `read` is recorded when it has ended, soon and without waiting. A `write` or `idempotent` node is
claimed before it starts and recorded when it has ended, each durably. A claimed `write` that was never recorded is in
doubt.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from flowkit.codec import JSON
from flowkit.errors import CodeChanged, InDoubt, RunBusy, RunError
from flowkit.events import Event, RunFinished, RunStatus, merge
from flowkit.journal.log import JournalLog
from flowkit.journal.records import (
    Approval,
    Decision,
    NodeEffect,
    NodeState,
    Recorded,
    RecordedTurn,
    Resolution,
    RunDetails,
)
from flowkit.journal.rows import encode_value, read_approvals, to_text, write_decision, write_node


class RunJournal:
    """A run that this process drives; `Journal.open_run` makes it, `finish` or `close` lets go of it."""

    def __init__(
        self, log: JournalLog, details: RunDetails, fence: int, first_seq: int, *, allow_changed: bool
    ) -> None:
        self.run_id = details.summary.run_id
        self.details = details
        self.first_seq = first_seq
        self._log = log
        self._fence = fence
        self._allow_changed = allow_changed
        self._nodes = dict(details.nodes)
        self._turns = {turn.turn: turn for turn in details.turns}
        self._approvals = dict(details.approvals)
        self._events: deque[Event] = deque()
        self._is_writing_events = False
        self._is_held = True

    @property
    def inputs(self) -> JSON:
        """What the run began with."""
        return self.details.inputs

    @property
    def nodes(self) -> Mapping[str, Recorded]:
        """Every recorded node."""
        return self._nodes

    @property
    def turns(self) -> tuple[RecordedTurn, ...]:
        """The model's messages so far, in order."""
        return tuple(self._turns[turn] for turn in sorted(self._turns))

    @property
    def approvals(self) -> Mapping[str, Approval]:
        """What was asked so far, with what was decided."""
        return self._approvals

    def lookup(self, node: str) -> Recorded | None:
        """What was recorded for this node; None when it has to run."""
        return self._nodes.get(node)

    async def claim(
        self,
        node: str,
        *,
        tool: str,
        code: str,
        effect: NodeEffect,
        arguments: JSON,
        resources: Sequence[str] = (),
    ) -> int:
        """Say durably that this node starts now; returns its attempt, counted from 1. A `read` isn't written down.

        Raises `InDoubt` for a write that may have happened, `CodeChanged` for a node that began with other code,
        `RunBusy` when another driver took over, `StoreError` when it can't be written: then it must not start.
        """
        before = self._nodes.get(node)
        attempt = 1 if before is None else before.attempt + 1
        if before is not None and not before.is_ended:
            self._check_again(before, code)
        if effect == "read":
            return attempt
        record = Recorded(
            node,
            "claimed",
            attempt=attempt,
            effect=effect,
            arguments=arguments,
            tool=tool,
            code=code,
            resources=tuple(resources),
        )
        try:
            await self._log.write(lambda connection: self._put(connection, record, b"null"), is_durable=True)
        except asyncio.CancelledError:
            # It never starts, so it must not be in doubt; the claim is written before this takes it back.
            self._log.post(lambda connection: self._take_back(connection, record, before))
            raise
        self._nodes[node] = record
        return attempt

    async def record(
        self,
        node: str,
        *,
        state: NodeState,
        value: JSON = None,
        error: str | None = None,
        effect: NodeEffect,
        attempt: int = 1,
        arguments: JSON = None,
        tool: str = "",
        code: str = "",
    ) -> None:
        """Write down how a node ended: durably for a `write` or `idempotent` one, soon and unwaited for a `read`.

        What the claim said stays unless it is given anew. Raises `ToolResultError` for a value that isn't JSON,
        `RunBusy` when another driver took over, `StoreError` when it can't be written.
        """
        data = encode_value(value, node)
        before = self._nodes.get(node)
        resources = ()
        if before is not None:
            arguments = before.arguments if arguments is None else arguments
            tool, code, resources = tool or before.tool, code or before.code, before.resources
        record = Recorded(node, state, value, error, attempt, effect, arguments, tool, code, resources=resources)
        if effect == "read":
            self._log.post(lambda connection: self._put(connection, record, data))
        else:
            await self._log.write(lambda connection: self._put(connection, record, data), is_durable=True)
        self._nodes[node] = record

    async def record_turn(self, turn: int, message: JSON, reads: Sequence[Recorded] = ()) -> None:
        """Write down a model's message and the reads that ended while it spoke, in one transaction.

        Its other calls start after this: their claims are durable, and take this along.
        """
        text = to_text(message)
        encoded = [(read, encode_value(read.value, read.node)) for read in reads]

        def write(connection: sqlite3.Connection) -> None:
            self._check_fence(connection)
            for read, data in encoded:
                self._put(connection, read, data)
            connection.execute("INSERT OR REPLACE INTO turn VALUES (?, ?, ?)", (self.run_id, turn, text))

        await self._log.write(write)
        self._turns[turn] = RecordedTurn(turn, message)
        self._nodes.update((read.node, read) for read in reads)

    async def ask(self, node: str, *, name: str, arguments: JSON, anew: bool = False) -> Decision | None:
        """Write down that a person has to decide; returns what was decided already on exactly these arguments.

        Asked `anew`, what was decided counts no more.
        """

        def write(connection: sqlite3.Connection) -> dict[str, Approval]:
            self._check_fence(connection)
            found = read_approvals(connection, self.run_id).get(node)
            if anew or found is None or found.arguments != arguments or found.name != name:
                connection.execute(
                    "INSERT OR REPLACE INTO approval (run_id, node, name, arguments, asked) VALUES (?, ?, ?, ?, ?)",
                    (self.run_id, node, name, to_text(arguments), self._log.clock.wall()),
                )
            return read_approvals(connection, self.run_id)

        self._approvals = await self._log.write(write)
        return self._approvals[node].decision

    async def decide(
        self, node: str, *, approved: bool, by: str | None = None, reason: str = "", arguments: JSON = None
    ) -> Decision:
        """Write down a decision made in this process; one that was made before stands, and is returned."""
        decision = Decision(approved, by, self._log.clock.wall(), reason, arguments)
        await self._log.write(lambda connection: write_decision(connection, self.run_id, node, decision))
        await self.refresh()
        approval = self._approvals.get(node)
        return decision if approval is None or approval.decision is None else approval.decision

    async def refresh(self) -> Mapping[str, Approval]:
        """Look for decisions that were made in other processes."""
        self._approvals = await self._log.write(lambda connection: read_approvals(connection, self.run_id))
        return self._approvals

    async def resolve(self, node: str, resolution: Resolution, *, by: str = "probe") -> Recorded:
        """Settle a node in doubt, durably: it happened, it didn't and may run again, or it counts as failed."""
        before = self._nodes.get(node)
        if before is None or before.state not in ("in_doubt", "claimed"):
            raise RunError(f"run {self.run_id!r}: {node!r} isn't in doubt")
        record = before.settle(resolution, by)
        data = encode_value(record.value, node)
        await self._log.write(lambda connection: self._put(connection, record, data), is_durable=True)
        self._nodes[node] = record
        return record

    def append_event(self, event: Event) -> None:
        """Write an event soon; neighbouring pieces of text are joined. From the loop's thread, never waits."""
        if self._log.is_leaving and isinstance(event, RunFinished) and event.status == "cancelled":
            return  # it hasn't finished: see `finish`
        self._events.append(event)
        if not self._is_writing_events:
            self._is_writing_events = True
            self._log.post(self._write_events)

    async def finish(
        self, status: RunStatus, output: JSON = None, error: str | None = None, messages: Sequence[JSON] = ()
    ) -> None:
        """Write down how the run ended, with the messages that it adds to its session, and let go of it.

        One that is cancelled because its process leaves hasn't ended: another goes on with it.
        """
        if self._log.is_leaving and status == "cancelled":
            await self.close()
            return
        texts = (to_text(output), to_text(list(messages)))

        def write(connection: sqlite3.Connection) -> None:
            self._write_events(connection)
            self._check_fence(connection)
            connection.execute(
                "UPDATE run SET status = ?, output = ?, error = ?, messages = ?, changed = ?, holder = NULL"
                " WHERE run_id = ?",
                (status, texts[0], error, texts[1], self._log.clock.wall(), self.run_id),
            )

        await self._write_last(write)
        self._is_held = False

    async def close(self) -> None:
        """Let go of the run without ending it; harmless after `finish`, or when another driver took over."""
        if not self._is_held:
            return
        self._is_held = False

        def write(connection: sqlite3.Connection) -> None:
            self._write_events(connection)
            connection.execute(
                "UPDATE run SET holder = NULL, changed = ? WHERE run_id = ? AND fence = ?",
                (self._log.clock.wall(), self.run_id, self._fence),
            )

        await self._write_last(write)

    async def _write_last(self, write: Callable[[sqlite3.Connection], None]) -> None:
        """Let go of the run also where that can't be written: who frees the disk goes on with it."""
        try:
            await self._log.write(write)
        finally:
            self._log.let_go(self.run_id, self._fence)

    def _check_again(self, before: Recorded, code: str) -> None:
        if before.state == "in_doubt" or (before.state == "claimed" and before.effect == "write"):
            raise InDoubt(f"run {self.run_id!r}: {before.node!r} may have happened; resolve it first")
        if before.code != code and not self._allow_changed:
            raise CodeChanged(f"run {self.run_id!r}: {before.node!r} began with other code of {before.tool!r}")

    def _put(self, connection: sqlite3.Connection, record: Recorded, data: bytes) -> None:
        self._check_fence(connection)
        write_node(connection, self.run_id, record, data, self._log.blobs, self._log.clock)

    def _take_back(self, connection: sqlite3.Connection, claimed: Recorded, before: Recorded | None) -> None:
        self._check_fence(connection)
        where = (self.run_id, claimed.node, claimed.attempt)
        connection.execute(
            "DELETE FROM node WHERE run_id = ? AND node = ? AND attempt = ? AND state = 'claimed'", where
        )
        if before is not None and connection.execute("SELECT changes()").fetchone()[0]:
            self._put(connection, before, encode_value(before.value, before.node))

    def _check_fence(self, connection: sqlite3.Connection) -> None:
        row = connection.execute("SELECT fence FROM run WHERE run_id = ?", (self.run_id,)).fetchone()
        if row is None or row[0] != self._fence:
            raise RunBusy(f"run {self.run_id!r}: another process took over; nothing more is recorded from here")

    def _write_events(self, connection: sqlite3.Connection) -> None:
        # Before the first `popleft`: an event that comes during it is written now or asks for another job.
        self._is_writing_events = False
        events: list[Event] = []
        while self._events:
            events.append(self._events.popleft())
        if not events:
            return
        self._check_fence(connection)
        connection.executemany(
            "INSERT OR REPLACE INTO event VALUES (?, ?, ?)",
            [(self.run_id, event.seq, to_text(event.to_json())) for event in merge(events)],
        )
