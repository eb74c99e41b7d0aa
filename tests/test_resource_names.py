"""One rule says which resources overlap: for the order of calls, for cached reads, and for `clear`."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit.agent import Agent
from flowkit.cache import DiskCache
from flowkit.cache.marks import Marks
from flowkit.clock import SystemClock
from flowkit.errors import ToolError
from flowkit.executor.resources import Resources, Ticket
from flowkit.models.scripted import ScriptedModel, call
from flowkit.resource_names import find_family, list_edges, overlap
from flowkit.tools import Scope, Tool, tool
from flowkit.tools.options import fill
from tests.example_counts import examples

TEMPLATES = st.sampled_from(
    [
        "order:{a}",
        "order/{a}",
        "{a}",
        "shop:{a}:order:{b}",
        "shop:{a}:{b}",
        "order{a}",
        "order-{a}",
        "{a}{b}",
        "한국:{a}",
    ]
)
VALUES = st.none() | st.sampled_from(["1", "12", "A-7", "a:b", "", "*", "%2A", "order"])


def name_of(template: str, a: str | None, b: str | None) -> str:
    return fill(template, {"a": a, "b": b})


NAMES = st.builds(name_of, TEMPLATES, VALUES, VALUES)


@given(NAMES, NAMES)
def test_for_every_two_names_overlapping_is_mutual_and_a_thing_lies_in_its_families(one: str, other: str) -> None:
    assert overlap(one, other) == overlap(other, one)
    assert overlap(one, one)
    family = find_family(one)
    if family is not None and find_family(other) is None and other.startswith(one.partition("*")[0]):
        assert overlap(one, other), "widened, never narrowed"
        assert family in list_edges(other)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=examples(150))
@given(NAMES, NAMES)
def test_for_every_two_names_a_write_ends_a_read_exactly_where_the_executor_orders_them(
    marks: Marks, written: str, read: str
) -> None:
    before = marks.read_generation(read)
    marks.bump([written])
    has_ended = marks.read_generation(read) > before

    resources = Resources()
    first, second = Ticket("write", (0, 0), [(written, True)]), Ticket("read", (1, 0), [(read, False)])
    resources.enter(first)
    resources.enter(second)
    assert bool(second.blockers) == has_ended == overlap(written, read)


@pytest.fixture
def marks(tmp_path: Path) -> Marks:
    return Marks(tmp_path / "cache.db", SystemClock(), busy_timeout_s=1, opens_within_s=1)


@pytest.mark.parametrize("template", ["shop:{shop}:order:{order}", "{shop}/{order}", "{order}", "order{order}"])
def test_read_of_a_family_ends_with_a_write_in_it(tmp_path: Path, template: str) -> None:
    looked: list[str | None] = []

    @tool(ttl=300, resource=template)
    async def look(shop: str = "s", order: str | None = None) -> int:
        """Look."""
        looked.append(order)
        return len(looked)

    @tool(effect="write", resource=template)
    async def change(shop: str = "s", order: str | None = None) -> None:
        """Change."""

    async def go() -> None:
        cache = DiskCache(tmp_path)
        steps: list[tuple[dict[str, Any], dict[str, Any]]] = [
            ({}, {"order": "7"}),
            ({"order": "7"}, {}),
            ({"order": "7"}, {"order": "7"}),
        ]
        for reads, writes in steps:
            script = [[call("look", **reads)], [call("change", **writes)], [call("look", **reads)], "Done."]
            result = await Agent(ScriptedModel(script), tools=[look, change], cache=cache).run("go")
            assert result.calls[2].source == "run"
        await cache.close()

    asyncio.run(go())


def test_clear_finds_all_that_it_names(tmp_path: Path) -> None:
    class NotThere(ToolError):
        pass

    @tool(ttl=300, resource="o:{n}", cache_errors=(NotThere,))
    async def look(n: int) -> int:
        """Look."""
        raise NotThere("gone")

    tools: list[Tool[..., Any]] = [look]
    scopes: tuple[Scope, ...] = ("run", "session", "user")
    for scope in scopes:

        @tool(ttl=300, scope=scope, name=f"of_{scope}")
        async def mine() -> str:
            """Mine."""
            return "x"

        tools.append(mine)

    async def go() -> None:
        cache = DiskCache(tmp_path)
        script = [[call("look", n=1), *(call(f"of_{scope}") for scope in ("run", "session", "user"))], "Done."]
        for user in ("ann", "bob"):
            await Agent(ScriptedModel(script), tools=tools, cache=cache).run("go", user=user, session="s", run_id="r")
        assert cache.get_stats().entries == 7
        assert await cache.clear(resource="o:1") == 1
        assert await cache.clear(user="ann") == 3
        assert await cache.clear(user="bob") == 3
        await cache.close()

    asyncio.run(go())
