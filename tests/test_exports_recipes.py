"""Runs of recipes as tests: the same recipe, with what its steps gave, makes the same calls and output."""

import asyncio
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowkit import Agent, Deny
from flowkit.apps import load_app
from flowkit.errors import ConfigurationError, ToolError
from flowkit.exports import replay_run
from flowkit.journal import Journal
from flowkit.testing import ScriptedModel
from tests.command import Command, make_command
from tests.test_exports import run_pytest

APP = '''
from flowkit import Agent, Needs, ToolError, ask, each, recipe, step, tool, when
from flowkit.testing import ScriptedModel, call

@tool(effect="read")
def customer() -> dict[str, str]:
    return {"name": "Kim Minsu"}

@tool(effect="read")
def orders(user: str) -> list[str]:
    return ["A1", "A2"]

@tool(effect="read")
def state(order: str, who: dict[str, str] = Needs(customer)) -> dict[str, str]:
    return {"id": order, "state": "late" if order == "A1" else "sent", "of": who["name"]}

@tool(effect="read", retries=3)
def broken(order: str) -> str:
    raise ToolError("no such order", retryable=False)

@tool
def refund(order: str) -> str:
    return f"refunded {order}"

@tool(approval=True)
def close(user: str) -> str:
    return "closed"

model = ScriptedModel(["one was late"], name="judge")
clerk = Agent(
    ScriptedModel([[call("refund", order="A9")], "A9 is refunded"]), name="clerk", tools=[refund], cache=False
)

@recipe
def one(order: str) -> object:
    found = step(state, order)
    return when(found["state"] == "late", lambda: step(refund, order), otherwise=lambda: "fine")

@recipe
def night(user: str):
    """Look at all orders of a user."""
    done = each(step(orders, user), lambda order: step(one, order))
    tried = step.options(optional=True)(broken, user)
    said = ask(model, "Say {done}.", done=done)
    paid = ask(clerk, "Refund A9.")
    return {"said": said, "done": done, "tried": tried, "paid": paid}

@recipe
def leave(user: str):
    """Close an account."""
    return step(close, user)

@recipe
def fail(user: str):
    """Fail."""
    return step(broken, user)
'''
OUTPUT = {"said": "one was late", "done": ["refunded A1", "fine"], "tried": None, "paid": "A9 is refunded"}


