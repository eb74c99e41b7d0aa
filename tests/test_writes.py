"""Writes: at most once, never before the turn that asks for them has ended well, and never beside themselves."""

import asyncio
import gc
import threading
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit import (
    Agent,
    Approve,
    Budget,
    Context,
    InDoubt,
    ModelError,
    Price,
    ScriptedModel,
    ToolError,
    Usage,
    recipe,
    step,
    tool,
)
from flowkit import events as told
from flowkit.clock import ManualClock
from flowkit.context import CONTEXT
from flowkit.errors import StoreError
from flowkit.events import CallStarted, EventLog, TurnFinished
from flowkit.executor import Executor
from flowkit.journal.run import START_WITHIN_S
from flowkit.models.base import FinishDelta
from flowkit.references import ToolCall
from flowkit.runs.run import Run
from flowkit.testing import call
from flowkit.testing.loop import run_virtual
from flowkit.tools import Tool
from flowkit.tools.toolsets import Toolset
from tests.example_counts import examples
from tests.executing import Ran, execute
from tests.stores import fast_folder, opened_journal, pretend_another_machine
from tests.two_drivers import NAMES, World, drive

AnyTool = Tool[..., Any]


# Never before the seal


class Nest:
    """Tools of which the innermost writes: each way in which something may be made inside an early read."""

    def __init__(self) -> None:
        self.effects: list[float] = []
        effects = self.effects

        @tool(effect="write")
        async def pay(n: int) -> str:
            """Pay."""
            effects.append(asyncio.get_running_loop().time())
            return f"paid {n}"

        @tool(effect="idempotent")
        async def put(n: int) -> str:
            """Put."""
            effects.append(asyncio.get_running_loop().time())
            return f"put {n}"

        self.pay, self.put = pay, put

    def wrap(self, kind: str, inner: AnyTool) -> AnyTool:
        """A read that makes `inner`, in this way."""
        match kind:
            case "ctx.call":

                @tool(name=f"by_{inner.name}", effect="read")
                async def by_call(n: int, ctx: Context[Any] = CONTEXT) -> str:
                    """Look, and call."""
                    await asyncio.sleep(0.01)
                    return str(await ctx.call(inner, n))

                return by_call
            case "agent":
                model = ScriptedModel(lambda request: "ok" if request.turn == 2 else [call(inner.name, n=7)])
                agent = Agent(model, tools=[inner], cache=False, name=f"agent_{inner.name}")

                @tool(name=f"ask_{inner.name}", effect="read")
                async def ask(n: int, ctx: Context[Any] = CONTEXT) -> str:
                    """Ask an agent, and say that it reads."""
                    return str(await ctx.call(agent.as_tool(), f"Do {n}."))

                return ask
            case "own run":
                model = ScriptedModel(lambda request: "ok" if request.turn == 2 else [call(inner.name, n=7)])
                agent = Agent(model, tools=[inner], cache=False, name=f"own_{inner.name}")

                @tool(name=f"run_{inner.name}", effect="read")
                async def run(n: int) -> str:
                    """Run an agent by hand, and say that it reads."""
                    return (await agent.run(f"Do {n}.")).text

                return run
            case _:

                @recipe(name=f"recipe_{inner.name}")
                def nested(n: int) -> str:
                    return step(inner, n)

                as_tool: AnyTool = nested.as_tool()

                @tool(name=f"open_{inner.name}", effect="read")
                async def open_it(n: int, ctx: Context[Any] = CONTEXT) -> str:
                    """Open a recipe."""
                    return str(await ctx.call(as_tool, n=n))

                return open_it


KINDS = ("ctx.call", "agent", "own run", "recipe")


