"""The executor: what starts when, what is shared, what each way to end does to the others."""

import asyncio
import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from flowkit import events
from flowkit.cache import NullCache
from flowkit.context import CONTEXT, Context
from flowkit.errors import GraphError, ToolArgumentsError, ToolError
from flowkit.events import EventLog
from flowkit.executor import Approve, Deny, Executor
from flowkit.executor.retries import FIRST_DELAY_S
from flowkit.executor.workers import CALLS_IN_A_ROW
from flowkit.graph import Step
from flowkit.identity import RunIdentity
from flowkit.references import Reference, ToolCall
from flowkit.testing.loop import run_virtual
from flowkit.tools import Needs, tool
from tests.executing import AnyTool, Ran, Shelf, execute

runs: list[str] = []


@pytest.fixture(autouse=True)
def _no_runs_yet() -> None:  # pyright: ignore[reportUnusedFunction]  # pytest finds it
    runs.clear()


@tool(effect="read")
async def look(name: str = "a", seconds: float = 1) -> dict[str, Any]:
    """Look something up."""
    runs.append(f"look {name}")
    await asyncio.sleep(seconds)
    return {"name": name, "items": [{"id": 1}, {"id": 2}]}


@tool
async def change(name: str = "a", seconds: float = 1, after: Any = None) -> str:
    """Change something."""
    runs.append(f"change {name}")
    await asyncio.sleep(seconds)
    return f"changed {name}"


@tool
async def refuse(after: Any = None) -> str:
    """Always fail, in words for the model."""
    raise ToolError("sold out; offer P002")


@tool
async def crash() -> str:
    """Always fail, in words for nobody."""
    raise RuntimeError("the password is hunter2")


@tool(effect="read")
async def quote(express: bool = False, order: dict[str, Any] = Needs(look)) -> str:
    """Needs an order."""
    await asyncio.sleep(1)
    return f"{order['name']} {express}"


TOOLS: list[AnyTool] = [look, change, refuse, crash, quote]


def test_independent_calls_run_at_once() -> None:
    ran = execute(TOOLS, [ToolCall(f"c{n}", "change", {"seconds": 2}) for n in range(5)])
    assert ran.makespan == 2


def test_call_starts_when_what_it_refers_to_has_ended() -> None:
    ran = execute(
        TOOLS,
        [
            ToolCall("a", "look", {"name": "x"}),
            ToolCall("b", "change", {"name": Reference("a", ("name",)), "seconds": 3}),
        ],
    )
    assert ran.started() == {"a": 0, "b": 1}
    assert ran["b"].value == "changed x"
    assert ran["b"].call.arguments == {"name": "x", "seconds": 3}


def test_need_runs_before_its_caller_and_once_for_both() -> None:
    ran = execute(
        TOOLS, [ToolCall("a", "quote", {"name": "x", "express": True}), ToolCall("b", "quote", {"name": "x"})]
    )
    assert runs == ["look x"]
    assert ran["a"].value == "x True"
    assert ran["b/order"].source == "flight"
    assert ran["a/order"].parent == "a"


def test_events_of_a_call_come_in_the_order_of_its_states() -> None:
    ran = execute(TOOLS, [ToolCall("a", "look"), ToolCall("b", "change", {"after": Reference("a")})])
    assert ran.kinds("b") == ["call.new", "call.sealed", "call.waiting", "call.started", "call.finished"]


def test_failed_call_skips_its_dependents_and_no_others() -> None:
    ran = execute(
        TOOLS,
        [
            ToolCall("a", "refuse"),
            ToolCall("b", "change", {"after": Reference("a")}),
            ToolCall("c", "change", {"after": Reference("b")}),
            ToolCall("d", "change"),
        ],
    )
    assert ran.states() == {"a": "failed", "b": "skipped", "c": "skipped", "d": "finished"}
    assert ran["a"].error == "sold out; offer P002"
    # Each names the ancestor that failed, not the one between.
    assert ran["c"].error == "not run: it needs 'refuse' (a), which failed: sold out; offer P002"


def test_unexpected_error_reaches_the_log_and_not_the_model(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "flowkit"):
        ran = execute(TOOLS, [ToolCall("a", "crash")])
    assert ran["a"].error is not None
    assert ran["a"].error.startswith("failed (ref ")
    assert "hunter2" not in ran["a"].error
    assert "hunter2" in caplog.text
    assert ran["a"].error[len("failed (ref ") : -1] in caplog.text


def test_wrong_arguments_fail_before_anything_runs() -> None:
    ran = execute(TOOLS, [ToolCall("a", "change", {"seconds": "long"}), ToolCall("b", "quote", {"express": "perhaps"})])
    assert ran.states()["a"] == "failed"
    assert "expected" in (ran["a"].error or "")
    assert ran["b"].state == "failed"
    assert runs == []


