"""Tools of other frameworks, made by their real packages, as tools of flowkit; and what their own runners do otherwise."""
# pyright: basic, reportMissingImports=false
# The packages needn't be there where this is checked.

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any

import pytest

from flowkit import Agent, Approve, DefinitionError, Image, Needs, ScriptedModel, Tool, tool
from flowkit.codec import loads
from flowkit.messages import ToolMessage
from flowkit.testing import call
from tests.extra_packages import NEEDS_ALL
from tests.server import ScriptedServer, ToolCall, chat

pytestmark = pytest.mark.slow  # the packages belong to the extra `test-all`


@dataclass
class Shop:
    customer: str


def ask(one: Tool[..., Any], *calls: Any, **options: Any) -> list[ToolMessage]:
    """What a model reads of these calls."""
    model = ScriptedModel([list(calls), "done"])
    agent = Agent(model, tools=[one], cache=False)
    result = asyncio.run(agent.run("go", data=Shop("c-1"), **options))
    assert result.status == "done", result.error
    return [message for message in result.messages if isinstance(message, ToolMessage)]


# Pydantic AI


def make_pydantic_ai(**options: Any) -> Any:
    pydantic_ai = pytest.importorskip("pydantic_ai", reason=NEEDS_ALL)

    async def find_order(ctx: Any, order_id: str, limit: int = 3) -> dict[str, object]:
        """Find an order.

        Args:
            ctx: The run.
            order_id: As in A1.
            limit: At most so many items.
        """
        if order_id == "A9":
            raise pydantic_ai.ModelRetry("there is no order A9; try A1")
        return {"id": order_id, "owner": ctx.deps.customer, "limit": limit, "call": ctx.tool_call_id is not None}

    find_order.__annotations__["ctx"] = pydantic_ai.RunContext[Shop]
    return pydantic_ai.Tool(find_order, **options)


def test_tool_of_pydantic_ai_sees_the_runs_data_and_tells_its_model_what_to_do_better() -> None:
    taken = Tool.from_pydantic_ai(make_pydantic_ai(), effect="read")
    assert (taken.name, taken.description, taken.effect) == ("find_order", "Find an order.", "read")
    assert taken.parameters["properties"]["order_id"]["description"] == "As in A1."
    found, missing = ask(taken, call("find_order", order_id="A1"), call("find_order", order_id="A9"))
    assert found.text == '{"id":"A1","owner":"c-1","limit":3,"call":true}'
    assert (missing.text, missing.is_error) == ("there is no order A9; try A1", True)


def test_tool_of_pydantic_ai_gets_typed_values_and_refuses_wrong_ones() -> None:
    pydantic_ai = pytest.importorskip("pydantic_ai", reason=NEEDS_ALL)
    from datetime import date

    from pydantic import AfterValidator

    def even(number: int) -> int:
        if number % 2:
            raise ValueError("must be even")
        return number

    def book(day: date, seats: Annotated[int, AfterValidator(even)]) -> str:
        return f"{type(day).__name__} {seats}"

    book.__annotations__ |= {"day": date, "seats": Annotated[int, AfterValidator(even)]}
    taken = Tool.from_pydantic_ai(pydantic_ai.Tool(book))
    assert taken.effect == "write"
    good, bad = ask(taken, call("book", day="2026-12-01", seats=2), call("book", day="2026-12-01", seats=3))
    assert good.text == "date 2"
    assert "seats: Value error, must be even" in bad.text


def test_tool_of_pydantic_ai_that_asks_a_person_asks_here_too() -> None:
    taken = Tool.from_pydantic_ai(make_pydantic_ai(requires_approval=True))
    assert taken.approval is True
    agent = Agent(ScriptedModel([[call("find_order", order_id="A1")], "done"]), tools=[taken], cache=False)
    waiting = asyncio.run(agent.run("go", data=Shop("c-1")))
    assert waiting.status == "waiting"
    decisions = {waiting.pending[0].id: Approve()}
    assert asyncio.run(agent.run(history=waiting.messages, decisions=decisions, data=Shop("c-1"))).output == "done"


@pytest.mark.parametrize(("option", "told"), [("prepare", "Toolset.dynamic"), ("sequential", "name a resource=")])
def test_what_pydantic_ais_runner_alone_does_is_refused(option: str, told: str) -> None:
    value = True if option == "sequential" else lambda ctx, definition: definition
    with pytest.raises(DefinitionError, match=told):
        Tool.from_pydantic_ai(make_pydantic_ai(**{option: value}))


