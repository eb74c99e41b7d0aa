"""Runs that a tool's own function starts: killed in the middle, they resume with the same keys and repeat nothing."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flowkit import Agent, Context, ScriptedModel, ToolError, recipe, step, tool
from flowkit.context import CONTEXT
from flowkit.executor import Executor
from flowkit.journal import Journal
from flowkit.messages import UserMessage, text_of
from flowkit.models.base import ModelRequest
from flowkit.references import ToolCall
from flowkit.testing import call
from tests.stores import opened_journal

EFFECTS = Path(os.environ.get("FLOWKIT_TEST_EFFECTS", "effects"))
DIES_AT = int(os.environ.get("FLOWKIT_TEST_DIES_AT", "0"))


def write_effect(name: str, context: Context[Any]) -> None:
    with EFFECTS.open("a+") as file:
        file.write(json.dumps({"name": name, "key": context.idempotency_key, "user": context.user}) + "\n")
        file.flush()
        file.seek(0)
        if len(file.readlines()) == DIES_AT:
            os.kill(os.getpid(), signal.SIGKILL)


@tool(effect="idempotent")
async def book(place: str, ctx: Context[Any] = CONTEXT) -> str:
    """Book it."""
    write_effect(f"book {place}", ctx)
    return "booked"


@tool(effect="idempotent")
async def ship(place: str, after: str = "", ctx: Context[Any] = CONTEXT) -> str:
    """Ship it."""
    write_effect(f"ship {place}", ctx)
    return "shipped"


def answer(request: ModelRequest) -> Any:
    """Book at the first turn, ship at the second, at the place that is the task."""
    asked = next(message for message in request.messages if isinstance(message, UserMessage))
    if request.turn > 2:
        return "All is done."
    return [call("book" if request.turn == 1 else "ship", place=text_of(asked.content))]


def make_clerk() -> Agent[str]:
    return Agent(ScriptedModel(answer), tools=[book, ship], cache=False, name="clerk")


@recipe
def deliver(place: str) -> str:
    return step(ship, place, step(book, place))


@tool(effect="idempotent")
async def settle() -> str:
    """Let a clerk and a recipe do it, some of it at the same time and some of it twice."""
    clerk = make_clerk()
    await asyncio.gather(clerk.run("a"), clerk.run("b"))
    await clerk.run("a")
    await deliver.run("c")
    return "settled"


@tool(effect="idempotent")
def settle_blocking() -> str:
    """Let a clerk and a recipe do it, in a thread."""
    clerk = make_clerk()
    clerk.run_sync("a")
    clerk.run_sync("a")
    deliver.run_sync("c")
    return "settled"


@tool(effect="idempotent")
async def settle_by_calls(ctx: Context[Any] = CONTEXT) -> str:
    """Let a clerk and a recipe do it, as calls of this run."""
    await ctx.call(make_clerk().as_tool(), "a")
    await ctx.call(deliver.as_tool(), place="c")
    return "settled"


@recipe
def settle_in_steps() -> str:
    return step(settle)


@tool(effect="idempotent")
async def settle_by_recipe() -> str:
    """Let a recipe do it whose step's function starts runs."""
    return (await settle_in_steps.run()).output


TOOLS = {tool.name: tool for tool in (settle, settle_blocking, settle_by_recipe, settle_by_calls)}
IN_ORDER = ("settle_blocking", "settle_by_calls")
"""The tools that do one thing after another."""


def main(name: str, path: str, is_resumed: bool) -> None:
    journal = Journal(path)
    outer = ScriptedModel(["It is done."] if is_resumed else [[call(name)], "It is done."])
    agent = Agent(outer, tools=[TOOLS[name]], cache=False, journal=journal)
    print(agent.run_sync(None if is_resumed else "Hello.", user="ann", session="s", run_id="r").text)
    journal.close()