def test_unknown_tool_fails_its_call() -> None:
    ran = execute(TOOLS, [ToolCall("a", "nothing")])
    assert ran["a"].error == "there is no tool 'nothing'"


@pytest.mark.parametrize("reference", ["a", "later", "nowhere"])
def test_self_forward_and_unknown_references_are_refused_at_once(reference: str) -> None:
    def drive() -> None:
        execute(TOOLS, [ToolCall("a", "change", {"after": Reference(reference)}), ToolCall("later", "look")])

    with pytest.raises(GraphError, match=reference):
        drive()


def test_id_is_unique() -> None:
    with pytest.raises(GraphError, match="taken"):
        execute(TOOLS, [ToolCall("a", "look"), ToolCall("a", "look")])


@pytest.mark.parametrize("state", ["failed", "skipped", "cancelled", "denied"])
def test_reference_to_a_call_that_ended_badly_skips(state: str) -> None:
    @tool(approval=True)
    async def ask() -> str:
        return "asked"

    async def drive(executor: Executor) -> None:
        executor.add(ToolCall("bad", "refuse"))
        executor.add(ToolCall("after", "change", {"after": Reference("bad")}))
        executor.add(ToolCall("slow", "look", {"seconds": 9}))
        executor.add(ToolCall("asked", "ask"))
        await executor.wait("bad", "after", "asked")
        executor.cancel("slow", "no longer wanted")
        executor.decide("asked", Deny("no"))
        await executor.wait()
        name = {"failed": "bad", "skipped": "after", "cancelled": "slow", "denied": "asked"}[state]
        executor.add(ToolCall("late", "change", {"after": Reference(name)}))

    ran = execute([*TOOLS, ask], [], drive)
    assert ran["late"].state == "skipped"
    assert ran["late"].started_s is None


def test_slots_bound_what_runs_at_once() -> None:
    ran = execute(TOOLS, [ToolCall(f"c{n}", "change") for n in range(7)], slots=3)
    assert ran.makespan == 3


def test_named_slots_bound_their_tools_alone() -> None:
    @tool(slot="db")
    async def query() -> str:
        await asyncio.sleep(1)
        return ""

    nodes = [ToolCall(f"q{n}", "query") for n in range(4)] + [ToolCall(f"c{n}", "change") for n in range(4)]
    ran = execute([*TOOLS, query], nodes, slots={"all": 10, "db": 2})
    assert max(ran[f"q{n}"].ended_s for n in range(4)) == 2
    assert max(ran[f"c{n}"].ended_s for n in range(4)) == 1


def test_followers_of_a_flight_hold_no_slot() -> None:
    nodes = [ToolCall(f"l{n}", "look", {"name": "same"}) for n in range(5)] + [ToolCall("c", "change")]
    ran = execute(TOOLS, nodes, slots=2)
    assert runs.count("look same") == 1
    assert ran.makespan == 1
    assert [ran[f"l{n}"].source for n in range(5)] == ["run", "flight", "flight", "flight", "flight"]


def test_caller_in_a_tool_holds_no_slot_while_it_waits() -> None:
    @tool
    async def outer(ctx: Context[Any] = CONTEXT) -> str:
        first: Any = await ctx.call(look, name="x")
        second: Any = await ctx.call(look, name="y")
        return first["name"] + second["name"]

    ran = execute([*TOOLS, outer], [ToolCall("o", "outer")], slots=1)
    assert ran["o"].value == "xy"
    assert ran["o/look"].parent == "o"
    assert ran["o/look_2"].state == "finished"


def test_failure_of_an_inner_call_reaches_its_caller() -> None:
    @tool
    async def outer(ctx: Context[Any] = CONTEXT) -> str:
        try:
            await ctx.call(refuse)
        except ToolError as error:
            return str(error)
        return "?"

    ran = execute([*TOOLS, outer], [ToolCall("o", "outer")])
    assert ran["o"].value == "refuse: sold out; offer P002"


def test_cancelled_leader_takes_nobody_along() -> None:
    async def drive(executor: Executor) -> None:
        await asyncio.sleep(0.5)
        executor.cancel("a", "not wanted")

    ran = execute(TOOLS, [ToolCall("a", "look"), ToolCall("b", "look")], drive)
    assert ran.states() == {"a": "cancelled", "b": "finished"}
    assert ran["b"].ended_s == 1.5


def test_equal_reads_of_another_turn_run_again() -> None:
    async def drive(executor: Executor) -> None:
        await executor.wait()
        executor.end_turn()
        executor.add(ToolCall("b", "look"))

    execute(TOOLS, [ToolCall("a", "look")], drive)
    assert runs == ["look a", "look a"]


