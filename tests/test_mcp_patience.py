"""A call in which the server asks a person: the time limit counts the server's time, not the person's.

Both ends run in one event loop with virtual time, in both eras.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")

import mcp_types as types
from mcp.server import Server
from mcp.shared.memory import create_client_server_memory_streams

from flowkit import Agent, MCPTools, ScriptedModel
from flowkit.codec import JSON
from flowkit.models.scripted import call
from flowkit.testing.loop import run_virtual
from tests.test_mcp_tools import ask

ERAS = ("auto", "legacy")
EFFECTS: tuple[Literal["read", "write"], ...] = ("read", "write")
HOUR_S = 3600.0
FORM: dict[str, Any] = {"type": "object", "properties": {"name": {"type": "string"}}}


@dataclass
class AskingServer:
    """A server that works for some seconds, asks for a name, and works on; `mute` never answers."""

    work_s: float = 0.0
    calls: list[str] = field(default_factory=list[str])
    stopped: list[str] = field(default_factory=list[str])
    where = "memory"

    @asynccontextmanager
    async def open(self, report: object, call_s: float) -> AsyncGenerator[Any]:
        server: Server[Any] = Server("desk", on_list_tools=self.list_tools, on_call_tool=self.call_tool)
        async with create_client_server_memory_streams() as (ours, theirs):
            serving = asyncio.create_task(server.run(*theirs, server.create_initialization_options()))
            try:
                yield ours
            finally:
                await ours[1].aclose()
                await theirs[1].aclose()
                await serving

    async def list_tools(self, context: Any, params: Any) -> types.ListToolsResult:
        anything: dict[str, Any] = {"type": "object", "properties": {}}
        return types.ListToolsResult(tools=[types.Tool(name=name, input_schema=anything) for name in ("sign", "mute")])

    async def call_tool(self, context: Any, params: types.CallToolRequestParams) -> Any:
        self.calls.append(params.name)
        try:
            return await self.answer(context, params)
        except asyncio.CancelledError:
            self.stopped.append(params.name)
            raise

    async def answer(self, context: Any, params: types.CallToolRequestParams) -> Any:
        if params.name == "mute":
            await asyncio.Event().wait()
        given: Any = (params.input_responses or {}).get("who")
        if given is None:
            await asyncio.sleep(self.work_s)
            if not context.session.can_send_request:
                form = types.ElicitRequestFormParams(message="Who signs?", requested_schema=FORM)
                return types.InputRequiredResult(input_requests={"who": types.ElicitRequest(params=form)})
            given = await context.session.elicit_form("Who signs?", FORM, context.request_id)
        await asyncio.sleep(self.work_s)
        return types.CallToolResult(content=[types.TextContent(text=f"{given.action} {given.content}")])


async def answer_late(server: str, message: str, schema: Mapping[str, JSON]) -> Mapping[str, JSON]:
    await asyncio.sleep(HOUR_S)
    return {"name": "Ann"}


def make_tools(
    server: AskingServer, mode: str, effect: Literal["read", "write"], person: Any = answer_late
) -> MCPTools:
    options: Any = {"mode": mode, "effects": {"*": effect}, "prefix": "", "timeout": 60}
    return MCPTools(lambda _: server, name="desk", ask=person, **options)


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("mode", ERAS)
def test_a_person_may_take_an_hour_within_a_call_of_a_minute(mode: str, effect: Literal["read", "write"]) -> None:
    server = AskingServer(work_s=25)
    (only,) = run_virtual(ask(make_tools(server, mode, effect), call("sign"))).calls
    assert (only.state, only.value) == ("finished", "accept {'name': 'Ann'}")
    assert server.calls == ["sign"] * (2 if mode == "auto" else 1)  # the newer era asks again with the answer


@pytest.mark.parametrize("mode", ERAS)
def test_a_server_that_takes_too_long_around_its_question_is_given_up(mode: str) -> None:
    server = AskingServer(work_s=40)
    (only,) = run_virtual(ask(make_tools(server, mode, "write"), call("sign"))).calls
    assert only.state == "in_doubt"
    assert "did not answer in time" in only.error
    assert server.calls == ["sign"] * (2 if mode == "auto" else 1)
    assert server.stopped == ["sign"]


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("mode", ERAS)
def test_a_call_that_asks_nobody_keeps_its_minute(mode: str, effect: Literal["read", "write"]) -> None:
    async def go() -> tuple[Any, float]:
        result = await ask(make_tools(server, mode, effect), call("mute"))
        return result.calls[0], asyncio.get_running_loop().time()

    server = AskingServer()
    only, took_s = run_virtual(go())
    assert only.state == ("in_doubt" if effect == "write" else "failed")
    assert len(server.calls) == len(server.stopped) == (1 if effect == "write" else 2)
    assert 60 * len(server.calls) <= took_s < 60 * len(server.calls) + 10


@pytest.mark.parametrize("mode", ERAS)
def test_a_function_that_cannot_answer_leaves_the_question_open_and_the_connection_whole(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(server: str, message: str, schema: Mapping[str, JSON]) -> None:
        raise OSError("the form's page is down")

    (only,) = run_virtual(ask(make_tools(AskingServer(), mode, "write", fail), call("sign"))).calls
    assert (only.state, only.value) == ("finished", "cancel None")
    assert [record.levelname for record in caplog.records if "ask=" in record.getMessage()] == ["ERROR"]


@pytest.mark.parametrize("mode", ERAS)
def test_a_write_that_is_stopped_while_a_person_is_asked_is_in_doubt(mode: str) -> None:
    async def go() -> Any:
        asked = asyncio.Event()

        async def think(server: str, message: str, schema: Mapping[str, JSON]) -> None:
            asked.set()
            await asyncio.Event().wait()

        tools = make_tools(server, mode, "write", think)
        agent = Agent(ScriptedModel([[call("sign")], "done"]), tools=[tools.tools], cache=False)
        async with tools:
            run = agent.start("go")
            await asked.wait()
            run.cancel()
            return await run.wait()

    server = AskingServer()
    (only,) = run_virtual(go()).calls
    assert only.state == "in_doubt"
    assert server.calls == ["sign"]
    assert server.stopped == (["sign"] if mode == "legacy" else [])  # the newer era's server has already answered