def test_tool_of_pydantic_ai_shows_the_model_the_content_beside_its_result() -> None:
    pydantic_ai = pytest.importorskip("pydantic_ai", reason=NEEDS_ALL)

    def look(at: str):
        """Look at it."""
        seen = pydantic_ai.BinaryContent(b"png", media_type="image/png")
        content: Any = {"image": ["Here it is:", seen], "text": "It is red."}.get(at)
        return pydantic_ai.ToolReturn(f"saw {at}", content=content, metadata={"took": 3})

    look.__annotations__["return"] = pydantic_ai.ToolReturn[str]
    taken = Tool.from_pydantic_ai(pydantic_ai.Tool(look), effect="read")
    assert taken.result_schema is None
    image, text, bare = ask(taken, call("look", at="image"), call("look", at="text"), call("look", at="nothing"))
    assert [type(media) for media in image.media] == [Image]
    assert "Here it is:" in image.text
    assert loads(text.text) == {"return_value": "saw text", "content": ["It is red."]}
    assert bare.text == "saw nothing"


def test_tool_of_pydantic_ai_can_be_needed_by_another() -> None:
    needed = Tool.from_pydantic_ai(make_pydantic_ai(), effect="read")

    @tool(effect="read")
    def owner(order: Any = Needs(needed)) -> str:
        return order["owner"]

    assert ask(owner, call("owner", order_id="A1"))[0].text == "c-1"


# LangChain


def test_tool_of_langchain_keeps_its_result_its_callbacks_and_its_errors() -> None:
    tools = pytest.importorskip("langchain_core.tools", reason=NEEDS_ALL)
    from langchain_core.callbacks import BaseCallbackHandler

    heard: list[str] = []

    class Listener(BaseCallbackHandler):
        def on_tool_start(self, serialized: Any, input_str: str, **more: Any) -> None:
            heard.append(serialized["name"])

    def search(query: str, limit: int = 2) -> list[str]:
        """Search for pages."""
        if query == "none":
            raise tools.ToolException("nothing was found; use other words")
        return [query] * limit

    made = tools.StructuredTool.from_function(search, callbacks=[Listener()])
    taken = Tool.from_langchain(made, effect="read")
    assert (taken.name, taken.description) == ("search", "Search for pages.")
    found, none = ask(taken, call("search", query="tea"), call("search", query="none"))
    assert found.text == '["tea","tea"]'
    assert (none.text, none.is_error) == ("nothing was found; use other words", True)
    assert heard.count("search") >= 2


def test_tool_of_langchain_that_wants_its_calls_id_gets_it() -> None:
    tools = pytest.importorskip("langchain_core.tools", reason=NEEDS_ALL)

    def note(text: str, call_id: str) -> str:
        """Take a note."""
        return f"{text} {call_id.startswith('turn/')}"

    note.__annotations__["call_id"] = Annotated[str, tools.InjectedToolCallId]
    taken = Tool.from_langchain(tools.tool(note), effect="read")
    assert list(taken.parameters["properties"]) == ["text"]
    assert ask(taken, call("note", text="x"))[0].text == "x True"


@pytest.mark.parametrize("data", [{"user": "kim"}, SimpleNamespace(user="kim")])
def test_injected_argument_of_langchain_comes_from_the_runs_data(data: object) -> None:
    tools = pytest.importorskip("langchain_core.tools")

    def look_up(order_id: str, user: str, days: int = 3) -> list[Any]:
        """Look up."""
        return [order_id, user, days]

    look_up.__annotations__ |= {
        "user": Annotated[str, tools.InjectedToolArg],
        "days": Annotated[int, tools.InjectedToolArg],
    }
    taken = Tool.from_langchain(tools.tool(look_up), effect="read")
    assert list(taken.parameters["properties"]) == ["order_id"]
    agent = Agent(ScriptedModel([[call("look_up", order_id="A1")], ["ok"]]), tools=[taken])
    result = agent.run_sync("x", data=data)
    assert [outcome.value for outcome in result.calls] == [["A1", "kim", 3]]

    # what is injected isn't the model's to say
    agent = Agent(ScriptedModel([[call("look_up", order_id="A1", user="mallory", days=9)], ["ok"]]), tools=[taken])
    assert agent.run_sync("x", data=data).calls[0].value in (None, ["A1", "kim", 3])

    agent = Agent(ScriptedModel([[call("look_up", order_id="A1")], ["ok"]]), tools=[taken])
    assert agent.run_sync("x").calls[0].state == "failed"


