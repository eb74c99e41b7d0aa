"""For every tree of tools, needs, calls, agents, recipes and items: a process that dies anywhere in it repeats no write.

A death is a copy of the journal's file at the moment of an effect: what was committed by then is all that the next
process finds, and the effects up to then have happened. The log of effects is outside of flowkit.
"""

import asyncio
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flowkit import Agent, Context, ScriptedModel, each, recipe, step, tool
from flowkit.context import CONTEXT
from flowkit.errors import FlowkitError, ToolError
from flowkit.journal import Journal
from flowkit.models.base import ModelRequest
from flowkit.testing import call
from flowkit.testing.loop import run_virtual
from flowkit.tools import Needs, Tool
from tests.example_counts import examples
from tests.stores import fast_folder

AnyTool = Tool[..., Any]
Effect = Literal["read", "idempotent", "write"]
Kind = Literal["calls", "tasks", "agent", "agents", "agent as tool", "recipe", "recipe run", "items", "needs"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Leaf:
    """A tool that acts, and then may fail."""

    effect: Effect
    takes_s: float = 0.0
    fails: bool = False


@dataclass(frozen=True)
class Inner:
    """A tool that makes its result of others'."""

    kind: Kind
    parts: "tuple[Tree, ...]"
    effect: Effect = "read"


Tree = Leaf | Inner
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.builds(
        Leaf,
        st.sampled_from(["idempotent", "write", "read"]),
        st.sampled_from([0.0, 0.5]),
        st.sampled_from([False, False, True]),
    ),
    lambda parts: st.builds(
        Inner,
        st.sampled_from(KINDS),
        st.lists(parts, min_size=1, max_size=3).map(tuple),
        st.sampled_from(["read", "idempotent"]),
    ),
    max_leaves=6,
)


@dataclass
class World:
    """The effects, by the leaf's name and the call's key, and the next death."""

    journal: Path
    dies_at: int | None = None
    """The number of the effect at which this process dies."""
    copy: Path | None = None
    effects: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    kinds: dict[str, Effect] = field(default_factory=dict[str, Effect])
    uncertain: set[str] = field(default_factory=set[str])
    """The leaves that may or may not act: another need of the same call may fail before they start."""
    died: asyncio.Event = field(default_factory=asyncio.Event)

    def act(self, name: str, key: str) -> None:
        """Note an effect; a dead process has none."""
        self.effects.append((name, key))
        if self.dies_at is not None and len(self.effects) >= self.dies_at:
            assert self.copy is not None
            with closing(sqlite3.connect(self.journal)) as source, closing(sqlite3.connect(self.copy)) as copy:
                source.backup(copy)
                for table in ("run", "node"):  # what held them is gone
                    copy.execute(f"UPDATE {table} SET holder = NULL, boot = NULL, until = NULL, until_wall = NULL")
                copy.commit()
            self.died.set()


def parts_of(tree: Tree) -> tuple[Tree, ...]:
    return () if isinstance(tree, Leaf) else tree.parts


def may_fail(tree: Tree) -> bool:
    return tree.fails if isinstance(tree, Leaf) else any(map(may_fail, tree.parts))


class Builder:
    """Makes the tools of trees; the same names each time."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._numbers = count()

    def build(self, tree: Tree) -> AnyTool:
        number = next(self._numbers)
        if isinstance(tree, Leaf):
            return self._leaf(tree, f"{tree.effect}_{number}")
        before = set(self._world.kinds)
        parts = [self.build(part) for part in tree.parts]
        if tree.kind == "needs" and len(parts) > 1 and any(map(may_fail, parts_of(tree))):
            self._world.uncertain |= set(self._world.kinds) - before
        name = f"{tree.kind.replace(' ', '_')}_{number}"
        if tree.kind == "needs":
            return self._needing(name, parts)
        return tool(name=name, effect=tree.effect)(self._function(tree.kind, number, parts))

    def _leaf(self, leaf: Leaf, name: str) -> AnyTool:
        world = self._world
        world.kinds[name] = leaf.effect

        async def act(n: int = 0, ctx: Context[Any] = CONTEXT) -> str:
            """Act."""
            if world.died.is_set():
                await asyncio.Event().wait()
            world.act(name, ctx.idempotency_key)
            if world.died.is_set():
                await asyncio.Event().wait()
            await asyncio.sleep(leaf.takes_s)
            if leaf.fails:
                raise ToolError("failed, as it was told")
            return name

        return tool(name=name, effect=leaf.effect, retries=0)(act)

    def _needing(self, name: str, parts: Sequence[AnyTool]) -> AnyTool:
        needed = [*parts, *[parts[0]] * 2][:3]

        async def act(
            first: Any = Needs(needed[0]), second: Any = Needs(needed[1]), third: Any = Needs(needed[2]), n: int = 0
        ) -> str:
            """Make a result of what it needs."""
            return f"{first} {second} {third}"

        return tool(name=name)(act)

    def _function(self, kind: Kind, number: int, parts: Sequence[AnyTool]) -> Any:
        def answer(request: ModelRequest) -> Any:
            return "Done." if request.turn > 1 else [piece for part in parts for piece in (call(part.name, n=1), 0.3)]

        agent = Agent(ScriptedModel(answer), tools=parts, cache=False, name=f"asked_{number}")

        @recipe(name=f"steps_{number}")
        def steps() -> list[Any]:
            return [step.options(optional=True)(part) for part in parts]

        @recipe(name=f"items_{number}")
        def items(kept: list[int] = [1, 2]) -> list[list[Any]]:  # noqa: B006
            return [each(kept, lambda item, part=part: step(part, item), on_error="null") for part in parts]

        async def act(n: int = 0, ctx: Context[Any] = CONTEXT) -> str:
            """Make a result of the others'."""
            match kind:
                case "tasks":
                    return str(await asyncio.gather(*(ctx.call(part) for part in parts), return_exceptions=True))
                case "agent":
                    return (await agent.run("Go.")).text
                case "agents":
                    # Both to their ends: a failure would leave the other behind.
                    return str(await asyncio.gather(agent.run("a"), agent.run("b"), return_exceptions=True))
                case "agent as tool":
                    return str(await ctx.call(agent.as_tool(), "Go."))
                case "recipe":
                    return str(await ctx.call(steps.as_tool()))
                case "recipe run":
                    return str((await steps.options(cache=False).run()).output)
                case "items":
                    return str(await ctx.call(items.as_tool()))
                case _:
                    said: list[str] = []
                    for part in parts:
                        with suppress(ToolError):
                            said.append(str(await ctx.call(part)))
                    return " ".join(said)

        return act


