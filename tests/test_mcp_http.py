"""MCP over HTTP from both sides: the guard of `mcp_app` as bytes meet it, hosts by the dozen, and connections that break.

Every server here is a real one at a port of this machine.
"""

import asyncio
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")

import mcp_types as types
import uvicorn
from mcp import Client
from mcp.server import Server
from mcp.server.streamable_http import EventMessage, EventStore

from flowkit import Agent, ConfigurationError, MCPTools, ScriptedModel, events, mcp_app, tool
from flowkit.models.scripted import call
from tests.test_mcp_tools import ask

TOKEN = "a-token-of-this-test-only"
ERAS = ("auto", "legacy")
PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'


@tool(effect="read")
async def get_price(product: str) -> int:
    """Get a price."""
    return len(product)


@tool(effect="read")
async def get_book() -> str:
    """Get a long text."""
    return "a line of the book\n" * 60_000


def make_app(folder: Path, **options: Any) -> Any:
    agent = Agent(ScriptedModel(["It is 3."] * 10), name="desk", tools=[get_price, get_book], cache=False)
    given: dict[str, Any] = {"tools": ["get_price", "get_book"], "journal": folder / "journal.sqlite3", **options}
    return mcp_app([agent], get_user=lambda _: "ann", **given)


@asynccontextmanager
async def serve(app: Any, port: int = 0) -> AsyncGenerator[tuple[str, int]]:
    """Run an app at a port until the block is left; its streams are cut then."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        port = listener.getsockname()[1]
        listener.listen()
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield f"http://127.0.0.1:{port}/mcp", port
        finally:
            server.should_exit = True
            await serving
            # A task of sse-starlette, one for a loop, looks now and then whether its server ends.
            for task in asyncio.all_tasks():
                if "_shutdown_watcher" in repr(task.get_coro()):
                    task.cancel()


async def send(port: int, head: str, body: bytes = PING, headers: Mapping[str, str] | None = None) -> int:
    """Send bytes as they are; give the answer's status. A head without `Host` is sent without."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    given = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "Content-Length": str(len(body)),
        "Authorization": f"Bearer {TOKEN}",
        **(headers or {}),
    }
    lines = [head, *(f"{name}: {value}" for name, value in given.items() if value), "", ""]
    writer.write("\r\n".join(lines).encode() + body)
    try:
        status = (await reader.readline()).split()
        return int(status[1])
    finally:
        writer.close()


PROBES: dict[str, tuple[Mapping[str, str], bytes, int]] = {
    "a page elsewhere that rebinds a name": ({"Host": "evil.example"}, PING, 421),
    "a page elsewhere": ({"Origin": "https://evil.example"}, PING, 403),
    "no page at all": ({"Origin": "null"}, PING, 403),
    "a form of a page": ({"Content-Type": "text/plain"}, PING, 400),
    "a body of 5 MB": ({}, b" " * 5_000_000, 413),
    "a session that nobody has": ({"Mcp-Session-Id": "made-up"}, PING, 404),
    "no JSON": ({}, b"{", 400),
    "no token": ({"Authorization": ""}, PING, 401),
    "a wrong token": ({"Authorization": "Bearer a-token-of-this-test-onlz"}, PING, 401),
    "a token of another scheme": ({"Authorization": f"Basic {TOKEN}"}, PING, 401),
    "a wrong token and a body of 5 MB": ({"Authorization": "Bearer x"}, b" " * 5_000_000, 401),
    "a token that isn't ASCII": ({"Authorization": "Bearer töken"}, PING, 401),
}


