"""For every tree of tools, needs, calls, agents and recipes: each write in it at most once, never before its seal.

A write is a leaf anywhere in the tree. The model asks for the tree while its stream goes on, and the stream ends in any
way at any place: well, broken once or twice, broken for good, cancelled, or at a limit of time.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, get_args

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flowkit import Agent, Context, Limits, ModelError, ScriptedModel, each, recipe, step, tool
from flowkit.context import CONTEXT
from flowkit.errors import FlowkitError, ToolError
from flowkit.events import TurnFinished
from flowkit.models.scripted import finish
from flowkit.testing import call
from flowkit.testing.loop import run_virtual
from flowkit.tools import Needs, Tool
from tests.example_counts import examples

AnyTool = Tool[..., Any]
Effect = Literal["read", "idempotent", "write"]
Kind = Literal[
    "calls", "tasks", "agent", "agent as tool", "broken agent", "recipe", "recipe run", "items", "needs", "prefetch"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
Ending = Literal["well", "broken", "broken twice", "broken for good", "refused", "length", "cancelled", "limit"]
ENDINGS: tuple[Ending, ...] = get_args(Ending)


@dataclass(frozen=True)
class Leaf:
    """A tool that acts, takes some time, and may then fail."""

    effect: Effect
    takes_s: float
    fails: bool = False


@dataclass(frozen=True)
class Inner:
    """A tool that makes its result of others'; it says that it only reads, as far as it may say so."""

    kind: Kind
    parts: "tuple[Tree, ...]"


Tree = Leaf | Inner
EFFECTS: list[Effect] = ["read", "idempotent", "write", "write"]
TIMES = [0.0, 0.5, 3.0]
TREES: st.SearchStrategy[Tree] = st.recursive(
    st.builds(Leaf, st.sampled_from(EFFECTS), st.sampled_from(TIMES), st.sampled_from([False, False, True])),
    lambda parts: st.builds(Inner, st.sampled_from(KINDS), st.lists(parts, min_size=1, max_size=3).map(tuple)),
    max_leaves=6,
)


@dataclass(frozen=True)
class Stream:
    """How the model's first turn goes: when it asks for the trees, and how and when it ends."""

    ending: Ending
    before_s: float
    after_s: float


STREAMS = st.builds(Stream, st.sampled_from(ENDINGS), st.sampled_from([1.0, 4.0]), st.sampled_from([0.0, 9.0]))


class Grove:
    """Makes the tools of trees, and writes down each effect: which leaf, and when."""

    def __init__(self) -> None:
        self._numbers = count()
        self.effects: list[tuple[str, float]] = []
        self.kinds: dict[str, Effect] = {}
        self.calls: dict[str, int] = {}
        """How often each is called: once, and once more for each item above it."""
        self.uncertain: set[str] = set()
        """The leaves that may or may not act: another need of the same call may fail before they start."""

    def build(self, tree: Tree, calls: int = 1) -> AnyTool:
        """Make the tool of a tree, with a name of its own."""
        number = next(self._numbers)
        if isinstance(tree, Leaf):
            self.calls[f"{tree.effect}_{number}"] = calls
            return self._leaf(tree, f"{tree.effect}_{number}")
        # The same needed call is made once.
        before = set(self.kinds)
        parts = [self.build(part, 2 * calls if tree.kind == "items" else calls) for part in tree.parts]
        name = f"{tree.kind.replace(' ', '_')}_{number}"
        if tree.kind == "needs" and len(parts) > 1 and _may_fail(tree):
            self.uncertain |= set(self.kinds) - before
        if tree.kind == "needs":
            return _make_needing(name, parts)
        return tool(name=name, effect="read")(_make_function(tree.kind, number, parts))

    def _leaf(self, leaf: Leaf, name: str) -> AnyTool:
        self.kinds[name] = leaf.effect

        async def act(n: int = 0) -> str:
            """Act."""
            self.effects.append((name, asyncio.get_running_loop().time()))
            await asyncio.sleep(leaf.takes_s)
            if leaf.fails:
                raise ToolError("failed, as it was told")
            return name

        return tool(name=name, effect=leaf.effect)(act)


def _may_fail(tree: Tree) -> bool:
    return tree.fails if isinstance(tree, Leaf) else any(map(_may_fail, tree.parts))