async def live(trees: Sequence[Tree], world: World, *, is_first: bool) -> str:
    """Run it in one process until it ends or dies; return the status."""
    world.died = asyncio.Event()
    builder = Builder(world)
    tools = [builder.build(tree) for tree in trees]

    def answer(request: ModelRequest) -> Any:
        return "Done." if request.turn > 1 else [call(made.name, n=1) for made in tools]

    journal = Journal(world.journal)
    try:
        agent = Agent(ScriptedModel(answer), tools=tools, cache=False, journal=journal)
        run = agent.start("Go." if is_first else None, user="ann", run_id="r")
        waiting = [asyncio.ensure_future(run.wait()), asyncio.ensure_future(world.died.wait())]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if world.died.is_set():
            run.cancel()
        waiting[1].cancel()
        with suppress(FlowkitError):
            await run.wait()
        return "died" if world.died.is_set() else run.status
    finally:
        journal.close()


def check(trees: Sequence[Tree], deaths: Sequence[int]) -> None:
    with fast_folder() as folder:
        whole = World(folder / "whole")
        assert run_virtual(live(trees, whole, is_first=True)) in ("done", "in_doubt")
        keys = defaultdict[str, set[str]](set)
        for name, key in whole.effects:
            keys[name].add(key)
        for name, key in whole.effects:
            assert whole.effects.count((name, key)) == 1 or whole.kinds[name] == "read", "no two calls share a key"
        world, status, life = World(folder / "0"), "new", 0
        for life, after in enumerate((*deaths, None)):
            world.dies_at = None if after is None else len(world.effects) + after
            world.copy = folder / str(life + 1)
            status = run_virtual(live(trees, world, is_first=life == 0))
            if status != "died":
                break
            world.journal = world.copy
        times = Counter(world.effects)
        for (name, key), number in times.items():
            if world.kinds[name] == "write":
                assert number == 1, f"{name} was written {number} times"
            if world.kinds[name] != "read":
                assert key in keys[name] or name in world.uncertain, (
                    f"{name} has a key that it hasn't in a run that lives on"
                )
                assert number <= 1 + life, f"{name} was repeated without need"
        if status == "done" and all(kind != "write" for kind in world.kinds.values()):
            sure = {name for name, kind in world.kinds.items() if kind == "idempotent" and name not in world.uncertain}
            done = {effect for effect in times if effect[0] in sure}
            assert done == {(name, key) for name in keys for key in keys[name] if name in sure}


BOOK, PAY = Leaf("idempotent"), Leaf("write")
DEEP = Inner(
    "agents", (Inner("recipe run", (BOOK, Inner("items", (BOOK,), "idempotent")), "idempotent"),), "idempotent"
)
DEATHS = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@pytest.mark.slow
@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees=st.lists(TREES, min_size=1, max_size=2), deaths=DEATHS)
@example(trees=[DEEP], deaths=[3, 1, 2])
@example(trees=[Inner("recipe", (BOOK, BOOK, PAY), "idempotent")], deaths=[2, 1])
def test_for_every_tree_and_death_no_write_is_repeated_and_every_key_stays(
    trees: list[Tree], deaths: list[int]
) -> None:
    check(trees, deaths)


@pytest.mark.slow
@settings(max_examples=examples(120), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees=st.lists(TREES, min_size=1, max_size=2), deaths=DEATHS)
def test_for_many_more_trees_and_deaths_no_write_is_repeated_and_every_key_stays(
    trees: list[Tree], deaths: list[int]
) -> None:
    check(trees, deaths)
