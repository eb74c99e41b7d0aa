"""Random graphs in virtual time: whatever fails, is cancelled or has no slot, the executor keeps its promises."""

import asyncio
from dataclasses import dataclass
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from flowkit import events
from flowkit.errors import ToolError
from flowkit.executor import Executor
from flowkit.references import Reference, ToolCall
from flowkit.tools import tool
from tests.example_counts import examples
from tests.executing import Ran, execute

running: set[str] = set()
most: list[int] = [0]


@tool
async def node(name: str, seconds: float, fails: bool, before: list[Any]) -> list[Any]:
    """A node that says whom it heard."""
    return await work(name, seconds, fails, before)


@tool(effect="read", retries=0)
async def reader(name: str, seconds: float, fails: bool, before: list[Any]) -> list[Any]:
    """The same, as a read."""
    return await work(name, seconds, fails, before)


@tool(resource="r:{resource}")
async def writer(name: str, seconds: float, fails: bool, before: list[Any], resource: str | None = None) -> list[Any]:
    """The same, on a resource."""
    return await work(name, seconds, fails, before)


async def work(name: str, seconds: float, fails: bool, before: list[Any]) -> list[Any]:
    running.add(name)
    most[0] = max(most[0], len(running))
    try:
        await asyncio.sleep(seconds)
    finally:
        running.discard(name)
    if fails:
        raise ToolError(f"{name} fails")
    return [name, *before]


TOOLS = [node, reader, writer]


@dataclass(frozen=True)
class Made:
    """A random graph, and what happens to it."""

    calls: list[ToolCall]
    slots: int
    cancels: list[tuple[float, str]]
    pauses: list[float]


@st.composite
def graphs(draw: st.DrawFn, *, calm: bool = False) -> Made:
    count = draw(st.integers(1, 14))
    times = st.sampled_from([0, 0.25, 0.5, 1.0, 2.0])
    calls: list[ToolCall] = []
    for number in range(count):
        before = draw(st.lists(st.integers(0, number - 1), unique=True, max_size=3)) if number else []
        arguments: dict[str, object] = {
            "name": f"n{number}",
            "seconds": draw(times),
            "fails": not calm and draw(st.sampled_from([False, False, False, True])),
            "before": [Reference(f"n{other}") for other in before],
        }
        kind = draw(st.sampled_from(["node", "reader", "writer"]))
        if kind == "writer":
            arguments["resource"] = draw(st.sampled_from(["a", "b", None]))
        calls.append(ToolCall(f"n{number}", kind, arguments))
    names = st.sampled_from([call.id for call in calls])
    cancels = [] if calm else draw(st.lists(st.tuples(times, names), max_size=3))
    return Made(calls, draw(st.integers(1, 5)), cancels, draw(st.lists(times, min_size=count, max_size=count)))


def run(made: Made, *, grow: bool) -> Ran:
    running.clear()
    most[0] = 0

    async def drive(executor: Executor) -> None:
        loop = asyncio.get_running_loop()
        for at, name in made.cancels:
            loop.call_later(at, lambda name=name: executor.cancel(name) if name in known else None)
        for call, pause in zip(made.calls, made.pauses, strict=True):
            if grow:
                await asyncio.sleep(pause)
            known.add(call.id)
            executor.add(call)

    known: set[str] = set()
    return execute(TOOLS, [], drive, slots=made.slots)


def evaluate(calls: list[ToolCall]) -> dict[str, list[Any] | None]:
    """The same in topological order, one after another; None for what fails or is skipped."""
    values: dict[str, list[Any] | None] = {}
    for call in calls:
        before: Any = call.arguments["before"]
        heard = [values[reference.call_id] for reference in before]
        values[call.id] = None if call.arguments["fails"] or None in heard else [call.id, *heard]
    return values


@given(graphs())
@settings(max_examples=examples(150), deadline=None)
def test_every_graph_ends_within_its_limits(made: Made) -> None:
    ran = run(made, grow=True)
    assert most[0] <= made.slots
    assert len(ran.states()) == len(made.calls)
    started = ran.started()
    for call in made.calls:
        before: Any = call.arguments["before"]
        if call.id in started:
            assert all(ran[reference.call_id].state == "finished" for reference in before)
            assert all(started[call.id] >= ran[reference.call_id].ended_s for reference in before)
        if ran[call.id].state == "skipped":
            assert any(ran[reference.call_id].state != "finished" for reference in before)
    event(f"{len(set(ran.states().values()))} kinds of end")


@given(graphs())
@settings(max_examples=examples(100), deadline=None)
def test_agrees_with_evaluating_in_order(made: Made) -> None:
    ran = run(Made(made.calls, made.slots, [], made.pauses), grow=False)
    for name, value in evaluate(made.calls).items():
        assert ran[name].value == value
        assert ran[name].state in (("finished",) if value is not None else ("failed", "skipped"))


@given(graphs())
@settings(max_examples=examples(80), deadline=None)
def test_growing_graph_equals_the_finished_one(made: Made) -> None:
    made = Made(made.calls, made.slots, [], made.pauses)
    grown, whole = run(made, grow=True), run(made, grow=False)
    assert grown.states() == whole.states()
    assert {name: outcome.value for name, outcome in grown.executor.outcomes.items()} == {
        name: outcome.value for name, outcome in whole.executor.outcomes.items()
    }


@given(graphs())
@settings(max_examples=examples(100), deadline=None)
def test_writes_on_one_resource_never_overlap_and_keep_their_order(made: Made) -> None:
    ran = run(made, grow=True)
    spans = [
        (call.arguments.get("resource"), ran.started()[call.id], ran[call.id].ended_s, place)
        for place, call in enumerate(made.calls)
        if call.name == "writer" and call.id in ran.started()
    ]
    for first, (one, _, ended, place) in enumerate(spans):
        for two, began, _, later in spans[first + 1 :]:
            if one == two or None in (one, two):
                assert place < later
                assert began >= ended


@given(graphs(calm=True))
@settings(max_examples=examples(80), deadline=None)
def test_without_limits_the_makespan_is_the_critical_path(made: Made) -> None:
    calls = [call for call in made.calls if call.name != "writer"]
    kept = {call.id for call in calls}
    calls = [
        ToolCall(call.id, call.name, {**call.arguments, "before": [r for r in _before(call) if r.call_id in kept]})
        for call in calls
    ]
    ran = run(Made(calls, 99, [], made.pauses[: len(calls)]), grow=True)
    best: dict[str, float] = {}
    now = 0.0
    for call, pause in zip(calls, made.pauses, strict=False):
        now += pause
        seconds: Any = call.arguments["seconds"]
        best[call.id] = max([now, *(best[r.call_id] for r in _before(call))]) + seconds
    assert {name: outcome.ended_s for name, outcome in ran.executor.outcomes.items()} == best


def _before(call: ToolCall) -> list[Reference]:
    before: Any = call.arguments["before"]
    return before


@given(graphs(), st.floats(0, 4))
@settings(max_examples=examples(60), deadline=None)
def test_leaving_at_any_moment_leaves_nothing_behind(made: Made, seconds: float) -> None:
    async def drive(executor: Executor) -> None:
        for call in made.calls:
            executor.add(call)
        await asyncio.sleep(seconds)
        executor.cancel_all("enough")

    running.clear()
    ran = execute(TOOLS, [], drive, slots=made.slots)
    assert not running
    ends = [type(told) for told in ran.log.events if isinstance(told, (events.CallFinished, events.CallInDoubt))]
    assert len(ends) <= len(made.calls)
