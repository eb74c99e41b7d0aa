"""What flowkit logs: levels, what each record carries, no secret, nothing twice; and what the command shows of it."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import AfterValidator, SecretStr
from typer.testing import CliRunner

from flowkit import Agent, Executor, FallbackModel, OpenAIModel, ScriptedModel, ToolCall, recipe, step, tool
from flowkit.cli.commands import app, read_levels
from flowkit.errors import ConfigurationError, ModelError
from flowkit.models.scripted import call
from tests.server import ScriptedServer, chat
from tests.traced_shop import run_shop


@tool(effect="read")
async def get_user(uid: str) -> str:
    """Get a user."""
    return uid


@recipe
def look(uid: str) -> str:
    """Look."""
    return step(get_user, uid)


def refuse(value: SecretStr) -> SecretStr:
    raise RuntimeError(f"no card {value.get_secret_value()}")


@tool(effect="write")
async def pay(card: Annotated[SecretStr, AfterValidator(refuse)]) -> str:
    """Pay."""
    return "paid"


@pytest.fixture(autouse=True)
def whole_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.DEBUG, "flowkit"):
        yield


def said(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


def test_the_library_sets_a_null_handler_and_nothing_else() -> None:
    code = """
import logging, flowkit
from flowkit import Agent, ScriptedModel, tool
from flowkit.models.scripted import call

@tool
async def fail() -> str:
    "Fail."
    raise RuntimeError("no")

