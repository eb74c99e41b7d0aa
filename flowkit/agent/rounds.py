"""The rounds of model and tools, from a message to an answer.

Whatever ends them, a limit, a cancellation, a broken stream, the messages are valid for a next request: each call has
one result, except those that wait for a person, which decisions or a new message settle later. With a journal a turn
is written down before its effects start; a run that goes on puts its turns back, and the graph gives what is recorded.
"""

import asyncio
import random
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from inspect import isawaitable
from typing import Any, Generic, TypeVar

from flowkit import events
from flowkit.agent.answers import check_prefetch, count_asked, find_tool, make_tips
from flowkit.agent.limits import METER, LimitReached, Meter
from flowkit.agent.open_calls import OpenCalls
from flowkit.agent.outputs import OutputInvalid
from flowkit.agent.run import AgentResult, Decision, Given, Plan
from flowkit.agent.run_record import PastTurn, RunRecord
from flowkit.agent.turn import Attempt, FinishedAttempt
from flowkit.context import Context
from flowkit.errors import FlowkitError, ModelError, RunError, StoreError
from flowkit.events import EventLog, RunStatus
from flowkit.executor import Executor, Outcome
from flowkit.history import NOT_RUN, call_ids, count_turns, mend, rename_calls, unanswered
from flowkit.journal import Journal
from flowkit.messages import AssistantMessage, Message, SystemMessage, UserMessage, text_of
from flowkit.models.base import ModelRequest, ToolChoice
from flowkit.models.routing import name_answerer
from flowkit.references import ToolCall
from flowkit.tools import Tool, tool
from flowkit.tools.reading import LongResults
from flowkit.tools.toolsets import Toolset

OutputT = TypeVar("OutputT")

LONGEST_WAIT_S = 60.0
"""A server that asks to wait longer than this before the next attempt ends the run instead."""


class _Stopped(Exception):
    """The rounds can't go on by themselves; `status` says why."""

    def __init__(self, status: RunStatus, error: FlowkitError | None = None) -> None:
        self.status: RunStatus = status
        self.error = error