def test_equal_reads_around_a_write_share_nothing_also_without_a_resource() -> None:
    nodes = [
        ToolCall("before", "look"),
        Step("w", "change", after=("before",)),
        Step("after", "look", after=("w",)),
        Step("at once", "look", after=("w",)),
    ]
    ran = execute(TOOLS, nodes)
    assert runs == ["look a", "change a", "look a"]
    assert ran["at once"].source == "flight"


def test_failed_read_is_tried_again_and_a_write_is_not() -> None:
    attempts: list[str] = []

    @tool(effect="read", retries=2)
    async def flaky() -> str:
        attempts.append("read")
        if len(attempts) < 3:
            raise ConnectionError("reset")
        return "there"

    @tool
    async def flaky_write() -> str:
        attempts.append("write")
        raise ConnectionError("reset")

    ran = execute([flaky], [ToolCall("a", "flaky")], random=lambda: 0.0)
    assert ran["a"].value == "there"
    assert ran["a"].attempt == 3
    assert ran["a"].ended_s == pytest.approx(0.3)  # pyright: ignore[reportUnknownMemberType]  # pytest's own
    assert ran.kinds("a").count("call.retried") == 2
    attempts.clear()
    execute([flaky_write], [ToolCall("a", "flaky_write")])
    assert attempts == ["write"]


def test_words_for_the_model_are_no_reason_to_try_again() -> None:
    attempts: list[int] = []

    @tool(effect="read", retries=3)
    async def sure() -> str:
        attempts.append(1)
        raise ToolError("no such order")

    execute([sure], [ToolCall("a", "sure")])
    assert attempts == [1]


def test_call_that_takes_too_long_is_stopped() -> None:
    @tool(effect="read", timeout=2, retries=0)
    async def slow() -> str:
        await asyncio.sleep(9)
        return ""

    @tool(timeout=2)
    async def slow_write() -> str:
        await asyncio.sleep(9)
        return ""

    ran = execute([slow, slow_write], [ToolCall("a", "slow"), ToolCall("b", "slow_write")])
    assert (ran["a"].state, ran["a"].error, ran["a"].ended_s) == ("failed", "no answer within 2 s", 2)
    assert ran["b"].state == "in_doubt"
    assert "don't repeat it" in (ran["b"].error or "")


def test_time_waiting_for_a_slot_is_not_the_calls_own() -> None:
    @tool(timeout=2)
    async def slow() -> str:
        await asyncio.sleep(1.5)
        return ""

    ran = execute([slow], [ToolCall(f"c{n}", "slow") for n in range(3)], slots=1)
    assert set(ran.states().values()) == {"finished"}


def test_whole_is_bounded_by_its_time_out() -> None:
    ran = execute(
        TOOLS, [ToolCall("a", "look", {"seconds": 99}), ToolCall("b", "change", {"after": Reference("a")})], timeout_s=5
    )
    assert ran.states() == {"a": "cancelled", "b": "skipped"} or ran.states() == {"a": "cancelled", "b": "cancelled"}
    assert ran.makespan == 5


def test_cancelled_write_that_had_started_is_in_doubt() -> None:
    async def drive(executor: Executor) -> None:
        await asyncio.sleep(0.5)
        executor.cancel("a", "stop")
        executor.cancel("b", "stop")

    ran = execute(TOOLS, [ToolCall("a", "change"), ToolCall("b", "change")], drive, slots=1)
    assert ran.states() == {"a": "in_doubt", "b": "cancelled"}
    assert runs == ["change a"]


def test_call_behind_one_that_would_not_be_stopped_ends_as_it_would_alone() -> None:
    @tool
    async def stubborn() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(9)
        return "done all the same"

    @tool
    async def give_up() -> str:
        raise asyncio.CancelledError

    async def drive(executor: Executor) -> None:
        await asyncio.sleep(1)
        executor.cancel("a", "not wanted")
        async with asyncio.timeout(9):
            await executor.wait()

    ran = execute([stubborn, give_up], [ToolCall("a", "stubborn"), ToolCall("b", "give_up")], drive, slots=1)
    assert ran.states() == {"a": "finished", "b": "failed"}
    assert ran["b"].error == "the tool cancelled itself"


def test_fail_fast_cancels_the_rest() -> None:
    @tool
    async def fail_late() -> str:
        await asyncio.sleep(1)
        raise ToolError("no")

    nodes = [
        ToolCall("a", "fail_late"),
        ToolCall("b", "look", {"seconds": 9}),
        ToolCall("c", "change", {"after": Reference("b")}),
    ]
    assert execute([*TOOLS, fail_late], nodes, fail_fast=True).makespan == 1
    assert execute([*TOOLS, fail_late], nodes).makespan == 10


