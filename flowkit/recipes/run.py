"""A recipe that runs: its nodes on an executor, its result, and the handle in between.

The run owns one task. Whatever ends it, the result comes and every call has its outcome; a step that failed, was
skipped or denied fails the recipe, unless it was optional. With a journal, a run that was killed or waited for a
person goes on under its `run_id`; without one, a run that waited goes on from its result. Steps that ended don't run
again.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

from flowkit import events
from flowkit.agent.limits import METER, Limits, Meter
from flowkit.agent.run import Pending
from flowkit.cache import Cache, open_default_cache
from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.errors import FlowkitError, InDoubt, RunError, ToolError
from flowkit.events import Event, EventLog, RunStatus
from flowkit.executor import Decision, Executor, Outcome
from flowkit.executor.slots import DEFAULT_LIMIT
from flowkit.graph import INPUTS, ModelStep, Step
from flowkit.journal import RunJournal
from flowkit.models.base import Model
from flowkit.recipes.agent_steps import lower_agents
from flowkit.recipes.data import hash_recipe
from flowkit.recipes.model_steps import AskRequest, run_request
from flowkit.recipes.options import RecipeResult, RecipeRunOptions, read_past
from flowkit.recipes.plan import AnyTool, RecipePlan
from flowkit.references import resolve

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class RecipeRun(Generic[R]):
    """A run that goes on whether or not anyone watches; iterate over it for its events."""

    def __init__(self, plan: RecipePlan[R], inputs: Mapping[str, JSON], options: RecipeRunOptions) -> None:
        resumed = options.get("resume")
        self.id = options.get("run_id") or (resumed.run_id if resumed else f"run-{secrets.token_hex(8)}")
        self.log = EventLog(self.id, asyncio.get_running_loop().time)
        self._driver = _Driver(plan, inputs, options, self.log)
        self._task = asyncio.create_task(self._driver.drive(), name=f"run {self.id}")
        self._task.add_done_callback(lambda _: self.log.close())

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.log.watch()

    def watch(self, after: int = -1) -> AsyncIterator[Event]:
        """The events with a `seq` greater than `after`, for a watcher that comes back."""
        return self.log.watch(after)

    async def wait(self) -> RecipeResult[R]:
        """The result, whatever its status; cancelling the waiter leaves the run alone.

        Raises `RunError` for a run that can't start or go on, `StoreError` for a journal that can't be written.
        """
        return await asyncio.shield(self._task)

    def cancel(self) -> None:
        """Stop: running tools are cancelled; `wait` then gives what there is."""
        self._task.cancel()

    def decide(self, call: str, decision: Decision) -> None:
        """Answer a call that waits for approval while the run still goes on; raises `KeyError` when none does."""
        self._driver.decide(call, decision)

    @property
    def is_done(self) -> bool:
        """Whether the result is there."""
        return self._task.done()


class _Driver(Generic[R]):
    """Drives one run; lives as long as its task."""

    def __init__(
        self, plan: RecipePlan[R], inputs: Mapping[str, JSON], options: RecipeRunOptions, log: EventLog
    ) -> None:
        self._plan = plan
        self._inputs = dict(inputs)
        self._options = options
        self._past, self._decisions = read_past(options)
        self._log = log
        self._meter = Meter(Limits(), outer=METER.get())
        self._executor: Executor | None = None
        self._context = Context[Any](
            options.get("data"), user=options.get("user"), session=options.get("session"), run_id=log.run
        )

    def decide(self, call: str, decision: Decision) -> None:
        if self._executor is None:
            raise KeyError(call)
        self._executor.decide(call, decision)

    async def drive(self) -> RecipeResult[R]:
        """Run to the end; every way to end is a status, and the result always comes."""
        METER.set(self._meter)
        journal = await self._open_journal()
        try:
            if journal is not None and journal.details.summary.status in _OVER:
                return self._recall(journal)
            if journal is not None:
                # A run that goes on is in the session in which it began, whatever its starter knew of it.
                self._context = replace(self._context, session=journal.details.summary.session)
                self._log.first_seq = journal.first_seq
                self._log.listen(journal.append_event)
            ending = await self._run(journal)
            # A run that was stopped isn't over: its journal lets it go on.
            if journal is not None and ending.status != "cancelled":
                await journal.finish(ending.status, ending.dumped, None if ending.error is None else str(ending.error))
            return self._make_result(ending)
        finally:
            if journal is not None:
                await journal.close()

    async def _run(self, journal: RunJournal | None) -> "_Ending[R]":
        plan, context, timeout_s = self._plan, self._context, self._options.get("timeout_s")
        self._log.emit(events.RunStarted, plan.name, None, context.user, context.session, self._inputs)
        nodes, agents = lower_agents(plan.body.nodes, self._ask_agent, plan.tools)
        executor = self._executor = Executor(
            _Tools({**plan.tools, **agents}),
            self._log,
            data=context.data,
            identity=context.identity,
            cache=self._open_cache(),
            journal=journal,
            past=self._past,
            slots=self._options.get("slots", DEFAULT_LIMIT),
            run_model_step=self._run_model_step,
        )
        ending: _Ending[R] = _Ending("failed")
        try:
            async with asyncio.timeout(timeout_s), executor:
                executor.provide(INPUTS, self._inputs)
                for node in nodes:
                    executor.add(node)
                names = [node.id for node in nodes]
                await executor.wait(*names)
                while self._apply_decisions(executor):
                    await executor.wait(*names)
                ending = self._end(executor)
                if ending.status == "waiting":
                    executor.cancel_all("the run waits for a person")
        except TimeoutError:
            ending = _Ending("limit", error=RunError(f"the limit of {timeout_s} seconds is reached"))
        except asyncio.CancelledError:
            ending = _Ending("cancelled")
        except FlowkitError as error:
            ending = _Ending("failed", error=error)
        error_text = None if ending.error is None else str(ending.error)
        self._log.emit(events.RunFinished, ending.status, ending.dumped, error_text)
        return ending

    def _end(self, executor: Executor) -> "_Ending[R]":
        """What has come of it when nothing more can happen."""
        doubt = [call for call in executor.outcomes.values() if call.state == "in_doubt"]
        if doubt:
            names = ", ".join(call.call.id for call in doubt)
            return _Ending("in_doubt", error=InDoubt(f"may or may not have happened: {names}"))
        if executor.pending:
            return _Ending("waiting", pending=tuple(Pending(c.id, c.name, c.arguments) for c in executor.pending))
        failure = self._find_failure(executor)
        if failure is not None:
            return _Ending("failed", error=failure)

        def look_up(call_id: str) -> JSON:
            if call_id == INPUTS:
                return self._inputs
            outcome = executor.outcome(call_id)
            return None if outcome is None else outcome.value

        try:
            value = cast(JSON, resolve(self._plan.body.value, look_up))
            return _Ending("done", output=self._plan.output.read(value), dumped=value)
        except ToolError as error:
            return _Ending("failed", error=error)

    def _find_failure(self, executor: Executor) -> ToolError | None:
        """The first step that failed by itself; a step that was skipped only because of it says less."""
        failed: list[Outcome] = []
        for node in self._plan.body.nodes:
            outcome = executor.outcome(node.id)
            is_optional = isinstance(node, Step) and node.optional
            if outcome is not None and outcome.state != "finished" and not is_optional:
                failed.append(outcome)
        if not failed:
            return None
        first = next((outcome for outcome in failed if outcome.state != "skipped"), failed[0])
        return ToolError(
            f"recipe {self._plan.name!r}: step {first.call.id!r} {first.state}: {first.error or 'no reason'}"
        )

    def _apply_decisions(self, executor: Executor) -> bool:
        """Decide what `decisions` knows of; whether anything was."""
        decided = [call.id for call in executor.pending if call.id in self._decisions]
        for call_id in decided:
            executor.decide(call_id, self._decisions[call_id])
        return bool(decided)

    async def _run_model_step(self, node: ModelStep, arguments: Mapping[str, JSON]) -> JSON:
        return await self._ask(cast(AskRequest, node.request), arguments, node.id)

    async def _ask_agent(self, request: AskRequest, values: Mapping[str, JSON], context: Context[Any]) -> JSON:
        return await self._ask(request, values, context.call_id)

    async def _ask(self, request: AskRequest, values: Mapping[str, JSON], call_id: str) -> JSON:
        return await run_request(
            request, values, call_id=call_id, log=self._log, context=self._context, model=self._find_model(request)
        )

    def _find_model(self, request: AskRequest) -> Model | None:
        """The model that takes the place of the request's own."""
        model = self._options.get("model")
        return model.get(request.name) if isinstance(model, Mapping) else model

    def _make_result(self, ending: "_Ending[R]") -> RecipeResult[R]:
        result = RecipeResult(
            output=ending.output,
            status=ending.status,
            calls=() if self._executor is None else tuple(self._executor.outcomes.values()),
            usage=self._meter.usage,
            cost=self._meter.cost_usd,
            pending=ending.pending,
            error=ending.error,
            run_id=self._log.run,
            inputs=self._inputs,
        )
        if ending.error is not None:
            ending.error.result = result
        return result

    def _recall(self, journal: RunJournal) -> RecipeResult[R]:
        """The result of a run that is over; its steps are in the journal, not in `calls`."""
        summary, output = journal.details.summary, journal.details.output
        status = cast(RunStatus, summary.status)
        if status == "done":
            return self._make_result(_Ending("done", output=self._plan.output.read(output), dumped=output))
        return self._make_result(_Ending(status, error=RunError(summary.error or f"run {summary.run_id!r}: {status}")))

    async def _open_journal(self) -> RunJournal | None:
        journal = self._options.get("journal")
        if journal is None:
            return None
        return await journal.open_run(
            self._log.run,
            name=self._plan.name,
            code=hash_recipe(self._plan),
            inputs=self._inputs,
            user=self._context.user,
            session=self._context.session,
            allow_changed=self._options.get("allow_changed", False),
        )

    def _open_cache(self) -> Cache | None:
        cache = self._options.get("cache", True)
        if not isinstance(cache, bool):
            return cache
        keeps_results = any(tool.ttl_s is not None for tool in self._plan.tools.values())
        return open_default_cache() if cache and keeps_results else None


_OVER = ("done", "failed", "cancelled", "limit")


@dataclass(frozen=True, slots=True)
class _Tools:
    """A recipe's tools as an executor asks for them."""

    by_name: Mapping[str, AnyTool]

    def get(self, name: str) -> AnyTool | None:
        return self.by_name.get(name)


@dataclass(frozen=True, slots=True)
class _Ending(Generic[R]):
    """How a run ended; `dumped` is the output as JSON."""

    status: RunStatus
    output: R | None = None
    dumped: JSON = None
    pending: tuple[Pending, ...] = ()
    error: FlowkitError | None = None
