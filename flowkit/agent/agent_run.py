"""An agent's run: its resources, its rounds, and its result.

After every outcome the messages are valid for the next request: each call has one result, except those that wait for
a person, which decisions or a new message settle later.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from flowkit import events
from flowkit.agent.forking import read_fork
from flowkit.agent.guards import GuardRun
from flowkit.agent.plan import AgentPlan, ForkPoint, Given
from flowkit.agent.requesting import TurnTools
from flowkit.agent.rounds import Rounds
from flowkit.agent.run_record import RunRecord, hide_inputs, restore_history
from flowkit.agent.tool_messages import make_tips, unload
from flowkit.clock import SystemClock
from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.errors import FlowkitError, GuardRefused, NoSuchNode, RunError, StoreError
from flowkit.events import EventLog, RunStatus
from flowkit.executor import Decision, Executor
from flowkit.executor.current import JOURNAL
from flowkit.history import unanswered
from flowkit.journal import Journal, RunJournal
from flowkit.messages import Message, UserMessage, text_of
from flowkit.models.pricing import load_prices
from flowkit.runs.budgets import BudgetSpent
from flowkit.runs.limits import METER, Meter
from flowkit.runs.results import Pending, RunResult
from flowkit.stores.waiting import wait_in_thread

OutputT = TypeVar("OutputT")
OutputT_co = TypeVar("OutputT_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentResult(RunResult[OutputT_co]):
    """The result of an agent's run.

    `text` is the model's last text. `output_name` is the name of the answer's output type, if there are several.
    `messages` is the whole conversation, which the next run accepts as `history`; `repr` leaves it out, since the
    model's own calls hold secret arguments in clear. `prefetched` has the number of prefetched calls that the model
    made, and the number of all of them. `tips` are sentences for a person on the cost of tools without a declared
    effect.
    """

    text: str = ""
    output_name: str | None = None
    messages: tuple[Message, ...] = field(default=(), repr=False)
    prefetched: tuple[int, int] = (0, 0)
    tips: tuple[str, ...] = ()


class AgentWork(Generic[OutputT]):
    """One run of an agent; lives as long as its task."""

    def __init__(
        self,
        plan: AgentPlan[OutputT],
        log: EventLog,
        context: Context[Any],
        given: Given,
        *,
        around: RunJournal | None = None,
        tool: str = "",
    ) -> None:
        """Prepare a run; `around` is the journal of the calling run, `tool` the called tool."""
        self.log = log
        self._around = around
        self.meter = Meter(plan.limits, METER.get(), plan.name, tool)
        self._plan = plan
        self._context = context
        self._decisions = dict(given.decisions)
        self._given = self._trust(given)
        self._record = RunRecord(None, log)
        self._rounds: Rounds[OutputT] | None = None
        """None until the run has taken hold of its journal, and for good when it can't."""

    async def begin(self) -> None:
        """Open the run in its journal, and read its records."""
        plan = self._plan
        if self._given.fork is not None and plan.journal is not None:
            await self._read_fork(plan.journal, self._given.fork)
        given = self._given
        self.meter.accounts = [budget.open(self._context) for budget in plan.budgets]
        if plan.limits.cost_usd is not None or self.meter.payers:
            await load_prices(plan.model)
        self.meter.check_priced(plan.model)
        if self._around is not None:
            given = await self._open_record_inside(self._around)
        elif plan.journal is not None:
            given = await self._open_record(plan.journal)
        JOURNAL.set(self._record.journal)
        history, ended = unload(given.history)
        given = replace(given, history=history)
        context = self._context
        tools = TurnTools(plan.tools, context)
        guards = GuardRun(plan.guards, context, self.log)
        self._record.tools = tools
        graph = Executor(
            tools,
            self.log,
            data=context.data,
            identity=context.identity,
            cache=plan.cache,
            journal=self._record.journal,
            past=ended,
            slots=plan.slots,
            guard=guards.check_call if plan.guards.call else None,
        )
        self._record.known = graph.known_secrets
        self._rounds = Rounds(plan, self.log, context, given, graph, tools, self.meter, self._record, guards)

    @property
    def name(self) -> str:
        """The agent's name."""
        return self._plan.name

    def tell_start(self) -> None:
        """Emit `run.started`."""
        plan, context = self._plan, self._context
        self.log.emit(
            events.RunStarted,
            plan.name,
            plan.model.name,
            context.user,
            context.session,
            message=context.message or None,
            at_wall=SystemClock().wall(),
        )

    async def go(self) -> None:
        """Ask the model and run its calls until it has answered."""
        assert self._rounds is not None, "it has begun"
        async with self._plan.tools.opened(self._context), self._rounds.graph, self._rounds.prefetching:
            await self._rounds.go()

    @property
    def pending(self) -> tuple[Pending, ...]:
        """The calls that wait for a person now."""
        return () if self._rounds is None else tuple(self._rounds.calls.find_waiting().values())

    @property
    def partial(self) -> JSON:
        """The answer so far; None while nothing of it has come."""
        return None if self._rounds is None else self._rounds.partial

    def decide(self, call: str, decision: Decision) -> None:
        """Answer a call that waits, by its id in the events or in `pending`."""
        if self._rounds is None:
            raise NoSuchNode(call, f"{call!r} doesn't wait for a decision: the run has not begun its first turn")
        waiting = self._rounds.calls.find_waiting()
        named = next((node for node, pending in waiting.items() if pending.id == call), call)
        self._rounds.graph.decide(named, decision)

    def add_decisions(self, decisions: Mapping[str, Decision]) -> None:
        """Keep decisions on calls that wait now or later."""
        self._decisions |= decisions

    async def finish(self, status: RunStatus, error: FlowkitError | None) -> AgentResult[OutputT]:
        """Record the last results and the end of the run, and return its result."""
        rounds, meter = self._rounds, self.meter
        if rounds is None:
            said = None if error is None else str(error)
            self.log.emit(events.RunFinished, status, None, said, notice=events.NOTICES.get(status))
            try:
                await self._record.close()
            except StoreError as lost:
                error = error or lost
            return AgentResult(
                status=status, usage=meter.usage, cost_usd=meter.cost_usd, error=error, run_id=self._context.run_id
            )
        rounds.settle()
        outcomes = rounds.graph.outcomes
        if status in ("cancelled", "limit", "failed") and rounds.graph.has_doubt:
            status = "in_doubt"
        output = None if rounds.output is None else self._plan.output.dump(rounds.output)
        said = None if error is None else str(error)
        tips = tuple(make_tips(rounds.tools.now, outcomes, rounds.ready_s))
        self.log.emit(events.RunFinished, status, output, said, tips, _tell_user(status, error))
        try:
            await self._record.write_spent(meter.usage, meter.cost_usd, meter.list_costs(None))
            await self._record.finish(status, output, said, rounds.added)
        except (RunError, StoreError) as lost:
            # Another process took the run over, or the disk is full: unrecorded results don't count.
            status, error = "failed", error or lost
        opened, name = (None, None) if rounds.output is None else self._plan.output.open(rounds.output)
        return AgentResult(
            output_or_none=opened if status == "done" else None,
            output_name=name if status == "done" else None,
            text=rounds.text,
            messages=tuple(rounds.messages),
            calls=tuple(outcomes.values()),
            usage=meter.usage,
            cost_usd=meter.cost_usd,
            costs=meter.list_costs(self._context.user),
            status=status,
            pending=rounds.calls.pending,
            error=error,
            run_id=self._context.run_id,
            prefetched=rounds.prefetching.count(outcomes),
            tips=tips,
        )

    async def _read_fork(self, journal: Journal, fork: ForkPoint) -> None:
        """Start with the state of another run; without a message, its last one is repeated."""
        given, history = self._given, await wait_in_thread(read_fork, journal, fork)
        if given.message is None and history and isinstance(last := history[-1], UserMessage):
            given, history = replace(given, message=last.content), history[:-1]
        self._given = self._trust(replace(given, history=history))
        said = next((message for message in reversed(history) if isinstance(message, UserMessage)), None)
        asked = text_of(given.message) or ("" if said is None else text_of(said.content))
        self._context = replace(self._context, message=asked)

    def _trust(self, given: Given) -> Given:
        """Remove the parts of a history that its sender may not set.

        Without a decision the history may come from any client, such as a browser, which must not set the results of
        needs.
        """
        history = given.history if given.decisions else unload(given.history)[0]
        return replace(given, history=history, decisions=self._decisions)

    async def _open_record_inside(self, around: RunJournal) -> Given:
        """Open the record of a run made by a call: when the call runs again, it resumes with its original task."""
        inputs, kept = hide_inputs(self._given, self._plan.tools)
        held = await around.open_inside(self._context.run_id, name=self._plan.name, inputs=inputs, kept=kept)
        self._record = RunRecord(held, self.log)
        began = self._read_inputs(held)
        self._context = replace(self._context, message=text_of(began.message))
        return began

    async def _open_record(self, journal: Journal) -> Given:
        """Start or resume the run in its journal; return its inputs, with its session's conversation."""
        context, given = self._context, self._given
        inputs, kept = hide_inputs(self._given, self._plan.tools)
        held = await journal.open_run(
            context.run_id,
            name=self._plan.name,
            inputs=inputs,
            user=context.user,
            session=context.session,
            allow_changed=self._plan.allow_changed,
            must_exist=given.message is None and not unanswered(given.history) and given.fork is None,
            ignores_inputs=True,
            kept=kept,
        )
        began = self._read_inputs(held)
        if not held.is_new and given.message not in (None, began.message):
            await held.close()
            raise RunError(f"run {context.run_id!r} began with another message; pass none to resume it")
        self._record = RunRecord(held, self.log)
        session = held.details.summary.session
        if session is not None and not began.history:
            # Read, not stored with each run: a long conversation would be stored once per message.
            began = replace(began, history=Given.read_messages(await held.conversation()))
        # A resumed run keeps its own inputs, whatever the caller passed.
        self._context = replace(context, session=session, message=text_of(began.message) or context.message)
        return began

    def _read_inputs(self, held: RunJournal) -> Given:
        """Read the inputs of the run, unmasked while it can be resumed."""
        began = Given.from_json(held.details.inputs)
        return replace(began, history=restore_history(began.history, held.kept.get(0, {})), decisions=self._decisions)


def _tell_user(status: RunStatus, error: FlowkitError | None) -> str | None:
    """Return what the user may read of the error: a guard's reason, or when a budget resets."""
    if isinstance(error, GuardRefused):
        return error.reason
    return error.notice if isinstance(error, BudgetSpent) else events.NOTICES.get(status)
