"""flowkit as an MCP server: real hosts (the `mcp` and `fastmcp` clients) in both eras, in process, stdio and HTTP."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")

from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp_types import ElicitResult
from pydantic import SecretStr

from flowkit import CONTEXT, Agent, Context, Journal, MCPTools, ScriptedModel, mcp_app, recipe, step, tool
from flowkit.mcp.offers import make_offers
from flowkit.mcp.server import McpServer
from flowkit.models.scripted import call
from flowkit.web.served import make_served

ERAS = ("auto", "legacy")


class Shop:
    """What the tools did."""

    def __init__(self) -> None:
        self.refunds: list[int] = []
        self.stopped = asyncio.Event()
        self.began = asyncio.Event()

    def make(self) -> list[Any]:
        @tool(effect="read")
        def get_price(product: str) -> int:
            """Get the price of a product, in won."""
            return {"tea": 9000}.get(product, 0)

        @tool(effect="write", approval=True)
        def refund(amount: int) -> str:
            """Pay money back."""
            self.refunds.append(amount)
            return f"paid {amount}"

        @tool(effect="read")
        async def wait(context: Context[Any] = CONTEXT) -> str:
            """Wait until stopped."""
            context.progress(1, 4, "waiting")
            self.began.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.stopped.set()
            return ""

        @recipe
        def look_up(product: str) -> int:
            """The price of a product."""
            return step(get_price, product)

        model = ScriptedModel(
            [[call("get_price", product="tea"), call("refund", amount=9000)], "It is done."],
        )
        agent = Agent(model, name="desk", tools=[get_price, refund, wait], instructions="Help customers.", cache=False)
        return [agent, look_up]


@asynccontextmanager
async def connect(
    shop: Shop, folder: Path, mode: str, *, answers: list[bool] | None = None, user: str | None = "ann"
) -> AsyncGenerator[Client]:
    """A host connected to the server in this process; `answers` are its user's, and none where it can't ask."""
    served = make_served(shop.make())
    given = iter(answers or [])

    async def ask(context: object, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"approved": next(given)})

    with closing(Journal(folder / "journal.sqlite3")) as journal:
        offers = make_offers(served, ["refund", "get_price", "wait"])
        server = McpServer(served, offers, journal, lambda _: user).make()
        async with Client(server, mode=mode, elicitation_callback=None if answers is None else ask) as client:
            yield client


def text_of(result: Any) -> str:
    return "\n".join(block.text for block in result.content)


@pytest.mark.parametrize("mode", ERAS)
def test_agents_recipes_and_named_tools_are_listed_with_schemas_and_hints(tmp_path: Path, mode: str) -> None:
    async def go() -> None:
        async with connect(Shop(), tmp_path, mode) as client:
            listed = {one.name: one for one in (await client.list_tools()).tools}
            assert list(listed) == ["desk", "look_up", "refund", "get_price", "wait"]
            assert listed["desk"].description == "Help customers."
            assert listed["desk"].input_schema["required"] == ["task"]
            assert listed["look_up"].output_schema == {
                "type": "object",
                "properties": {"result": {"type": "integer"}},
                "required": ["result"],
            }
            hints: Mapping[str, Any] = {name: one.annotations for name, one in listed.items()}
            assert hints["get_price"].read_only_hint is True
            assert hints["refund"].destructive_hint is True
            assert hints["desk"].destructive_hint is True

    asyncio.run(go())


@pytest.mark.parametrize("mode", ERAS)
def test_results_are_structured_and_errors_say_what_to_do(tmp_path: Path, mode: str) -> None:
    async def go() -> None:
        async with connect(Shop(), tmp_path, mode) as client:
            found = await client.call_tool("look_up", {"product": "tea"})
            assert (found.structured_content, text_of(found)) == ({"result": 9000}, "9000")
            plain = await client.call_tool("get_price", {"product": "cups"})
            assert plain.structured_content == {"result": 0}
            wrong = await client.call_tool("look_up", {"products": "tea"})
            assert wrong.is_error
            assert "product" in text_of(wrong)
            empty = await client.call_tool("desk", {"task": " "})
            assert empty.is_error
            with pytest.raises(Exception, match="there is no tool 'nothing'"):
                await client.call_tool("nothing", {})

    asyncio.run(go())


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize(("approved", "refunds"), [(True, [9000]), (False, [])])
def test_a_call_that_waits_asks_the_hosts_user(tmp_path: Path, mode: str, approved: bool, refunds: list[int]) -> None:
    async def go() -> None:
        shop = Shop()
        async with connect(shop, tmp_path, mode, answers=[approved]) as client:
            result = await client.call_tool("desk", {"task": "money back"})
            assert not result.is_error
            content = cast(dict[str, Any], result.structured_content)
            assert (content["output"], content["status"]) == ("It is done.", "done")
            assert shop.refunds == refunds
            shown = await client.read_resource(f"flowkit://runs/{content['run_id']}")
            assert '"status":"done"' in str(shown.contents[0]).replace(" ", "")

    asyncio.run(go())


@pytest.mark.parametrize("mode", ERAS)
def test_a_host_that_cannot_ask_runs_nothing_that_needs_approval(tmp_path: Path, mode: str) -> None:
    async def go() -> None:
        shop = Shop()
        async with connect(shop, tmp_path, mode) as client:
            result = await client.call_tool("refund", {"amount": 5})
            assert result.is_error
            assert "needs a person's approval" in text_of(result)
            assert shop.refunds == []

    asyncio.run(go())


def test_an_answer_counts_once_and_for_its_own_call(tmp_path: Path) -> None:
    async def go() -> None:
        shop = Shop()
        async with connect(shop, tmp_path, "auto", answers=[True]) as client:
            first = await client.session.call_tool("refund", {"amount": 5}, allow_input_required=True)
            state, (name, _) = cast(Any, first).request_state, next(iter(cast(Any, first).input_requests.items()))
            answers: Any = {name: ElicitResult(action="accept", content={"approved": True})}

            async def answer(amount: int, given: str) -> Any:
                return await client.session.call_tool(
                    "refund", {"amount": amount}, input_responses=answers, request_state=given
                )

            for amount, given in ((6, state), (5, "made-up")):
                with pytest.raises(Exception, match="Invalid or expired"):
                    await answer(amount, given)
            assert shop.refunds == []
            assert not (await answer(5, state)).is_error
            again = await answer(5, state)
            assert again.is_error
            assert shop.refunds == [5]

    asyncio.run(go())


@pytest.mark.parametrize("mode", ERAS)
def test_a_cancelled_call_stops_its_run_and_progress_is_told(tmp_path: Path, mode: str) -> None:
    async def go() -> None:
        shop = Shop()
        told: list[tuple[float, str | None]] = []

        async def tell(progress: float, total: float | None, message: str | None) -> None:
            told.append((progress, message))

        async with connect(shop, tmp_path, mode) as client:
            asked = asyncio.create_task(client.call_tool("wait", {}, progress_callback=tell))
            await shop.began.wait()
            while not told:  # noqa: ASYNC110  # told through the protocol, which sets no event here
                await asyncio.sleep(0)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            async with asyncio.timeout(60):
                await shop.stopped.wait()
            assert told[0][1] == "waiting"

    asyncio.run(go())


def test_runs_of_another_user_do_not_exist(tmp_path: Path) -> None:
    async def go() -> None:
        async with connect(Shop(), tmp_path, "auto", user="ann") as client:
            found = await client.call_tool("look_up", {"product": "tea"})
            assert found.meta is not None
            uri = f"flowkit://runs/{found.meta['flowkit/run']}"
            await client.read_resource(uri)
        async with connect(Shop(), tmp_path, "auto", user="bob") as client:
            assert (await client.list_resources()).resources == []
            with pytest.raises(Exception, match="there is no resource"):
                await client.read_resource(uri)

    asyncio.run(go())


APP = '''
from flowkit import Agent, ScriptedModel, recipe, step, tool


@tool(effect="read")
def get_price(product: str) -> int:
    """Get the price of a product."""
    print("looking", product)
    return 9000


@recipe
def look_up(product: str) -> int:
    """The price of a product."""
    return step(get_price, product)


agent = Agent(ScriptedModel("hello"), name="desk", tools=[get_price])
'''


def make_command(folder: Path, *options: str) -> list[str]:
    (folder / "app.py").write_text(APP)
    code = "from flowkit.cli import main; main()"
    journal = str(folder / "journal.sqlite3")
    return [sys.executable, "-c", code, "mcp", str(folder / "app.py"), "--journal", journal, *options]


@pytest.mark.slow
def test_the_command_serves_hosts_on_stdio_though_the_app_prints(tmp_path: Path) -> None:
    command, *arguments = make_command(tmp_path, "--tool", "get_price")

    async def go() -> None:
        async with Client(StdioServerParameters(command=command, args=arguments)) as client:
            assert [one.name for one in (await client.list_tools()).tools] == ["desk", "look_up", "get_price"]
            result = await client.call_tool("look_up", {"product": "tea"})
            assert result.structured_content == {"result": 9000}
        shop = MCPTools.stdio(command, *arguments, name="shop", trust_hints=True)
        async with shop:
            model = ScriptedModel([[call("shop_get_price", product="tea")], "done"])
            found = await Agent(model, tools=[shop.tools], cache=False).run("price?")
            assert found.calls[0].value == {"result": 9000}
            effects = {one.name: one.effect for one in await shop.tools.current(Context(None))}
            assert effects["shop_get_price"] == "read"

    asyncio.run(go())


@pytest.mark.slow
def test_the_command_serves_over_http_behind_its_token(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = "a-token-of-this-test-only"
    command = make_command(tmp_path, "--http", str(port), "--token", token)
    url = f"http://127.0.0.1:{port}/mcp"

    async def go() -> None:
        shop = MCPTools.http(url, name="shop", headers={"Authorization": f"Bearer {token}"}, effects={"*": "read"})
        async with shop:
            model = ScriptedModel([[call("shop_look_up", product="tea")], "done"])
            found = await Agent(model, tools=[shop.tools], cache=False).run("price?")
            assert found.calls[0].value == {"result": 9000}
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({"Authorization": f"Bearer {token}", "Host": "evil.example"}, 421),
            ({"Authorization": f"Bearer {token}", "Origin": "https://evil.example"}, 403),
        ):
            assert await ask(url, headers) == status, headers

    async def ask(url: str, headers: Mapping[str, str]) -> int:
        from httpx2 import AsyncClient

        async with AsyncClient() as client:
            asked = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **headers}
            return (
                await client.post(url, content=b'{"jsonrpc":"2.0","id":1,"method":"ping"}', headers=asked)
            ).status_code

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert "serving MCP" in process.stderr.readline()
            wait_for_port(port)
            asyncio.run(go())
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.mark.parametrize("token", [None, "a-token-of-this-test-only"])
def test_a_mounted_app_closes_the_journal_that_it_opened(tmp_path: Path, token: str | None) -> None:
    async def go() -> None:
        before = {*threading.enumerate()}
        app = mcp_app(Shop().make(), get_user=lambda _: "ann", journal=tmp_path / "journal.sqlite3", token=token)
        async with app.router.lifespan_context(app):
            assert {*threading.enumerate()} > before
        left = {thread.name for thread in {*threading.enumerate()} - before if not thread.name.startswith("asyncio_")}
        assert left == set()

    asyncio.run(go())


def wait_for_port(port: int) -> None:
    """Wait until somebody listens; the program's own first line comes before it does."""
    for _ in range(3000):
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise AssertionError("nobody listens")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [(["--http", "0", "--host", "0.0.0.0"], "give --token"), (["--tool", "nothing"], "there is no tool 'nothing'")],
)
def test_a_server_that_would_be_open_or_has_no_such_tool_is_refused(
    tmp_path: Path, options: list[str], said: str
) -> None:
    done = subprocess.run(make_command(tmp_path, *options), capture_output=True, text=True, input="")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_secrets_of_an_offered_tool_are_marked_for_the_host(tmp_path: Path) -> None:
    """A parameter that only the decorator names, and a type's own mark."""

    @tool(effect="read", secret=("pin",))
    def unlock(pin: str, door: str, code: SecretStr) -> str:
        """Open a door."""
        return "open"

    @recipe
    def nothing() -> str:
        return step(unlock, "1", "front", SecretStr("2"))

    fields: Any = make_offers(make_served([nothing]), ["unlock"])["unlock"].describe().input_schema["properties"]
    assert [name for name, field in fields.items() if field.get("writeOnly")] == ["pin", "code"]
