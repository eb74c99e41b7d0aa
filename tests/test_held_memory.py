"""What runs hold while they are in progress, counted in objects: bytes and times depend on the machine."""

import asyncio
import gc
import threading
import weakref
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from flowkit import Agent, Journal, Limits, OpenAIModel, tool
from flowkit.executor.plan import Plan
from flowkit.messages import ToolMessage, ToolSpec, UserMessage
from flowkit.models.base import Delta, ModelRequest
from flowkit.models.scripted import Script
from flowkit.testing import ScriptedModel, call
from tests.bodies import chunk

EMPTY_BY_CLASS = (AsyncExitStack, threading.Event, deque)


def count_objects() -> Counter[type]:
    gc.collect()
    return Counter(map(type, gc.get_objects()))


def count_ours() -> Counter[str]:
    return Counter(
        {kind.__qualname__: n for kind, n in count_objects().items() if str(kind.__module__).startswith("flowkit.")}
    )


def list_growing(more: Counter[str], rounds: int) -> dict[str, int]:
    """List how many of each kind a round adds; a few more in all are what is being written just now."""
    return {name: round(number / rounds) for name, number in more.items() if number > rounds / 2}


A_ROUND = {"UserMessage": 1, "AssistantMessage": 2, "ToolMessage": 1, "RequestedCall": 1}
"""What was asked, the call, its result, and the answer."""


class ForgetfulModel(ScriptedModel):
    """Keeps no requests: each holds the conversation up to it."""

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[Delta], None]:
        async with super().stream(request) as deltas:
            self.requests.clear()
            yield deltas


def look_once(request: ModelRequest) -> Script:
    """Call a tool, then answer."""
    return "word" if isinstance(request.messages[-1], ToolMessage) else [call("look", number=1)]


class WaitingModel(ScriptedModel):
    """Says a word, and then nothing until `go` is set."""

    def __init__(self) -> None:
        super().__init__(lambda request: "word")
        self.go = asyncio.Event()
        self.arrived = asyncio.Semaphore(0)

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[Delta], None]:
        async with super().stream(request) as deltas:
            yield self._wait_within(deltas)

    async def _wait_within(self, deltas: AsyncIterator[Delta]) -> AsyncIterator[Delta]:
        yield await anext(deltas)
        self.arrived.release()
        await self.go.wait()
        async for delta in deltas:
            yield delta


@tool(effect="read")
async def look(number: int) -> str:
    """Look."""
    return f"found {number}"


