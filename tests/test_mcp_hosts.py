"""flowkit as an MCP server among others: mounted, without sessions, with hosts that vanish, and with two users.

Every host is a real one, over HTTP at a port of this machine or in this process.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")

from mcp import Client
from mcp_types import ElicitResult
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from flowkit import CONTEXT, Agent, Context, Journal, ScriptedModel, mcp_app, recipe, step, tool
from flowkit.mcp.offers import make_offers
from flowkit.mcp.server import McpServer
from flowkit.models.scripted import call
from flowkit.web.served import make_served
from tests.test_mcp_http import send, serve
from tests.test_mcp_server import ERAS, Shop, text_of


def make_app(folder: Path, shop: Shop, **options: Any) -> Starlette:
    given: dict[str, Any] = {"tools": ["get_price", "wait"], "journal": folder / "journal.sqlite3", **options}
    return mcp_app(shop.make(), get_user=lambda _: "ann", **given)


@pytest.mark.parametrize("mode", ERAS)
def test_an_app_mounted_in_another_answers_without_a_redirect_beside_its_routes(tmp_path: Path, mode: str) -> None:
    inner = make_app(tmp_path, Shop())

    @asynccontextmanager
    async def live(app: Starlette) -> AsyncGenerator[None]:
        async with inner.router.lifespan_context(inner):
            yield

    async def hello(request: object) -> PlainTextResponse:
        return PlainTextResponse("hello")

    async def go() -> None:
        outer = Starlette(routes=[Route("/hello", hello), Mount("/", inner)], lifespan=live)
        async with serve(outer) as (url, port):
            host = {"Host": f"127.0.0.1:{port}", "Authorization": ""}
            assert await send(port, "POST /mcp HTTP/1.1", headers=host) not in (301, 307, 308)
            assert await send(port, "GET /hello HTTP/1.1", b"", host) == 200
            async with Client(url, mode=mode) as client:
                result = await client.call_tool("get_price", {"product": "tea"})
                assert result.structured_content == {"result": 9000}

    asyncio.run(go())


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("options", [{"stateless": True}, {"json_response": True}], ids=["stateless", "json"])
def test_without_sessions_or_streams_results_stay(tmp_path: Path, mode: str, options: dict[str, bool]) -> None:
    async def go() -> None:
        async with serve(make_app(tmp_path, Shop(), **options)) as (url, _), Client(url, mode=mode) as client:
            result = await client.call_tool("look_up", {"product": "tea"})
            assert result.structured_content == {"result": 9000}
            # The agent's refund needs a person, whom nobody can ask here.
            asked = await client.call_tool("desk", {"task": "money back"})
            assert asked.is_error
            assert "needs a person's approval" in text_of(asked)

    asyncio.run(go())


HOST = """
import asyncio, sys
from mcp import Client
async def main():
    async with Client(sys.argv[1], mode=sys.argv[2]) as client:
        await client.call_tool("wait", {})
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("mode", ERAS)
def test_a_host_that_vanishes_in_a_call_stops_its_run(tmp_path: Path, mode: str) -> None:
    async def go() -> None:
        shop = Shop()
        async with serve(make_app(tmp_path, shop)) as (url, _):
            host = await asyncio.create_subprocess_exec(
                sys.executable, "-c", HOST, url, mode, stderr=asyncio.subprocess.DEVNULL
            )
            try:
                async with asyncio.timeout(60):
                    await shop.began.wait()
            finally:
                host.kill()
                await host.wait()
            async with asyncio.timeout(60):
                await shop.stopped.wait()

    asyncio.run(go())


