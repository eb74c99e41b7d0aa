"""Graphs that are stopped at any moment, and tools that raise whatever they like: each call ends once, nothing is left."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import pytest

from flowkit import CONTEXT, Approve, Context, Executor, Graph, Needs, Reference, ToolCall, ToolError, run_graph, tool
from flowkit.events import EventLog
from flowkit.graph import Body, Each, Node, item_id
from flowkit.testing.loop import VirtualLoop, run_virtual

ENDS = {f"call.{word}" for word in ("finished", "failed", "cancelled", "skipped", "denied", "void", "in_doubt")}
TICKS = (*range(40), 60)


@tool(effect="read")
async def look(n: int) -> int:
    """Look."""
    await asyncio.sleep(0.5)
    return n


@tool(effect="write", resource="account:{n}")
async def pay(n: int) -> int:
    """Pay."""
    await asyncio.sleep(0.2)
    return n


@tool(effect="read")
async def fail(n: int) -> int:
    """Fail."""
    raise ToolError("no")


@tool(effect="write")
async def needs_both(n: int, first: int = Needs(look), second: int = Needs(fail)) -> int:
    """Need one that fails."""
    return n


@tool(effect="read")
async def ask_others(n: int, context: Context[Any] = CONTEXT) -> int:
    """Call two at once."""
    return sum(await asyncio.gather(context.call(look, n=n), context.call(look, n=n + 1)))


@tool(effect="idempotent", retries=2)
async def try_again(n: int) -> int:
    """Fail for now."""
    raise ToolError("not yet", retryable=True)


@tool(effect="read", timeout=0.05)
async def take_long(n: int) -> int:
    """Take longer than it may."""
    await asyncio.sleep(5)
    return n


@tool(effect="read")
async def clean_up(n: int) -> int:
    """Take a while to stop."""
    try:
        await asyncio.sleep(1)
    finally:
        await asyncio.sleep(0.3)
    return n


@tool(effect="read")
async def swallow(n: int) -> int:
    """Give a result when it is stopped."""
    try:
        await asyncio.sleep(1)
    except asyncio.CancelledError:
        return -n
    return n


@tool(effect="read")
async def open_another(n: int) -> int:
    """Run a graph of its own."""
    outcomes = await run_graph(Graph([ToolCall("a", "look", {"n": n})]), tools=[look])
    return int(outcomes["a"].value == n)


@tool(effect="write", approval=True)
async def ask_first(n: int) -> int:
    """Do it when a person says so."""
    await asyncio.sleep(0.1)
    return n


TOOLS = (look, pay, fail, needs_both, ask_others, try_again, take_long, clean_up, swallow, open_another, ask_first)


def make(*given: tuple[str, str, object]) -> list[Node]:
    return [ToolCall(name, called, {"n": value}) for name, called, value in given]


GRAPHS: Mapping[str, Sequence[Node]] = {
    "needs and resources": make(
        ("l", "look", 1),
        ("same", "look", 1),
        ("w", "pay", Reference("l")),
        ("w2", "pay", 1),
        ("f", "fail", 1),
        ("skipped", "look", Reference("f")),
        ("b", "needs_both", 2),
    ),
    "calls and retries": make(
        ("c", "ask_others", 1), ("c2", "ask_others", 1), ("r", "try_again", 1), ("s", "take_long", 1)
    ),
    "hard to stop": make(
        ("u", "clean_up", 1), ("w", "swallow", 1), ("x", "open_another", 1), ("d", "look", Reference("w"))
    ),
    "people": make(("a", "ask_first", 1), ("b", "ask_first", Reference("a"))),
    "each": [
        Each(
            "e",
            [1, 2],
            Body(
                (
                    ToolCall("e/x", "look", {"n": Reference(item_id("e"))}),
                    ToolCall("e/y", "fail", {"n": Reference("e/x")}),
                ),
                Reference("e/x"),
            ),
        ),
        *make(("after", "look", Reference("e", (0,)))),
    ],
}


def find_faults(log: EventLog) -> list[str]:
    """Find what isn't as it must be in the log of a run that is over."""
    kinds = [event.type for event in log.events]
    calls = [str(getattr(event, "call", "")) for event in log.events]
    new = Counter(call for kind, call in zip(kinds, calls, strict=True) if kind == "call.new")
    ended = Counter(call for kind, call in zip(kinds, calls, strict=True) if kind in ENDS)
    faults = [f"{call} ended {ended[call]} times" for call in new if ended[call] != 1]
    if kinds and (kinds.count("run.finished") != 1 or kinds[-1] != "run.finished"):
        faults.append(f"the log ends with {kinds[-1]}")
    return faults if log.is_closed else [*faults, "the log is open"]


async def run_by_steps(nodes: Sequence[Node], logs: list[EventLog], options: Mapping[str, Any]) -> None:
    graph = Executor(TOOLS, **options)
    async with graph:
        logs.append(graph.log)
        for node in nodes:
            graph.add(node)
        await graph.wait()
        for waiting in graph.pending:
            graph.decide(waiting.id, Approve())
        await graph.wait()


