"""The rounds of model and tools, from a message to an answer.

A round asks the model, starts its calls, waits for them, and appends their results to its message. A message without
calls is the answer. With a journal a turn is recorded before its effects start; a resumed run restores its turns, and
the graph returns the recorded results.
"""

import asyncio
import logging
import random
import re
from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Generic, TypeVar, cast

from flowkit import events
from flowkit.agent.guards import GuardRun
from flowkit.agent.open_calls import OpenCalls
from flowkit.agent.outputs import OutputInvalid
from flowkit.agent.plan import AgentPlan, Given
from flowkit.agent.prefetching import Prefetching
from flowkit.agent.requesting import TurnTools, make_request
from flowkit.agent.run_record import PastTurn, RunRecord
from flowkit.agent.tool_messages import explain_stop
from flowkit.agent.turn_attempt import Attempt, FinishedAttempt
from flowkit.codec import JSON, dumps
from flowkit.context import Context
from flowkit.errors import GuardFailed, GuardRefused, ModelError
from flowkit.events import EventLog
from flowkit.executor import Executor
from flowkit.history import SHORT_CHARS, call_ids, count_turns, mend, shorten_results, unanswered
from flowkit.messages import AssistantMessage, FinishReason, Message, ToolMessage, UserMessage
from flowkit.models.base import ModelRequest, ToolChoice
from flowkit.models.pricing import load_prices
from flowkit.models.routing import name_answerer
from flowkit.runs.budgets import check_budgets, pay_budgets
from flowkit.runs.driving import Stopped
from flowkit.runs.limits import LimitReached, Meter

logger = logging.getLogger("flowkit.agent")

OutputT = TypeVar("OutputT")

_TOO_LONG = re.compile(
    r"context.{0,3}(length|size|window)|too (long|large|many tokens)|maximum.{0,20}tokens|exceeds?\b.{0,40}(tokens|limit|size)",
    re.IGNORECASE,
)

LONGEST_WAIT_S = 60.0
"""If a server requests a longer wait before the next attempt, the run fails instead."""