@pytest.fixture
def flowkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs of recipes in a journal; from then on a tool of the app that runs ends the process."""
    (tmp_path / "app.py").write_text(APP)
    app = load_app(str(tmp_path / "app.py"))

    async def run(journal: Journal) -> None:
        for name in ("night", "fail", "leave"):
            await app.recipes[name].start({"user": "u7"}, journal=journal, run_id=name).wait()
        [waiting] = (await app.recipes["leave"].start({"user": "u7"}, journal=journal, run_id="leave").wait()).pending
        denied: Any = {waiting.id: Deny("not today")}
        ended = (
            await app.recipes["leave"].start({"user": "u7"}, journal=journal, run_id="leave", decisions=denied).wait()
        )
        assert ended.status == "failed"

    with closing(Journal(tmp_path / "journal.sqlite3")) as journal:
        asyncio.run(run(journal))
    (tmp_path / "app.py").write_text(re.sub(r"(@tool.*\ndef .*:\n)", r"\1    raise SystemExit\n", APP))
    return make_command(tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_recipe_s_run_becomes_a_test_that_passes_in_real_pytest(flowkit: Command, tmp_path: Path) -> None:
    for run_id in ("night", "fail", "leave"):
        ended = flowkit("runs", "export", run_id, "--test", "--app", "app.py", "--out", f"test_{run_id}.py")
        assert ended.code == 0, ended.err
    passed = run_pytest(tmp_path)
    assert passed.returncode == 0, passed.stdout
    assert "3 passed" in passed.stdout

    # another condition: the same results lead to other calls
    (tmp_path / "app.py").write_text(APP.replace('== "late", lambda', '== "sent", lambda'))
    failed = run_pytest(tmp_path)
    assert failed.returncode == 1
    assert "2 passed" in failed.stdout


def test_calls_and_output_are_those_that_were_recorded(flowkit: Command, tmp_path: Path) -> None:
    flowkit("runs", "export", "night", "--test", "--app", "app.py")
    replay = replay_run(tmp_path / "test_night_u7.jsonl", tmp_path / "app.py")
    assert (replay.status, replay.output) == ("done", OUTPUT)
    assert replay.calls == [
        ("orders", {"user": "u7"}),
        ("state", {"order": "A1"}),
        ("refund", {"order": "A1"}),
        ("state", {"order": "A2"}),
        ("broken", {"order": "u7"}),
        ("judge", {"done": ["refunded A1", "fine"]}),
        ("clerk", {}),
    ]


def test_a_denied_step_stays_denied(flowkit: Command, tmp_path: Path) -> None:
    flowkit("runs", "export", "leave", "--test", "--app", "app.py")
    replay = replay_run(tmp_path / "test_leave_u7.jsonl", tmp_path / "app.py")
    assert (replay.status, replay.calls) == ("failed", [("close", {"user": "u7"})])
    assert "not today" in str(replay.result.error)


def test_what_is_hidden_is_in_neither_file(flowkit: Command, tmp_path: Path) -> None:
    ended = flowkit(
        *("runs", "export", "night", "--test", "--app", "app.py", "--out", "test_x.py"),
        *("--hide", "Kim Minsu", "--hide", "u7"),
    )
    assert ended.code == 0, ended.err
    texts = [(tmp_path / name).read_text(encoding="utf-8") for name in ("test_x.py", "test_x.jsonl")]
    assert not [text for text in texts if "kim" in text.casefold() or "u7" in text]
    assert "('orders', {'user': '[hidden]'})" in texts[0]
    assert replay_run(tmp_path / "test_x.jsonl", tmp_path / "app.py").output == OUTPUT


def test_a_step_that_was_not_recorded_fails_with_its_name(flowkit: Command, tmp_path: Path) -> None:
    flowkit("runs", "export", "night", "--test", "--app", "app.py")
    (tmp_path / "changed.py").write_text(APP.replace("step(orders, user)", "step.options(id='all')(orders, user)"))
    with pytest.raises(ToolError, match="no result of orders at step 'all'"):
        replay_run(tmp_path / "test_night_u7.jsonl", tmp_path / "changed.py")


def test_an_agent_in_the_recipe_s_place_is_refused(flowkit: Command, tmp_path: Path) -> None:
    flowkit("runs", "export", "fail", "--test", "--app", "app.py")
    with pytest.raises(ConfigurationError, match="is the recording of recipe 'fail', not of an agent"):
        replay_run(tmp_path / "test_fail_u7.jsonl", Agent(ScriptedModel([])))


def test_a_run_that_waits_is_refused(flowkit: Command, tmp_path: Path) -> None:
    with closing(Journal(tmp_path / "journal.sqlite3")) as journal:
        recipe = load_app(str(tmp_path / "app.py")).recipes["leave"]

        async def wait() -> None:
            await recipe.start({"user": "u8"}, journal=journal, run_id="waits").wait()

        asyncio.run(wait())
    ended = flowkit("runs", "export", "waits", "--test", "--app", "app.py")
    assert ended.code == 2
    assert "is waiting; a recipe's run is exported when it is done or has failed" in ended.err


def test_a_recipe_in_yaml_names_its_tools_file(flowkit: Command, tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text(
        "recipe: listing\ninputs:\n  user:\n    type: string\nsteps:\n  all:\n    tool: orders\n    with:\n"
        "      user: ${{ inputs.user }}\noutput: ${{ steps.all }}\n"
    )
    ending = (tmp_path / "app.py").read_text()
    (tmp_path / "app.py").write_text(APP)
    ran = flowkit("run", "list.yaml", "user=u7", "--tools", "app.py")
    assert ran.code == 0, ran.err
    (tmp_path / "app.py").write_text(ending)
    ended = flowkit("runs", "export", "last", "--test", "--app", "list.yaml", "--tools", "app.py")
    assert ended.code == 0, ended.err
    assert "HERE / 'list.yaml', tools=HERE / 'app.py')" in (tmp_path / "test_listing_u7.py").read_text()
    replay = replay_run(tmp_path / "test_listing_u7.jsonl", tmp_path / "list.yaml", tools=tmp_path / "app.py")
    assert (replay.calls, replay.output) == ([("orders", {"user": "u7"})], ["A1", "A2"])