@settings(max_examples=examples(60), deadline=None)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
    effect=st.sampled_from(["pay", "put"]),
    ending=st.sampled_from(["well", "broken", "broken twice", "other arguments", "words behind the calls"]),
)
def test_a_write_anywhere_in_a_nest_starts_at_most_once_and_never_before_its_turn_ended_well(
    kinds: list[str], effect: str, ending: str
) -> None:
    nest = Nest()
    outermost: AnyTool = getattr(nest, effect)
    for kind in kinds:
        outermost = nest.wrap(kind, outermost)
    gone = ModelError("the stream broke", retryable=True)
    name = outermost.name
    # The second call lets the first start before the turn has ended.
    turns: list[Any] = [[call(name, n=1), 5.0, call("other"), 5.0]]
    match ending:
        case "broken":
            turns.insert(0, [call(name, n=1), 5.0, call("other"), 5.0, gone])
        case "broken twice":
            turns = [[call(name, n=1), 5.0, call("other"), 5.0, gone]] * 2 + turns
        case "other arguments":
            turns.insert(0, [call(name, n=2), 5.0, call("other"), 5.0, gone])
        case "words behind the calls":
            turns = [[call(name, n=1), 5.0, call("other"), FinishDelta("tool_calls"), 5.0, Usage(1, 1), 5.0]]
        case _:
            pass

    @tool(effect="read")
    async def other() -> str:
        """Look elsewhere."""
        return "seen"

    async def go() -> float:
        agent = Agent(ScriptedModel([*turns, "done"]), tools=[outermost, other], cache=False)
        began = asyncio.get_running_loop().time()
        run = agent.start("Go.")
        result = await run.wait()
        assert result.status == "done", result.error
        ends = [event for event in run.log.events if isinstance(event, TurnFinished) and event.error is None]
        return began + ends[0].t

    ended_well = run_virtual(go())
    assert len(nest.effects) == 1, "once for the turn that ended well, never for those that broke off"
    assert nest.effects[0] >= ended_well


@pytest.mark.parametrize("kind", KINDS)
def test_a_read_of_a_refused_answer_writes_nothing(kind: str) -> None:
    """A filter's word comes behind calls that are whole by then, and what follows it takes its time."""
    nest = Nest()
    outermost = nest.wrap(kind, nest.pay)

    async def go() -> Any:
        turn = [call(outermost.name, n=1), 5.0, FinishDelta("content_filter"), 5.0]
        agent = Agent(ScriptedModel([turn, "done"]), tools=[outermost], cache=False)
        return await agent.start("Go.").wait()

    assert run_virtual(go()).status == "failed"
    assert nest.effects == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_read_writes_nothing_when_its_turn_cant_be_paid_for(kind: str) -> None:
    """The store of a budget is asked for each answer; until it has the cost, and when it fails, nothing is written."""
    nest = Nest()
    outermost = nest.wrap(kind, nest.pay)

    class Store:
        async def read_spent(self, key: str) -> float:
            return 0.0

        async def add_spent(self, key: str, usd: float) -> float:
            await asyncio.sleep(5)
            raise StoreError("the disk is full")

    async def go() -> Any:
        turn = [Usage(10, 10), call(outermost.name, n=1), 5.0]
        model = ScriptedModel([turn, "done"], price=Price(input=1, output=1))
        agent = Agent(model, tools=[outermost], cache=False, budget=Budget(usd=1, per="all", store=Store()))
        return await agent.start("Go.").wait()

    assert run_virtual(go()).status == "failed"
    assert nest.effects == []


def test_a_read_that_makes_a_write_starts_early_and_waits_before_the_write() -> None:
    """What may start early still does: only the write waits."""
    nest = Nest()
    outermost = nest.wrap("ctx.call", nest.pay)

    @tool(effect="read")
    async def other() -> str:
        """Look elsewhere."""
        return "seen"

    async def go() -> list[told.Event]:
        turn = [call(outermost.name, n=1), 5.0, call("other"), 5.0]
        agent = Agent(ScriptedModel([turn, "done"]), tools=[outermost, other], cache=False)
        run = agent.start("Go.")
        await run.wait()
        return run.log.events

    log = run_virtual(go())
    started = {event.call: event for event in log if isinstance(event, CallStarted)}
    (turn_end,) = [event.seq for event in log if isinstance(event, TurnFinished)][:1]
    assert started["turn/1/call/0"].early
    assert started["turn/1/call/0"].seq < turn_end < started["turn/1/call/0/pay"].seq


