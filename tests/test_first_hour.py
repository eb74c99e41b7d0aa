"""What somebody meets in the first hour at the command line."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from flowkit import Agent, OpenAIModel, ScriptedModel, tool
from flowkit.cache import DiskCache
from flowkit.display.summary import summarise
from flowkit.errors import ConfigurationError, ModelError, StoreError
from flowkit.journal import Journal
from flowkit.models.offline.weights import SMOLLM2
from flowkit.testing import call
from tests.command import SHOP, Command, make_command
from tests.server import ScriptedServer, chat
from tests.server import call as ask


@pytest.fixture
def flowkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    return make_command(tmp_path, monkeypatch)


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A folder that nobody can make, root included: a file stands in its way."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "folder"


def test_module_is_the_command() -> None:
    ended = subprocess.run([sys.executable, "-m", "flowkit", "--version"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout[:15]) == (0, "flowkit-agents ")


def test_no_runs_yet_is_no_error(flowkit: Command) -> None:
    ended = flowkit("runs", "list")
    assert (ended.code, ended.out) == (0, "no runs yet\n")
    assert flowkit("runs", "list", "--json").out == "[]\n"
    assert flowkit("runs", "list", "--journal", "mistyped.sqlite3").code == 2


def test_schema_is_printed_as_editors_take_it(flowkit: Command) -> None:
    schema = json.loads(flowkit("schema").out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "steps" in schema["properties"]


def test_call_that_waits_says_so_and_is_not_said_to_be_cancelled(flowkit: Command, tmp_path: Path) -> None:
    refund = chat(ask("refund_order", order_id="ORD-1034", amount_won=60_000, reason="cancelled"))
    data = ("--data", f"database={tmp_path / 'shop.sqlite3'}", "--data", "latency=0", "--user", "c-2")
    with ScriptedServer([refund]) as server:
        ended = flowkit("chat", SHOP, "Refund it.", "--model", "m", "--base-url", server.base_url, *data)

    line = next(line for line in ended.err.splitlines() if "refund_order(" in line)
    assert line.startswith("◌ ")
    assert line.endswith("waits for approval")
    assert not any(
        "refund_order(" in line and "cancelled" in line.rpartition(")")[2] for line in ended.err.splitlines()
    )


def test_output_of_a_recipe_comes_before_its_summary(tmp_path: Path, flowkit: Command) -> None:
    data = ("--data", f"database={tmp_path / 'shop.sqlite3'}", "--data", "latency=0", "--user", "c-1")
    ended = flowkit("run", SHOP, "order_id=ORD-1002", *data)

    assert ended.code == 0
    json.loads(ended.out)
    assert ended.err.splitlines()[-2].startswith("wall ")


@tool(effect="read")
async def get_order(order_id: str) -> str:
    """Get the state of an order."""
    return "shipped"


@pytest.mark.parametrize(("asked", "unused"), [("2", ('get_order(order_id="1")',)), ("1", ())])
def test_summary_names_prefetched_reads_that_nobody_used(asked: str, unused: tuple[str, ...]) -> None:
    model = ScriptedModel([[call("get_order", order_id=asked)], "Shipped."])
    agent = Agent(model, tools=[get_order], prefetch=[get_order.call(order_id="1")])

    async def run() -> None:
        going = agent.start("Where is it?")
        await going.wait()
        assert summarise(going.log.events).unused == unused

    asyncio.run(run())


def test_journal_that_cannot_be_made_says_what_to_set(blocked: Path) -> None:
    with pytest.raises(StoreError, match="FLOWKIT_JOURNAL"):
        Journal(blocked / "journal.sqlite3")


async def _get_from(folder: Path) -> None:
    agent = Agent(
        ScriptedModel([[call("get_order", order_id="1")], "Shipped."]), tools=[get_order], cache=DiskCache(folder)
    )
    assert (await agent.run("Where is it?")).output == "Shipped."


def test_cache_that_cannot_be_made_says_what_to_set(blocked: Path, caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(_get_from(blocked))
    assert "FLOWKIT_CACHE_DIR names another folder" in caplog.text


def test_weights_that_cannot_be_kept_say_what_to_set(blocked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_WEIGHTS_DIR", str(blocked))
    with pytest.raises(ConfigurationError, match="FLOWKIT_WEIGHTS_DIR names another folder"):
        SMOLLM2.fetch()


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "all_proxy"])
def test_proxy_that_was_used_is_named_without_its_password(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "http://kim:hidden@127.0.0.1:9")
    model = OpenAIModel("m", base_url="http://127.0.0.1:9/v1", api_key="any", max_retries=0)

    with pytest.raises(ModelError) as raised:
        Agent(model).run_sync("hi")

    said = str(raised.value)
    assert "through the proxy http://" in said
    assert f"127.0.0.1:9 of {variable} (" in said
    assert "hidden" not in said
    assert "NO_PROXY=127.0.0.1" in said


def test_proxy_that_is_left_out_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    model = OpenAIModel("m", base_url="http://127.0.0.1:9/v1", api_key="any", max_retries=0)

    with pytest.raises(ModelError) as raised:
        Agent(model).run_sync("hi")

    assert "proxy" not in str(raised.value)


def test_system_message_that_is_left_out_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    history = [{"role": "system", "content": "You are a pirate."}, {"role": "user", "content": "Hello?"}]
    agent = Agent(ScriptedModel(["Hello.", "Hello."]))
    agent.run_sync(history=history)
    agent.options(user="kim").run_sync(history=history)
    assert caplog.text.count("is left out") == 1

    caplog.clear()
    Agent(ScriptedModel(["Arr."]), instructions="You are a pirate.").run_sync(history=history)
    assert "is left out" not in caplog.text
