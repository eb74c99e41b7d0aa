"""Running calls, in virtual time and in real, for tests of the executor and of pools."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from flowkit import events
from flowkit.events import EventLog
from flowkit.executor import Executor, Outcome
from flowkit.graph import Node
from flowkit.references import ToolCall
from flowkit.testing.loop import run_virtual
from flowkit.tools import Tool

AnyTool = Tool[..., Any]
Drive = Callable[[Executor], Awaitable[None]]

ENDS = (
    events.CallFinished,
    events.CallFailed,
    events.CallSkipped,
    events.CallDenied,
    events.CallCancelled,
    events.CallVoid,
    events.CallInDoubt,
)


class Shelf:
    """Tools by name."""

    def __init__(self, tools: Iterable[AnyTool]) -> None:
        self._tools = {tool.name: tool for tool in tools}

    def get(self, name: str) -> AnyTool | None:
        return self._tools.get(name)


class Ran:
    """What a run left behind."""

    def __init__(self, executor: Executor, log: EventLog) -> None:
        self.executor = executor
        self.log = log

    def __getitem__(self, call_id: str) -> Outcome:
        outcome = self.executor.outcome(call_id)
        assert outcome is not None, f"{call_id} has no outcome"
        return outcome

    def states(self) -> dict[str, str]:
        return {name: outcome.state for name, outcome in self.executor.outcomes.items()}

    def started(self) -> dict[str, float]:
        """When each call first ran."""
        times: dict[str, float] = {}
        for event in self.log.events:
            if isinstance(event, events.CallStarted):
                times.setdefault(event.call, event.t)
        return times

    @property
    def makespan(self) -> float:
        return max((outcome.ended_s for outcome in self.executor.outcomes.values()), default=0.0)

    def kinds(self, call_id: str) -> list[str]:
        """The types of this call's events, in order."""
        return [event.type for event in self.log.events if getattr(event, "call", None) == call_id]


def execute(tools: Sequence[AnyTool], nodes: Sequence[Node], drive: Drive | None = None, **options: Any) -> Ran:
    """Put the nodes in, drive on, wait for all of it, and leave; in virtual time, with every end told exactly once."""

    async def go() -> Ran:
        log = EventLog("run", asyncio.get_running_loop().time)
        executor = Executor(Shelf(tools), log, **options)
        async with executor:
            for node in nodes:
                executor.add(node)
            if drive is not None:
                await drive(executor)
            await executor.wait()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task is left behind"
        return Ran(executor, log)

    ran = run_virtual(go())
    check_events(ran)
    return ran


def run_calls(
    *calls: ToolCall, tools: Sequence[AnyTool], drive: Drive | None = None, **options: Any
) -> dict[str, Outcome]:
    """The outcomes of these calls, in a graph of their own, in real time."""

    async def go() -> dict[str, Outcome]:
        async with Executor(tools=tools, **options) as graph:
            for call in calls:
                graph.add(call)
            if drive is not None:
                await drive(graph)
            await graph.wait()
        return dict(graph.outcomes)

    return asyncio.run(go())


def check_events(ran: Ran) -> None:
    """Every call that was opened ends once, after all else that is told of it."""
    opened = [event.call for event in ran.log.events if isinstance(event, events.CallNew)]
    ended = [event.call for event in ran.log.events if isinstance(event, ENDS)]
    assert sorted(opened) == sorted(ended), "each call has exactly one end"
    for call in opened:
        assert ran.kinds(call)[-1] in {kind.type for kind in ENDS}
