"""Graphs that are stopped at any moment, and tools that raise whatever they like: each call ends once, nothing is left."""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from flowkit import (
    CONTEXT,
    Approve,
    Context,
    Deny,
    Executor,
    Graph,
    Needs,
    Reference,
    ToolCall,
    ToolError,
    run_graph,
    tool,
)
from flowkit.errors import GraphError
from flowkit.events import EventLog
from flowkit.executor import Outcome
from flowkit.graph import Body, Each, Node, item_id
from flowkit.testing.loop import VirtualLoop, run_virtual
from tests.example_counts import share

ENDS = {f"call.{word}" for word in ("finished", "failed", "cancelled", "skipped", "denied", "void", "in_doubt")}
TICKS = tuple(share((*range(40), 60), every=5))


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
    # One that is void may be opened again.
    faults = [f"{call} ended {ended[call]} times" for call in new if ended[call] != new[call]]
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


@tool(effect="write")
async def write_inside(n: int, context: Context[Any] = CONTEXT) -> int:
    """Call a write of its own."""
    return await context.call(pay, n=n)


@tool(effect="write", approval=lambda arguments, context: arguments["n"] > 1, resource="account:{n}")
async def ask_for_much(n: int) -> int:
    """Ask above one."""
    await asyncio.sleep(0.05)
    return n


NAMES = [*(made.name for made in (*TOOLS, write_inside, ask_for_much)), "unknown"]
VERBS = (
    *("add",) * 6,
    *("announce", "start early", "seal", "seal", "sleep") * 3,
    *("void", "cancel", "decide", "wait") * 2,
    *("fail", "confirm", "disown", "end turn", "add each", "provide"),
)


class Chance:
    """What somebody may do with an executor, in any order and with any names, by chance."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.graph = Executor(
            [*TOOLS, write_inside, ask_for_much],
            slots=self.random.choice([1, 2, 16]),
            timeout=self.random.choice([None, None, 0.01, 0.4]),
            fail_fast=self.random.random() < 0.2,
        )
        self.ids: list[str] = []
        self.open: dict[str, ToolCall] = {}
        """What was announced and isn't sealed, with the arguments that it may have."""

    async def run(self) -> EventLog:
        async with self.graph:
            for _ in range(self.random.randrange(3, 40)):
                # What is refused, such as a decision on what doesn't wait, changes nothing.
                with contextlib.suppress(GraphError):
                    await self.step()
            if self.random.random() < 0.5:
                await self.end_all()
        return self.graph.log

    async def end_all(self) -> None:
        """Let everything end that may."""
        # Some were refused before, so that nothing is known of them.
        for call in self.open.values():
            with contextlib.suppress(GraphError):
                self.graph.seal(call)
        for name in self.ids:
            with contextlib.suppress(GraphError):
                self.graph.confirm(name)
        for _ in self.ids:
            for waiting in self.graph.pending:
                self.graph.decide(waiting.id, Approve())
            await asyncio.wait_for(self.graph.wait(), 60)
        assert not self.graph.pending

    def make_call(self, name: str) -> ToolCall:
        value: object = self.random.randrange(4)
        if self.ids and self.random.random() < 0.4:
            value = Reference(self.random.choice(self.ids))
        return ToolCall(name, self.random.choice(NAMES), {"n": self.random.choice([value, value, value, "wrong"])})

    async def step(self) -> None:
        graph, chance = self.graph, self.random
        new, known = f"c{len(self.ids)}", chance.choice(self.ids or ["none"])
        announced = chance.choice(list(self.open.values()) or [self.make_call(new)])
        verb = chance.choice(VERBS)
        if verb in ("add", "announce", "fail", "add each", "provide") or announced.id == new:
            self.ids.append(new)
        match verb:
            case "add":
                graph.add(self.make_call(new), parent=known if chance.random() < 0.1 else None)
            case "announce":
                call = self.open[new] = self.make_call(new)
                graph.announce(new, call.name)
            case "start early":
                call = ToolCall(announced.id, announced.name, {"n": chance.randrange(4)})
                self.open[call.id] = call
                graph.start_early(call)
            case "seal":
                self.open.pop(announced.id, None)
                if chance.random() < 0.4:
                    announced = replace(announced, arguments=self.make_call(new).arguments)
                graph.seal(announced, is_provisional=chance.random() < 0.3)
            case "void":
                self.open.pop(announced.id, None)
                graph.void(announced.id, "why")
            case "fail":
                graph.fail(ToolCall(new, "unknown"), "no such tool")
            case "cancel":
                graph.cancel(known, "why")
            case "decide":
                decision = chance.choice([Approve(), Deny("no"), Approve({"n": 1})])
                graph.decide(chance.choice([known, *(waiting.id for waiting in graph.pending)]), decision)
            case "wait":
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(graph.wait(*chance.choice([(), (known,)])), chance.choice([0.001, 0.3, 2]))
            case "sleep":
                await asyncio.sleep(chance.choice([0, 0, 0.01, 0.2, 0.6]))
            case "confirm":
                graph.confirm(known)
            case "disown":
                graph.disown(known)
            case "end turn":
                graph.end_turn()
            case "add each":
                item = ToolCall(f"{new}/x", chance.choice(NAMES), {"n": Reference(item_id(new))})
                graph.add(Each(new, chance.choice(([1, 2], [], Reference(known))), Body((item,), Reference(item.id))))
            case _:
                graph.provide(new, chance.randrange(4))


