"""One run in the journal, held by one driver.

All records are in memory from the moment the run is opened, so `lookup` is cheap. Every change names the driver that
wrote it: each opening gives the run a new token, and a driver that was presumed dead and returns finds that its token
is outdated and can't change anything.

A `read` is recorded shortly after it has ended, without waiting. A `write` or `idempotent` node is claimed before it
starts and recorded after it has ended, both durably. A claimed `write` without a record is in doubt.

A claim states a deadline for the start of its call (`START_WITHIN_S`) and for its end (the tool's timeout later). So a
driver that was suspended in between, and wakes when another one has the run, starts nothing; and no other process
settles or repeats the call while it may still be running.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from secrets import token_hex

from flowkit.codec import JSON
from flowkit.errors import CodeChanged, InDoubt, RunBusy, RunError, StoreError
from flowkit.events import Event, EventLog
from flowkit.journal.driver_lease import NO_LEASE, RunLease, lease_until
from flowkit.journal.log import JournalLog
from flowkit.journal.records import (
    Approval,
    Decision,
    NodeEffect,
    NodeState,
    Recorded,
    RecordedTurn,
    Resolution,
    RunState,
    explain_running,
    has_doubt,
)
from flowkit.journal.rows import encode_value, from_text, to_text
from flowkit.journal.run_writing import OWN_WRITE_BYTES, RunWriting
from flowkit.journal.store import Ending, MaybeWritten, Put, TakeBack, Taken, TurnText, WantedRun

START_WITHIN_S = 5.0
"""How long after its claim a call may start; later it is claimed again. No longer than the journal's lease."""
START_WITHIN_AT_LEAST_S = 1.0
"""A shorter lease doesn't shorten it further: where a commit takes longer than it, no call would ever start."""
ASKED = -1
"""Under which number the journal keeps, apart from the turns', what tells the secrets of calls asked about."""
CONVERSATION_RUNS = 1000
"""How many runs of its session a run hears of."""


async def open_run(log: JournalLog, wanted: WantedRun) -> "RunJournal":
    """Take hold of a run; the errors are those of `Journal.open_run`."""
    taken: list[Taken] = []
    try:
        await log.run(lambda: taken.append(log.store.take(wanted)))
    except asyncio.CancelledError:
        # The writer opens the run even so, and without this nothing would release it.
        releasing = asyncio.ensure_future(_release(log, taken))
        while not releasing.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([releasing])
        releasing.result()
        raise
    return RunJournal(log, taken[0], allow_changed=wanted.allow_changed)


async def _release(log: JournalLog, taken: list[Taken]) -> None:
    """Release a run that nothing waits for any more; `taken` holds it once the writer has reached this request."""
    await log.run(lambda: None)
    for run in taken:
        await RunJournal(log, run, allow_changed=False).close()


