"""For every nest of tools, needs, calls, agents and recipes: no value of one user, session or run reaches another's.

A leaf says whose value it is, as far as its scope goes. Above it stand tools that share their results as Hypothesis
draws it, rightly or not; several identities run them in one cache, one after the other or at once.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit import Agent, Context, DiskCache, ScriptedModel, each, recipe, step, tool
from flowkit.context import CONTEXT
from flowkit.errors import DefinitionError
from flowkit.identity import Scope
from flowkit.messages import ToolMessage
from flowkit.models.base import ModelRequest
from flowkit.models.scripted import Script
from flowkit.testing import call
from flowkit.tools import Needs, Tool
from tests.stores import fast_folder

AnyTool = Tool[..., Any]
LABEL = re.compile(r"(all|user|session|run)=([\w/]*)")
Kind = Literal[
    "call", "task", "thread", "agent", "bare agent", "agent as tool", "recipe", "recipe run", "items", "need"
]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Leaf:
    """A tool that says whose value it gives; without a TTL its result isn't shared."""

    scope: Scope
    has_ttl: bool


@dataclass(frozen=True)
class Inner:
    """A tool that makes its result of others'; without a scope it keeps nothing."""

    kind: Kind
    scope: Scope | None
    parts: "tuple[Nest, ...]"


Nest = Leaf | Inner


@dataclass(frozen=True)
class Person:
    """Whose run it is."""

    user: str
    session: str
    run: str

    @property
    def key(self) -> str:
        return f"{self.user}/{self.session}/{self.run}"

    def may_see(self, text: str) -> bool:
        """Return whether all in this text is of this person, session and run."""
        own = {"all": "", "user": self.user, "session": f"{self.user}/{self.session}", "run": self.key}
        return all(own[scope] == whose for scope, whose in LABEL.findall(text))


SCOPES: list[Scope] = ["all", "user", "session", "run"]
LEAVES = st.builds(Leaf, st.sampled_from(SCOPES), st.booleans())
NESTS: st.SearchStrategy[Inner] = st.recursive(
    LEAVES,
    lambda parts: st.builds(
        Inner,
        st.sampled_from(KINDS),
        st.none() | st.sampled_from(SCOPES),
        st.lists(parts, min_size=1, max_size=2).map(tuple),
    ),
    max_leaves=5,
).filter(lambda nest: isinstance(nest, Inner))  # type: ignore[assignment]  # the filter leaves these
PEOPLE = st.lists(
    st.builds(
        Person, st.sampled_from(["ann", "bob"]), st.sampled_from(["today", "monday"]), st.sampled_from(["r1", "r2"])
    ),
    min_size=2,
    max_size=4,
)