def test_leaving_stops_everything_that_runs() -> None:
    stopped: list[str] = []

    @tool(effect="read")
    async def slow() -> str:
        try:
            await asyncio.sleep(99)
        finally:
            stopped.append("slow")
        return ""

    async def drive(executor: Executor) -> None:
        await asyncio.sleep(1)
        raise LookupError("the run's own trouble")

    with pytest.raises(LookupError):
        execute([slow], [ToolCall("a", "slow")], drive)
    assert stopped == ["slow"]


def test_sync_tools_run_in_threads_at_once_and_leave_none() -> None:
    both = threading.Barrier(2, timeout=10)

    @tool
    def block(n: int) -> str:
        both.wait()
        return threading.current_thread().name

    before = threading.active_count()
    ran = execute([block], [ToolCall("a", "block", {"n": 1}), ToolCall("b", "block", {"n": 2})])
    assert ran["a"].value == ran["b"].value == "flowkit-tool"
    assert threading.active_count() == before


@pytest.mark.timing
def test_thread_that_cant_be_stopped_keeps_its_slot_and_is_told() -> None:
    release = threading.Event()
    seen: list[bool] = []

    @tool(timeout=0.05, resource="door")
    def stuck(ctx: Context[Any] = CONTEXT) -> str:
        release.wait(10)
        seen.append(ctx.cancelled.is_set())
        return "late"

    @tool(resource="door")
    async def behind() -> str:
        seen.append(True)
        return "in"

    async def drive(executor: Executor) -> None:
        await executor.wait("a")
        assert executor.outcome("b") is None
        release.set()

    ran = execute([stuck, behind], [ToolCall("a", "stuck"), ToolCall("b", "behind")], drive, slots=5)
    assert ran["a"].state == "in_doubt"
    assert ran["b"].state == "finished"
    assert seen == [True, True]


def test_context_of_a_call() -> None:
    keys: list[str] = []

    @tool(effect="idempotent", retries=1)
    async def peek(n: int, ctx: Context[Any] = CONTEXT) -> str:
        keys.append(ctx.idempotency_key)
        ctx.progress(1, 2, "half")
        if len(keys) == 1:
            raise OSError("once")
        return f"{ctx.data} {ctx.user} {ctx.call_id} {ctx.attempt}"

    nodes = [ToolCall("a", "peek", {"n": 1}), ToolCall("b", "peek", {"n": 2})]
    ran = execute([peek], nodes, data="shop", identity=RunIdentity("c-17", run_id="r1"), slots=1)
    assert ran["a"].value == "shop c-17 a 2"
    assert len(set(keys)) == 2, "one key for all attempts of a call, another for each call"
    assert "call.progress" in ran.kinds("a")


def test_context_variables_of_a_tool_stay_its_own() -> None:
    import contextvars

    variable = contextvars.ContextVar("variable", default="clean")

    @tool
    async def taint() -> str:
        found = variable.get()
        variable.set("tainted")
        return found

    ran = execute([taint], [ToolCall(f"c{n}", "taint") for n in range(4)], slots=1)
    assert [ran[f"c{n}"].value for n in range(4)] == ["clean"] * 4


# Approval


@tool(approval=lambda arguments, context: arguments["won"] > 50_000)
async def refund(won: int, after: Any = None) -> str:
    """Give money back."""
    runs.append(f"refund {won}")
    return f"refunded {won}"


def waits(ran: Ran, waiting_for: events.WaitingFor) -> list[events.CallWaiting]:
    return [
        event for event in ran.log.events if isinstance(event, events.CallWaiting) and event.waiting_for == waiting_for
    ]


def test_approval_holds_only_what_it_is_about() -> None:
    async def drive(executor: Executor) -> None:
        await executor.wait()
        assert [call.id for call in executor.pending] == ["large"]
        assert executor.pending[0].arguments == {"won": 90_000, "after": {"name": "a", "items": [{"id": 1}, {"id": 2}]}}
        assert runs == ["look a", "refund 10"] or runs == ["refund 10", "look a"]
        executor.decide("large", Approve(by="kim"))

    nodes = [
        ToolCall("order", "look"),
        ToolCall("large", "refund", {"won": 90_000, "after": Reference("order")}),
        ToolCall("small", "refund", {"won": 10}),
        ToolCall("behind", "change", {"after": Reference("large")}),
    ]
    ran = execute([*TOOLS, refund], nodes, drive)
    assert ran["large"].value == "refunded 90000"
    assert [(event.call, event.on) for event in waits(ran, "approval")] == [("large", ())]
    assert ran["behind"].state == "finished"


