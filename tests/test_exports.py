"""Runs as tests and as cases: what is written is run by real pytest, without a network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowkit.errors import ModelError
from flowkit.exports import replay_run
from flowkit.measure.cases import load_cases
from tests.command import Command, make_command
from tests.server import ScriptedServer, ToolCall, chat

APP = '''
from typing import Annotated
from pydantic import SecretStr
from flowkit import Agent, DefaultModel, ToolError, tool

ran = []

@tool(effect="read", name="orders.get")
def get_order(order_id: str, express: bool = False) -> dict[str, str]:
    """Look an order up."""
    ran.append(order_id)
    if order_id == "A9":
        raise ToolError("there is no order A9")
    return {"id": order_id, "state": "on its way", "owner": "Kim Minsu"}

@tool
def refund(order_id: str, pin: SecretStr) -> str:
    """Give the money back."""
    ran.append("refund")
    return "refunded"

agent = Agent(DefaultModel(), tools=[get_order, refund], name="orders", instructions="Help.", prefetch=[get_order.call("A1")])
'''
QUESTION = "Where are A1 and A9? Refund A1!"


@pytest.fixture
def flowkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """A run of an app in the journal, asked of a real server; then the server is gone."""
    (tmp_path / "orders.py").write_text(APP)
    command = make_command(tmp_path, monkeypatch)
    replies = [
        chat(
            "One moment. ",
            ToolCall("orders_get", '{"order_id": "A1"}', id="c1"),
            ToolCall("orders_get", '{"order_id": "A9"}', id="c2"),
            ToolCall("refund", '{"order_id": "A1", "pin": "4711-4711"}', id="c3"),
        ),
        chat('A1 is on its way, "A9" is unknown, and A1 is refunded.'),
        chat("Gern."),
    ]
    with ScriptedServer(replies) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert command("chat", "orders.py", QUESTION, "--session", "s", "--user", "u").code == 0
        assert command("chat", "orders.py", "Danke", "--session", "s", "--user", "u").code == 0
    return command


def list_runs(flowkit: Command) -> list[str]:
    """The ids of the two runs, the first one first."""
    return [run["run"] for run in reversed(json.loads(flowkit("runs", "list", "--json").out))]


def run_pytest(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI", "PYTEST"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_exported_test_passes_in_real_pytest_and_fails_when_the_agent_changes(flowkit: Command, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    ended = flowkit(
        *("runs", "export", list_runs(flowkit)[0], "--test", "--app", "orders.py", "--out", "tests/test_orders.py")
    )
    assert ended.code == 0, ended.err
    passed = run_pytest(tmp_path, "tests")
    assert passed.returncode == 0, passed.stdout
    assert "1 passed" in passed.stdout

    # other words for the model, and another tool beside: the conversation is the same
    app = (tmp_path / "orders.py").read_text()
    (tmp_path / "orders.py").write_text(app.replace("Help.", "Help well.").replace("Look an order up.", "Find it."))
    assert run_pytest(tmp_path, "tests").returncode == 0

    # a tool that takes another argument: the recorded call can't be made any more
    (tmp_path / "orders.py").write_text(app.replace("order_id: str, pin", "number: str, pin"))
    failed = run_pytest(tmp_path, "tests")
    assert failed.returncode == 1
    assert "isn't the one that was recorded" in failed.stdout


@pytest.mark.slow
def test_no_tool_runs_in_a_replay(flowkit: Command, tmp_path: Path) -> None:
    flowkit("runs", "export", list_runs(flowkit)[0], "--test", "--app", "orders.py", "--out", "test_x.py")
    (tmp_path / "orders.py").write_text(APP.replace("ran = []", "ran = None"))  # each tool would fail
    passed = run_pytest(tmp_path, "test_x.py")
    assert passed.returncode == 0, passed.stdout


@pytest.mark.slow
def test_secrets_and_hidden_texts_are_in_neither_file(flowkit: Command, tmp_path: Path) -> None:
    run = list_runs(flowkit)[0]
    ended = flowkit(
        *("runs", "export", run, "--test", "--app", "orders.py", "--out", "test_x.py"), "--hide", "Kim Minsu"
    )
    assert ended.code == 0, ended.err
    written = [(tmp_path / name).read_text(encoding="utf-8") for name in ("test_x.py", "test_x.jsonl")]
    for text in written:
        assert "4711" not in text
        assert "Kim" not in text
    assert "('refund', {'order_id': 'A1', 'pin': '**********'})" in written[0]
    assert "[hidden]" in written[1]
    passed = run_pytest(tmp_path, "test_x.py")
    assert passed.returncode == 0, passed.stdout


def test_what_was_said_before_in_the_session_is_part_of_the_test(flowkit: Command, tmp_path: Path) -> None:
    flowkit("runs", "export", list_runs(flowkit)[1], "--test", "--app", "orders.py")
    assert QUESTION in (tmp_path / "test_danke.jsonl").read_text(encoding="utf-8")
    replay = replay_run(tmp_path / "test_danke.jsonl", tmp_path / "orders.py")
    assert (replay.status, replay.output, replay.calls) == ("done", "Gern.", [])


def test_a_recording_that_says_something_else_fails_with_the_difference(flowkit: Command, tmp_path: Path) -> None:
    flowkit("runs", "export", list_runs(flowkit)[1], "--test", "--app", "orders.py")
    path = tmp_path / "test_danke.jsonl"
    header, *exchanges = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([header, *(line.replace("Danke", "Nein") for line in exchanges)]), encoding="utf-8")
    with pytest.raises(ModelError, match="Danke"):
        replay_run(path, tmp_path / "orders.py")


def test_runs_become_cases_that_can_be_measured(flowkit: Command, tmp_path: Path) -> None:
    runs = list_runs(flowkit)
    ended = flowkit("runs", "export", *runs, "--case", "--app", "orders.py", "--out", "cases.yaml")
    assert ended.code == 0, ended.err
    first, second = load_cases(tmp_path / "cases.yaml", ["orders.get", "refund"]).cases
    assert (first.message, first.user) == (QUESTION, "u")
    assert first.calls is not None
    assert [call.tools for call in first.calls] == [("orders.get",), ("orders.get",), ("refund",)]
    assert [call.arguments.get("order_id") for call in first.calls] == ["A1", "A9", "A1"]
    assert first.results == {"refund": "refunded"}
    assert len(second.history) == 6
    assert "4711" not in (tmp_path / "cases.yaml").read_text(encoding="utf-8")
    assert "# it answered: Gern." in flowkit("runs", "export", "last", "--case").out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "give one of --test, --case"),
        (("--test",), "--test needs the app"),
        (("--test", "--app", "orders.py", "--out", "orders.py"), "files named test_"),
        (("--test", "--app", "orders.py", "--out", "gone/test_x.py"), "there is no folder"),
    ],
)
def test_wrong_usage_is_told(flowkit: Command, words: tuple[str, ...], told: str) -> None:
    ended = flowkit("runs", "export", list_runs(flowkit)[0], *words)
    assert ended.code == 2
    assert told in ended.err


def test_nothing_is_overwritten(flowkit: Command, tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text("mine")
    ended = flowkit("runs", "export", list_runs(flowkit)[0], "--test", "--app", "orders.py", "--out", "test_x.py")
    assert ended.code == 2
    assert "is there already" in ended.err
    assert (tmp_path / "test_x.py").read_text() == "mine"