class Rounds(Generic[OutputT]):
    """One run's conversation with its model; `messages` is the whole conversation, the history included."""

    def __init__(
        self,
        plan: AgentPlan[OutputT],
        log: EventLog,
        context: Context[Any],
        given: Given,
        graph: Executor,
        tools: TurnTools,
        meter: Meter,
        record: RunRecord,
        guards: GuardRun,
    ) -> None:
        self.graph = graph
        self.tools = tools
        self.prefetching = Prefetching(plan.prefetch, graph, tools, plan.name)
        self.calls = OpenCalls(graph, given.decisions, tools.long, keeps_ids=record.journal is not None)
        self.messages: list[Message] = list(given.history if given.message is None else mend(given.history))
        self.text = ""
        self.output: OutputT | None = None
        self._answering: Attempt | None = None
        """The attempt at the turn at hand."""
        self.ready_s: dict[str, float] = {}
        """When the arguments of each call were complete, by its id in the graph."""
        self._plan = plan
        self._log = log
        self._context = context
        self._meter = meter
        self._record = record
        self._given_count = len(self.messages)
        self._is_new = given.message is not None
        if given.message is not None:
            self.messages.append(UserMessage(given.message))
        self._turn = count_turns(self.messages)
        self._guards = guards
        self._dropped: list[str] = []
        self._whole: list[Message] | None = None
        """The messages before their results were shortened for a server that refused them."""

    @property
    def added(self) -> Sequence[Message]:
        """The messages that this run adds to its history."""
        return self.messages[self._given_count :]

    @property
    def partial(self) -> JSON:
        """The answer so far; None while nothing of it has come."""
        output, attempt = self._plan.output, self._answering
        if self.output is not None:
            return output.dump(self.output)
        if attempt is None or attempt.partial is not None:
            return None if attempt is None or attempt.partial is None else attempt.partial.value
        return (attempt.text or None) if output.adapter is None and output.tool is None else None

    def settle(self) -> None:
        """Write the results of the calls at hand behind the message that asked for them."""
        self.messages = self.calls.settle(self.messages, self.tools.now)

    async def go(self) -> None:
        """Run turns until the model has answered; raises `Stopped`, `LimitReached` or `ModelError` if it can't."""
        await self.tools.refresh()
        if not await self._catch_up():
            return
        invalid = 0
        while True:
            self._meter.check()
            await check_budgets(self._meter, self._log, self._turn + 1)
            message, reason = await self._take_turn()
            if message.calls:
                if not await self._answer_calls():
                    continue
                problem = await self._guard_output()
            else:
                self._end_turn()
                problem = await self._read_output(message, reason)
            if problem is None:
                return
            invalid += 1
            if invalid >= self._plan.output_attempts:
                raise ModelError(f"no valid output after {invalid} answers: {problem}") from problem
            self.messages.append(UserMessage(str(problem)))

    async def _catch_up(self) -> bool:
        """Restore the state from before this process, or this message; return False when nothing is left to do."""
        past = self._record.past
        if past:
            self._meter.take_back(past[-1].spent, past[-1].cost_usd, past[-1].costs)
        if not self._is_new:
            # A fork has a history with all results and no new message: the model comes next.
            if waiting := unanswered(self.messages):
                self._restore({call.id for call in waiting})
                if await self._answer_calls() and await self._is_accepted():
                    return False
        elif not past:
            self.prefetching.start(self._context)
        for turn in past:
            self._turn = turn.turn
            self._meter.turns += 1
            self._say(turn.message)
            if turn.message.calls:
                # Tools come and go between turns: the one that reads long results on, for one.
                await self.tools.refresh()
                self._restore({call.id for call in turn.message.calls}, turn.nodes)
                self._meter.calls += len(turn.nodes)
                if await self._answer_calls() and await self._is_accepted():
                    return False
            else:
                problem = await self._read_output(turn.message, turn.reason)
                if problem is None:
                    return False
                self.messages.append(UserMessage(str(problem)))
        return True

    async def _is_accepted(self) -> bool:
        """Return whether an output tool's result is the answer; if its guards refuse it, the model reads why."""
        problem = await self._guard_output()
        if problem is not None:
            self.messages.append(UserMessage(str(problem)))
        return problem is None

    def _restore(self, missing: Collection[str], nodes: Sequence[str] | None = None) -> None:
        """Put calls of an earlier process, or of before a decision, into the graph under the ids they had."""
        message = next(message for message in reversed(self.messages) if isinstance(message, AssistantMessage))
        if nodes is None:
            nodes = [f"turn/{self._turn}/call/{position}" for position in range(len(message.calls))]
        opened = self._begin_attempt(self._turn, "").restore(message.calls, nodes, missing)
        self.calls.open(opened, message, count_turns(self.messages))

    async def _take_turn(self) -> tuple[AssistantMessage, FinishReason]:
        """Take one answer of the model and record it; its calls have started when this returns."""
        await self.tools.refresh()
        turn = self._turn + 1
        attempt, finished = await self._ask_guarded(turn)
        if finished.turn.reason == "content_filter" and finished.nodes:
            # Nothing of a refused answer counts, also not the calls that were whole before it was refused.
            self._dropped += attempt.withdraw("the answer was refused")
            finished = replace(finished, message=replace(finished.message, calls=()), nodes=())
        message, reason, meter = finished.message, finished.turn.reason, self._meter
        self._turn, self._whole = turn, None
        meter.turns += 1
        meter.calls += len(finished.nodes)
        self.ready_s |= finished.ready_s
        self._say(message)
        self.calls.open(dict(zip(finished.nodes, message.calls, strict=True)), message, count_turns(self.messages))
        self._log.emit(events.TurnFinished, turn, reason, None, name_answerer(self._plan.model, message))
        await self._record.write_turn(
            PastTurn(turn, message, finished.nodes, reason, meter.usage, meter.cost_usd, meter.list_costs(None))
        )
        attempt.release()
        return message, reason

    async def _ask_guarded(self, turn: int) -> tuple[Attempt, FinishedAttempt]:
        """Ask the model; a refused message is removed from the conversation, or all later requests would be refused."""
        try:
            return await self._ask(turn)
        except GuardRefused as refused:
            if refused.place == "request" and self._is_new and len(self.added) == 1:
                self.messages = self.messages[: self._given_count]
            raise

    def _say(self, message: AssistantMessage) -> None:
        self.text = message.text or message.refusal
        if not message.is_empty:
            self.messages.append(message)

    async def _ask(self, turn: int) -> tuple[Attempt, FinishedAttempt]:
        """Return the first complete answer, retrying as needed; calls that it holds back have not started."""
        number = 1
        while True:
            attempt, finished = await self._attempt(turn, number)
            error = finished.error
            said_by = await self._pay(finished, turn, broke_off=error is not None)
            if error is None:
                return attempt, finished
            self._dropped += attempt.drop(str(error))
            self._log.emit(events.TurnFinished, turn, "error", str(error), said_by)
            attempts = 1 + error.max_retries if error.max_retries else self._plan.attempts
            if number < attempts and error.retryable:
                delay_s = _delay_s(error, number)
            elif self._shorten_refused(error):
                delay_s = 0.0
            else:
                raise self._take_back(error)
            extra = {"run_id": self._log.run_id}
            logger.warning("turn %d is retried in %.1f s: %s", turn, delay_s, error, extra=extra)
            self._log.emit(events.TurnRetried, turn, str(error), delay_s, number)
            await asyncio.sleep(delay_s)
            number += 1

    async def _pay(self, finished: FinishedAttempt, turn: int, *, broke_off: bool) -> str:
        """Count an answer and pay for it; return the name of the model that gave it."""
        model = self._plan.model
        await load_prices(model)
        said_by = name_answerer(model, finished.message)
        cost_usd = self._meter.add(model, finished.usage, broke_off=broke_off, answerer=said_by)
        await pay_budgets(self._meter, cost_usd)
        self._log.emit(events.UsageReported, turn, finished.usage, cost_usd)
        return said_by

    def _shorten_refused(self, error: ModelError) -> bool:
        """Shorten the results that a server refused, once a turn; put them back when that didn't help."""
        if self._whole is not None:
            self.messages, self._whole = self._whole, None
            return False
        if error.retryable or error.status not in (400, 413, 422):
            return False
        newest: list[str] = []
        for message in reversed(self.messages):
            if not isinstance(message, ToolMessage):
                break
            newest.append(message.call_id)
        is_long = _TOO_LONG.search(str(error)) is not None
        shortened = shorten_results(
            self.messages, f"the server refused the whole: {error}", only=None if is_long else newest
        )
        if not newest and not (is_long and any(_is_long(message) for message in self.messages)):
            return False
        self.messages, self._whole = list(shortened), self.messages
        return True

    def _take_back(self, error: ModelError) -> ModelError:
        """Return the error; if it refused the first request for good, remove the message from the conversation."""
        is_refusal = error.status is not None and 400 <= error.status < 500 and not error.retryable
        if not (is_refusal and self._is_new and len(self.added) == 1):
            return error
        self.messages = self.messages[: self._given_count]
        return _say_more(error, "the conversation stays as it was")

    async def _attempt(self, turn: int, number: int) -> tuple[Attempt, FinishedAttempt]:
        """Read one answer, completely or up to an error."""
        model = self._plan.model
        attempt = self._answering = self._begin_attempt(turn, self._record.prefix(turn, number))
        request = await self._make_request(turn, number)
        self._log.tell_request(model, request)
        self._log.emit(events.TurnStarted, turn, model.name, number)
        error: ModelError | None = None
        try:
            if self._guards.guards.is_watching:
                await self._read_watched(request, attempt, turn)
            else:
                async with model.stream(request) as deltas:
                    async for delta in deltas:
                        attempt.feed(delta)
        except ModelError as broken:
            error = broken
        except (GuardRefused, GuardFailed) as stopped:  # nothing of it counts
            ended = attempt.end(ModelError(str(stopped)))
            attempt.withdraw(str(stopped))
            if ended.turn.usage is not None:  # its server has reported its usage by then
                await self._pay(ended, turn, broke_off=True)
            raise
        except BaseException:  # interrupted: the text is kept, the calls are void
            said = attempt.end(ModelError("the run was stopped")).message.text
            attempt.drop("the run was stopped")
            self._say(AssistantMessage(said))
            raise
        return attempt, attempt.end(error)

    async def _read_watched(self, request: ModelRequest, attempt: Attempt, turn: int) -> None:
        """Read an answer beside the guards that watch it."""
        watch = self._guards.watch(tuple(self.messages), turn, lambda: self.partial)
        async with watch as watching, self._plan.model.stream(request) as deltas:
            async for delta in deltas:
                attempt.feed(delta)
                watching.grow(attempt.text_length)

    def _begin_attempt(self, turn: int, prefix: str) -> Attempt:
        return Attempt(
            self._plan,
            self.graph,
            self._log,
            self.tools.now,
            turn=turn,
            prefix=prefix,
            taken=call_ids(self.messages),
            calls_left=self._meter.calls_left,
        )

    async def _make_request(self, turn: int, number: int) -> ModelRequest:
        return await make_request(
            self._plan,
            self._context,
            self.messages,
            self.tools.now,
            turn=turn,
            attempt=number,
            guards=self._guards,
            tool_choice=self._choose_tool(),
            max_tokens=self._meter.get_tokens_left(self._plan.model),
        )

    def _choose_tool(self) -> ToolChoice:
        """Choose the tool choice; a call is forced once per user message, or the model would repeat it forever."""
        choice = self._plan.tool_choice
        is_first = self._meter.turns == 0 and isinstance(self.messages[-1], UserMessage)
        return choice if is_first or choice == "none" else "auto"

    async def _answer_calls(self) -> bool:
        """Wait for the calls at hand, and write their results behind the message that asked for them.

        True where one of them is the run's answer.
        """
        await self.calls.wait_ended()
        if self.calls.pending:
            self.graph.cancel_all("the run waits for a person")
            raise Stopped("waiting", self.calls.explain_wait())
        if self._record.journal is not None and (self.graph.has_doubt or await self._record.has_doubt(self._turn)):
            raise Stopped("in_doubt")
        tool = self._plan.output.tool
        answer = None if tool is None else self.calls.find_finished(tool.name)
        self.settle()
        self._end_turn()
        if self._guards.refused is not None:
            raise self._guards.refused
        if tool is None or answer is None:
            return False
        self.output = answer.load(tool)
        return True

    def _end_turn(self) -> None:
        self.prefetching.end_turn()
        for node in self._dropped:
            self.graph.cancel(node, "its turn broke off")
        self._dropped.clear()
        self.graph.end_turn()

    async def _read_output(self, message: AssistantMessage, reason: str) -> OutputInvalid | None:
        """Read the answer as the run's output; return what is wrong with it."""
        if reason == "length":
            raise LimitReached("the model's answer was cut off at its limit of tokens")
        if reason == "content_filter":
            raise ModelError(f"the server's content filter ended the answer{explain_stop(message)}")
        output = self._plan.output
        if output.schema is not None and message.refusal and not message.text:
            # Asked again, it would refuse again.
            raise ModelError(f"the model refused to answer: {message.refusal}")
        try:
            self.output = output.read(message.text or message.refusal)
        except OutputInvalid as problem:
            return problem
        problem = await self._guard_output(message)
        if problem is None and self._answering is not None and self._answering.partial is not None:
            self._answering.partial.finish(output.dump(self.output))
        return problem

    async def _guard_output(self, message: AssistantMessage | None = None) -> OutputInvalid | None:
        """Run the guards on the answer; if they refuse it, return the error for the model.

        A changed answer replaces the model's `message` in the conversation, too.
        """
        if not self._guards.guards.answer:
            return None
        output = self._plan.output
        opened, name = output.open(cast(OutputT, self.output))  # which may be None, and an answer
        self.output = None
        try:
            answer, refused = await self._guards.check_answer(opened, self._turn, lambda one: output.place(one, name))
        except GuardRefused:
            if message is not None and self.messages[-1:] == [message]:
                self.messages.pop()
                self.text = ""
            raise
        if refused is not None:
            return OutputInvalid(f"That answer is refused: {refused.reason}. Answer again.")
        self.output = output.close(*output.place(answer, name)) if answer is not opened else output.close(answer, name)
        if message is not None and answer is not opened and self.messages[-1:] == [message]:
            said = answer if isinstance(answer, str) else dumps(output.dump(self.output)).decode()
            self.text = said
            self.messages[-1] = replace(message, text=said, refusal="")
        return None


def _delay_s(error: ModelError, attempt: int) -> float:
    """Return the server's requested delay, else half a second doubled with each attempt, part of it random."""
    if error.retry_after_s is not None:
        if error.retry_after_s > LONGEST_WAIT_S:
            raise _say_more(error, f"it asks to wait {error.retry_after_s:g} s, longer than {LONGEST_WAIT_S:g} s")
        return error.retry_after_s
    return min(LONGEST_WAIT_S, 0.5 * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)


def _say_more(error: ModelError, words: str) -> ModelError:
    """Return a copy of the error with more words, since the original may be raised again."""
    told = copy(error)
    told.args = (f"{error}; {words}",)
    told.__cause__ = error
    return told


def _is_long(message: Message) -> bool:
    return isinstance(message, ToolMessage) and (len(message.text) > SHORT_CHARS or bool(message.media))
