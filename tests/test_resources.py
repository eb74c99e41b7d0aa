"""Order on resources: who waits for whom, among calls as among bare tickets."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.context import CONTEXT, Context
from flowkit.executor import Approve, Executor
from flowkit.executor.resources import Resources, Ticket
from flowkit.references import Reference, ToolCall
from flowkit.tools import Needs, tool
from tests.example_counts import examples
from tests.executing import AnyTool, execute


@tool(effect="read", resource="order:{order_id}")
async def get_order(order_id: str | None = None, tag: Any = None) -> dict[str, Any]:
    """Read an order, or all of them."""
    await asyncio.sleep(1)
    return {"id": order_id}


@tool(resource="order:{order_id}")
async def refund(order_id: str, seconds: float = 1, after: Any = None) -> str:
    """Write an order."""
    await asyncio.sleep(seconds)
    return "done"


@tool(resource="order:{order_id}", approval=True)
async def cancel(order_id: str) -> str:
    """Write an order, when a person says so."""
    await asyncio.sleep(1)
    return "done"


@tool(effect="read")
async def find_id(order_id: str) -> str:
    """Give an order's id."""
    await asyncio.sleep(2)
    return order_id


@tool(resource="order:{order_id}")
async def ship(order_id: str | None = None, order: dict[str, Any] = Needs(get_order)) -> str:
    """Write the order that it needs."""
    await asyncio.sleep(1)
    return "shipped"


TOOLS: list[AnyTool] = [get_order, refund, cancel, find_id, ship]


def test_writes_on_one_resource_run_in_the_order_of_their_calls() -> None:
    ran = execute(TOOLS, [ToolCall(f"w{n}", "refund", {"order_id": "1", "seconds": 3 - n}) for n in range(3)])
    assert ran.started() == {"w0": 0, "w1": 3, "w2": 5}


def test_writes_on_other_resources_run_at_once() -> None:
    ran = execute(TOOLS, [ToolCall(f"w{n}", "refund", {"order_id": str(n)}) for n in range(3)])
    assert ran.makespan == 1


def test_read_made_after_a_write_waits_for_it_and_reads_run_together() -> None:
    nodes = [
        ToolCall("r0", "get_order", {"order_id": "1", "tag": 0}),
        ToolCall("w", "refund", {"order_id": "1"}),
        *(ToolCall(f"r{n}", "get_order", {"order_id": "1", "tag": n}) for n in (1, 2)),
        ToolCall("other", "get_order", {"order_id": "2"}),
    ]
    ran = execute(TOOLS, nodes)
    assert ran.started() == {"r0": 0, "w": 1, "r1": 2, "r2": 2, "other": 0}
    assert "call.waiting" in ran.kinds("r1")


def test_equal_reads_around_a_write_share_nothing() -> None:
    nodes = [
        ToolCall("before", "get_order", {"order_id": "1"}),
        ToolCall("w", "refund", {"order_id": "1"}),
        ToolCall("after", "get_order", {"order_id": "1"}),
    ]
    ran = execute(TOOLS, nodes)
    assert ran["after"].source == "run"
    assert ran["after"].started_s == 2


def test_read_of_the_family_waits_for_every_member() -> None:
    nodes = [
        ToolCall("w1", "refund", {"order_id": "1", "seconds": 1}),
        ToolCall("w2", "refund", {"order_id": "2", "seconds": 3}),
        ToolCall("all", "get_order"),
        ToolCall("w3", "refund", {"order_id": "3"}),
    ]
    ran = execute(TOOLS, nodes)
    assert ran.started() == {"w1": 0, "w2": 0, "all": 3, "w3": 4}


def test_resource_that_is_not_known_yet_stands_for_its_family_until_it_is() -> None:
    nodes = [
        ToolCall("id", "find_id", {"order_id": "1"}),
        ToolCall("w", "refund", {"order_id": Reference("id"), "seconds": 5}),
        ToolCall("same", "get_order", {"order_id": "1"}),
        ToolCall("other", "get_order", {"order_id": "2"}),
    ]
    ran = execute(TOOLS, nodes)
    assert ran.started() == {"id": 0, "w": 2, "same": 7, "other": 2}


def test_need_on_the_resource_of_its_caller_runs_before_it() -> None:
    nodes = [
        ToolCall("w", "refund", {"order_id": "1"}),
        ToolCall("s", "ship", {"order_id": "1"}),
        ToolCall("r", "get_order", {"order_id": "1", "tag": 1}),
    ]
    ran = execute(TOOLS, nodes)
    assert ran.started() == {"w": 0, "s/order": 1, "s": 2, "r": 3}