@pytest.mark.skipif(os.name != "posix", reason="kills")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"), [("settle", 8), ("settle_blocking", 6), ("settle_by_recipe", 8), ("settle_by_calls", 4)]
)
def test_runs_that_a_function_started_are_resumed_after_each_kill(tmp_path: Path, name: str, count: int) -> None:
    """Killed at each of its effects in turn: an effect is repeated only if it was the last one before a kill."""

    def go(is_resumed: bool, dies_at: int) -> subprocess.CompletedProcess[str]:
        code = f"from test_runs_in_functions import main; main({name!r}, {str(tmp_path / 'j')!r}, {is_resumed})"
        environment = {"FLOWKIT_TEST_EFFECTS": str(tmp_path / "effects"), "FLOWKIT_TEST_DIES_AT": str(dies_at)}
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parent,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    # Every second effect: the first after each resumption is the one that was cut off.
    for place, dies_at in enumerate(range(1, 2 * count, 2)):
        killed = go(place > 0, dies_at)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    ended = go(True, 0)
    assert ended.returncode == 0, ended.stderr
    effects = [json.loads(line) for line in (tmp_path / "effects").read_text().splitlines()]
    times = Counter((effect["name"], effect["key"]) for effect in effects)
    assert len(times) == count, "as many keys as effects"
    assert sum(times.values()) <= 3 * count, "a kill cuts off two effects at most: as many as run in parallel"
    assert set(times.values()) == {2} or name not in IN_ORDER, "each was killed once"
    assert {effect["user"] for effect in effects} == {"ann"}
    with opened_journal(tmp_path / "j") as journal:
        assert [run.run_id for run in journal.runs()] == ["r"], "inner runs stand under the outer one"
        assert {run.status for run in journal.runs(inner=True)} == {"done"}
        assert len(journal.conversation("s", user="ann")) == 4, "what the inner agents said is none of it"
        assert journal.delete("r", user="ann")
        assert journal.runs(inner=True) == []


def list_runs(function: Any, *, user: str | None = "ann", run_id: str = "r", **options: Any) -> list[tuple[str, str]]:
    """Return id and user's name of each run that the calls of a tool with this function start."""
    seen: list[tuple[str, str]] = []

    @tool(effect="idempotent")
    async def note(ctx: Context[Any] = CONTEXT) -> str:
        """Note it."""
        seen.append((ctx.run_id, ctx.user or ""))
        return "noted"

    def say(request: ModelRequest) -> Any:
        return "ok" if request.turn > 1 else [call("note")]

    clerk = Agent(ScriptedModel(say), tools=[note], cache=False, name="clerk")

    @tool(effect="idempotent", **options)
    async def work(ctx: Context[Any] = CONTEXT) -> str:
        """Work."""
        await function(clerk, ctx)
        return "done"

    outer = Agent(ScriptedModel([[call("work"), call("work")], "Done."]), tools=[work], cache=False)
    outer.run_sync("Go.", user=user, run_id=run_id)
    return seen


async def run_three(clerk: Agent[str], ctx: Context[Any]) -> None:
    await asyncio.gather(clerk.run("a"), clerk.run("b"), clerk.run("a"))


def test_runs_of_a_function_have_distinct_ids_that_are_the_same_each_time() -> None:
    first = list_runs(run_three)
    assert len(set(first)) == 6, "two calls with three runs each"
    assert all(run_id.startswith("r/turn/1/call/") for run_id, _ in first)
    assert sorted(list_runs(run_three)) == sorted(first)


@pytest.mark.parametrize(("user", "run_id"), [("bob", "r"), (None, "r"), ("ann", "s")])
def test_runs_of_a_function_differ_wherever_the_runs_around_them_do(user: str | None, run_id: str) -> None:
    own = {started for started, _ in list_runs(run_three)}
    assert own.isdisjoint(started for started, _ in list_runs(run_three, user=user, run_id=run_id))


def test_a_run_of_a_function_belongs_to_the_calls_user_unless_it_names_one() -> None:
    async def run_as_others(clerk: Agent[str], ctx: Context[Any]) -> None:
        await clerk.run("a")
        await clerk.run("a", user="system")
        await clerk.run("a", run_id="mine", user="bob")

    seen = list_runs(run_as_others)
    assert {user for _, user in seen} == {"ann", "system", "bob"}
    assert {started for started, user in seen if user == "bob"} == {"mine"}