def test_what_is_not_from_a_host_of_ours_is_turned_away(tmp_path: Path) -> None:
    async def go() -> None:
        async with serve(make_app(tmp_path, token=TOKEN)) as (_, port):
            host = {"Host": f"127.0.0.1:{port}"}
            answers = {
                name: await send(port, "POST /mcp HTTP/1.1", body, {**host, **headers})
                for name, (headers, body, _) in PROBES.items()
            }
            assert answers == {name: status for name, (_, _, status) in PROBES.items()}
            assert await send(port, "POST /mcp HTTP/1.1") == 400  # HTTP/1.1 needs a Host
            assert await send(port, "POST /mcp HTTP/1.0") == 421
            assert await send(port, "POST /mcp/ HTTP/1.1", headers={**host, "Authorization": ""}) == 401
            assert await send(port, "DELETE /mcp HTTP/1.1", b"", {**host, "Authorization": ""}) == 401
            assert await send(port, "GET /mcp HTTP/1.1", b"", {**host, "Host": "evil.example"}) == 421

    asyncio.run(go())


@pytest.mark.slow
@pytest.mark.parametrize("mode", ERAS)
def test_ten_hosts_use_one_agent_at_once(tmp_path: Path, mode: str) -> None:
    async def go() -> None:
        async with serve(make_app(tmp_path)) as (url, _):

            async def use(number: int) -> tuple[Any, Any]:
                async with Client(url, mode=mode) as host:
                    price = await host.call_tool("get_price", {"product": "x" * number})
                    said = await host.call_tool("desk", {"task": "the price?", "session": f"s{number}"})
                    return price.structured_content, cast(dict[str, Any], said.structured_content)["status"]

            found = await asyncio.gather(*(use(number) for number in range(10)))
            assert [price for price, _ in found] == [{"result": number} for number in range(10)]
            assert [status for _, status in found] == ["done"] * 10

    asyncio.run(go())


@pytest.mark.parametrize("mode", ERAS)
def test_a_megabyte_reaches_the_host_whole(tmp_path: Path, mode: str) -> None:
    async def go() -> None:
        async with serve(make_app(tmp_path)) as (url, _):
            shop = MCPTools.http(url, name="shop", mode=cast(Any, mode), trust_hints=True)
            result = await ask(shop, call("shop_get_book"))
            # Twice in the message: as structured content, and as text for hosts that can't read that.
            assert result.calls[0].value == {"result": "a line of the book\n" * 60_000}

    asyncio.run(go())


def test_a_server_that_restarts_while_idle_is_used_on(tmp_path: Path) -> None:
    """Its sessions are gone with it: a call is refused before it runs, and made again in a new session."""

    async def use(mode: str) -> None:
        @tool
        async def order() -> str:
            """Order it."""
            ordered.append(mode)
            return "ordered"

        ordered: list[str] = []
        agent = Agent(ScriptedModel(["hi"]), name="desk", tools=[order], cache=False)

        def make() -> Any:
            return mcp_app([agent], get_user=lambda _: "ann", tools=["order"], journal=tmp_path / "journal.sqlite3")

        async with AsyncExitStack() as stack:
            async with serve(make()) as (url, port):
                shop = await stack.enter_async_context(MCPTools.http(url, name="shop", mode=cast(Any, mode)))
                with pytest.raises(ConfigurationError, match="is open already"):
                    await shop.__aenter__()
            async with serve(make(), port):
                result = await ask(shop, call("shop_order"))
                assert (result.calls[0].state, result.calls[0].value) == ("finished", {"result": "ordered"})
                assert ordered == [mode]

    for mode in ERAS:
        asyncio.run(use(mode))