Agent(ScriptedModel([[call("fail")], "done"]), tools=[fail], cache=False).run_sync("go")
parts = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("flowkit")]
assert all(type(handler) is logging.NullHandler for part in parts for handler in part.handlers), parts
assert [part.name for part in parts if part.handlers] == ["flowkit"]
assert all(part.level == logging.NOTSET and part.propagate for part in parts)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_run_has_a_line_for_its_start_and_one_for_its_end(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent(ScriptedModel(["hi"]), name="shop", cache=False).run_sync("go")
    found = look.run_sync("7")
    lines = said(caplog, logging.INFO)
    assert [line.rpartition(" after")[0] or line for line in lines] == [
        f"run {agent.run_id} of shop begins",
        f"run {agent.run_id} of shop ends: done",
        f"run {found.run_id} of look begins",
        f"run {found.run_id} of look ends: done",
    ]


def test_every_record_of_a_run_says_which_and_every_one_of_a_call_says_whose(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run_shop(tmp_path)
    records = [record.__dict__ for record in caplog.records if record.name.startswith("flowkit")]
    assert all(str(record["run_id"]).startswith(result.run_id) for record in records)
    of_calls = [record for record in records if record["name"] == "flowkit.executor"]
    assert {"pay", "get_user", "get_stock", "helper", "each"} <= {str(record["tool"]) for record in of_calls}
    assert all(record["call_id"] for record in of_calls)


def test_states_are_told_at_debug_and_never_arguments_or_results(caplog: pytest.LogCaptureFixture) -> None:
    model = ScriptedModel([[call("get_user", uid="who-7")], ["the answer"]])
    Agent(model, tools=[get_user], name="a", cache=False).run_sync("the question")
    lines = said(caplog, logging.DEBUG)
    assert "call turn/1/call/0 of get_user starts, attempt 1" in lines
    assert "call turn/1/call/0 of get_user finished, from run" in lines
    assert any(line.startswith("turn 1 of run ") and line.endswith(" asks scripted, attempt 1") for line in lines)
    assert not any(word in caplog.text for word in ("who-7", "the answer", "the question"))


def test_a_fault_of_a_tool_is_one_error_with_its_traceback_and_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_shop(tmp_path)
    (line,) = said(caplog, logging.ERROR)
    assert "in pay" in line
    assert "gateway down **********" in line
    assert "s3cret-card" not in caplog.text


def test_a_fault_of_a_validator_shows_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    model = ScriptedModel([[call("pay", card="s3cret-card")], ["done"]])
    Agent(model, tools=[pay], name="a", cache=False).run_sync("go")
    (line,) = said(caplog, logging.ERROR)
    assert "no card **********" in line
    assert "s3cret-card" not in caplog.text


def test_a_model_that_is_asked_again_or_gives_no_answer_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    busy = ModelError("overloaded", retryable=True, retry_after_s=0)
    Agent(ScriptedModel([[busy], ["hi"]]), name="a", cache=False).run_sync("go")
    assert said(caplog, logging.WARNING) == ["turn 1 is retried in 0.0 s: overloaded"]
    caplog.clear()
    first, second = ScriptedModel([[busy]], name="first"), ScriptedModel(["hi"], name="second")
    Agent(FallbackModel(first, second), name="a", cache=False).run_sync("go")
    assert said(caplog, logging.WARNING) == ["first gave no answer: overloaded"]


def test_what_is_raised_is_not_logged_as_well(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ModelError):
        Agent(ScriptedModel([[ModelError("refused")]]), name="a", cache=False).run_sync("go").output  # noqa: B018
    assert said(caplog, logging.WARNING) + said(caplog, logging.ERROR) == []


def test_a_graph_alone_is_a_run_too(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with Executor([get_user]) as graph:
            graph.add(ToolCall("a", "get_user", {"uid": "7"}))
            await graph.wait("a")

    asyncio.run(main())
    begins, ends = said(caplog, logging.INFO)
    assert begins.endswith("of graph begins")
    assert "of graph ends: done" in ends


def test_levels_are_read_by_part() -> None:
    assert read_levels("") == {}
    assert read_levels("INFO, flowkit.cache=debug") == {"flowkit": logging.INFO, "flowkit.cache": logging.DEBUG}
    with pytest.raises(ConfigurationError, match="'inof' is no level: did you mean 'info'"):
        read_levels("inof")
    with pytest.raises(ConfigurationError, match="'httpx' is none of flowkit's loggers"):
        read_levels("httpx=debug")


APP = """
from flowkit import Agent, ScriptedModel, tool
from flowkit.models.scripted import call

@tool
async def get_order(order_id: str) -> str:
    "Get an order."
    return "shipped"

agent = Agent(ScriptedModel([[call("get_order", order_id="A-77")], "done"]), name="shop", tools=[get_order], cache=False)
"""


@pytest.mark.parametrize(
    ("options", "variable", "shown", "hidden"),
    [
        ([], "", [], ["of shop begins", "get_order starts"]),
        (["-v"], "", ["INFO flowkit.runs: run", "of shop begins", "ends: done"], ["get_order starts"]),
        (["-vv"], "", ["of shop begins", "DEBUG flowkit.executor: call", "get_order starts"], []),
        ([], "info", ["of shop begins"], ["get_order starts"]),
        ([], "flowkit.executor=debug", ["get_order starts"], ["of shop begins", "asks scripted"]),
    ],
)
def test_the_command_logs_as_much_as_it_is_asked_to(
    options: list[str],
    variable: str,
    shown: list[str],
    hidden: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLOWKIT_LOG", variable)
    monkeypatch.setenv("FLOWKIT_JOURNAL", str(tmp_path / "journal.sqlite3"))
    (tmp_path / "shop.py").write_text(APP, encoding="utf-8")
    ended = CliRunner().invoke(app, [*options, "chat", str(tmp_path / "shop.py"), "where is it?"])
    assert ended.exit_code == 0, ended.output
    assert all(word in ended.stderr for word in shown), ended.stderr
    assert not any(word in ended.stderr for word in hidden), ended.stderr


@pytest.mark.slow
def test_a_level_that_is_none_ends_the_command_with_a_sentence() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "flowkit", "tools", "nothing.py"],
        env={"FLOWKIT_LOG": "loud", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "'loud' is no level" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_each_request_to_a_model_is_in_the_log_of_the_http_client_without_its_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    with ScriptedServer([chat("Hi")]) as server:
        model = OpenAIModel("any", base_url=server.base_url, api_key="sk-very-secret")
        assert asyncio.run(Agent(model).run("Hi")).output == "Hi"
        headers = server.requests[0].headers
    lines = [record.getMessage() for record in caplog.records if record.name == "httpx2"]
    assert lines == [f'HTTP Request: POST {server.base_url}/chat/completions "HTTP/1.1 200 Scripted"']
    assert "sk-very-secret" not in caplog.text
    assert headers["x-stainless-lang"] == "python"
    assert "x-stainless-retry-count" not in headers
