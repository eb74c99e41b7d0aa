"""A run from its start to its end: what it takes hold of, how it ends, and the result that always comes.

Whatever ends it, a limit, a cancellation, a broken stream, the messages are valid for a next request: each call has
one result, except those that wait for a person, which decisions or a new message settle later.
"""

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any, Generic, TypeVar

from flowkit import events
from flowkit.agent.carried_outcomes import unload
from flowkit.agent.limits import METER, LimitReached, Meter
from flowkit.agent.rounds import Rounds, Stopped
from flowkit.agent.run import AgentResult, Decision, Given, Plan
from flowkit.agent.run_record import RunRecord
from flowkit.agent.tool_messages import make_tips
from flowkit.agent.turn_tools import TurnTools
from flowkit.context import Context
from flowkit.errors import FlowkitError, RunError, StoreError
from flowkit.events import EventLog, RunStatus
from flowkit.executor import Executor
from flowkit.history import unanswered
from flowkit.journal import Journal
from flowkit.messages import text_of

OutputT = TypeVar("OutputT")


class Driver(Generic[OutputT]):
    """Drives one run; lives as long as its task."""

    def __init__(self, plan: Plan[OutputT], log: EventLog, context: Context[Any], given: Given) -> None:
        self._plan = plan
        self._log = log
        self._context = context
        # Without a decision a history may be anybody's, a browser's above all, and what is needed isn't theirs to say.
        self._given = given if given.decisions else replace(given, history=unload(given.history)[0])
        self._meter = Meter(plan.limits, METER.get())
        self._record = RunRecord(None, log)
        self._rounds: Rounds[OutputT] | None = None
        """None until the run has taken hold of its journal, and for good when it can't."""

    def decide(self, call: str, decision: Decision) -> None:
        """Answer a call that waits; raises `KeyError` when it doesn't."""
        if self._rounds is None:
            raise KeyError("the run has not begun")
        self._rounds.graph.decide(call, decision)

    async def drive(self) -> AgentResult[OutputT]:
        """Run to the end; every way to end is a status, and the result always comes."""
        METER.set(self._meter)
        plan = self._plan
        status: RunStatus = "failed"
        error: FlowkitError | None = None
        limit = asyncio.timeout(plan.limits.seconds)
        try:
            self._meter.check_priced(plan.model)
            rounds = self._rounds = await self._begin()
            user, session = self._context.user, self._context.session
            self._log.emit(events.RunStarted, plan.name, plan.model.name, user, session)
            async with limit, rounds.graph, rounds.prefetching:
                await rounds.go()
            status = "done"
        except Stopped as stopped:
            status, error = stopped.status, stopped.error
        except LimitReached as reached:
            status, error = "limit", reached
        except asyncio.CancelledError:
            status = "cancelled"
        except FlowkitError as failure:
            error = failure
        except BaseException as failure:
            if not (isinstance(failure, TimeoutError) and limit.expired()):
                # An error of the user's own functions (instructions, hooks, sources of tools): theirs to see.
                await self._end("failed", RunError(f"{type(failure).__name__}: {failure}"))
                raise
            status, error = "limit", LimitReached(f"the limit of {plan.limits.seconds} seconds is reached")
        return await self._end(status, error)

    async def _begin(self) -> Rounds[OutputT]:
        """Take hold of the run, and read what there is of it."""
        plan, given = self._plan, self._given
        if plan.journal is not None:
            given = await self._open_record(plan.journal)
        history, ended = unload(given.history)
        given = replace(given, history=history)
        context = self._context
        tools = TurnTools(plan.tools, context)
        self._record.tools = tools
        graph = Executor(
            tools,
            self._log,
            data=context.data,
            identity=context.identity,
            cache=plan.cache,
            journal=self._record.journal,
            past=ended,
            slots=plan.slots,
        )
        return Rounds(plan, self._log, context, given, graph, tools, self._meter, self._record)

    async def _open_record(self, journal: Journal) -> Given:
        """Start or go on with the run in its journal; gives what it began with, its session's conversation included."""
        context, given = self._context, self._given
        held = await journal.open_run(
            context.run_id,
            name=self._plan.name,
            inputs=given.to_json(),
            user=context.user,
            session=context.session,
            allow_changed=self._plan.allow_changed,
            must_exist=given.message is None and not unanswered(given.history),
            ignores_inputs=True,
        )
        self._record = RunRecord(held, self._log)
        began = replace(Given.from_json(held.inputs), decisions=given.decisions)
        session = held.details.summary.session
        if session is not None and not began.history:
            # Read, not kept with each run: a long conversation would be stored as often as something is said in it.
            began = replace(began, history=Given.read_messages(await held.conversation()))
        if not held.is_new and given.message not in (None, began.message):
            await held.close()
            self._record = RunRecord(None, self._log)
            raise RunError(f"run {context.run_id!r} began with another message; give none to go on with it")
        # A run that goes on is the one that it was, whatever its starter knew of it.
        self._context = replace(context, session=session, message=text_of(began.message))
        return began

    async def _end(self, status: RunStatus, error: FlowkitError | None) -> AgentResult[OutputT]:
        """Finish, whoever stops the run meanwhile: its last words are few, and its result always comes."""
        ending = asyncio.ensure_future(self._finish(status, error))
        while not ending.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(ending)
        return ending.result()

    async def _finish(self, status: RunStatus, error: FlowkitError | None) -> AgentResult[OutputT]:
        if self._rounds is None:
            result = self._refuse(status, error)
        else:
            result = await self._finish_rounds(self._rounds, status, error)
        if result.error is not None:
            result.error.result = result
        return result

    def _refuse(self, status: RunStatus, error: FlowkitError | None) -> AgentResult[OutputT]:
        """The end of a run that never began."""
        self._log.emit(events.RunFinished, status, None, None if error is None else str(error))
        meter, run_id = self._meter, self._context.run_id
        return AgentResult(None, "", (), (), meter.usage, meter.cost_usd, status, (), error, run_id)

    async def _finish_rounds(
        self, rounds: Rounds[OutputT], status: RunStatus, error: FlowkitError | None
    ) -> AgentResult[OutputT]:
        rounds.settle()
        outcomes = rounds.graph.outcomes
        if status in ("cancelled", "limit", "failed") and any(o.state == "in_doubt" for o in outcomes.values()):
            status = "in_doubt"
        output = None if rounds.output is None else self._plan.output.dump(rounds.output)
        said = None if error is None else str(error)
        tips = tuple(make_tips(rounds.tools.now, outcomes, rounds.ready_s))
        self._log.emit(events.RunFinished, status, output, said, tips)
        try:
            await self._record.write_spent(self._meter.usage, self._meter.cost_usd)
            await self._record.finish(status, output, said, rounds.added)
        except (RunError, StoreError) as lost:
            # Another process took the run over, or the disk is full: what the journal doesn't know hasn't happened.
            status, error = "failed", error or lost
        return AgentResult(
            output=rounds.output if status == "done" else None,
            text=rounds.text,
            messages=tuple(rounds.messages),
            calls=tuple(outcomes.values()),
            usage=self._meter.usage,
            cost=self._meter.cost_usd,
            status=status,
            pending=rounds.calls.pending,
            error=error,
            run_id=self._context.run_id,
            prefetched=rounds.prefetching.count(outcomes),
            tips=tips,
        )