class Rounds(Generic[OutputT]):
    """Drives one run; lives as long as its task."""

    def __init__(self, plan: Plan[OutputT], log: EventLog, context: Context[Any], given: Given) -> None:
        self._plan = plan
        self._log = log
        self._context = context
        self._given = given
        self._messages: list[Message] = []
        self._kept = 0
        self._meter = Meter(plan.limits, METER.get())
        self._turn = 0
        self._tools: Toolset = plan.tools
        self._ready_s: dict[str, float] = {}
        self._prefetched: list[str] = []
        self._dropped: list[str] = []
        self._output: OutputT | None = None
        self._text = ""
        self._long = LongResults()
        self._record = RunRecord(None, log)
        self._executor: Executor | None = None
        self._open: OpenCalls | None = None

    def get(self, name: str) -> Tool[..., Any] | None:
        """The tool of this name, also one that is only needed by another."""
        return find_tool(self._tools, name)

    def decide(self, call: str, decision: Decision) -> None:
        """Answer a call that waits; raises `KeyError` when it doesn't."""
        self._graph.decide(call, decision)

    @property
    def _graph(self) -> Executor:
        if self._executor is None:
            raise KeyError("the run has not begun")
        return self._executor

    @property
    def _calls(self) -> OpenCalls:
        assert self._open is not None, "calls are opened after the run has begun"
        return self._open

    async def drive(self) -> AgentResult[OutputT]:
        """Run to the end; every way to end is a status, and the result always comes."""
        METER.set(self._meter)
        plan = self._plan
        status: RunStatus = "failed"
        error: FlowkitError | None = None
        limit = asyncio.timeout(plan.limits.seconds)
        try:
            self._meter.check_priced(plan.model)
            await self._begin()
            user, session = self._context.user, self._context.session
            self._log.emit(events.RunStarted, plan.name, plan.model.name, user, session)
            async with limit, self._graph:
                await self._go()
            status = "done"
        except _Stopped as stopped:
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

    async def _end(self, status: RunStatus, error: FlowkitError | None) -> AgentResult[OutputT]:
        """Finish, whoever stops the run meanwhile: its last words are few, and its result always comes."""
        ending = asyncio.ensure_future(self._finish(status, error))
        while not ending.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(ending)
        return ending.result()

    async def _begin(self) -> None:
        """Take hold of the run, and read what there is of it."""
        plan, given = self._plan, self._given
        if plan.journal is not None:
            given = self._given = await self._open_record(plan.journal)
        context = self._context
        self._messages = list(given.history if given.message is None else mend(given.history))
        self._kept = len(self._messages)
        if given.message is not None:
            self._messages.append(UserMessage(given.message))
        self._turn = count_turns(self._messages)
        self._executor = Executor(
            self,
            self._log,
            data=context.data,
            user=context.user,
            session=context.session,
            run_id=context.run_id,
            cache=plan.cache,
            journal=self._record.journal,
            slots=plan.slots,
        )
        self._open = OpenCalls(self._executor, given.decisions, self._long, keeps_ids=self._record.journal is not None)

    async def _open_record(self, journal: Journal) -> Given:
        """Start or go on with the run in its journal; gives what it began with, its session's conversation included."""
        context, given = self._context, self._given
        is_known = journal.show(context.run_id) is not None
        if not is_known and given.message is None and not unanswered(given.history):
            raise RunError(f"there is no run {context.run_id!r} to go on with; give a message to start it")
        held = await journal.open_run(
            context.run_id,
            name=self._plan.name,
            inputs=None if is_known else given.to_json(),
            user=context.user,
            session=context.session,
            allow_changed=self._plan.allow_changed,
        )
        self._record = RunRecord(held, self._log)
        began = replace(Given.from_json(held.inputs), decisions=given.decisions)
        session = held.details.summary.session
        if session is not None and not began.history:
            # Read, not kept with each run: a long conversation would be stored as often as something is said in it.
            said = journal.conversation(session, user=context.user, before=held.run_id)
            began = replace(began, history=Given.read_messages(said))
        if is_known and given.message not in (None, began.message):
            await held.close()
            self._record = RunRecord(None, self._log)
            raise RunError(f"run {context.run_id!r} began with another message; give none to go on with it")
        # A run that goes on is the one that it was, whatever its starter knew of it.
        self._context = replace(context, session=session, message=text_of(began.message))
        return began

    async def _go(self) -> None:
        self._tools = await self._tools_now()
        if not await self._go_on():
            return
        invalid = 0
        while True:
            self._meter.check()
            finished = await self._take_turn()
            if finished.message.calls:
                await self._answer_calls()
                continue
            self._end_turn()
            problem = self._read_output(finished.message, finished.turn.reason)
            if problem is None:
                return
            invalid += 1
            if invalid >= self._plan.output_attempts:
                raise ModelError(f"no valid output after {invalid} answers: {problem}") from problem
            self._messages.append(UserMessage(str(problem)))

    async def _go_on(self) -> bool:
        """Put back what was there before this process, or this message; False when that was all."""
        past = tuple(self._record.turns)
        if past:
            self._meter.usage, self._meter.cost_usd = past[-1].spent, past[-1].cost_usd
        if not past and self._given.message is None:
            self._restore({call.id for call in unanswered(self._messages)})
            await self._answer_calls()
        elif not past:
            await self._start_prefetched()
        for turn in past:
            self._turn = turn.turn
            self._meter.turns += 1
            self._text = turn.message.text or turn.message.refusal
            if not turn.message.is_empty:
                self._messages.append(turn.message)
            if turn.message.calls:
                # Tools come and go between turns: the one that reads long results on, for one.
                self._tools = await self._tools_now()
                self._restore({call.id for call in turn.message.calls}, turn.nodes)
                self._meter.calls += len(turn.nodes)
                await self._answer_calls()
            else:
                problem = self._read_output(turn.message, turn.reason)
                if problem is None:
                    return False
                self._messages.append(UserMessage(str(problem)))
        return True

    def _read_output(self, message: AssistantMessage, reason: str) -> OutputInvalid | None:
        """Take the answer as the run's output; gives what is wrong with it."""
        if reason == "length":
            raise LimitReached("the model's answer was cut off at its limit of tokens")
        if reason == "content_filter":
            raise ModelError("the server's content filter ended the answer")
        output = self._plan.output
        if output.schema is not None and message.refusal and not message.text:
            # Asked again, it would refuse again.
            raise ModelError(f"the model refused to answer: {message.refusal}")
        try:
            self._output = output.read(message.text or message.refusal)
        except OutputInvalid as problem:
            return problem
        return None

    async def _take_turn(self) -> FinishedAttempt:
        """One answer of the model, after as many attempts as it takes; its calls are started when this returns."""
        self._tools = await self._tools_now()
        turn = self._turn + 1
        attempt = 1
        while True:
            prefix = self._record.prefix(turn, attempt)
            reader, finished = await self._attempt(turn, attempt, prefix)
            cost = self._meter.add(self._plan.model, finished.usage, broke_off=finished.error is not None)
            self._log.emit(events.UsageReported, turn, finished.usage, cost)
            if finished.error is None:
                break
            self._dropped += reader.drop(str(finished.error))
            answerer = name_answerer(self._plan.model, finished.message)
            self._log.emit(events.TurnFinished, turn, "error", str(finished.error), answerer)
            if attempt >= self._plan.attempts or not finished.error.retryable:
                raise finished.error
            await asyncio.sleep(_delay_s(finished.error, attempt))
            attempt += 1
        self._turn = turn
        self._meter.turns += 1
        self._meter.calls += len(finished.nodes)
        self._ready_s |= finished.ready_s
        self._text = finished.message.text or finished.message.refusal
        if not finished.message.is_empty:
            self._messages.append(finished.message)
        self._calls.open(dict(zip(finished.nodes, finished.message.calls, strict=True)), finished.message)
        answerer = name_answerer(self._plan.model, finished.message)
        self._log.emit(events.TurnFinished, turn, finished.turn.reason, None, answerer)
        spent = (self._meter.usage, self._meter.cost_usd)
        await self._record.write_turn(PastTurn(turn, finished.message, finished.nodes, finished.turn.reason, *spent))
        reader.release()
        return finished

    async def _attempt(self, turn: int, attempt: int, prefix: str) -> tuple[Attempt, FinishedAttempt]:
        model = self._plan.model
        request = await self._request(turn, attempt)
        self._log.emit(events.TurnStarted, turn, model.name, attempt)
        reader = self._reader(turn, prefix)
        error: ModelError | None = None
        is_read = False
        try:
            async with model.stream(request) as deltas:
                async for delta in deltas:
                    reader.feed(delta)
            is_read = True
        except ModelError as broken:
            error, is_read = broken, True
        finally:
            if not is_read:
                # Stopped in the middle: what was said stays, what was being asked for is void.
                self._text = reader.end(ModelError("the run was stopped")).message.text
                reader.drop("the run was stopped")
                if self._text:
                    self._messages.append(AssistantMessage(self._text))
        return reader, reader.end(error)

    def _reader(self, turn: int, prefix: str) -> Attempt:
        plan = self._plan
        return Attempt(
            self._graph,
            self._log,
            self._tools,
            source=plan.model.source,
            turn=turn,
            prefix=prefix,
            taken=call_ids(self._messages),
            early=plan.early,
            references=plan.references,
            think_tags=plan.think_tags,
            calls_left=self._meter.calls_left,
        )

    async def _request(self, turn: int, attempt: int) -> ModelRequest:
        plan = self._plan
        messages = tuple(self._messages)
        if plan.before_request is not None:
            changed = plan.before_request(messages, self._context)
            messages = mend(
                tuple(await changed if isawaitable(changed) else changed), missing=NOT_RUN, keeps_instructions=True
            )
        made = plan.instructions if isinstance(plan.instructions, str) else plan.instructions(self._context)
        instructions = made if isinstance(made, str) else await made
        wire_names = {name: alias for alias, name in self._tools.aliases.items()}
        return ModelRequest(
            messages=((SystemMessage(instructions),) if instructions else ()) + rename_calls(messages, wire_names),
            tools=self._tools.specs(references=plan.references),
            tool_choice=self._tool_choice(),
            output_schema=plan.output.schema,
            max_tokens=self._meter.get_tokens_left(plan.model),
            attempt=attempt,
            turn=turn,
            data=self._context.data,
        )

    def _tool_choice(self) -> ToolChoice:
        """A call is forced once for each message of the user: forced again, it would be made again and again."""
        choice = self._plan.tool_choice
        is_first = self._meter.turns == 0 and isinstance(self._messages[-1], UserMessage)
        return choice if is_first or choice == "none" else "auto"

    async def _tools_now(self) -> Toolset:
        """The tools of the next turn; once a result was cut, with the one that reads on."""
        tools = await self._plan.tools.current(self._context)
        return tools if self._long.is_empty else Toolset(tools, tool(effect="read")(self._long.reader()))

    async def _start_prefetched(self) -> None:
        prefetch = self._plan.prefetch
        made = prefetch(self._context, self._context.message) if callable(prefetch) else prefetch
        calls: Sequence[ToolCall] = await made if isawaitable(made) else made
        for call in calls:
            check_prefetch(self._tools, call, self._plan.name)
        for position, call in enumerate(calls):
            node = f"prefetch/{position}"
            self._prefetched.append(node)
            self._graph.add(ToolCall(node, call.name, call.arguments))

    def _restore(self, missing: Collection[str], nodes: Sequence[str] | None = None) -> None:
        """Put calls of an earlier process, or of before a decision, into the graph under the ids they had."""
        message = next(message for message in reversed(self._messages) if isinstance(message, AssistantMessage))
        if nodes is None:
            nodes = [f"turn/{self._turn}/call/{position}" for position in range(len(message.calls))]
        self._calls.open(self._reader(self._turn, "").restore(message.calls, nodes, missing), message)

    async def _answer_calls(self) -> None:
        """Wait for the open calls, and write their results behind the message that asked for them."""
        await self._calls.wait_ended()
        if self._calls.pending:
            raise _Stopped("waiting", next(iter(self._calls.refused.values()), None))
        if self._record.journal is not None and any(o.state == "in_doubt" for o in self._graph.outcomes.values()):
            raise _Stopped("in_doubt")
        self._messages = self._calls.settle(self._messages, self._tools)
        self._end_turn()

    def _end_turn(self) -> None:
        for node in self._prefetched:
            self._graph.cancel(node, "the model did not ask for it")
        for node in self._dropped:
            self._graph.cancel(node, "its turn broke off")
        self._dropped.clear()
        self._graph.end_turn()

    async def _finish(self, status: RunStatus, error: FlowkitError | None) -> AgentResult[OutputT]:
        outcomes: Mapping[str, Outcome] = {}
        if self._executor is not None:
            outcomes = self._executor.outcomes
            self._messages = self._calls.settle(self._messages, self._tools)
        if status in ("cancelled", "limit", "failed") and any(o.state == "in_doubt" for o in outcomes.values()):
            status = "in_doubt"
        output = None if self._output is None else self._plan.output.dump(self._output)
        tips = tuple(make_tips(self._tools, outcomes, self._ready_s))
        said = None if error is None else str(error)
        self._log.emit(events.RunFinished, status, output, said, tips)
        try:
            await self._record.write_spent(self._meter.usage, self._meter.cost_usd)
            await self._record.finish(status, output, said, self._messages[self._kept :])
        except (RunError, StoreError) as lost:
            # Another process took the run over, or the disk is full: what the journal doesn't know hasn't happened.
            status, error = "failed", error or lost
        result = AgentResult(
            output=self._output if status == "done" else None,
            text=self._text,
            messages=tuple(self._messages),
            calls=tuple(outcomes.values()),
            usage=self._meter.usage,
            cost=self._meter.cost_usd,
            status=status,
            pending=() if self._open is None else self._open.pending,
            error=error,
            run_id=self._context.run_id,
            prefetched=(count_asked(self._tools, outcomes, self._prefetched), len(self._prefetched)),
            tips=tips,
        )
        if error is not None:
            error.result = result
        return result


def _delay_s(error: ModelError, attempt: int) -> float:
    """What the server asked for, else half a second doubled with each attempt, a random part of it."""
    if error.retry_after_s is not None:
        if error.retry_after_s > LONGEST_WAIT_S:
            raise error
        return error.retry_after_s
    return min(LONGEST_WAIT_S, 0.5 * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)