@pytest.mark.parametrize("kind", ["agent", "recipe", "agent in a thread of its own", "agent in a thread of the loop"])
@pytest.mark.parametrize("breaks", [False, True])
def test_a_write_that_a_blocking_read_makes_in_a_run_of_its_own_waits_for_the_turn(kind: str, breaks: bool) -> None:
    """The inner run has a loop of its own, in the thread of the tool."""
    ended: list[bool] = []
    runs: list[Run[Any]] = []

    @tool(effect="write")
    def pay(n: int) -> str:
        """Pay."""
        ended.append(any(isinstance(event, TurnFinished) and event.error is None for event in runs[0].log.events))
        return f"paid {n}"

    def answer(request: Any) -> Any:
        return "ok" if request.turn == 2 else [call("pay", n=7)]

    agent = Agent(ScriptedModel(answer), tools=[pay], cache=False)

    @recipe
    def payment(n: int) -> str:
        return step(pay, n)

    @tool(effect="read")
    def outer(n: int) -> str:
        """Do it in a run of its own."""
        return payment.run_sync(n).output if kind == "recipe" else agent.run_sync("Do it.").text

    @tool(effect="read")
    async def outer_thread(n: int) -> str:
        """Do it in a thread of its own."""
        if "loop" not in kind:
            return await asyncio.to_thread(lambda: agent.run_sync("Do it.").text)
        with_context = partial(copy_context().run, lambda: agent.run_sync("Do it.").text)
        return await asyncio.get_running_loop().run_in_executor(None, with_context)

    used: AnyTool = outer_thread if "thread" in kind else outer
    gone = ModelError("the stream broke", retryable=True)
    turns = [[call(used.name, n=1), 0.05, call("elsewhere"), gone]] * breaks
    turn = [call(used.name, n=1), 0.05, call("elsewhere"), 0.05]

    @tool(effect="read")
    async def elsewhere() -> str:
        """Look elsewhere."""
        return "seen"

    async def go() -> None:
        runs.append(Agent(ScriptedModel([*turns, turn, "done"]), tools=[used, elsewhere], cache=False).start("Go."))
        assert (await runs[0].wait()).status == "done"

    asyncio.run(go())
    assert ended == [True]


# What a tool may say of itself


def test_a_tool_that_cannot_tell_is_in_doubt_and_is_not_tried_again() -> None:
    tries: list[str] = []

    @tool(effect="write")
    async def pay() -> str:
        """Pay."""
        tries.append("pay")
        raise InDoubt("the bank did not answer")

    @tool(effect="idempotent", retries=3)
    async def put() -> str:
        """Put."""
        tries.append("put")
        raise InDoubt("the bank did not answer")

    ran = execute([pay, put], [ToolCall("a", "pay"), ToolCall("b", "put")])
    assert ran.states() == {"a": "in_doubt", "b": "in_doubt"}
    assert ran["a"].error == "the bank did not answer: it may have happened; don't repeat it"
    assert sorted(tries) == ["pay", "put"]


@pytest.mark.parametrize(
    ("effect", "retries", "expected"),
    [("read", None, 2), ("read", 0, 1), ("idempotent", None, 1), ("idempotent", 2, 3), ("write", None, 1)],
)
def test_an_error_that_says_it_may_pass_is_tried_again_by_the_rules_of_the_effect(
    effect: Any, retries: int | None, expected: int
) -> None:
    tries: list[int] = []

    @tool(effect=effect, retries=retries)
    async def flaky() -> str:
        """Fail, in words that the model may read."""
        tries.append(1)
        raise ToolError("the warehouse is busy", retryable=True)

    ran = execute([flaky], [ToolCall("a", "flaky")])
    assert ran["a"].error == "the warehouse is busy"
    assert len(tries) == expected


def test_an_error_that_does_not_say_so_is_not_tried_again() -> None:
    tries: list[int] = []

    @tool(effect="read")
    async def strict() -> str:
        """Fail for good."""
        tries.append(1)
        raise ToolError("there is no such order")

    execute([strict], [ToolCall("a", "strict")])
    assert tries == [1]


# Never beside itself


@pytest.mark.timing
@pytest.mark.parametrize("effect", ["read", "idempotent"])
def test_a_retry_waits_until_the_thread_of_the_attempt_before_it_has_ended(effect: Any) -> None:
    at_once: list[int] = []
    running = 0
    lock = threading.Lock()
    gate = threading.Event()

    @tool(effect=effect, timeout=0.01, retries=2, resource="account:{n}")
    def slow(n: int) -> str:
        """Take longer than it may."""
        nonlocal running
        with lock:
            running += 1
            at_once.append(running)
        gate.wait(0.05)
        with lock:
            running -= 1
        return "late"

    async def go() -> Ran:
        log = EventLog("r", asyncio.get_running_loop().time)
        executor = Executor(Toolset(slow), log, slots=2)
        async with executor:
            executor.add(ToolCall("a", "slow", {"n": 1}))
            executor.add(ToolCall("b", "slow", {"n": 1}))
            await executor.wait()
        return Ran(executor, log)

    ran = asyncio.run(go())
    most = 1 if effect == "idempotent" else 2  # two reads of one resource may run together
    assert max(at_once) <= most
    assert {ran["a"].state, ran["b"].state} == {"failed"}