@pytest.mark.parametrize("mode", ERAS)
def test_what_goes_wrong_inside_is_a_reference_and_no_more(
    tmp_path: Path, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    @tool(effect="read")
    def look(place: str) -> str:
        """Look."""
        raise RuntimeError("password is s3cret")

    @recipe
    def search(place: str) -> str:
        """Search a place."""
        return step(look, place)

    class Broken(ScriptedModel):
        def stream(self, *args: Any, **options: Any) -> Any:
            raise RuntimeError("key is s3cret")

    async def go() -> None:
        agents = [search, Agent(Broken(["hi"]), name="broken", tools=[look], cache=False)]
        served = make_served(agents)
        with closing(Journal(tmp_path / "journal.sqlite3")) as journal:
            server = McpServer(served, make_offers(served, ["look"]), journal, lambda _: "ann").make()
            async with Client(server, mode=mode) as client:
                for name, arguments in (
                    ("look", {"place": "x"}),
                    ("search", {"place": "x"}),
                    ("broken", {"task": "go"}),
                ):
                    result = await client.call_tool(name, arguments)
                    said = text_of(result)
                    assert result.is_error
                    assert "s3cret" not in said, name
                    assert "Traceback" not in said
                    assert "ref " in said, said

    asyncio.run(go())
    assert "s3cret" in caplog.text, "the log has all of it"


class Desk:
    """A server in this process that can be started again; its hosts act for the user in `user`."""

    def __init__(self, folder: Path) -> None:
        self.user = "ann"
        self.paid: list[int] = []
        self.journal = Journal(folder / "journal.sqlite3")
        self._clock = 0.0

    def start(self) -> Any:
        @tool(effect="write", approval=True)
        def refund(amount: int) -> str:
            """Pay money back."""
            self.paid.append(amount)
            return f"paid {amount}"

        @tool(effect="write", approval=True)
        def reward(amount: int) -> str:
            """Pay a reward."""
            self.paid.append(-amount)
            return f"paid {amount}"

        served = make_served([Agent(ScriptedModel(["hi"]), name="desk", tools=[refund, reward], cache=False)])
        offers = make_offers(served, ["refund", "reward"])
        return McpServer(served, offers, self.journal, lambda _: self.user, clock=lambda: self._clock).make()

    def pass_time(self, seconds: float) -> None:
        self._clock += seconds


async def never_asked(context: object, params: object) -> ElicitResult:
    raise AssertionError("the test answers itself")


async def question(client: Client, amount: int) -> tuple[str, Any]:
    """Call refund; return the state and the answers that approve it."""
    asked: Any = await client.session.call_tool("refund", {"amount": amount}, allow_input_required=True)
    (name,) = asked.input_requests
    return asked.request_state, {name: ElicitResult(action="accept", content={"approved": True})}


async def answer(client: Client, tool_name: str, amount: int, state: str, answers: Any) -> str:
    """Answer a question; return the text of the result or of the refusal."""
    try:
        result = await client.session.call_tool(
            tool_name, {"amount": amount}, input_responses=answers, request_state=state
        )
    except Exception as error:  # noqa: BLE001  # the package's, by kind of refusal
        return f"refused: {error}"
    return text_of(result)


def test_an_answer_is_for_its_user_its_tool_its_arguments_its_server_and_its_time(tmp_path: Path) -> None:
    async def go() -> None:
        desk = Desk(tmp_path)
        with closing(desk.journal):
            async with AsyncExitStack() as stack:
                server = desk.start()
                client = await stack.enter_async_context(Client(server, elicitation_callback=never_asked))
                state, answers = await question(client, 5)
                desk.user = "eve"
                assert "paid" not in await answer(client, "refund", 5, state, answers)
                desk.user = "ann"
                assert "paid" not in await answer(client, "reward", 5, state, answers)
                assert "paid" not in await answer(client, "refund", 500, state, answers)
                assert "paid" not in await answer(client, "refund", 5, state[:-2] + "xx", answers)
                assert "paid" not in await answer(client, "refund", 5, "made-up", answers)
                assert desk.paid == []
                # Nobody's attempt has used the question up.
                assert await answer(client, "refund", 5, state, answers) == "paid 5"
                assert "paid" not in await answer(client, "refund", 5, state, answers)
                late, late_answers = await question(client, 6)
                desk.pass_time(15 * 60 + 1)
                assert "paid" not in await answer(client, "refund", 6, late, late_answers)
                before, before_answers = await question(client, 7)
            async with Client(desk.start(), elicitation_callback=never_asked) as again:
                assert "paid" not in await answer(again, "refund", 7, before, before_answers)
            assert desk.paid == [5]

    asyncio.run(go())


def test_a_declined_and_a_cancelled_form_run_nothing(tmp_path: Path) -> None:
    async def go() -> None:
        desk = Desk(tmp_path)
        with closing(desk.journal):
            for mode in ERAS:
                for action in ("decline", "cancel"):

                    async def ask(context: object, params: object, action: str = action) -> ElicitResult:
                        return ElicitResult(action=cast(Any, action))

                    async with Client(desk.start(), mode=mode, elicitation_callback=ask) as client:
                        result = await client.call_tool("refund", {"amount": 5})
                        assert result.is_error
                        assert "Traceback" not in text_of(result)
            assert desk.paid == []

    asyncio.run(go())


def test_the_form_shows_final_arguments_and_no_secret(tmp_path: Path) -> None:
    shown: list[str] = []

    @tool(effect="write", approval=True, secret=("pin",))
    def pay(amount: int, pin: str, context: Context[Any] = CONTEXT) -> str:
        """Pay."""
        return f"paid {amount}"

    async def ask(context: object, params: Any) -> ElicitResult:
        shown.append(params.message)
        return ElicitResult(action="accept", content={"approved": True})

    async def go() -> None:
        model = ScriptedModel([[call("pay", amount=5, pin="s3cret-pin")], "done"])
        served = make_served([Agent(model, name="desk", tools=[pay], cache=False)])
        with closing(Journal(tmp_path / "journal.sqlite3")) as journal:
            server = McpServer(served, make_offers(served, ["pay"]), journal, lambda _: "ann").make()
            async with Client(server, elicitation_callback=ask) as client:
                await client.call_tool("desk", {"task": "pay"})
                await client.call_tool("pay", {"amount": 6, "pin": "s3cret-pin"})

    asyncio.run(go())
    assert len(shown) == 2
    assert all("pay run" in message and "s3cret" not in message for message in shown)
    assert [f'"amount":{amount}' in message for amount, message in zip((5, 6), shown, strict=True)] == [True, True]