async def run_whole(nodes: Sequence[Node], logs: list[EventLog], options: Mapping[str, Any]) -> None:
    await run_graph(Graph(nodes), tools=TOOLS, decisions={"a": Approve()}, **options)


async def stop_at(work: Awaitable[None], tick: int, times: int) -> list[str]:
    """Cancel the work at this tick of the loop, and find what it left behind."""
    faults: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, found: faults.append(str(found)))
    task = asyncio.ensure_future(work)
    for _ in range(tick):
        await asyncio.sleep(0)
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    done, _ = await asyncio.wait([task], timeout=60)
    if not done:
        return ["it hangs"]
    if not task.cancelled() and task.exception() is not None:
        faults.append(f"it raised {task.exception()!r}")
    left = asyncio.all_tasks() - {asyncio.current_task()}
    return [*faults, *(f"{other!r} is left" for other in left)]


@pytest.mark.parametrize("options", [{}, {"slots": 1}, {"timeout": 0.31}, {"timeout": 1e-9}], ids=str)
@pytest.mark.parametrize("kind", GRAPHS)
def test_a_graph_that_is_stopped_at_any_tick_leaves_nothing(kind: str, options: Mapping[str, Any]) -> None:
    for run in (run_by_steps, run_whole):
        for times in (1, 2):
            for tick in TICKS:
                logs: list[EventLog] = []
                faults = run_virtual(stop_at(run(GRAPHS[kind], logs, options), tick, times))
                faults += [fault for log in logs for fault in find_faults(log)]
                assert not faults, (run.__name__, tick, times, faults)


class Odd(BaseException):
    """What no tool may raise."""


def make_raising(error: BaseException, *, is_async: bool, is_read: bool) -> Any:
    if is_async:

        @tool(effect="read" if is_read else "write")
        async def burst(n: int) -> int:
            """Raise."""
            await asyncio.sleep(0.01)
            raise error

        return burst

    @tool(effect="read" if is_read else "write")
    def burst_in_thread(n: int) -> int:
        """Raise."""
        raise error

    return burst_in_thread


def add_three(graph: Executor, burst: str) -> None:
    graph.add(ToolCall("b", burst, {"n": 1}))
    graph.add(ToolCall("l", "look", {"n": 1}))
    graph.add(ToolCall("d", "look", {"n": Reference("b")}))


@pytest.mark.parametrize("is_read", [True, False], ids=["read", "write"])
@pytest.mark.parametrize("is_async", [True, False], ids=["async", "thread"])
@pytest.mark.parametrize("error", [Odd("x"), BaseExceptionGroup("several", [Odd("x")])], ids=repr)
def test_what_no_tool_may_raise_ends_the_run_and_every_call(
    error: BaseException, is_async: bool, is_read: bool
) -> None:
    burst = make_raising(error, is_async=is_async, is_read=is_read)

    async def go() -> tuple[EventLog, dict[str, str]]:
        graph = Executor([burst, look])

        async def run() -> None:
            async with graph:
                add_three(graph, burst.name)
                await graph.wait()

        with pytest.raises(type(error)):
            await run()
        return graph.log, {name: outcome.state for name, outcome in graph.outcomes.items()}

    log, states = run_virtual(go())
    assert find_faults(log) == []
    assert states == {"b": "cancelled" if is_read else "in_doubt", "l": "cancelled", "d": "cancelled"}


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "thread"])
@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_what_ends_the_program_ends_every_call_before(error: BaseException, is_async: bool) -> None:
    burst = make_raising(error, is_async=is_async, is_read=True)
    logs: list[EventLog] = []

    async def go() -> None:
        graph = Executor([burst, look])
        logs.append(graph.log)
        async with graph:
            add_three(graph, burst.name)
            await graph.wait()

    loop = VirtualLoop()
    with pytest.raises(type(error)):
        loop.run_until_complete(go())
    # As `asyncio.run` does then.
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.close()
    assert find_faults(logs[0]) == []


@pytest.mark.parametrize("is_read", [True, False], ids=["read", "write"])
@pytest.mark.parametrize("is_async", [True, False], ids=["async", "thread"])
@pytest.mark.parametrize(
    "error",
    [
        StopIteration(3),
        StopAsyncIteration(),
        TimeoutError(),
        MemoryError(),
        RecursionError(),
        asyncio.CancelledError(),
        ExceptionGroup("several", [ValueError("x")]),
    ],
    ids=repr,
)
def test_an_exception_of_a_tool_fails_its_call_alone(
    error: BaseException, is_async: bool, is_read: bool, caplog: pytest.LogCaptureFixture
) -> None:
    burst = make_raising(error, is_async=is_async, is_read=is_read)

    async def go() -> tuple[EventLog, dict[str, str]]:
        graph = Executor([burst, look])
        async with graph:
            add_three(graph, burst.name)
            await graph.wait()
        return graph.log, {name: outcome.state for name, outcome in graph.outcomes.items()}

    with caplog.at_level(logging.CRITICAL):
        log, states = run_virtual(go())
    assert find_faults(log) == []
    assert states == {"b": "failed", "l": "finished", "d": "skipped"}
