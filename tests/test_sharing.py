"""What a call reads while it runs narrows who may share its result."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit.agent import Agent
from flowkit.cache import DiskCache
from flowkit.context import CONTEXT, Context
from flowkit.identity import Scope
from flowkit.models.scripted import ScriptedModel, call
from flowkit.recipes import recipe, step
from flowkit.tools import Needs, Tool, tool
from tests.example_counts import examples

AnyTool = Tool[..., Any]
SCOPES: list[Scope | None] = ["all", "user", "session", "run", None]


def leaf(scope: Scope | None, ttl: int | None) -> AnyTool:
    if ttl is not None and scope is None:
        ttl = None  # refused at decoration

    @tool(effect="read", ttl=ttl, scope=scope, name="leaf")
    async def look(ctx: Context[Any] = CONTEXT) -> str:
        """Look at whose run it is."""
        # What a tool says everybody may share holds nothing of anybody.
        return "" if scope == "all" else f"of {ctx.user}"

    return look


def wrap(inner: AnyTool, kind: str, scope: Scope, depth: int) -> AnyTool:
    name = f"outer_{depth}"
    match kind:
        case "call":

            @tool(ttl=300, scope=scope, name=name)
            async def outer(ctx: Context[Any] = CONTEXT) -> str:
                """Call it."""
                return str(await ctx.call(inner))

            return outer
        case "agent":
            agent = Agent(ScriptedModel([[call(inner.name)], "Done."]), tools=[inner], cache=False)

            @tool(ttl=300, scope=scope, name=name)
            async def ask(ctx: Context[Any] = CONTEXT) -> str:
                """Ask an agent."""
                result = await agent.run("go", user=ctx.user, session=ctx.session)
                return str(result.calls[0].value)

            return ask
        case "recipe":

            @recipe(name=f"inner_recipe_{depth}")
            def inside() -> str:
                return step(inner)

            made = inside.as_tool()

            @tool(ttl=300, scope=scope, name=name)
            async def run_recipe(ctx: Context[Any] = CONTEXT) -> str:
                """Run a recipe."""
                return str(await ctx.call(made))

            return run_recipe
        case _:
            try:

                @tool(ttl=300, scope=scope, name=name)
                async def needing(found: Any = Needs(inner)) -> str:
                    """Need it."""
                    return str(found)

                return needing
            except Exception:  # noqa: BLE001  # a scope wider than that of a need is refused at decoration
                return inner


async def ask_both(outer: AnyTool, folder: Path, *, at_once: bool) -> None:
    cache = DiskCache(folder)

    async def run(user: str) -> None:
        agent = Agent(ScriptedModel([[call(outer.name)], "Done."]), tools=[outer], cache=cache)
        result = await agent.run("go", user=user, session="today", run_id="r1")
        value = next(outcome for outcome in result.calls if outcome.call.name == outer.name).value
        others = {"ann", "bob"} - {user}
        assert not any(f"of {other}" in str(value) for other in others), (user, value)

    if at_once:
        await asyncio.gather(run("ann"), run("bob"))
    else:
        await run("ann")
        await run("bob")
    await cache.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=examples(60))
@given(
    st.sampled_from(SCOPES),
    st.sampled_from([None, 300]),
    st.lists(
        st.tuples(
            st.sampled_from(["call", "agent", "recipe", "need"]), st.sampled_from(["all", "user", "session", "run"])
        ),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
def test_for_every_nest_no_value_of_one_user_reaches_another(
    tmp_path_factory: pytest.TempPathFactory,
    scope: Scope | None,
    ttl: int | None,
    nest: list[tuple[str, Scope]],
    at_once: bool,
) -> None:
    made = leaf(scope, ttl)
    for depth, (kind, outer_scope) in enumerate(nest):
        made = wrap(made, kind, outer_scope, depth)
    asyncio.run(ask_both(made, tmp_path_factory.mktemp("cache"), at_once=at_once))


def test_result_made_of_a_narrower_one_is_not_stored_and_the_log_names_both(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outer = wrap(leaf("user", 300), "call", "all", 77)

    async def go() -> None:
        cache = DiskCache(tmp_path)
        for _ in range(2):
            agent = Agent(ScriptedModel([[call(outer.name)], "Done."]), tools=[outer], cache=cache)
            result = await agent.run("go", user="ann")
            assert result.calls[0].source == "run"
        assert set(cache.get_stats().tools) >= {"leaf"}
        assert cache.get_stats().tools["outer_77"].entries == 0
        await cache.close()

    asyncio.run(go())
    assert "'outer_77'" in caplog.text
    assert "'leaf'" in caplog.text


def test_result_made_of_equally_wide_ones_is_stored(tmp_path: Path) -> None:
    outer = wrap(leaf("user", 300), "call", "user", 78)

    async def go() -> None:
        cache = DiskCache(tmp_path)
        sources: list[str] = []
        for _ in range(2):
            agent = Agent(ScriptedModel([[call(outer.name)], "Done."]), tools=[outer], cache=cache)
            sources.append((await agent.run("go", user="ann")).calls[0].source)
        assert sources == ["run", "cache"]
        await cache.close()

    asyncio.run(go())