def test_rule_of_a_call_that_was_cancelled_is_not_asked(caplog: pytest.LogCaptureFixture) -> None:
    async def drive(executor: Executor) -> None:
        executor.cancel("a", "not wanted")

    ran = execute([refund], [ToolCall("a", "refund", {"won": 10})], drive)
    assert ran.states() == {"a": "cancelled"}
    assert not caplog.records


def test_denied_call_skips_who_needs_it() -> None:
    async def drive(executor: Executor) -> None:
        await executor.wait()
        executor.decide("a", Deny("too much", by="kim"))

    ran = execute(
        [*TOOLS, refund],
        [ToolCall("a", "refund", {"won": 60_000}), ToolCall("b", "change", {"after": Reference("a")})],
        drive,
    )
    assert ran.states() == {"a": "denied", "b": "skipped"}
    assert ran["a"].error == "too much"


def test_approval_with_other_arguments_checks_them() -> None:
    async def drive(executor: Executor) -> None:
        await executor.wait()
        with pytest.raises(ToolArgumentsError):
            executor.decide("a", Approve({"won": "much"}))
        executor.decide("a", Approve({"won": 50_001}))

    ran = execute([*TOOLS, refund], [ToolCall("a", "refund", {"won": 60_000})], drive)
    assert ran["a"].value == "refunded 50001"


# Sealing


def test_early_run_with_equal_arguments_stands() -> None:
    async def drive(executor: Executor) -> None:
        executor.announce("a", "look")
        assert executor.start_early(ToolCall("a", "look", {"name": "x"}))
        await asyncio.sleep(3)
        assert executor.outcome("a") is None
        executor.seal(ToolCall("a", "look", {"name": "x"}))

    ran = execute(TOOLS, [], drive)
    assert runs == ["look x"]
    assert (ran["a"].early, ran["a"].ended_s, ran["a"].sealed_s) == (True, 1, 3)


@pytest.mark.parametrize("end", ["seal", "void"])
def test_early_run_that_was_cancelled_has_one_end(end: str) -> None:
    call = ToolCall("a", "quote", {"name": "x"})

    async def drive(executor: Executor) -> None:
        executor.announce("a", "quote")
        executor.announce("b", "quote")
        executor.start_early(call)
        await asyncio.sleep(1.5)  # what it needs has ended
        executor.cancel("a", "not wanted")
        executor.cancel("b", "not wanted")
        await asyncio.sleep(1)
        executor.void("b", "cut off")
        executor.seal(call) if end == "seal" else executor.void("a", "cut off")

    execute(TOOLS, [], drive)  # it looks at the ends


def test_call_that_was_cancelled_before_its_seal_may_be_sealed_and_stays_cancelled() -> None:
    call = ToolCall("a", "quote", {"name": "x"})

    async def drive(executor: Executor) -> None:
        executor.announce("a", "quote")
        executor.start_early(call)
        await asyncio.sleep(3)  # it has ended
        executor.cancel("a", "not wanted")
        executor.seal(call)

    ran = execute(TOOLS, [], drive)
    assert (ran["a"].state, ran["a"].error) == ("cancelled", "not wanted")


def test_early_run_with_other_arguments_is_forgotten() -> None:
    async def drive(executor: Executor) -> None:
        executor.announce("a", "quote")
        assert executor.start_early(ToolCall("a", "quote", {"name": "x"}))
        await asyncio.sleep(0.5)
        executor.seal(ToolCall("a", "quote", {"name": "xy"}))

    ran = execute(TOOLS, [], drive)
    assert runs == ["look x", "look xy"]
    assert ran["a"].value == "xy False"


@pytest.mark.parametrize(
    "call",
    [
        ToolCall("a", "change", {"name": "x"}),
        ToolCall("a", "look", {}),
        ToolCall("a", "look", {"seconds": "soon"}),
        ToolCall("a", "look", {"name": Reference("z", ("name",))}),
        ToolCall("a", "nothing", {"x": 1}),
    ],
    ids=["write", "empty", "invalid", "reference", "unknown"],
)
def test_only_complete_reads_start_early(call: ToolCall) -> None:
    async def drive(executor: Executor) -> None:
        executor.announce("a", call.name)
        assert not executor.start_early(call)
        executor.void("a", "cut off")

    ran = execute(TOOLS, [ToolCall("z", "look")], drive)
    assert ran["a"].state == "void"