class Cutting:
    """An ASGI app around another that cuts the first answer to a call, when the call has run."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.cut = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        message = await receive()
        is_call = b'"tools/call"' in message.get("body", b"")
        if not is_call or self.cut:
            await self._app(scope, _give_first(message, receive), send)
            return
        self.cut += 1

        async def send_head(part: Any) -> None:
            if part["type"] == "http.response.start":
                headers = [(name, value) for name, value in part["headers"] if name.lower() != b"content-length"]
                await send({**part, "headers": [*headers, (b"content-length", b"1000")]})

        await self._app(scope, _give_first(message, receive), send_head)
        raise ConnectionResetError  # the answer that was promised never comes: the connection is closed


def _give_first(message: Any, receive: Any) -> Any:
    waiting = [message]

    async def give() -> Any:
        return waiting.pop() if waiting else await receive()

    return give


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize(("effect", "state", "calls"), [("read", "finished", 2), ("write", "in_doubt", 1)])
def test_a_connection_that_breaks_in_a_call_repeats_a_read_and_leaves_a_write_in_doubt(
    tmp_path: Path, mode: str, effect: str, state: str, calls: int
) -> None:
    async def go() -> None:
        ran: list[str] = []

        @tool
        async def work() -> str:
            """Work."""
            ran.append("ran")
            return "worked"

        agent = Agent(ScriptedModel(["hi"]), name="desk", tools=[work], cache=False)
        app = mcp_app([agent], get_user=lambda _: "ann", tools=["work"], journal=tmp_path / "journal.sqlite3")
        cutting = Cutting(app)
        async with (
            serve(cutting) as (url, _),
            MCPTools.http(url, name="shop", mode=cast(Any, mode), effects={"*": cast(Any, effect)}) as shop,
        ):
            result = await ask(shop, call("shop_work"))
            assert (result.calls[0].state, len(ran)) == (state, calls)
            after = await ask(shop, call("shop_work"))
            assert after.calls[0].state == "finished"
        assert cutting.cut == 1

    asyncio.run(go())


class Kept(EventStore):
    """Keeps what was sent, so that a stream that was cut can be resumed."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        self.sent.append((stream_id, message))
        return str(len(self.sent))

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        stream, _ = self.sent[int(last_event_id) - 1]
        for number, (of, message) in enumerate(self.sent[int(last_event_id) :], int(last_event_id) + 1):
            if of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


def test_a_stream_that_the_server_closes_in_a_call_is_resumed_where_it_was_cut(tmp_path: Path) -> None:
    """The tool runs once, and progress that it reports after the cut comes from the store."""
    ran: list[str] = []

    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[types.Tool(name="long", input_schema={"type": "object"})])

    async def call_tool(context: Any, params: Any) -> types.CallToolResult:
        ran.append(params.name)
        await context.session.report_progress(1, 3, "before")
        await context.close_sse_stream()
        await context.session.report_progress(2, 3, "meanwhile")
        await context.session.report_progress(3, 3, "after")
        return types.CallToolResult(content=[types.TextContent(text="long done")])

    async def go() -> None:
        server: Server[Any] = Server("long", on_list_tools=list_tools, on_call_tool=call_tool)
        store = Kept()
        async with serve(server.streamable_http_app(event_store=store, retry_interval=10)) as (url, _):
            tools = MCPTools.http(url, name="long", mode="legacy", prefix="")
            run = Agent(ScriptedModel([[call("long")], "done"]), tools=[tools.tools], cache=False).start("go")
            told = [event.note async for event in run if isinstance(event, events.CallProgress)]
            result = await run.wait()
            assert (result.calls[0].state, result.calls[0].value) == ("finished", "long done")
            assert ran == ["long"]
            # Progress that nobody has read yet is replaced by the newest.
            assert told[-1] == "after"

    asyncio.run(go())


@pytest.mark.slow
def test_a_server_that_does_not_hear_the_farewell_holds_no_run(tmp_path: Path) -> None:
    async def go() -> None:
        app = make_app(tmp_path)
        left = asyncio.Event()
        heard: list[str] = []

        async def without_farewell(scope: Any, receive: Any, send: Any) -> None:
            heard.append(scope.get("method", ""))
            if heard[-1] == "DELETE":
                await left.wait()
            await app(scope, receive, send)

        async with serve(without_farewell) as (url, _):
            async with asyncio.timeout(60):
                result = await ask(
                    MCPTools.http(url, name="shop", mode="legacy"), call("shop_get_price", product="tea")
                )
            left.set()
        assert result.calls[0].value == {"result": 3}
        assert heard[-1] == "DELETE"

    asyncio.run(go())