def test_a_run_in_progress_holds_no_empty_containers_and_shares_what_is_equal() -> None:
    async def count_at(runs: int) -> Counter[type]:
        model = WaitingModel()
        agent = Agent(model, tools=[look], cache=False)
        started = [agent.start("go") for _ in range(runs)]
        for _ in started:
            await model.arrived.acquire()
        counted = count_objects()
        model.go.set()
        for run in started:
            assert (await run.wait()).output == "word"
        return counted

    few, many = asyncio.run(count_at(10)), asyncio.run(count_at(60))

    more = {kind: (many[kind] - few[kind]) // 50 for kind in (*EMPTY_BY_CLASS, ToolSpec, Plan)}
    # The two queues that each call passes through.
    assert more == {AsyncExitStack: 0, threading.Event: 0, deque: 2, ToolSpec: 0, Plan: 0}


@pytest.mark.parametrize("has_journal", [False, True])
def test_each_turn_of_a_long_run_adds_as_much_as_any_other(has_journal: bool, tmp_path: Path) -> None:
    seen: dict[int, Counter[str]] = {}
    turns = 200

    @tool(effect="read")
    async def measure(number: int) -> str:
        if number in (50, 100, 150):
            seen[number] = count_ours()
        return "measured"

    async def main() -> None:
        model = ForgetfulModel(lambda request: _measure_at(request.turn) if request.turn <= turns else "done")
        journal = Journal(tmp_path / "journal.sqlite3") if has_journal else None
        agent = Agent(model, tools=[measure], cache=False, journal=journal, limits=Limits(turns=turns + 1, calls=turns))
        result = await agent.run("go")
        assert (result.output, len(result.messages)) == ("done", 2 * turns + 2)
        if journal is not None:
            journal.close()

    asyncio.run(main())

    later = seen[150] - seen[100]
    assert later["AssistantMessage"] == later["ToolMessage"] == 50  # what is counted grows at all
    # One message, its call and its result; one node of the graph; the events of both. The journal's writer has a few jobs.
    assert list_growing(later, 50) == list_growing(seen[100] - seen[50], 50)
    assert set(list_growing(later, 50).values()) == {1}
    assert "RecordedTurn" not in list_growing(later, 50)  # a journal keeps a turn's text, not its objects a second time


def test_a_session_holds_its_messages_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> list[Counter[str]]:
        journal = Journal(tmp_path / "journal.sqlite3")
        model = ForgetfulModel(look_once)
        agent = Agent(model, tools=[look], cache=False, journal=journal)
        counted: list[Counter[str]] = []
        for number in range(100):
            result = await agent.run("go", user="u", session="s")
            assert result.output == "word"
            del result
            if number in (20, 60, 99):
                counted.append(count_ours())
        journal.close()
        return counted

    first, second, third = asyncio.run(main())

    # The last result, with the whole conversation.
    assert list_growing(second - first, 40) == A_ROUND
    assert list_growing(third - second, 39) == A_ROUND


def test_a_conversation_passed_along_holds_its_messages_and_nothing_else() -> None:
    async def main() -> list[Counter[str]]:
        model = ForgetfulModel(look_once)
        agent = Agent(model, tools=[look], cache=False)
        result = await agent.run("go")
        counted: list[Counter[str]] = []
        for number in range(100):
            result = await agent.run("go", history=result.messages)
            if number in (20, 60, 99):
                counted.append(count_ours())
        return counted

    first, second, _ = asyncio.run(main())

    assert list_growing(second - first, 40) == A_ROUND


def _measure_at(turn: int) -> Script:
    return [call("measure", number=turn)]


class HeldBody(httpx2.AsyncByteStream):
    """One chunk, and then nothing."""

    def __init__(self) -> None:
        self._chunks = [chunk({"content": "word"})]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return self._chunks.pop() if self._chunks else await asyncio.Future[bytes]()


def ask_held(answer: Callable[[httpx2.Request, HeldBody], httpx2.Response], check: Callable[[], None]) -> None:
    """Ask a model whose answer is held in its middle, and check something there."""

    async def main() -> None:
        body = HeldBody()
        transport = httpx2.MockTransport(lambda request: answer(request, body))
        async with httpx2.AsyncClient(transport=transport, follow_redirects=True) as client:
            model = OpenAIModel("m", base_url="http://127.0.0.1:1/v1", api_key="none", http_client=client)
            async with model.stream(ModelRequest((UserMessage("a long conversation"),))) as deltas:
                await anext(deltas)
                check()
            await asyncio.sleep(0)  # what is left in its middle is closed by the event loop

    asyncio.run(main())


def test_a_request_that_was_sent_is_not_held_while_its_answer_comes() -> None:
    sent: list[weakref.ref[httpx2.Request]] = []

    def answer(request: httpx2.Request, body: HeldBody) -> httpx2.Response:
        assert b"a long conversation" in request.content
        sent.append(weakref.ref(request))
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=body)

    def check() -> None:
        gc.collect()
        assert [ref() for ref in sent] == [None]

    ask_held(answer, check)


def test_a_request_that_is_redirected_is_sent_again_whole() -> None:
    bodies: list[bytes] = []

    def answer(request: httpx2.Request, body: HeldBody) -> httpx2.Response:
        bodies.append(request.content)
        if len(bodies) == 1:
            return httpx2.Response(307, headers={"location": "http://127.0.0.1:1/v2/chat/completions"})
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=body)

    ask_held(answer, lambda: None)

    assert bodies[0] == bodies[1]
    assert b"a long conversation" in bodies[0]


def test_what_a_listener_is_told_is_what_the_log_has() -> None:
    told: list[Any] = []

    async def main() -> list[Any]:
        agent = Agent(ScriptedModel([[call("look", number=1)], ["some ", "words"]]), tools=[look], cache=False)
        run = agent.start("go")
        run.log.listen(told.append)
        await run.wait()
        return run.log.events

    events = asyncio.run(main())

    assert told == events
    assert [event.seq for event in events] == list(range(len(events)))