def test_artifact_of_langchain_is_not_for_the_model_and_return_direct_is_refused() -> None:
    tools = pytest.importorskip("langchain_core.tools", reason=NEEDS_ALL)

    def draw(size: int) -> tuple[str, bytes]:
        """Draw."""
        return "drawn", bytes(size)

    made = tools.StructuredTool.from_function(draw, response_format="content_and_artifact")
    assert ask(Tool.from_langchain(made), call("draw", size=3))[0].text == "drawn"
    direct = tools.StructuredTool.from_function(draw, return_direct=True)
    with pytest.raises(DefinitionError, match="output_tool"):
        Tool.from_langchain(direct)


# OpenAI Agents SDK


def test_tool_of_the_agents_sdk_sees_the_runs_data() -> None:
    agents = pytest.importorskip("agents", reason=NEEDS_ALL)

    async def get_owner(ctx: Any, order_id: str) -> dict[str, str]:
        """Get an order's owner."""
        return {"id": order_id, "owner": ctx.context.customer}

    get_owner.__annotations__["ctx"] = agents.RunContextWrapper[Shop]
    taken = Tool.from_openai_agents(agents.function_tool(get_owner), effect="read")
    assert (taken.name, taken.description) == ("get_owner", "Get an order's owner.")
    assert ask(taken, call("get_owner", order_id="A1"))[0].text == '{"id":"A1","owner":"c-1"}'


def test_failure_of_the_agents_sdk_is_a_text_unless_it_is_told_not_to() -> None:
    agents = pytest.importorskip("agents", reason=NEEDS_ALL)

    def broken(number: int) -> str:
        """Break."""
        raise RuntimeError("inner secret")

    usual = Tool.from_openai_agents(agents.function_tool(broken), effect="read")
    message = ask(usual, call("broken", number=1))[0]
    assert (message.is_error, message.text.startswith("An error occurred")) == (False, True)
    honest = Tool.from_openai_agents(
        agents.function_tool(broken, failure_error_function=None), effect="read", retries=0
    )
    message = ask(honest, call("broken", number=1))[0]
    assert (message.is_error, "inner secret" in message.text) == (True, False)


def test_guards_of_the_agents_sdk_are_not_dropped_in_silence() -> None:
    agents = pytest.importorskip("agents", reason=NEEDS_ALL)

    def plain(number: int) -> int:
        """Give it back."""
        return number

    @agents.tool_input_guardrail
    def guard(data: Any) -> Any:
        return agents.ToolGuardrailFunctionOutput.allow()

    with pytest.raises(DefinitionError, match="guardrails"):
        Tool.from_openai_agents(agents.function_tool(plain, tool_input_guardrails=[guard]))
    with pytest.raises(DefinitionError, match=r"Toolset\.dynamic"):
        Tool.from_openai_agents(agents.function_tool(plain, is_enabled=lambda ctx, agent: True))
    with pytest.raises(DefinitionError, match="give approval="):
        Tool.from_openai_agents(agents.function_tool(plain, needs_approval=lambda ctx, arguments, id: True))
    asked = Tool.from_openai_agents(agents.function_tool(plain, needs_approval=True))
    assert asked.approval is True


@pytest.mark.parametrize("take", [Tool.from_pydantic_ai, Tool.from_langchain, Tool.from_openai_agents])
def test_what_is_no_such_tool_is_refused(take: Callable[..., Tool[..., Any]]) -> None:
    with pytest.raises(DefinitionError, match="is no tool to take over"):
        take(print)


# What the page says of other runners, by their own packages.