def _make_needing(name: str, parts: Sequence[AnyTool]) -> AnyTool:
    """Make a tool that needs them; its effect is the strongest of theirs."""
    needed = [*parts, *[parts[0]] * 2][:3]

    async def act(
        first: Any = Needs(needed[0]), second: Any = Needs(needed[1]), third: Any = Needs(needed[2]), n: int = 0
    ) -> str:
        """Make a result of what it needs."""
        return f"{first} {second} {third}"

    return tool(name=name)(act)


def _make_function(kind: Kind, number: int, parts: Sequence[AnyTool]) -> Any:
    calls: list[Any] = [piece for part in parts for piece in (call(part.name, n=1), 0.3)]
    gone = ModelError("the inner stream broke", retryable=True)
    turns: list[Any] = [[*calls, gone]] * (kind == "broken agent") + [calls, "Done."]

    guessed = [part.call(n=1) for part in parts if part.effect == "read"] if kind == "prefetch" else []

    def make_agent() -> Agent[Any]:
        return Agent(ScriptedModel(turns), tools=parts, prefetch=guessed, cache=False, name=f"asked_{number}")

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
            case "agent" | "broken agent" | "prefetch":
                return (await make_agent().run("Go.")).text
            case "agent as tool":
                return str(await ctx.call(make_agent().as_tool(), "Go."))
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


async def _run(trees: Sequence[Tree], stream: Stream) -> None:
    grove = Grove()
    # A call with arguments is complete when the next one begins: with another behind it, the last tree starts early.
    tools = [grove.build(tree) for tree in (*trees, Leaf("read", 0.0))]
    asked: list[Any] = [piece for made in tools for piece in (call(made.name, n=1), stream.before_s)]
    good: list[Any] = [*asked, stream.after_s]
    if stream.ending in ("refused", "length"):
        good.append(finish("content_filter" if stream.ending == "refused" else "length"))
    gone = ModelError("the stream broke", retryable=stream.ending != "broken for good")
    broken = {"broken": 1, "broken twice": 2, "broken for good": 1}.get(stream.ending, 0)
    model = ScriptedModel([*[[*good, gone]] * broken, good, "Done."])
    limits = Limits(seconds=stream.before_s + 2) if stream.ending == "limit" else None
    run = Agent(model, tools=tools, cache=False, limits=limits).start("Go.")
    began_s = asyncio.get_running_loop().time()
    if stream.ending == "cancelled":
        await asyncio.sleep(stream.before_s + 2)
        run.cancel()
    with suppress(FlowkitError):
        await run.wait()
    ends = [event.t for event in run.log.events if isinstance(event, TurnFinished) and event.error is None]
    for name, times in Counter(name for name, _ in grove.effects).items():
        assert times <= grove.calls[name] or grove.kinds[name] == "read", f"{name} acted {times} times"
    if stream.ending in ("refused", "length"):
        assert {grove.kinds[name] for name, _ in grove.effects} <= {"read"}, "the turn never ended well"
    for name, at_s in grove.effects:
        if grove.kinds[name] != "read":
            assert ends, f"{name} acted in a turn that never ended well"
            assert at_s >= began_s + ends[0], f"{name} acted before its turn had ended"
    if stream.ending in ("well", "broken", "broken twice"):
        missing = set(grove.kinds) - {name for name, _ in grove.effects} - grove.uncertain
        assert not missing, "what was asked for well has been done"


AGENT_IN_AGENT = Inner("agent", (Inner("agent", (Leaf("write", 0.0),)),))
"""The write waits for a seal in each of the two runs around its own."""


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees=st.lists(TREES, min_size=1, max_size=3), stream=STREAMS)
@example(trees=[AGENT_IN_AGENT], stream=Stream("well", 4.0, 9.0))
@example(trees=[AGENT_IN_AGENT], stream=Stream("broken for good", 4.0, 9.0))
def test_for_every_tree_and_end_of_the_stream_a_write_starts_at_most_once_and_never_before_its_seal(
    trees: list[Tree], stream: Stream
) -> None:
    run_virtual(_run(trees, stream))


@pytest.mark.slow
@settings(max_examples=examples(1000), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees=st.lists(TREES, min_size=1, max_size=3), stream=STREAMS)
def test_for_many_more_trees_a_write_starts_at_most_once_and_never_before_its_seal(
    trees: list[Tree], stream: Stream
) -> None:
    run_virtual(_run(trees, stream))