def test_read_of_a_broken_turn_is_kept_for_its_retry() -> None:
    async def drive(executor: Executor) -> None:
        executor.announce("a", "look")
        executor.announce("b", "look")
        executor.start_early(ToolCall("a", "look", {"name": "done"}))
        executor.start_early(ToolCall("b", "look", {"name": "orphan", "seconds": 9}))
        await asyncio.sleep(2)
        executor.void("a", "cut off")
        executor.void("b", "cut off")
        executor.announce("a2", "look")
        executor.seal(ToolCall("a2", "look", {"name": "done"}))
        executor.end_turn()
        executor.add(ToolCall("a3", "look", {"name": "done"}))

    ran = execute(TOOLS, [], drive)
    assert ran.states() == {"a": "void", "b": "void", "a2": "finished", "a3": "finished"}
    assert (ran["a2"].source, ran["a2"].ended_s) == ("flight", 2)
    assert runs == ["look done", "look orphan", "look done"]


def test_fail_gives_a_call_its_one_result() -> None:
    async def drive(executor: Executor) -> None:
        executor.announce("a", "nothing")
        executor.fail(ToolCall("a", "nothing", {"x": 1}), "there is no tool 'nothing'")
        executor.seal(ToolCall("b", "change", {"after": Reference("gone")}))

    ran = execute(TOOLS, [], drive)
    assert ran["a"].error == "there is no tool 'nothing'"
    assert ran["b"].error == "not run: 'b' refers to 'gone', which isn't there before it"


# Options of steps


def test_optional_step_that_fails_counts_as_null() -> None:
    nodes = [Step("a", "refuse", optional=True), ToolCall("b", "change", {"after": Reference("a")})]
    ran = execute(TOOLS, nodes)
    assert ran.states() == {"a": "failed", "b": "finished"}


def test_step_after_others_runs_however_they_ended() -> None:
    nodes = [ToolCall("a", "refuse"), ToolCall("b", "look"), Step("end", "change", after=("a", "b"))]
    ran = execute(TOOLS, nodes)
    assert ran["end"].started_s == 1


@tool(effect="read")
async def echo(value: Any = None, seconds: float = 1) -> Any:
    await asyncio.sleep(seconds)
    return value


def test_dependent_of_a_call_that_becomes_void_is_skipped() -> None:
    async def drive(executor: Executor) -> None:
        executor.announce("a", "echo")
        executor.seal(ToolCall("b", "echo", {"value": Reference("a")}))
        waiting = asyncio.ensure_future(executor.wait())
        await asyncio.sleep(0.5)
        executor.void("a", "the stream broke")
        await waiting

    assert execute([echo], [], drive).states() == {"a": "void", "b": "skipped"}


@pytest.mark.parametrize("pause_s", [0.5, 2])
def test_dependent_of_an_early_run_takes_the_result_of_the_arguments_that_were_sealed(pause_s: float) -> None:
    async def drive(executor: Executor) -> None:
        executor.announce("a", "echo")
        executor.start_early(ToolCall("a", "echo", {"value": "x"}))
        executor.seal(ToolCall("b", "echo", {"value": Reference("a")}))
        await asyncio.sleep(pause_s)  # before, or after, the early run has ended
        executor.seal(ToolCall("c", "echo", {"value": Reference("a")}))
        executor.seal(ToolCall("a", "echo", {"value": "y"}))

    ran = execute([echo], [], drive)
    assert (ran["b"].value, ran["c"].value) == ("y", "y")


def test_dependent_of_an_early_run_goes_on_when_that_is_sealed_as_it_was() -> None:
    async def drive(executor: Executor) -> None:
        executor.start_early(ToolCall("a", "echo", {"value": "x"}))
        executor.seal(ToolCall("b", "echo", {"value": Reference("a")}))
        await asyncio.sleep(2)
        assert executor.outcome("b") is None
        executor.seal(ToolCall("a", "echo", {"value": "x"}))

    ran = execute([echo], [], drive)
    assert (ran["b"].value, ran["b"].ended_s) == ("x", 2)


def test_early_read_that_failed_tells_when_it_did() -> None:
    @tool(effect="read")
    async def fail(name: str) -> str:
        raise ToolError("no")

    async def drive(executor: Executor) -> None:
        executor.start_early(ToolCall("a", "fail", {"name": "x"}))
        await asyncio.sleep(2)
        executor.seal(ToolCall("a", "fail", {"name": "x"}))

    ran = execute([fail], [], drive)
    (failed,) = [event for event in ran.log.events if event.type == "call.failed"]
    assert (failed.t, failed.to_json()["ended_s"]) == (2, 0)


# Slots that are taken when somebody wants one again


@tool(effect="read")
async def outer(ctx: Context[Any] = CONTEXT) -> str:
    """Look through another tool."""
    await ctx.call(look)
    runs.append("outer goes on")
    return "done"