class Builder:
    """Makes the tools of a nest, each with a name of its own."""

    def __init__(self) -> None:
        self._numbers = count()

    def build(self, nest: Nest) -> AnyTool:
        if isinstance(nest, Leaf):
            return self._leaf(nest)
        parts = [self.build(part) for part in nest.parts]
        options: dict[str, Any] = {"effect": "read"} if nest.scope is None else {"ttl": 300, "scope": nest.scope}
        options["name"] = f"{nest.kind.replace(' ', '_')}_{next(self._numbers)}"
        if nest.kind == "need":
            return self._needing(parts[0], options)
        return tool(**options)(self._function(nest.kind, parts))

    def _leaf(self, leaf: Leaf) -> AnyTool:
        scope = leaf.scope
        options: dict[str, Any] = {"ttl": 300, "scope": scope} if leaf.has_ttl else {"effect": "read", "scope": scope}

        async def look(ctx: Context[str] = CONTEXT) -> str:
            """Look at whose run it is, as far as the scope goes."""
            user, session, _ = ctx.data.split("/")
            whose = {"all": "", "user": user, "session": f"{user}/{session}", "run": ctx.data}[scope]
            return f"{scope}={whose}"

        return tool(name=f"leaf_{next(self._numbers)}", **options)(look)

    def _function(self, kind: Kind, parts: Sequence[AnyTool]) -> Any:
        number = next(self._numbers)

        def answer(request: ModelRequest) -> Script:
            """Ask for all parts, and answer with what they gave."""
            given = [message.text for message in request.messages if isinstance(message, ToolMessage)]
            return " ".join(given) if request.turn > 1 else [call(part.name) for part in parts]

        agent = Agent(ScriptedModel(answer), tools=parts, cache=False, name=f"asked_{number}")

        @recipe(name=f"steps_{number}")
        def steps() -> list[str]:
            return [step(part) for part in parts]

        async def ask(ctx: Context[str]) -> str:
            result = await agent.run("Go.", user=ctx.user, session=ctx.session, data=ctx.data)
            return " ".join(str(outcome.value) for outcome in result.calls)

        @recipe(name=f"items_{number}")
        def items(kept: list[int] = [1, 2]) -> list[list[str]]:  # noqa: B006
            return [each(kept, lambda item, part=part: step(part)) for part in parts]

        async def act(ctx: Context[str] = CONTEXT) -> str:
            """Make a result of the others'."""
            match kind:
                case "task":
                    made = [asyncio.create_task(ctx.call(part)) for part in parts]
                    return " ".join([str(await one) for one in made])
                case "thread":
                    return await asyncio.to_thread(asyncio.run, ask(ctx))
                case "agent":
                    return await ask(ctx)
                case "bare agent":
                    result = await agent.run("Go.", data=ctx.data)  # it belongs to the call's user
                    return " ".join(str(outcome.value) for outcome in result.calls)
                case "recipe run":
                    return str((await steps.options(data=ctx.data, cache=False).run()).output)
                case "items":
                    return str(await ctx.call(items.as_tool()))
                case "agent as tool":
                    return str(await ctx.call(agent.as_tool(), "Go."))
                case "recipe":
                    return str(await ctx.call(steps.as_tool()))
                case _:
                    return " ".join([str(await ctx.call(part)) for part in parts])

        return act

    def _needing(self, inner: AnyTool, options: dict[str, Any]) -> AnyTool:
        async def needing(found: Any = Needs(inner)) -> str:
            """Need it."""
            return str(found)

        try:
            return tool(**options)(needing)
        except DefinitionError:
            return inner  # it claims a wider scope than what it needs, and is refused


async def ask_all(outer: AnyTool, people: Sequence[Person], *, at_once: bool) -> None:
    """Let each of them call it, in one cache, and look at what they got."""
    with fast_folder() as folder:
        cache = DiskCache(folder / "cache")

        async def ask(person: Person) -> None:
            agent = Agent(ScriptedModel([[call(outer.name)], "Done."]), tools=[outer], cache=cache)
            result = await agent.run(
                "Go.", user=person.user, session=person.session, run_id=person.run, data=person.key
            )
            for outcome in result.calls:
                assert outcome.state == "finished", outcome.error
                said = str(outcome.value)
                assert LABEL.search(said), "each way hands on what the leaves said"
                assert person.may_see(said), (person, outcome.call.name, said)

        if at_once:
            # A run is driven once at a time.
            await asyncio.gather(*(ask(person) for person in dict.fromkeys(people)))
        else:
            for person in people:
                await ask(person)
        await cache.close()


def run_nest(nest: Nest, people: Sequence[Person], *, at_once: bool) -> None:
    asyncio.run(ask_all(Builder().build(nest), people, at_once=at_once))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(nest=NESTS, people=PEOPLE, at_once=st.booleans())
def test_for_every_nest_no_value_of_one_identity_reaches_another(
    nest: Nest, people: list[Person], at_once: bool
) -> None:
    run_nest(nest, people, at_once=at_once)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(nest=NESTS, people=PEOPLE, at_once=st.booleans())
def test_for_every_of_many_nests_no_value_of_one_identity_reaches_another(
    nest: Nest, people: list[Person], at_once: bool
) -> None:
    run_nest(nest, people, at_once=at_once)