class RunJournal:
    """A run that this process drives: opened by `Journal.open_run`, released by `finish` or `close`.

    One that `is_over` is read-only: new records are dropped, and nothing can be claimed.
    """

    def __init__(self, log: JournalLog, taken: Taken, *, allow_changed: bool) -> None:
        details = taken.details
        self.run_id = details.summary.run_id
        self.details = details
        self.first_seq = taken.first_seq
        self.is_new = taken.is_new
        self.is_over = taken.token is None
        self.is_shared = log.store.is_shared
        """Whether other machines may have its journal too."""
        self.is_inner = details.summary.parent is not None
        self._log = log
        self._number = details.summary.number
        self._token = taken.token or ""
        self._writing = RunWriting(log, details.summary, self._token)
        self._allow_changed = allow_changed
        self._nodes = dict(details.nodes)
        self._turns: dict[int, RecordedTurn | str] = {turn.turn: turn for turn in details.turns}
        """The turns of this process as JSON text: as objects, each message would be held twice while the run goes on."""
        self._approvals = dict(details.approvals)
        self.kept = taken.kept
        """By turn and call, the arguments with secrets that the messages of an earlier process hide."""
        self._is_held = not self.is_over
        self._position = taken.position
        """That of the node that changed last."""
        self._start_by: dict[str, float] = {}
        """Until when each claimed call has to have started, by this process's clock."""

    @property
    def nodes(self) -> Mapping[str, Recorded]:
        """Every recorded node."""
        return self._nodes

    @property
    def turns(self) -> tuple[RecordedTurn, ...]:
        """The model's messages so far, in order."""
        turns = sorted(self._turns.items())
        return tuple(RecordedTurn(turn, from_text(said)) if isinstance(said, str) else said for turn, said in turns)

    @property
    def approvals(self) -> Mapping[str, Approval]:
        """The approval requests so far, with their decisions."""
        return self._approvals

    @property
    def is_leaving(self) -> bool:
        """Return whether the run is about to be released: a write that started now would be cut off, and be in doubt."""
        return self._log.lets_go(self.details.summary)

    def lookup(self, node: str) -> Recorded | None:
        """Look up the record of this node; None when it has to run."""
        return self._nodes.get(node)

    def retry_failures(self) -> None:
        """Let nodes that failed run again, in a run that has ended and is resumed; a write that failed stays so."""
        failed = [node for node in self._nodes.values() if node.state == "failed" and node.effect != "write"]
        self._nodes |= {node.node: replace(node, state="retry") for node in failed}

    def may_still_run(self, node: str) -> bool:
        """Return whether a call that another process claimed may still be running: then it can't be settled or repeated yet."""
        found = self._nodes.get(node)
        return found is not None and not found.is_ended and found.lease.may_run(self._log.clock)

    async def claim(
        self,
        node: str,
        *,
        tool: str,
        code: str,
        effect: NodeEffect,
        arguments: JSON,
        resources: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> int:
        """Record durably that this node starts now; return its attempt, counted from 1. A `read` isn't recorded.

        Start the call immediately afterwards, if `may_start` still returns True. If an error is raised, it must not
        start:

        - `InDoubt` for a write that may have happened, or a call that may still be running elsewhere.
        - `CodeChanged` for a node that began with other code.
        - `RunBusy` when another driver took over, `StoreError` when the claim can't be written.
        """
        if self.is_over:
            raise RunError(f"run {self.run_id!r} is over ({self.details.summary.status}): nothing of it starts again")
        before = self._nodes.get(node)
        attempt = 1 if before is None else before.attempt + 1
        if before is not None and not before.is_ended:
            self._check_again(before, code)
        if effect == "read":
            return attempt
        record = Recorded(
            node, "claimed", None, None, attempt, effect, arguments, tool, code, resources=tuple(resources)
        )
        try:
            record = await self._write_claim(record, timeout_s)
        except (asyncio.CancelledError, MaybeWritten):
            # It never starts, so it must not be in doubt; the claim is written before this takes it back.
            self._writing.post_alone(take_back=self._take_back(record, before))
            raise
        self._nodes[node] = record
        return attempt

    def may_start(self, node: str) -> bool:
        """Return whether a claimed call may start now; check immediately before it does.

        It is False when this process was suspended so long after the claim that another may drive the run: then
        `reclaim`.
        """
        return node not in self._start_by or self._now() < self._start_by[node]

    async def reclaim(self, node: str, *, timeout_s: float | None = None) -> None:
        """Renew the claim of a node, for a further attempt or when `may_start` is False.

        Raises what `claim` raises: a driver that took over in between has given the run another token.
        """
        claimed = self._nodes.get(node)
        if claimed is not None and claimed.state == "claimed":
            self._nodes[node] = await self._write_claim(claimed, timeout_s)

    async def _write_claim(self, record: Recorded, timeout_s: float | None) -> Recorded:
        clock = self._log.clock
        start_within_s = min(START_WITHIN_S, max(START_WITHIN_AT_LEAST_S, self._log.lease_s))
        start_by = self._now() + start_within_s
        lease = RunLease(self._log.store.holder, *lease_until(clock, start_within_s + (timeout_s or 0.0)))
        record = replace(record, lease=lease)
        await self._writing.write(self._put(record, b"null"), is_durable=True)
        self._start_by[record.node] = start_by
        return record

    def _now(self) -> float:
        """Return the seconds of a clock that runs on while the machine sleeps, where there is one."""
        boot = self._log.clock.boot()
        return self._log.clock.monotonic() if boot is None else boot[1]

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
        is_running: bool = False,
    ) -> None:
        """Record how a node ended: durably for a `write` or `idempotent` one, soon and without waiting for a `read`.

        Fields of the claim are kept unless they are passed again. Its lease is kept, too, if the call still
        `is_running` in an abandoned thread. Raises `ToolResultError` for a value that isn't JSON, `RunBusy` when
        another driver took over, `StoreError` when the record can't be written.
        """
        record = Recorded(node, state, value, error, attempt, effect, arguments, tool, code)
        if effect == "read":
            self.post_read(record)
            return
        data = encode_value(value, node)
        if self.is_over:
            return
        record = self._add_claimed(record, is_running=is_running)
        await self._writing.write(self._put(record, data), is_durable=True)
        self._nodes[node] = record

    def post_read(self, record: Recorded) -> None:
        """Record a read that has ended, soon and without waiting; raises `ToolResultError` if its value isn't JSON."""
        data = encode_value(record.value, record.node)
        if self.is_over:
            return
        put = self._put(record := self._add_claimed(record), data)
        if len(data) > OWN_WRITE_BYTES:
            self._writing.post_alone(nodes=(put,))
        else:
            self._writing.post(put)
        self._nodes[record.node] = record

    def _add_claimed(self, record: Recorded, *, is_running: bool = False) -> Recorded:
        """Add the fields of its claim that are not passed again."""
        before = self._nodes.get(record.node)
        if before is None:
            return record
        return replace(
            record,
            arguments=before.arguments if record.arguments is None else record.arguments,
            tool=record.tool or before.tool,
            code=record.code or before.code,
            resources=before.resources,
            lease=before.lease if is_running else NO_LEASE,
        )

    async def record_turn(
        self, turn: int, message: JSON, reads: Sequence[Recorded] = (), *, kept: Mapping[str, str] | None = None
    ) -> None:
        """Record a model's message and the reads that finished during it, in one transaction, and wait for it.

        `kept` are the arguments, by call, that the message hides; they go when the run is over.
        """
        await self.wait_turn()
        self.post_turn(turn, message, reads, kept=kept)
        await self.wait_turn()

    def post_turn(
        self, turn: int, message: JSON, reads: Sequence[Recorded] = (), *, kept: Mapping[str, str] | None = None
    ) -> None:
        """Record a turn as `record_turn` does, soon and without waiting.

        Its calls may start: their claims wait for the disk, and write this turn with them. An error is raised by the
        next write, or by `wait_turn`.
        """
        if self.is_over:
            return
        said = to_text(message)
        text = TurnText(turn, said, to_text(dict(kept)) if kept else None)
        nodes = tuple(self._put(read, encode_value(read.value, read.node)) for read in reads)
        self._writing.post_turn(text, nodes)
        self._turns[turn] = said
        self._nodes.update((read.node, read) for read in reads)

    async def wait_turn(self) -> None:
        """Wait until the last turn is written; raises its error, once."""
        await self._writing.wait_turn()

    async def ask(
        self,
        node: str,
        *,
        name: str,
        arguments: JSON,
        anew: bool = False,
        hash_secrets: Callable[[bytes], str] | None = None,
    ) -> Decision | None:
        """Record a request for a person's decision; return the decision that exists for exactly these arguments.

        `anew` discards an earlier decision. `hash_secrets` hashes the hidden arguments with a key, so that requests
        that differ only in their secrets are distinguished.
        """
        hashed: str | None = None
        if hash_secrets is not None:
            before = self.kept.get(ASKED, {}).get(node)
            key = token_hex(16) if before is None else before.partition(":")[0]
            hashed = f"{key}:{hash_secrets(bytes.fromhex(key))}"
            anew = anew or hashed != before
        question = Approval(node, name, arguments, self._log.clock.wall())
        store, where = self._log.store, (self._number, self.run_id, self._token)
        self._approvals = await self._log.run(lambda: store.ask(*where, question, anew=anew))
        if hashed is not None and anew:
            # After the question: a decision without this counts no more, one beside that of before would.
            asked = {**self.kept.get(ASKED, {}), node: hashed}
            self.kept = {**self.kept, ASKED: asked}
            await self._writing.write(turn=TurnText(ASKED, None, to_text(dict(asked))))
        return self._approvals[node].decision

    async def decide(
        self, node: str, *, approved: bool, by: str | None = None, reason: str = "", arguments: JSON = None
    ) -> Decision:
        """Record a decision made in this process; an earlier decision is kept, and returned."""
        decision = Decision(approved, by, self._log.clock.wall(), reason, arguments)
        await self._log.run(lambda: self._log.store.decide(self._number, node, decision))
        approval = (await self.refresh()).get(node)
        return decision if approval is None or approval.decision is None else approval.decision

    async def refresh(self) -> Mapping[str, Approval]:
        """Look for decisions that were made in other processes."""
        self._approvals = await self._log.run(lambda: self._log.store.approvals(self._number))
        return self._approvals

    async def resolve(self, node: str, resolution: Resolution, *, by: str = "probe") -> Recorded:
        """Settle a node in doubt, durably: it happened, it didn't and may run again, or it counts as failed."""
        before = self._nodes.get(node)
        if before is None or before.state not in ("in_doubt", "claimed"):
            raise RunError(f"run {self.run_id!r}: {node!r} isn't in doubt")
        self._refuse_running(before)
        record = before.settle(resolution, by)
        data = encode_value(record.value, node)
        await self._writing.write(self._put(record, data), is_durable=True)
        self._nodes[node] = record
        return record

    async def has_doubt(self) -> bool:
        """Return whether a call of this run is in doubt, or one of a run that its calls started, in any process."""
        if self.is_new or self.is_over or has_doubt(self._nodes):
            return has_doubt(self._nodes)
        return await self._log.run(lambda: self._log.store.has_doubt_inside(self._number))

    def follow(self, log: EventLog) -> None:
        """Write the events of this log soon, those that it has and those that come; pieces of one text are joined."""
        if not self.is_over:
            self._writing.follow(log)

    def append_event(self, event: Event) -> None:
        """Write an event soon; neighbouring pieces of text are joined. From the loop's thread, never waits."""
        if not self.is_over:
            self._writing.append_event(event)

    async def conversation(self) -> list[JSON]:
        """Return the session's messages from before this run, oldest first."""
        summary, store = self.details.summary, self._log.store
        if summary.session is None:
            return []
        session, user = summary.session, summary.user
        return await self._log.run(lambda: store.conversation(session, user, self._number, CONVERSATION_RUNS))

    async def open_inside(
        self, run_id: str, *, name: str, code: str = "", inputs: JSON = None, kept: Mapping[str, str] | None = None
    ) -> "RunJournal":
        """Start or resume the run of this id that a call of this run makes; the errors are those of `open_run`.

        Its messages don't become part of the session's conversation.
        """
        summary = self.details.summary
        wanted = WantedRun(run_id, name, code, inputs, summary.user, summary.session, self._allow_changed)
        return await open_run(self._log, replace(wanted, parent=self._number, ignores_inputs=True, kept=kept))

    async def finish(
        self, status: RunState, output: JSON = None, error: str | None = None, messages: Sequence[JSON] = ()
    ) -> None:
        """Record how the run ended, with the messages that it adds to its session, and release it.

        A run cancelled by the shutdown of its process hasn't ended: another process resumes it. A `queued` run hasn't
        started: the next process that finds it drives it.
        """
        if self.is_over:
            return
        if self.is_leaving and status == "cancelled":
            await self.close()
            return
        await self._write_last(Ending(status, to_text(output), error, to_text(list(messages))))
        self._is_held = False

    async def close(self) -> None:
        """Release the run without ending it; harmless after `finish`, or when another driver took over."""
        if not self._is_held:
            return
        self._is_held = False
        with suppress(RunBusy):
            await self._write_last(Ending())

    async def _write_last(self, ending: Ending) -> None:
        """Release the run even where that can't be written: once the disk has room, it can be resumed."""
        try:
            await self._writing.write(ending=ending)
        except StoreError:
            self._log.held.let_go(self._number, self._token, is_written=False)
            raise
        finally:
            self._writing.unfollow()
            self._log.held.let_go(self._number, self._token)

    def _check_again(self, before: Recorded, code: str) -> None:
        self._refuse_running(before)
        if before.state == "in_doubt" or (before.state == "claimed" and before.effect == "write"):
            raise InDoubt(f"run {self.run_id!r}: {before.node!r} may have happened; resolve it first")
        if before.code != code and not self._allow_changed:
            raise CodeChanged(f"run {self.run_id!r}: {before.node!r} began with other code of {before.tool!r}")

    def _refuse_running(self, before: Recorded) -> None:
        if before.lease.may_run(self._log.clock):
            raise InDoubt(f"run {self.run_id!r}: {explain_running(before)}")

    def _put(self, record: Recorded, data: bytes) -> Put:
        self._position += 1
        return Put(record, data, self._position)

    def _take_back(self, claimed: Recorded, before: Recorded | None) -> TakeBack:
        put = None if before is None else self._put(before, encode_value(before.value, before.node))
        return TakeBack(claimed.node, claimed.attempt, put)