def test_caller_goes_on_when_there_is_a_slot_again_and_before_the_rest() -> None:
    async def drive(executor: Executor) -> None:
        await asyncio.sleep(0.5)
        executor.add(ToolCall("b", "change", {"name": "b"}))
        executor.add(ToolCall("c", "change", {"name": "c"}))

    execute([*TOOLS, outer], [ToolCall("o", "outer")], drive, slots=1)
    assert runs == ["look a", "change b", "outer goes on", "change c"]


def test_caller_that_is_cancelled_while_it_waits_for_its_slot_takes_none_along() -> None:
    async def drive(executor: Executor) -> None:
        await asyncio.sleep(0.5)
        executor.add(ToolCall("b", "change", {"name": "b"}))
        executor.add(ToolCall("c", "change", {"name": "c"}))
        await asyncio.sleep(1)
        executor.cancel("o", "not wanted")

    ran = execute([*TOOLS, outer], [ToolCall("o", "outer")], drive, slots=1)
    assert runs == ["look a", "change b", "change c"]
    assert ran.states() == {"o": "cancelled", "o/look": "finished", "b": "finished", "c": "finished"}


@pytest.mark.parametrize("rounds", range(5))
def test_no_slot_is_lost_when_its_waiter_is_cancelled_as_it_gets_it(rounds: int) -> None:
    async def drive(executor: Executor) -> None:
        await asyncio.sleep(0.5)
        executor.add(ToolCall("b", "change", {"name": "b"}))
        executor.add(ToolCall("c", "change", {"name": "c"}))
        await asyncio.sleep(1.5)
        for _ in range(rounds):
            await asyncio.sleep(0)
        executor.cancel("o", "not wanted")

    ran = execute([*TOOLS, outer], [ToolCall("o", "outer")], drive, slots=1)
    assert ran["c"].state == "finished"


def test_call_that_waits_for_a_named_slot_runs_also_when_its_forerunner_makes_others_ready() -> None:
    @tool(slot="db")
    async def query() -> str:
        await asyncio.sleep(1)
        return ""

    nodes = [ToolCall("q0", "query"), ToolCall("q1", "query"), ToolCall("c", "change", {"after": Reference("q0")})]
    ran = execute([*TOOLS, query], nodes, slots={"all": 10, "db": 1})
    assert ran.started() == {"q0": 0, "q1": 1, "c": 1}


def test_loop_gets_its_turn_between_many_calls_that_never_wait() -> None:
    @tool
    async def step(after: Any = None) -> int:
        return rounds

    rounds = 0

    async def drive(executor: Executor) -> None:
        nonlocal rounds
        executor.add(ToolCall("s0", "step"))
        for number in range(1, 300):
            executor.add(ToolCall(f"s{number}", "step", {"after": Reference(f"s{number - 1}")}))
        while executor.outcome("s299") is None:
            rounds += 1
            await asyncio.sleep(0)

    ran = execute([step], [], drive)
    seen = [ran[f"s{number}"].value for number in range(300)]
    assert max(seen.count(value) for value in seen) <= CALLS_IN_A_ROW


# How calls end, and what that does to others


def test_read_that_failed_runs_again_for_a_later_equal_call() -> None:
    @tool(effect="read", retries=0)
    async def flaky() -> str:
        runs.append("flaky")
        if len(runs) == 1:
            raise ToolError("busy")
        return "there"

    async def drive(executor: Executor) -> None:
        await executor.wait()
        executor.add(ToolCall("b", "flaky"))

    ran = execute([flaky], [ToolCall("a", "flaky")], drive)
    assert ran.states() == {"a": "failed", "b": "finished"}


def test_pause_before_a_retry_is_shortened_by_up_to_half() -> None:
    @tool(effect="read", retries=1)
    async def broken() -> str:
        raise ConnectionError("reset")

    ends = [execute([broken], [ToolCall("a", "broken")], random=lambda r=r: r).makespan for r in (0.0, 1.0)]
    assert ends == pytest.approx([FIRST_DELAY_S, FIRST_DELAY_S / 2])


def test_tool_that_cancels_itself_fails_also_after_a_call_was_cancelled() -> None:
    @tool(effect="read")
    async def give_up() -> str:
        raise asyncio.CancelledError

    async def drive(executor: Executor) -> None:
        await asyncio.sleep(0.5)
        executor.cancel("a", "not wanted")

    ran = execute([*TOOLS, give_up], [ToolCall("a", "look"), ToolCall("b", "give_up")], drive, slots=1)
    assert ran["a"].state == "cancelled"
    assert (ran["b"].state, ran["b"].error) == ("failed", "the tool cancelled itself")


