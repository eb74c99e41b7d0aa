"""An agent inside another run's call: killed in the middle, it resumes with the same keys and repeats nothing."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowkit import Agent, Context, ScriptedModel, each, recipe, tool
from flowkit.context import CONTEXT
from flowkit.journal import Journal
from flowkit.models.base import ModelRequest
from flowkit.recipes import ask
from flowkit.testing import call
from tests.stores import opened_journal

EFFECTS = Path(os.environ.get("FLOWKIT_TEST_EFFECTS", "effects"))
DIES_IN = os.environ.get("FLOWKIT_TEST_DIES_IN", "")


def write_effect(name: str, context: Context[Any]) -> None:
    with EFFECTS.open("a") as file:
        file.write(json.dumps({"name": name, "key": context.idempotency_key, "run": context.run_id}) + "\n")
    if name == DIES_IN:
        os.kill(os.getpid(), signal.SIGKILL)


@tool(effect="idempotent")
async def book(ctx: Context[Any] = CONTEXT) -> str:
    """Book it."""
    write_effect("book", ctx)
    return "booked"


@tool(effect="idempotent")
async def ship(ctx: Context[Any] = CONTEXT) -> str:
    """Ship it."""
    write_effect("ship", ctx)
    return "shipped"


def make_clerk() -> Agent[str]:
    return Agent(
        ScriptedModel([[call("book")], [call("ship")], "All is done."]), tools=[book, ship], cache=False, name="clerk"
    )


def run_agent(journal: Journal, *, is_resumed: bool) -> str:
    outer = ScriptedModel(["It is done."] if is_resumed else [[call("clerk", task="Do it.")], "It is done."])
    clerk = make_clerk()
    if is_resumed and DIES_IN == "":
        # What the inner agent had said isn't asked for again: only the rest of it is there.
        rest = {"book": [[call("ship")], "All is done."], "ship": ["All is done."]}[os.environ["FLOWKIT_TEST_DIED_IN"]]
        clerk = Agent(ScriptedModel(rest), tools=[book, ship], cache=False, name="clerk")
    agent = Agent(outer, tools=[clerk.as_tool()], cache=False, journal=journal)
    message = None if is_resumed else "Hello."
    return agent.run_sync(message, user="ann", session="s", run_id="r").text


def run_recipe(journal: Journal, *, is_resumed: bool) -> str:
    clerk = make_clerk()
    if is_resumed:
        rest = {"book": [[call("ship")], "All is done."], "ship": ["All is done."]}[os.environ["FLOWKIT_TEST_DIED_IN"]]
        clerk = Agent(ScriptedModel(rest), tools=[book, ship], cache=False, name="clerk")

    @recipe
    def settle(order: str) -> str:
        return ask(clerk, "Do it for {order}.", order=order)

    return settle.options(journal=journal, user="ann", session="s", run_id="r", cache=False).run_sync("1").output


def main(kind: str, path: str, is_resumed: bool) -> None:
    journal = Journal(path)
    print({"agent": run_agent, "recipe": run_recipe}[kind](journal, is_resumed=is_resumed))
    journal.close()


@pytest.mark.skipif(os.name != "posix", reason="kills")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["agent", "recipe"])
@pytest.mark.parametrize("dies_in", ["book", "ship"])
def test_an_inner_agent_that_was_killed_resumes_with_the_same_keys_and_repeats_nothing(
    tmp_path: Path, kind: str, dies_in: str
) -> None:
    environment = {**os.environ, "FLOWKIT_TEST_EFFECTS": str(tmp_path / "effects")}

    def go(is_resumed: bool, **more: str) -> subprocess.CompletedProcess[str]:
        code = f"from test_nested_resume import main; main({kind!r}, {str(tmp_path / 'j')!r}, {is_resumed})"
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parent,
            env={**environment, **more},
            capture_output=True,
            text=True,
            check=False,
        )

    killed = go(False, FLOWKIT_TEST_DIES_IN=dies_in)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resumed = go(True, FLOWKIT_TEST_DIED_IN=dies_in)
    assert resumed.returncode == 0, resumed.stderr
    effects = [json.loads(line) for line in (tmp_path / "effects").read_text().splitlines()]
    counts = Counter(effect["name"] for effect in effects)
    assert counts == {"book": 2 if dies_in == "book" else 1, "ship": 2 if dies_in == "ship" else 1}
    for name in ("book", "ship"):
        assert len({effect["key"] for effect in effects if effect["name"] == name}) == 1
    with opened_journal(tmp_path / "j") as journal:
        assert [run.run_id for run in journal.runs()] == ["r"], "the inner run stands under the outer one"
        inner = [run for run in journal.runs(inner=True) if run.parent is not None]
        assert [run.status for run in inner] == ["done"]
        assert len(journal.conversation("s", user="ann")) in (0, 4), "what the inner agent said is none of it"
        assert journal.delete("r", user="ann")
        assert journal.runs(inner=True) == []


def test_an_inner_run_has_its_id_from_the_outer_run_and_call_also_without_a_journal() -> None:
    seen: list[tuple[str, str]] = []

    @tool(effect="idempotent")
    async def note(ctx: Context[Any] = CONTEXT) -> str:
        """Note it."""
        seen.append((ctx.run_id, ctx.idempotency_key))
        return "noted"

    def ask_it(user: str, run_id: str) -> None:
        clerk = Agent(ScriptedModel([[call("note")], "ok"]), tools=[note], cache=False, name="clerk")
        outer = Agent(ScriptedModel([[call("clerk", task="x")], "ok"]), tools=[clerk.as_tool()], cache=False)
        outer.run_sync("Hello.", user=user, run_id=run_id)

    for user, run_id in (("ann", "r"), ("ann", "r"), ("bob", "r"), ("ann", "s")):
        ask_it(user, run_id)
    assert seen[0] == seen[1]
    assert seen[0][0] == "r/turn/1/call/0"
    assert len({key for _, key in seen}) == 3


def test_a_run_that_is_done_is_told_again_and_nothing_is_written(tmp_path: Path) -> None:
    import sqlite3

    def dump() -> list[str]:
        with closing(sqlite3.connect(tmp_path / "j")) as connection:
            return list(connection.iterdump())

    with opened_journal(tmp_path / "j") as journal:
        clerk = make_clerk_without_effects()
        agent = Agent(ScriptedModel([[call("clerk", task="x")], "ok"]), tools=[clerk], cache=False, journal=journal)
        first = agent.run_sync("Hello.", user="ann", run_id="r")
        before = dump()
        silent = Agent(ScriptedModel([]), tools=[clerk], cache=False, journal=journal)
        again = silent.run_sync(user="ann", run_id="r")
        assert (again.text, again.status, again.messages) == (first.text, "done", first.messages)
        assert dump() == before


def make_clerk_without_effects() -> Any:
    return Agent(ScriptedModel(["done"]), cache=False, name="clerk").as_tool()


@pytest.mark.parametrize("nest", ["agent in agent", "items", "runs in a function", "calls of a function"])
def test_keys_inside_any_nest_are_the_same_each_time_and_differ_from_each_other(nest: str) -> None:
    """As after a crash before anything was recorded: another process, with the same run."""

    def run_once() -> list[str]:
        keys: list[str] = []

        @tool(effect="idempotent")
        async def put(ctx: Context[Any] = CONTEXT) -> str:
            """Put it there."""
            keys.append(ctx.idempotency_key)
            return "put"

        def answer(request: ModelRequest) -> Any:
            return "Done." if request.turn > 1 else [call("put"), call("put")]

        inner = Agent(ScriptedModel(answer), tools=[put], cache=False, name="inner")
        middle = Agent(ScriptedModel([[call("inner", task="a"), call("inner", task="b")], "Done."]), cache=False)
        middle = middle.adding(inner.as_tool())

        @tool(effect="idempotent")
        async def work(ctx: Context[Any] = CONTEXT) -> str:
            """Let the inner agent work twice."""
            for task in "ab":
                if nest == "runs in a function":
                    await inner.run(task, user=ctx.user, run_id=f"{ctx.run_id}/{ctx.call_id}/{task}")
                else:
                    await ctx.call(inner.as_tool(), task)
            return "done"

        @recipe
        def settle(tasks: list[str]) -> list[str]:
            return each(tasks, lambda task: ask(inner, "Do {task}.", task=task))

        if nest == "items":
            settle.options(user="ann", run_id="r", cache=False).run_sync(["a", "b"])
        else:
            used = middle.as_tool(name="work") if nest == "agent in agent" else work
            asked = call("work", task="x") if nest == "agent in agent" else call("work")
            agent = Agent(ScriptedModel([[asked], "Done."]), tools=[used], cache=False)
            agent.run_sync("Go.", user="ann", run_id="r")
        return sorted(keys)

    first = run_once()
    assert len(set(first)) == len(first) == 4
    assert run_once() == first
