"""The seam where a call leaves the loop: whoever runs the function, a call ends alike."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from flowkit.codec import JSON
from flowkit.errors import ToolError
from flowkit.events import EventLog
from flowkit.executor import Executor
from flowkit.executor.worker import InLoop, InThread, Job, Running, Worker
from flowkit.references import Reference, ToolCall
from flowkit.tools import tool
from tests.executing import Shelf, execute


@tool(slot="far")
async def add(first: int, second: int) -> int:
    """Add two numbers."""
    await asyncio.sleep(0)
    return first + second


@tool(slot="far")
async def fail(first: int, second: int) -> int:
    """Say no."""
    raise ToolError(f"{first} and {second} don't go together")


@tool(slot="far", timeout=1)
async def hang(first: int, second: int) -> int:
    """Never end."""
    await asyncio.Event().wait()
    return 0


@tool(slot="far")
async def show(first: int, second: int) -> Any:
    """Give what isn't JSON."""
    return object()


class InProcess:
    """A worker that sends JSON to another Python process and reads JSON back."""

    def run(self, job: Job) -> Running:
        return _Sent(job)


class _Sent:
    raw = None

    def __init__(self, job: Job) -> None:
        self.is_busy = True
        self.on_free: list[Callable[[], None]] = []
        self._is_stopped = False
        self.result: Awaitable[JSON] = asyncio.ensure_future(self._ask(dict(job.arguments.given)))

    async def _ask(self, arguments: dict[str, object]) -> JSON:
        program = "import json, sys; given = json.load(sys.stdin); print(json.dumps(sum(given.values())))"
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdin=pipe, stdout=pipe)
        said, _ = await process.communicate(json.dumps(arguments).encode())
        self.is_busy = False
        return json.loads(said)

    def stop(self) -> None:
        self._is_stopped = True


CALLS = [ToolCall("a", "add", {"first": 1, "second": 2}), ToolCall("b", "add", {"first": Reference("a"), "second": 4})]


@pytest.mark.parametrize("worker", [InLoop(), InProcess()], ids=lambda worker: type(worker).__name__)
def test_calls_of_a_named_slot_run_where_its_worker_is(worker: Worker) -> None:
    async def main() -> None:
        log = EventLog("run", asyncio.get_running_loop().time)
        async with Executor(Shelf([add]), log, slots={"far": 2}, workers={"far": worker}) as executor:
            for call in CALLS:
                executor.add(call)
            await executor.wait()
        assert {name: outcome.value for name, outcome in executor.outcomes.items()} == {"a": 3, "b": 7}

    asyncio.run(main())


def test_a_task_ends_as_a_call_in_place_does() -> None:
    def end(**options: Any) -> list[tuple[str, str | None]]:
        calls = [ToolCall(made.name, made.name, {"first": 1, "second": 2}) for made in (fail, hang, show)]
        ran = execute([fail, hang, show], calls, **options)
        return [(ran[call.id].state, ran[call.id].error) for call in calls]

    assert end(workers={"far": InLoop()}) == end()


def test_a_thread_gives_json_back_and_says_what_it_returned() -> None:
    @tool
    def when(day: int) -> dict[str, set[int]]:
        return {"days": {day}}

    async def main() -> None:
        worker = InThread()
        running = worker.run(Job(when, when.validate({"day": 3})))
        assert await running.result == {"days": [3]}
        assert running.raw == {"days": {3}}
        assert not running.is_busy
        worker.close()

    asyncio.run(main())
