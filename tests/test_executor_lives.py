"""What tools hold, in a graph that belongs to no agent or recipe: opened at the first need, closed at its end."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flowkit import ConfigurationError, Context, Executor, Graph, ToolCall, Toolset, run_graph, tool
from flowkit.tools import Tool


class Shop:
    """A connection that says when it was opened and closed, and tools that need it."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.is_away = False
        self.may_open = asyncio.Event()
        self.may_open.set()

    @asynccontextmanager
    async def live(self, context: Context[Any]) -> AsyncGenerator[None]:
        await self.may_open.wait()
        if self.is_away:
            raise ConfigurationError("the shop can't be reached")
        self.told.append(f"opened for {context.user}")
        try:
            yield
        finally:
            self.told.append("closed")

    def make(self) -> tuple[Tool[..., Any], Tool[..., Any]]:
        @tool(effect="read")
        async def look(id: int) -> int:
            """Look at it."""
            self.told.append("looked")
            return id

        @tool
        async def order(id: int) -> int:
            """Order it."""
            self.told.append("ordered")
            return id

        look.life = order.life = self.live
        return look, order


def test_a_life_is_opened_at_the_first_need_and_closed_at_the_end() -> None:
    async def go() -> None:
        shop = Shop()
        look, order = shop.make()

        @tool(effect="read")
        async def other() -> int:
            """Need nothing."""
            return 1

        async with Executor([look, order, other], user="ann") as graph:
            graph.add(ToolCall("a", "other", {}))
            await graph.wait()
            assert shop.told == []
            for name, id in (("b", 1), ("c", 2), ("d", 3)):
                graph.add(ToolCall(name, "order" if name == "d" else "look", {"id": id}))
            await graph.wait()
            assert shop.told[0] == "opened for ann"
            assert sorted(shop.told[1:]) == ["looked", "looked", "ordered"]
        assert shop.told[4:] == ["closed"]

    asyncio.run(go())


def test_what_cannot_be_opened_is_not_run_and_is_tried_again_by_the_next_call() -> None:
    async def go() -> None:
        shop = Shop()
        shop.is_away = True
        async with Executor(shop.make()) as graph:
            graph.add(ToolCall("a", "order", {"id": 1}))
            await graph.wait()
            outcome = graph.outcome("a")
            assert outcome is not None
            assert (outcome.state, outcome.error) == ("failed", "not run: the shop can't be reached")
            shop.is_away = False
            graph.add(ToolCall("b", "order", {"id": 1}))
            await graph.wait()
        assert shop.told == ["opened for None", "ordered", "closed"]

    asyncio.run(go())


def test_a_write_stopped_while_its_life_opens_has_not_begun() -> None:
    async def go() -> None:
        shop = Shop()
        shop.may_open.clear()
        async with Executor(shop.make()) as graph:
            graph.add(ToolCall("a", "order", {"id": 1}))
            await asyncio.sleep(0)
            graph.cancel("a", "never mind")
            await graph.wait()
            outcome = graph.outcome("a")
            assert outcome is not None
            assert (outcome.state, outcome.error) == ("cancelled", "never mind")
        assert shop.told == []

    asyncio.run(go())


def test_a_life_is_closed_when_an_error_ends_the_graph() -> None:
    async def go() -> None:
        shop = Shop()

        async def fail() -> None:
            async with Executor(shop.make()) as graph:
                graph.add(ToolCall("a", "look", {"id": 1}))
                await graph.wait()
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert shop.told == ["opened for None", "looked", "closed"]

    asyncio.run(go())


def test_a_graph_asks_dynamic_sets_for_their_tools_when_it_begins() -> None:
    async def go() -> None:
        shop = Shop()
        look, _ = shop.make()

        async def list_tools(context: Context[Any]) -> list[Tool[..., Any]]:
            shop.told.append("listed")
            return [look]

        tools = Toolset(Toolset.dynamic(list_tools, life=shop.live), prefix="shop_")
        outcomes = await run_graph(Graph([ToolCall("a", "shop_look", {"id": 7})]), tools=tools)
        assert outcomes["a"].value == 7
        assert shop.told == ["opened for None", "listed", "looked", "closed"]
        shop.is_away = True
        with pytest.raises(ConfigurationError, match="the shop can't be reached"):
            await run_graph(Graph([ToolCall("a", "shop_look", {"id": 7})]), tools=tools)

    asyncio.run(go())


@pytest.mark.slow
def test_a_graph_may_use_an_mcp_server_and_leaves_no_process(tmp_path: Path) -> None:
    pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")
    from tests.test_mcp_tools import count_started, find_servers, make_tools

    async def go() -> None:
        small = make_tools(tmp_path, effects={"*": "read"})
        nodes = [ToolCall(name, "small_echo", {"text": name}) for name in "ab"]
        for tools in (small.tools, [*await asyncio.to_thread(small.load)]):
            outcomes = await run_graph(Graph(nodes), tools=tools)
            assert [outcome.value for outcome in outcomes.values()] == ["a", "b"]

    asyncio.run(go())
    # Once for each graph, and once to be asked for its tools.
    assert count_started(tmp_path) == 3
    assert find_servers(tmp_path) == []