def test_only_runs_of_the_calls_user_are_recorded_in_the_outer_runs_journal(tmp_path: Path) -> None:
    @tool(effect="idempotent")
    async def work() -> str:
        """Work."""
        clerk = Agent(ScriptedModel(["ok"] * 4), cache=False)
        await clerk.run("a")
        await clerk.run("a", user="ann")
        await clerk.run("a", user="bob")
        await clerk.run("a", run_id="mine")
        return "done"

    with opened_journal(tmp_path / "j") as journal:
        agent = Agent(ScriptedModel([[call("work")], "Done."]), tools=[work], cache=False, journal=journal)
        agent.run_sync("Go.", user="ann", run_id="r")
        inner = [run.run_id for run in journal.runs(inner=True) if run.parent is not None]
    assert len(inner) == 2
    assert all(run_id.startswith("r/") for run_id in inner)


def test_a_retry_resumes_the_run_that_failed_and_repeats_nothing_of_it(tmp_path: Path) -> None:
    done: list[str] = []
    attempts: list[int] = []

    @tool(effect="idempotent")
    async def put(ctx: Context[Any] = CONTEXT) -> str:
        """Put it there."""
        done.append(ctx.idempotency_key)
        return "put"

    @tool(effect="idempotent")
    async def check(after: str) -> str:
        """Fail at the first attempt."""
        attempts.append(1)
        if len(attempts) == 1:
            raise ToolError("not yet")
        return "checked"

    @recipe
    def move() -> str:
        return step(check, step(put))

    @tool(effect="idempotent", retries=1)
    async def work() -> str:
        """Work."""
        try:
            return (await move.run()).output
        except ToolError as error:
            raise ToolError(str(error), retryable=True) from error

    with opened_journal(tmp_path / "j") as journal:
        agent = Agent(ScriptedModel([[call("work")], "Done."]), tools=[work], cache=False, journal=journal)
        result = agent.run_sync("Go.", user="ann", run_id="r")
    assert result.calls[0].value == "checked"
    assert (len(done), len(attempts)) == (1, 2)


@pytest.mark.parametrize("starts", ["agent", "recipe", "agent in an agent", "thread"])
def test_a_call_whose_function_ran_a_write_is_not_retried(starts: str) -> None:
    paid: list[str] = []

    @tool(effect="write")
    async def pay(ctx: Context[Any] = CONTEXT) -> str:
        """Pay."""
        paid.append(ctx.idempotency_key)
        return "paid"

    def say(request: ModelRequest) -> Any:
        return "ok" if request.turn > 1 else [call("pay")]

    clerk = Agent(ScriptedModel(say), tools=[pay], cache=False, name="clerk")

    @recipe
    def settle() -> str:
        return step(pay)

    @tool(effect="read", name="pay")
    async def ask_clerk() -> str:
        """Ask the clerk."""
        return (await clerk.run("a")).text

    head = Agent(ScriptedModel(say), tools=[ask_clerk], cache=False, name="head")

    @tool(effect="read", retries=2)
    async def work() -> str:
        """Work, and fail for a reason that may pass."""
        await (settle.run() if starts == "recipe" else (clerk if starts == "agent" else head).run("a"))
        raise ToolError("busy", retryable=True)

    @tool(effect="read", retries=2, name="work")
    def work_blocking() -> str:
        """Work in a thread."""
        clerk.run_sync("a")
        raise ToolError("busy", retryable=True)

    used: Any = work_blocking if starts == "thread" else work
    outer = Agent(ScriptedModel([[call("work")], "Done."]), tools=[used], cache=False)
    outer.run_sync("Go.", user="ann", run_id="r")
    assert len(paid) == 1


def test_a_task_that_outlives_its_call_starts_runs_of_their_own() -> None:
    ids: list[str] = []
    tasks: list[asyncio.Task[None]] = []

    async def later(may_go: asyncio.Event) -> None:
        await may_go.wait()
        ids.append((await Agent(ScriptedModel(["ok"]), cache=False).run("a")).run_id)

    async def go() -> None:
        may_go = asyncio.Event()

        @tool(effect="idempotent")
        async def leave() -> str:
            """Leave a task behind."""
            tasks.append(asyncio.create_task(later(may_go)))
            return "left"

        async with Executor(tools=[leave], run_id="r", user="ann") as graph:
            graph.add(ToolCall("leave", "leave", {}))
            await graph.wait("leave")
        may_go.set()
        await asyncio.gather(*tasks)

    asyncio.run(go())
    assert not ids[0].startswith("r/")