def test_needed_tool_that_the_run_does_not_offer_is_called_all_the_same() -> None:
    ran = execute([quote], [ToolCall("q", "quote", {"name": "x"})])
    assert ran.states() == {"q": "finished", "q/order": "finished"}


def test_repairs_of_an_early_run_are_told_with_its_seal() -> None:
    async def drive(executor: Executor) -> None:
        executor.announce("a", "look")
        assert executor.start_early(ToolCall("a", "look", {"name": "x"}))
        await asyncio.sleep(3)
        executor.seal(ToolCall("a", "look", {"name": "x"}), repaired=("the arguments: a comma too many",))

    ran = execute(TOOLS, [], drive)
    sealed = [event for event in ran.log.events if isinstance(event, events.CallSealed)]
    assert [event.repaired for event in sealed] == [("the arguments: a comma too many",)]


def test_call_that_waited_for_an_early_run_runs_itself_when_that_is_forgotten() -> None:
    async def drive(executor: Executor) -> None:
        executor.announce("a", "look")
        assert executor.start_early(ToolCall("a", "look", {"name": "x"}))
        executor.add(ToolCall("b", "look", {"name": "x"}))
        await asyncio.sleep(0.5)
        executor.seal(ToolCall("a", "look", {"name": "xy"}))

    ran = execute(TOOLS, [], drive)
    assert runs == ["look x", "look x", "look xy"]
    assert ran.states() == {"a": "finished", "b": "finished"}


def test_nothing_is_added_to_an_executor_that_was_left() -> None:
    ran = execute(TOOLS, [])
    with pytest.raises(GraphError, match="'a': this executor is closed"):
        ran.executor.add(ToolCall("a", "look"))


def test_skipping_goes_down_a_long_chain_without_nesting() -> None:
    nodes = [ToolCall("c0", "refuse")]
    nodes += [ToolCall(f"c{n}", "refuse", {"after": Reference(f"c{n - 1}")}) for n in range(1, 400)]
    ran = execute(TOOLS, nodes)
    assert ran["c399"].state == "skipped"


def test_step_that_comes_after_an_unknown_one_is_refused() -> None:
    with pytest.raises(GraphError, match="'b' refers to 'a', which isn't there before it"):
        execute(TOOLS, [Step("b", "look", after=("a",))])


def test_early_run_that_is_forgotten_is_stopped_and_gives_its_slot_back() -> None:
    async def drive(executor: Executor) -> None:
        executor.announce("a", "look")
        assert executor.start_early(ToolCall("a", "look", {"name": "x", "seconds": 9}))
        await asyncio.sleep(0.5)
        executor.seal(ToolCall("a", "look", {"name": "xy"}))

    ran = execute(TOOLS, [], drive, slots=1)
    assert (ran["a"].started_s, ran["a"].ended_s) == (0.5, 1.5)


def test_write_that_is_cancelled_before_it_runs_does_not_run() -> None:
    @tool(resource="order:{name}")
    async def write(name: str) -> None:
        runs.append("write")

    class CancellingCache(NullCache):
        async def bump(self, resources: Sequence[str]) -> None:
            executors[0].cancel("w", "not wanted")

    executors: list[Executor] = []

    async def drive(executor: Executor) -> None:
        executors.append(executor)
        executor.add(ToolCall("w", "write", {"name": "a"}))

    ran = execute([write], [], drive, cache=CancellingCache())
    assert runs == []
    assert (ran["w"].state, ran["w"].error) == ("cancelled", "not wanted")


def test_call_that_waits_for_the_flight_of_another_run_can_be_cancelled() -> None:
    @tool(ttl=60, scope="all")
    async def rate() -> int:
        await asyncio.sleep(1)
        return 1400

    async def go() -> tuple[str, str]:
        cache = NullCache()
        log = EventLog("r", asyncio.get_running_loop().time)
        async with Executor(Shelf([rate]), log, cache=cache) as one, Executor(Shelf([rate]), log, cache=cache) as other:
            one.add(ToolCall("a", "rate"))
            other.add(ToolCall("b", "rate"))
            await asyncio.sleep(0.5)
            other.cancel("b", "not wanted")
            await one.wait()
            await other.wait()
            return one.outcomes["a"].state, other.outcomes["b"].state

    assert run_virtual(go()) == ("finished", "cancelled")


def test_early_run_that_ended_and_was_never_sealed_is_void_when_all_is_cancelled() -> None:
    async def drive(executor: Executor) -> None:
        executor.announce("a", "look")
        assert executor.start_early(ToolCall("a", "look", {"name": "x"}))
        await asyncio.sleep(2)
        executor.cancel_all("the run is over")

    assert execute(TOOLS, [], drive).states() == {"a": "void"}