def test_call_behind_one_that_waits_for_a_person_waits_with_it() -> None:
    async def drive(executor: Executor) -> None:
        await executor.wait("c", "r")
        assert executor.outcome("r") is None
        await asyncio.sleep(5)
        executor.decide("c", Approve())

    nodes = [ToolCall("c", "cancel", {"order_id": "1"}), ToolCall("r", "get_order", {"order_id": "1"})]
    assert execute(TOOLS, nodes, drive).started() == {"c": 5, "r": 6}


def test_place_of_a_cancelled_call_falls_to_those_behind_it() -> None:
    async def drive(executor: Executor) -> None:
        executor.cancel("w2", "not wanted")

    nodes = [ToolCall(f"w{n}", "refund", {"order_id": "1", "seconds": 2}) for n in (1, 2, 3)]
    assert execute(TOOLS, nodes, drive).started() == {"w1": 0, "w3": 2}


def test_inner_call_on_its_callers_resource_is_a_circle_and_no_hang() -> None:
    @tool(resource="order:{order_id}")
    async def outer(order_id: str, ctx: Context[Any] = CONTEXT) -> str:
        return await ctx.call(refund, order_id=order_id)

    ran = execute([*TOOLS, outer], [ToolCall("o", "outer", {"order_id": "1"})])
    assert ran["o/refund"].state == "failed"
    assert "a circle: o/refund -> o -> o/refund" in (ran["o/refund"].error or "")


def test_circle_through_two_resources_and_two_callers_names_its_members() -> None:
    @tool(resource="order:{first}")
    async def crossing(first: str, second: str, ctx: Context[Any] = CONTEXT) -> str:
        await asyncio.sleep(1)
        return await ctx.call(refund, order_id=second)

    nodes = [
        ToolCall("a", "crossing", {"first": "1", "second": "2"}),
        ToolCall("b", "crossing", {"first": "2", "second": "1"}),
    ]
    ran = execute([*TOOLS, crossing], nodes)
    errors = [outcome.error or "" for outcome in ran.executor.outcomes.values() if outcome.state == "failed"]
    assert any("a circle" in error and "a" in error and "b" in error for error in errors)


def test_inner_call_gets_ahead_of_those_that_wait_behind_its_caller() -> None:
    @tool
    async def outer(ctx: Context[Any] = CONTEXT) -> str:
        await asyncio.sleep(1)
        await ctx.call(get_order, order_id="1")
        return "x"

    nodes = [ToolCall("o", "outer"), ToolCall("w", "refund", {"order_id": "1", "after": Reference("o")})]
    ran = execute([*TOOLS, outer], nodes)
    assert ran.started() == {"o": 0, "o/get_order": 1, "w": 2}


names = st.sampled_from(["a:1", "a:2", "b:1", "a:*", "b:*", "*"])
accesses = st.lists(st.tuples(names, st.booleans()), min_size=1, max_size=3)


def overlap(first: str, second: str) -> bool:
    """Whether two names can be the same thing, by the definition."""
    if "*" in first and "*" in second:
        one, two = first[: first.index("*")], second[: second.index("*")]
        return one.startswith(two) or two.startswith(one)
    if "*" in first:
        return second.startswith(first[: first.index("*")])
    return first.startswith(second[: second.index("*")]) if "*" in second else first == second


def conflict(first: list[tuple[str, bool]], second: list[tuple[str, bool]]) -> bool:
    return any((w1 or w2) and overlap(n1, n2) for n1, w1 in first for n2, w2 in second)


@given(st.data())
@settings(max_examples=examples(150), deadline=None)
def test_tickets_agree_with_comparing_each_with_all_before_it(data: st.DataObject) -> None:
    resources = Resources()
    live: list[tuple[Ticket, list[tuple[str, bool]]]] = []
    position = 0
    for _ in range(data.draw(st.integers(1, 25))):
        action = data.draw(st.sampled_from(["enter", "leave", "narrow"]))
        if action == "enter" or not live:
            wanted = data.draw(accesses)
            ticket = Ticket(str(position), (position, 0), wanted)
            position += 1
            resources.enter(ticket)
            live.append((ticket, wanted))
        elif action == "leave":
            ticket, _ = live.pop(data.draw(st.integers(0, len(live) - 1)))
            resources.leave(ticket)
        else:
            index = data.draw(st.integers(0, len(live) - 1))
            ticket, wanted = live[index]
            narrower = data.draw(st.lists(st.sampled_from(wanted), unique=True, min_size=1))
            resources.narrow(ticket, narrower)
            live[index] = (ticket, narrower)
        for index, (ticket, wanted) in enumerate(live):
            must_wait = any(conflict(wanted, others) for _, others in live[:index])
            assert bool(ticket.blockers) == must_wait