async def run_by_chance(seed: int) -> EventLog:
    return await Chance(seed).run()


@pytest.mark.parametrize("first", range(0, 400, 50))
def test_whatever_is_done_with_an_executor_each_call_ends_once(first: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL):
        for seed in range(first, first + 50):
            log = run_virtual(run_by_chance(seed))
            assert find_faults(log) == [], seed


def test_calls_that_refer_to_each_other_are_a_circle_and_no_hang() -> None:
    async def go() -> dict[str, str | None]:
        async with Executor(TOOLS) as graph:
            for name in "abc":
                graph.announce(name, "look")
            for name, other in ("ab", "bc", "ca"):
                graph.seal(ToolCall(name, "look", {"n": Reference(other)}))
            await graph.wait()
            return {name: outcome.error for name, outcome in graph.outcomes.items()}

    errors = run_virtual(go())
    assert errors["c"] == "not run: a circle: a -> b -> c -> a"
    assert all("a circle" in (error or "") for error in errors.values())


@pytest.mark.parametrize(
    ("options", "said"),
    [({"timeout": 0.3}, "the whole took longer than 0.3 s"), ({"fail_fast": True}, "f failed")],
    ids=["timeout", "fail_fast"],
)
def test_what_comes_after_the_stop_of_a_whole_graph_is_cancelled(options: Mapping[str, Any], said: str) -> None:
    async def go() -> tuple[dict[str, str], dict[str, str | None], float]:
        async with Executor(TOOLS, **options) as graph:
            graph.add(ToolCall("f", "fail", {"n": 1}))
            graph.add(ToolCall("l", "look", {"n": 1}))
            await graph.wait()
            graph.add(ToolCall("later", "look", {"n": 1}))
            graph.add(
                Each("e", [1], Body((ToolCall("e/x", "look", {"n": Reference(item_id("e"))}),), Reference("e/x")))
            )
            graph.announce("announced", "look")
            graph.seal(ToolCall("announced", "look", {"n": 2}))
            await graph.wait()
            ended = graph.outcomes
            return {name: ended[name].state for name in ended}, {name: ended[name].error for name in ended}, graph.now()

    states, errors, seconds = run_virtual(go())
    later = ("l", "later", "e", "announced")
    assert [states[name] for name in later] == ["cancelled"] * 4
    assert {errors[name] for name in later} == {said}
    assert seconds < 0.5


def test_an_early_run_that_nobody_seals_is_void_when_the_run_ends() -> None:
    async def go() -> EventLog:
        async with Executor(TOOLS) as graph:
            graph.announce("early", "clean_up")
            assert graph.start_early(ToolCall("early", "clean_up", {"n": 1}))
            await asyncio.sleep(0.1)
        return graph.log

    log = run_virtual(go())
    assert find_faults(log) == []
    assert [event.type for event in log.events][-2:] == ["call.void", "run.finished"]


@pytest.mark.parametrize("began", ["announced", "early", "ended"])
def test_a_call_that_was_cancelled_before_it_was_sealed_never_runs_after(began: str) -> None:
    ran: list[int] = []

    @tool(effect="write" if began == "announced" else "read")
    async def do(n: int) -> int:
        ran.append(n)
        await asyncio.sleep(1)
        return n

    async def go() -> tuple[dict[str, Outcome], EventLog]:
        async with Executor([do]) as graph:
            graph.announce("a", "do")
            if began != "announced":
                assert graph.start_early(ToolCall("a", "do", {"n": 1}))
                await asyncio.sleep(0.5 if began == "early" else 2)
            graph.cancel("a", "the user said no")
            await asyncio.sleep(0)
            assert not graph.start_early(ToolCall("a", "do", {"n": 1}))
            graph.seal(ToolCall("a", "do", {"n": 1}))
            graph.add(ToolCall("b", "do", {"n": Reference("a")}))
            await graph.wait()
            return dict(graph.outcomes), graph.log

    outcomes, log = run_virtual(go())
    assert (outcomes["a"].state, outcomes["a"].error) == ("cancelled", "the user said no")
    assert outcomes["b"].state == "skipped"
    assert ran == ([] if began == "announced" else [1])
    told = [event.type for event in log.events if getattr(event, "call", None) == "a"]
    assert told[-1] == "call.cancelled"
    assert told.count("call.sealed") == 1


def test_a_call_whose_turn_came_to_nothing_runs_when_it_is_sealed_after() -> None:
    async def go() -> str:
        async with Executor(TOOLS) as graph:
            graph.announce("a", "look")
            graph.void("a", "the stream broke")
            graph.seal(ToolCall("a", "look", {"n": 1}))
            await graph.wait()
            return graph.outcomes["a"].state

    assert run_virtual(go()) == "finished"