class Siblings:
    """Two calls of one turn: one fails at once, the other one takes its time."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.slow_began = asyncio.Event()

    async def quick_fail(self) -> str:
        await self.slow_began.wait()
        raise RuntimeError("broken")

    async def slow(self) -> str:
        self.slow_began.set()
        try:
            await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            self.log.append("cancelled")
            raise
        self.log.append("finished")
        return "done"


def run_siblings(name: str) -> tuple[list[str], list[str]]:
    """What became of the slow call and of the run, and the results that a next request had."""
    from tests.bench.peers.found import load_agent

    replies = [
        chat(ToolCall("quick_fail", '{"number": 1}', id="c1"), ToolCall("slow", '{"number": 2}', id="c2")),
        chat("All done."),
    ]

    async def run(base_url: str) -> list[str]:
        siblings = Siblings()

        async def quick_fail(number: int) -> str:
            """Fail.

            Args:
                number: A number.
            """
            return await siblings.quick_fail()

        async def slow(number: int) -> str:
            """Work.

            Args:
                number: A number.
            """
            return await siblings.slow()

        try:
            if name == "flowkit":
                from flowkit import OpenAIModel

                model = OpenAIModel("any", base_url=base_url, api_key="any")
                tools = [tool(effect="read", retries=0)(function) for function in (quick_fail, slow)]
                siblings.log.append((await Agent(model, tools=tools, cache=False).run("go")).output)
                await model.aclose()
            else:
                async with load_agent(name).open_agent(base_url, quick_fail, slow) as peer:
                    siblings.log.append(await peer("go"))
        except RuntimeError as error:
            siblings.log.append(f"raised {error}")
        return siblings.log

    with ScriptedServer(replies) as server:
        log = asyncio.run(run(server.base_url))
        told = [m["content"] for r in server.requests[1:] for m in r.body["messages"] if m["role"] == "tool"]
    return log, told


@pytest.mark.parametrize(
    ("name", "package", "log", "told"),
    [
        ("flowkit", "flowkit", ["finished", "All done."], ["failed", "done"]),
        ("pydantic_ai", "pydantic_ai", ["cancelled", "raised broken"], []),
        ("langchain", "langchain_openai", ["cancelled", "raised broken"], []),
        ("openai_agents", "agents", ["finished", "All done."], ["An error occurred", "done"]),
    ],
)
@pytest.mark.filterwarnings("default")  # theirs are not ours
def test_what_becomes_of_the_siblings_of_a_tool_that_fails(
    name: str, package: str, log: list[str], told: list[str]
) -> None:
    pytest.importorskip(package, reason=NEEDS_ALL)
    found, results = run_siblings(name)
    assert found == log
    assert [text.startswith(begin) for text, begin in zip(results, told, strict=True)] == [True] * len(told)


@pytest.mark.parametrize(("name", "package"), [("pydantic_ai", "pydantic_ai"), ("langchain", "langchain_openai")])
@pytest.mark.filterwarnings("default")  # theirs are not ours
def test_a_blocking_tool_outlives_the_run_that_its_sibling_has_ended(name: str, package: str) -> None:
    pytest.importorskip(package, reason=NEEDS_ALL)
    began, let_go, ended = threading.Event(), threading.Event(), threading.Event()

    async def quick_fail(number: int) -> str:
        """Fail.

        Args:
            number: A number.
        """
        await asyncio.to_thread(began.wait, 20)
        raise RuntimeError("broken")

    def slow(number: int) -> str:
        """Work.

        Args:
            number: A number.
        """
        began.set()
        let_go.wait(20)
        ended.set()
        return "done"

    async def run(base_url: str) -> bool:
        with pytest.raises(RuntimeError, match="broken"):
            await _ask_peer(name, base_url, quick_fail, slow)
        still_at_work = not ended.is_set()
        let_go.set()
        return still_at_work

    calls = [ToolCall("quick_fail", '{"number": 1}', id="c1"), ToolCall("slow", '{"number": 2}', id="c2")]
    with ScriptedServer([chat(*calls), chat("All done.")]) as server:
        assert asyncio.run(run(server.base_url))


async def _ask_peer(name: str, base_url: str, waits: Callable[..., Any], blocks: Callable[..., Any]) -> None:
    """A run of another framework with one asynchronous tool and one that blocks a thread."""
    if name == "pydantic_ai":
        from tests.bench.peers.found import load_agent

        async with load_agent(name).open_agent(base_url, waits, blocks) as peer:
            await peer("go")
        return
    from langchain.agents import create_agent
    from langchain_core.tools import StructuredTool
    from langchain_openai import ChatOpenAI

    tools = [StructuredTool.from_function(coroutine=waits), StructuredTool.from_function(blocks)]
    model = ChatOpenAI(model="any", base_url=base_url, api_key=lambda: "any", streaming=True)
    asked: Any = {"messages": [("user", "go")]}
    await create_agent(model, tools).ainvoke(asked)