@pytest.mark.timing
def test_stopping_a_call_that_waits_for_its_thread_ends_it() -> None:
    gate = threading.Event()

    @tool(effect="idempotent", timeout=0.01, retries=2)
    def slow() -> str:
        """Take longer than it may."""
        gate.wait(30)
        return "late"

    async def go() -> str:
        log = EventLog("r", asyncio.get_running_loop().time)
        executor = Executor(Toolset(slow), log)
        async with executor:
            executor.add(ToolCall("a", "slow"))
            await asyncio.sleep(0.05)
            executor.cancel("a", "enough")
            await executor.wait()
            outcome = executor.outcome("a")
            assert outcome is not None
            gate.set()
            return outcome.state

    assert asyncio.run(go()) == "cancelled"


# A driver that was stopped


class Stopper:
    """Stops a driver between two of its steps: it goes on when it is let."""

    def __init__(self, stop_at: int) -> None:
        self._stop_at = stop_at
        self._steps = 0
        self.has_stopped = asyncio.Event()
        self._may_go_on = asyncio.Event()

    def go_on(self) -> None:
        self._may_go_on.set()

    async def step(self) -> None:
        self._steps += 1
        if self._steps == self._stop_at:
            self.has_stopped.set()
            await self._may_go_on.wait()

    async def call(self, method: Any, *args: Any, **named: Any) -> Any:
        """Call the journal, with a step before and one behind."""
        await self.step()
        result = await method(*args, **named)
        await self.step()
        return result


