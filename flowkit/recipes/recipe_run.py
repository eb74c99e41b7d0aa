"""A run of a recipe: its nodes on an executor, and its result.

A step that failed, was skipped or was denied fails the recipe, unless it was optional. With a journal, a run that was
killed, stopped or waited for a person resumes under its `run_id`; without one, a run that waited resumes from its
result. Finished steps aren't repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, cast

from flowkit import events
from flowkit.clock import SystemClock
from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.errors import FlowkitError, InDoubt, NoSuchNode, RunError, StoreError, ToolError
from flowkit.events import EventLog, RunStatus
from flowkit.executor import Decision, Executor, Outcome
from flowkit.executor.current import JOURNAL
from flowkit.executor.slots import DEFAULT_LIMIT
from flowkit.graph import INPUTS, ModelStep, Step
from flowkit.journal import RunJournal
from flowkit.models.base import Model
from flowkit.recipes.data import hash_recipe
from flowkit.recipes.model_steps import AskRequest, lower_agents, run_request
from flowkit.recipes.options import RecipeResult, RecipeRunOptions, read_past
from flowkit.recipes.plan import AnyTool, RecipePlan
from flowkit.references import resolve
from flowkit.runs.driving import Stopped
from flowkit.runs.limits import METER, Meter
from flowkit.runs.options import find_limits, open_cache
from flowkit.runs.results import Pending
from flowkit.tools.lives import open_lives
from flowkit.tools.toolsets import list_lives

R = TypeVar("R")


class RecipeWork(Generic[R]):
    """One run of a recipe; lives as long as its task."""

    def __init__(
        self,
        plan: RecipePlan[R],
        inputs: Mapping[str, JSON],
        options: RecipeRunOptions,
        log: EventLog,
        around: RunJournal | None = None,
    ) -> None:
        """Prepare a run; `around` is the journal of the run whose call starts it."""
        self.log = log
        self.meter = Meter(find_limits(options.get("limits"), options.get("timeout")), outer=METER.get())
        self._plan = plan
        self._inputs = dict(inputs)
        self._options = options
        self._around = around
        self._past, self._decisions = read_past(options)
        self._journal: RunJournal | None = None
        self._executor: Executor | None = None
        self._context = Context[Any](
            options.get("data"), user=options.get("user"), session=options.get("session"), run_id=log.run_id
        )
        self._ended: _Ended[R] = _Ended()

    @property
    def pending(self) -> tuple[Pending, ...]:
        """The calls that wait for a person now."""
        waiting = () if self._executor is None else self._executor.pending
        return tuple(Pending(call.id, call.name, call.arguments) for call in waiting)

    @property
    def partial(self) -> JSON:
        """Return None: a recipe's output exists only at its end."""
        return None

    def decide(self, call: str, decision: Decision) -> None:
        """Answer a call that waits."""
        if self._executor is None:
            raise NoSuchNode(call, f"{call!r} doesn't wait for a decision: the run has not begun its steps")
        self._executor.decide(call, decision)

    def add_decisions(self, decisions: Mapping[str, Decision]) -> None:
        """Keep decisions on calls that wait now or later."""
        self._decisions |= decisions

    async def begin(self) -> None:
        """Take hold of the run in its journal, if it has one."""
        journal = self._options.get("journal")
        if self._around is not None:
            self._journal = await self._around.open_inside(
                self.log.run_id, name=self._plan.name, code=hash_recipe(self._plan), inputs=self._inputs
            )
            if self._journal.details.summary.status == "failed":
                self._journal.retry_failures()
        elif journal is not None:
            self._journal = await journal.open_run(
                self.log.run_id,
                name=self._plan.name,
                code=hash_recipe(self._plan),
                inputs=self._inputs,
                user=self._context.user,
                session=self._context.session,
                allow_changed=self._options.get("allow_changed", False),
                only_read=_OVER,
            )
        held = self._journal
        JOURNAL.set(held)
        if held is None:
            return
        # A resumed run stays in the session in which it started, whatever the caller passed.
        self._context = replace(self._context, session=held.details.summary.session)
        self.log.first_seq = held.first_seq
        if not held.is_over and not held.is_inner:
            held.follow(self.log)

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self._plan.name

    def tell_start(self) -> None:
        """Emit `run.started`."""
        context = self._context
        self.log.emit(
            events.RunStarted,
            self._plan.name,
            None,
            context.user,
            context.session,
            self._inputs,
            at_wall=SystemClock().wall(),
        )

    async def go(self) -> None:
        """Run the nodes until nothing more can happen."""
        if self._is_over and self._journal is not None:
            self._recall(self._journal)
            return
        nodes, agents = lower_agents(self._plan.body.nodes, self._ask_agent, self._plan.tools)
        executor = self._executor = self._make_executor({**self._plan.tools, **agents})
        async with open_lives(list_lives(self._plan.tools.values()), self._context), executor:
            executor.provide(INPUTS, self._inputs)
            for node in nodes:
                executor.add(node)
            names = [node.id for node in nodes]
            await executor.wait(*names)
            while self._apply_decisions(executor):
                await executor.wait(*names)
            problem = await self._read_end(executor)
        if problem is not None:
            raise problem

    async def finish(self, status: RunStatus, error: FlowkitError | None) -> RecipeResult[R]:
        """Record the end, and return the result."""
        calls = () if self._executor is None else tuple(self._executor.outcomes.values())
        ended: _Ended[R] = self._ended if status == "done" else _Ended()
        said = None if error is None else str(error)
        self.log.emit(events.RunFinished, status, ended.dumped, said, notice=events.NOTICES.get(status))
        try:
            await self._let_go(status, ended.dumped, said)
        except (RunError, StoreError) as lost:
            # Another process took the run over, or the disk is full: unrecorded results don't count.
            status, error, ended = "failed", error or lost, _Ended()
        return RecipeResult(
            output_or_none=ended.output,
            status=status,
            calls=calls,
            usage=self.meter.usage,
            cost_usd=self.meter.cost_usd,
            costs=self.meter.list_costs(self._context.user),
            pending=self._ended.pending if status == "waiting" else (),
            error=error,
            run_id=self.log.run_id,
            inputs=self._inputs,
        )

    async def _let_go(self, status: RunStatus, output: JSON, error: str | None) -> None:
        """Release the journal; a run that was stopped isn't over there and can be resumed."""
        if self._journal is None:
            return
        if status == "cancelled" or self._is_over:
            await self._journal.close()
            return
        try:
            await self._journal.finish(status, output, error)
        finally:
            await self._journal.close()

    def _make_executor(self, tools: Mapping[str, AnyTool]) -> Executor:
        context = self._context
        return Executor(
            _Tools(tools),
            self.log,
            data=context.data,
            identity=context.identity,
            cache=open_cache(self._options.get("cache", True), self._plan.tools.values()),
            journal=self._journal,
            past=self._past,
            slots=self._options.get("slots", DEFAULT_LIMIT),
            run_model_step=self._run_model_step,
        )

    async def _read_end(self, executor: Executor) -> Stopped | FlowkitError | None:
        """Read the outcome when nothing more can happen; return the reason if the run isn't `done`."""
        doubt = [call for call in executor.outcomes.values() if call.state == "in_doubt"]
        if doubt or executor.has_doubt or (self._journal is not None and await self._journal.has_doubt()):
            names = ", ".join(call.call.id for call in doubt) or "a call inside a step"
            return Stopped("in_doubt", InDoubt(f"may or may not have happened: {names}"))
        if self.pending:
            self._ended = _Ended(pending=self.pending)
            executor.cancel_all("the run waits for a person")
            return Stopped("waiting")
        failure = self._find_failure(executor)
        if failure is not None:
            # A step that asks fails when nothing more may be spent: then that is what ended the run.
            return self.meter.find_limit() or failure

        def look_up(call_id: str) -> JSON:
            if call_id == INPUTS:
                return self._inputs
            outcome = executor.outcome(call_id)
            return None if outcome is None else outcome.value

        try:
            value = cast(JSON, resolve(self._plan.body.value, look_up))
            self._ended = _Ended(self._plan.output.read(value), value)
        except ToolError as misfit:
            return misfit
        return None

    def _find_failure(self, executor: Executor) -> ToolError | None:
        """Find the first step that failed on its own; steps skipped because of it explain less."""
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
        """Apply the given decisions; return whether there were any."""
        decided = [call.id for call in executor.pending if call.id in self._decisions]
        for call_id in decided:
            executor.decide(call_id, self._decisions[call_id])
        return bool(decided)

    async def _run_model_step(self, node: ModelStep, arguments: Mapping[str, JSON]) -> JSON:
        return await self._ask(cast(AskRequest, node.request), arguments, node.id)

    async def _ask_agent(self, request: AskRequest, values: Mapping[str, JSON], context: Context[Any]) -> JSON:
        return await self._ask(request, values, context.call_id)

    async def _ask(self, request: AskRequest, values: Mapping[str, JSON], call_id: str) -> JSON:
        context = replace(self._context, call_id=call_id)
        return await run_request(
            request, values, call_id=call_id, log=self.log, context=context, model=self._find_model(request)
        )

    def _find_model(self, request: AskRequest) -> Model | None:
        """Find the model that takes the place of the request's own."""
        model = self._options.get("model")
        return model.get(request.name) if isinstance(model, Mapping) else model

    @property
    def _is_over(self) -> bool:
        """Return whether the journal already has its end."""
        return self._journal is not None and self._journal.is_over

    def _recall(self, journal: RunJournal) -> None:
        """Take the end of a run that is over; its steps are in the journal, not in `calls`."""
        summary, output = journal.details.summary, journal.details.output
        if summary.status != "done":
            status = cast(RunStatus, summary.status)
            raise Stopped(status, RunError(summary.error or f"run {summary.run_id!r}: {status}"))
        self._ended = _Ended(self._plan.output.read(output), output)


_OVER = ("done", "failed", "cancelled", "limit")


@dataclass(frozen=True, slots=True)
class _Tools:
    """A recipe's tools as an executor asks for them."""

    by_name: Mapping[str, AnyTool]

    def get(self, name: str) -> AnyTool | None:
        return self.by_name.get(name)


@dataclass(frozen=True, slots=True)
class _Ended(Generic[R]):
    """The outcome of the nodes; `dumped` is the output as JSON."""

    output: R | None = None
    dumped: JSON = None
    pending: tuple[Pending, ...] = ()
