"""Whose run it is: no key, flight, join or id of one run's place meets another's."""

import asyncio
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.agent import Agent
from flowkit.cache import DiskCache
from flowkit.context import CONTEXT, Context
from flowkit.identity import SCOPES, RunIdentity, Scope
from flowkit.models.scripted import ScriptedModel, call
from flowkit.tools import Tool, tool

NAMES = st.none() | st.sampled_from(["ann", "bob", "today", "r1", "", '["ann"', "null", "ann\0today"])
IDENTITIES = st.builds(RunIdentity, NAMES, NAMES, NAMES.map(lambda name: name or ""))


@given(IDENTITIES, IDENTITIES)
def test_for_every_two_places_all_keys_are_equal_exactly_when_the_places_are(
    one: RunIdentity, other: RunIdentity
) -> None:
    assert (one.key == other.key) == (one == other)
    assert (one.idempotency_key("call") == other.idempotency_key("call")) == (one == other)
    assert (one.inside("call").key == other.inside("call").key) == (one == other)


@given(IDENTITIES, IDENTITIES)
def test_for_every_two_places_a_shared_scope_is_a_shared_user_session_or_run(
    one: RunIdentity, other: RunIdentity
) -> None:
    places = {"all": (), "user": ("user",), "session": ("user", "session"), "run": ("user", "session", "run_id")}
    for scope in SCOPES:
        key, same = one.scope_key(scope), other.scope_key(scope)
        if key is not None and same is not None:
            alike = all(getattr(one, name) == getattr(other, name) for name in places[scope])
            assert (key == same) == alike


def test_scope_without_what_it_is_named_for_has_no_key() -> None:
    assert [RunIdentity().scope_key(scope) for scope in SCOPES] == [None, None, None, ""]


def private(scope: Scope) -> Tool[..., Any]:
    @tool(ttl=300, scope=scope)
    async def look(ctx: Context[Any] = CONTEXT) -> str:
        """Look at what is the user's."""
        return f"private of {ctx.user} in {ctx.session} of {ctx.data}"

    return look


def asking(look: Tool[..., Any], cache: DiskCache) -> Agent[str]:
    return Agent(ScriptedModel([[call("look")], "Done."]), tools=[look], cache=cache)


@pytest.mark.parametrize("scope", ["session", "run"])
def test_session_of_one_user_is_not_the_session_of_another(tmp_path: Path, scope: Scope) -> None:
    look = private(scope)

    async def go() -> None:
        cache = DiskCache(tmp_path)
        seen: list[object] = []
        for user in ("ann", "bob", None, "ann"):
            result = await asking(look, cache).run("go", user=user, session="today", run_id="r1", data=user)
            seen.append(result.calls[0].value)
            assert result.calls[0].source == ("cache" if len(seen) == 4 else "run")
        assert seen == [f"private of {user} in today of {user}" for user in ("ann", "bob", None, "ann")]
        await cache.close()

    asyncio.run(go())


def test_run_without_a_user_shares_its_results_with_no_other_run(tmp_path: Path) -> None:
    look = private("run")

    async def go() -> None:
        cache = DiskCache(tmp_path)
        for data in ("one", "two"):
            result = await asking(look, cache).run("go", run_id="r1", data=data)
            assert result.calls[0].value == f"private of None in None of {data}"
        await cache.close()

    asyncio.run(go())


def test_flights_of_two_users_are_two(tmp_path: Path) -> None:
    look = private("session")

    async def go() -> None:
        cache = DiskCache(tmp_path)
        results = await asyncio.gather(
            *(asking(look, cache).run("go", user=user, session="today") for user in ("ann", "bob"))
        )
        assert [result.calls[0].value for result in results] == [
            f"private of {user} in today of None" for user in ("ann", "bob")
        ]
        await cache.close()

    asyncio.run(go())


def test_idempotency_keys_differ_wherever_runs_do() -> None:
    keys: list[str] = []

    @tool(effect="idempotent")
    async def pay(ctx: Context[Any] = CONTEXT) -> str:
        """Pay once."""
        keys.append(ctx.idempotency_key)
        return "paid"

    async def go() -> None:
        agent = Agent(ScriptedModel([[call("pay")], "Done."] * 4), tools=[pay], cache=False)
        for user, session in (("ann", None), ("bob", None), ("ann", "today"), (None, None)):
            await agent.run("go", user=user, session=session, run_id="r1")

    asyncio.run(go())
    assert all(one != other for one, other in combinations(keys, 2))


def test_only_the_same_place_is_joined() -> None:
    async def go() -> None:
        agent = Agent(ScriptedModel([["Hi.", 0.01]] * 6), cache=False)
        ann = agent.start("go", user="ann", session="today", run_id="r1")
        assert agent.start("go", user="ann", session="today", run_id="r1") is ann
        others = [
            agent.start("go", user="bob", session="today", run_id="r1"),
            agent.start("go", user="ann", session="monday", run_id="r1"),
            agent.start("go", run_id="r1"),
            agent.start("go", run_id="r1"),
        ]
        assert len({id(run) for run in (ann, *others)}) == 5
        await asyncio.gather(ann.wait(), *(run.wait() for run in others))

    asyncio.run(go())