@settings(max_examples=examples(150), deadline=None)
@given(
    stop_at=st.integers(2, 16),  # the first step is before there is a journal
    wakes_after_s=st.sampled_from([1.0, START_WITHIN_S + 1, 16.0, 40.0, 1000.0]),
    can_be_asked=st.booleans(),
    tells=st.booleans(),
    wakes_first=st.booleans(),
    names=NAMES,
)
def test_whatever_the_schedule_of_two_drivers_each_write_happens_at_most_once(
    stop_at: int, wakes_after_s: float, can_be_asked: bool, tells: bool, wakes_first: bool, names: list[str]
) -> None:
    world = World(names, tells=tells)
    clock = ManualClock()

    async def go(path: Path) -> None:
        with (
            opened_journal(path, clock=clock) as one,
            opened_journal(path, clock=clock) as other,
        ):
            first = Stopper(stop_at)
            driving = asyncio.create_task(drive(world, one, first.call))
            stopped = asyncio.create_task(first.has_stopped.wait())
            await asyncio.wait([driving, stopped], return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if not can_be_asked and not driving.done():
                pretend_another_machine(path)
            clock.advance(wakes_after_s)
            if wakes_first:
                first.go_on()
                await driving
            await drive(world, other, Stopper(0).call)
            world.settle(other)
            await drive(world, other, Stopper(0).call)
            first.go_on()
            await driving
            await drive(world, other, Stopper(0).call)

    with fast_folder() as folder:
        asyncio.run(go(folder / "j"))
    world.check()


def test_a_journal_that_is_gone_stops_the_run_and_nothing_further_starts(tmp_path: Path) -> None:
    effects: list[str] = []

    @tool(effect="write")
    async def pay(n: int) -> str:
        """Pay; somebody tidies up meanwhile."""
        effects.append(f"pay {n}")
        for ending in ("", "-wal", "-shm"):
            (tmp_path / f"j{ending}").unlink(missing_ok=True)
        return "paid"

    with opened_journal(tmp_path / "j") as journal:
        model = ScriptedModel([[call("pay", n=1)], [call("pay", n=2)], "All is paid."])
        agent = Agent(model, tools=[pay], cache=False, journal=journal)
        with pytest.raises(StoreError, match="it was removed"):
            agent.run_sync("Pay twice.", run_id="r", user="ann")
    assert effects == ["pay 1"]


def test_a_call_that_waits_for_a_person_says_so_in_a_field() -> None:
    @tool(effect="write", approval=True)
    async def refund() -> str:
        """Give money back."""
        return "refunded"

    async def go() -> list[told.Event]:
        agent = Agent(ScriptedModel([[call("refund")]]), tools=[refund], cache=False)
        run = agent.start("Refund.")
        result = await run.wait()
        assert result.status == "waiting"
        return run.log.events

    log = run_virtual(go())
    assert [event.waits for event in log if isinstance(event, told.CallCancelled)] == [True]
    began = log[0]
    assert isinstance(began, told.RunStarted)
    assert began.message == "Refund."
    assert began.at_wall is not None


# One decision, sent twice


def test_one_decision_that_is_sent_twice_acts_once_also_without_a_journal() -> None:
    paid: list[int] = []

    @tool(effect="write", approval=True)
    async def pay(n: int) -> str:
        """Pay."""
        paid.append(n)
        await asyncio.sleep(0.01)
        return "paid"

    def make() -> Agent[str]:
        return Agent(ScriptedModel(lambda request: "Done." if request.turn > 1 else [call("pay", n=1)]), tools=[pay])

    waiting = make().run_sync("Pay.")
    approve = {pending.id: Approve() for pending in waiting.pending}
    # As a browser sends it back, and by whatever agent of this process takes it.
    history = [message.to_json() for message in waiting.messages]
    first = make().run_sync(history=history, decisions=approve)
    again = make().run_sync(history=history, decisions=approve)
    assert (first.text, again.text) == ("Done.", "Done.")
    assert paid == [1]

    async def at_once() -> None:
        asked = await make().run("Pay.")
        decided = {pending.id: Approve() for pending in asked.pending}
        ended = await asyncio.gather(
            *(make().run(history=asked.messages, decisions=decided) for _ in range(5)),
        )
        assert [result.text for result in ended] == ["Done."] * 5

    asyncio.run(at_once())
    assert paid == [1, 1], "another question is another payment"


def test_one_decision_on_a_recipe_that_is_sent_twice_acts_once() -> None:
    paid: list[int] = []

    @tool(effect="write", approval=True)
    def pay(n: int) -> str:
        """Pay."""
        paid.append(n)
        return "paid"

    @recipe
    def settle(n: int) -> str:
        return step(pay, n)

    for _ in range(2):
        waiting = settle.run_sync(1)
        approve = {pending.id: Approve() for pending in waiting.pending}
        for _ in range(3):
            assert settle.options(resume=waiting, decisions=approve).run_sync(1).output == "paid"
    assert paid == [1, 1]


def test_a_decision_that_could_not_be_carried_out_may_be_made_again() -> None:
    paid: list[int] = []

    @tool(effect="write", approval=True)
    async def pay(n: int) -> str:
        """Pay."""
        paid.append(n)
        return "paid"

    agent = Agent(ScriptedModel(lambda request: "Done." if request.turn > 1 else [call("pay", n=1)]), tools=[pay])
    waiting = agent.run_sync("Pay.")
    wrong = agent.run_sync(history=waiting.messages, decisions={waiting.pending[0].id: Approve({"n": "much"})})
    assert wrong.status == "waiting"
    right = agent.run_sync(history=waiting.messages, decisions={waiting.pending[0].id: Approve({"n": 2})})
    assert right.text == "Done."
    assert paid == [2]


# Who learns of a failure


def test_a_failed_run_that_nobody_asks_for_its_result_is_logged_once_and_tells_a_customer_nothing_of_the_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def serve() -> list[told.Event]:
        agent = Agent(ScriptedModel([[ModelError("the key sk-123 is wrong", status=401)]]), attempts=1)
        run = agent.start("Hello.")
        seen = [event async for event in run]
        del run
        await asyncio.sleep(0)
        return seen

    *_, ended = asyncio.run(serve())
    gc.collect()
    assert isinstance(ended, told.RunFinished)
    assert ended.error is not None
    assert "the key sk-123 is wrong" in ended.error
    assert ended.notice == "Something went wrong on our side. Please try again later."
    assert [record.message for record in caplog.records if record.name == "flowkit.runs"] == [
        f"run {ended.run} failed: {ended.error}"
    ]


@pytest.mark.slow
def test_a_failed_run_whose_result_somebody_takes_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent(ScriptedModel([[ModelError("no", status=401)]]), attempts=1)
    with pytest.raises(ModelError):
        agent.run_sync("Hello.")
    gc.collect()
    assert not [record for record in caplog.records if record.name == "flowkit.runs"]
