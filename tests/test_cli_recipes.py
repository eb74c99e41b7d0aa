"""Recipes on the command line: run, look, stop, go on."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flowkit.cache import DiskCache
from flowkit.journal import Journal
from tests.command import ROOT, SHOP, Command
from tests.server import ScriptedServer, chat

NIGHTLY = str(ROOT / "recipes" / "nightly.py")
CHECK = str(ROOT / "recipes" / "order_check.yaml")


@pytest.fixture
def shop_data(tmp_path: Path) -> tuple[str, ...]:
    return ("--data", f"database={tmp_path / 'shop.sqlite3'}", "--data", "latency=0")


def test_recipe_gives_its_output_as_json(flowkit: Command, shop_data: tuple[str, ...]) -> None:
    ended = flowkit("run", SHOP, "order_id=ORD-1002", *shop_data)
    output = json.loads(ended.out)

    assert ended.code == 0
    assert (output["order"]["status"], output["shipping"]["fee_won"], output["refund"]) == ("shipped", 4000, None)
    assert [len(offers) for offers in output["offers"]] == [5, 5]


def test_inputs_come_from_a_file_and_from_the_line(
    flowkit: Command, shop_data: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "inputs.json").write_text('{"order_id": "ORD-1010", "express": false}')
    ended = flowkit("run", SHOP, "express=true", "--input", "inputs.json", *shop_data)

    assert json.loads(ended.out)["shipping"]["express"] is True


def test_large_refund_waits_and_goes_on_once_it_is_approved(flowkit: Command, shop_data: tuple[str, ...]) -> None:
    order = ("order_id=ORD-1043", "--user", "c-2", "--run-id", "refund", *shop_data)
    waiting = flowkit("run", SHOP, *order)
    shown = json.loads(flowkit("runs", "show", "refund", "--json").out)
    approved = flowkit("runs", "approve", "refund", shown["waiting"][0]["call"], "--by", "kim")
    done = flowkit("runs", "resume", "refund", SHOP, *shop_data)

    assert waiting.code == 1
    assert 'refund_order(order_id="ORD-1043", amount_won=259000' in waiting.err
    assert approved.out == "refund/then/refund_order approved by kim\n"
    assert json.loads(done.out)["refund"] == {"order_id": "ORD-1043", "amount_won": 259000, "state": "refunded"}


def test_denied_refund_fails_the_run(flowkit: Command, shop_data: tuple[str, ...]) -> None:
    flowkit("run", SHOP, "order_id=ORD-1043", "--user", "c-2", "--run-id", "refund", *shop_data)
    flowkit("runs", "approve", "refund", "refund/then/refund_order", "--deny", "--reason", "ask her first")
    ended = flowkit("run", SHOP, "--resume", "refund", *shop_data)

    assert ended.code == 1
    assert "ask her first" in ended.err


ALERT = """
from flowkit import recipe, step, tool

@tool(effect="read")
def write(word: str) -> str:
    "Write it as a warning."
    return f"[red]{word}[/red]"

@recipe
def alert(word: str) -> str:
    "Write it twice."
    return step.options(id="again")(write, step.options(id="once")(write, word))
"""


def test_show_tells_the_calls_in_the_order_they_ended_and_results_as_they_are(flowkit: Command, tmp_path: Path) -> None:
    (tmp_path / "alert.py").write_text(ALERT)
    flowkit("run", "alert.py", "word=fire", "--run-id", "one")
    rows = [line.split() for line in flowkit("runs", "show", "one").out.splitlines()[2:]]

    assert [(row[0], row[-1]) for row in rows] == [
        ("once", "[red]fire[/red]"),
        ("again", "[red][red]fire[/red][/red]"),
    ]


def test_show_has_the_arguments_of_reads_with_the_values_that_they_referred_to(
    flowkit: Command, shop_data: tuple[str, ...]
) -> None:
    flowkit("run", CHECK, "--tools", SHOP, "order_id=ORD-1002", "--run-id", "one", *shop_data)
    calls = json.loads(flowkit("runs", "show", "one", "--json").out)["calls"]
    arguments = {call["call"]: call["arguments"] for call in calls}

    assert arguments["order"] == {"order_id": "ORD-1002"}
    assert arguments["by_post"]["destination"] == "서울"
    assert arguments["parcel"] == {"order": {"from_call": "order", "path": ""}}
    assert 'order_id="ORD-1002"' in flowkit("runs", "show", "one").out


def test_dry_run_runs_nothing_and_knows_what_is_in_the_cache(flowkit: Command, shop_data: tuple[str, ...]) -> None:
    before = flowkit("run", SHOP, "order_id=ORD-1002", "--dry-run").out.splitlines()
    flowkit("run", SHOP, "order_id=ORD-1002", *shop_data)
    after = flowkit("run", SHOP, "order_id=ORD-1002", "--dry-run").out.splitlines()

    assert before[0] == 'get_order_status(order_id="ORD-1002"): would run (read)'
    assert after[0].startswith('get_order_status(order_id="ORD-1002"): in the cache, ')
    assert "with what get_order_status gives" in before[2]
    assert 'calculate_shipping(destination="서울"' in after[2]
    assert "in the cache" in after[2]


NEEDING = """
from flowkit import Needs, recipe, step, tool

@tool(ttl=60)
def get_weight(order_id: str) -> int:
    return len(order_id)

@tool(ttl=60)
def quote(express: bool = False, weight: int = Needs(get_weight)) -> int:
    return weight + express

@recipe
def price(order_id: str) -> int:
    return step(quote, order_id=order_id)
"""


def test_dry_run_finds_a_call_in_the_cache_by_what_it_needs(flowkit: Command, tmp_path: Path) -> None:
    (tmp_path / "needing.py").write_text(NEEDING)
    before = flowkit("run", "needing.py", "order_id=ORD-1", "--dry-run").out
    flowkit("run", "needing.py", "order_id=ORD-1")
    after = flowkit("run", "needing.py", "order_id=ORD-1", "--dry-run").out

    assert before == 'quote(order_id="ORD-1"): would run (read)\n'
    assert after.startswith('quote(order_id="ORD-1"): in the cache, ')


@pytest.mark.parametrize(
    ("format", "begins"), [("mermaid", "flowchart TD"), ("dot", "digraph"), ("svg", "<svg xmlns=")]
)
def test_graph_is_drawn(flowkit: Command, format: str, begins: str) -> None:
    assert flowkit("graph", SHOP, "--format", format).out.startswith(begins)


def test_graph_of_a_run_shows_how_each_step_ended(flowkit: Command, shop_data: tuple[str, ...]) -> None:
    flowkit("run", SHOP, "order_id=ORD-1002", "--trace", "run.jsonl", *shop_data)
    drawn = flowkit("graph", SHOP, "--trace", "run.jsonl").out
    assert re.search(r"track_parcel<br/>✓ \d+ ms", drawn)
    assert "refund_order<br/>– skipped" in drawn
    assert re.search(
        r"track_parcel waits for get_order_status: ✓ \d+ ms", flowkit("explain", SHOP, "--trace", "run.jsonl").out
    )


def test_graph_is_explained(flowkit: Command) -> None:
    assert "critical path: get_order_status -> track_parcel" in flowkit("explain", f"{SHOP}:order_support").out


def test_yaml_recipe_runs_with_the_tools_of_an_app(flowkit: Command, shop_data: tuple[str, ...]) -> None:
    ended = flowkit("run", CHECK, "--tools", SHOP, "order_id=ORD-1002", *shop_data)
    output = json.loads(ended.out)

    assert (ended.code, output["status"]) == (0, "shipped")
    assert output["by_express"]["fee_won"] - output["by_post"]["fee_won"] == 5_000


WRITER = """
from flowkit import OpenAIModel, ask, recipe, step, tool
from flowkit.models.default import DefaultModel

default, fixed = DefaultModel(), OpenAIModel("fixed", base_url="http://127.0.0.1:9/v1", api_key="any")

@recipe
def greet(name: str) -> str:
    return ask(default, "Greet {name}.", name=name)

@recipe
def greet_twice(name: str) -> list[str]:
    return [ask(fixed, "Greet {name}.", name=name), ask(default, "Greet {name}.", name=name)]

@recipe
def repeat(name: str) -> str:
    return name

@tool(effect="write", approval=True)
def invite(name: str) -> str:
    return name

@recipe
def invite_and_greet(name: str) -> str:
    return ask(default, "Greet {name}.", name=step(invite, name))
"""


@pytest.fixture
def writer(tmp_path: Path) -> str:
    (tmp_path / "writer.py").write_text(WRITER)
    return "writer.py"


def test_steps_that_ask_are_answered_by_the_model_that_is_named(flowkit: Command, writer: str) -> None:
    with ScriptedServer([chat("Hello, Kim."), chat("Good day.")]) as server:
        chosen = ("--model", "m", "--base-url", server.base_url)
        ended = flowkit("run", f"{writer}:greet_twice", "name=Kim", *chosen)
        models = [request.body["model"] for request in server.requests]

    assert sorted(json.loads(ended.out)) == ["Good day.", "Hello, Kim."]
    assert models == ["m", "m"]


def test_run_that_is_resumed_asks_the_model_that_is_named(flowkit: Command, writer: str) -> None:
    with ScriptedServer([chat("Hello, Kim.")]) as server:
        flowkit("run", f"{writer}:invite_and_greet", "name=Kim", "--run-id", "one")
        flowkit("runs", "approve", "one", "invite")
        chosen = ("--model", "m", "--base-url", server.base_url)
        ended = flowkit("runs", "resume", "one", writer, *chosen)

    assert ended.code == 0
    assert json.loads(ended.out) == "Hello, Kim."


def test_model_that_cannot_be_reached_is_one_line(
    flowkit: Command, writer: str, caplog: pytest.LogCaptureFixture
) -> None:
    ended = flowkit("run", f"{writer}:greet", "name=김민지", "--base-url", "http://127.0.0.1:9/v1")

    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("flowkit: recipe 'greet': step 'ask' failed: ")
    assert "can't reach 127.0.0.1" in ended.err
    assert all("is retried" in record.getMessage() for record in caplog.records)  # and nothing that is raised, too


@pytest.mark.parametrize("words", [(), ("--model", "local")], ids=["no key", "local"])
def test_offline_model_is_not_asked_to_write(
    flowkit: Command, writer: str, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    ended = flowkit("run", f"{writer}:greet", "name=Kim", *words)

    assert ended.code == 2
    assert "the offline demo model only calls tools: set OPENAI_API_KEY" in ended.err


def test_commands_that_are_suggested_can_be_pasted(flowkit: Command, tmp_path: Path) -> None:
    made = flowkit("new", "my shop").out
    data = ("--data", f"database={tmp_path / 'shop.sqlite3'}", "--data", "latency=0", "--user", "c-2")
    waiting = flowkit("run", "my shop/shop.py", "order_id=ORD-1043", "--run-id", "refund", *data).err

    assert "flowkit run 'my shop/shop.py' order_id=ORD-1002" in made
    assert "resume with: flowkit run 'my shop/shop.py' --resume refund" in waiting
    assert "waiting for approval: refund/then/refund_order" in waiting


def test_model_for_a_recipe_that_asks_none_is_refused(flowkit: Command, writer: str) -> None:
    ended = flowkit("run", f"{writer}:repeat", "name=Kim", "--model", "m")

    assert (ended.code, ended.err) == (2, "flowkit: recipe 'repeat' has no step that asks a model\n")


def test_validate_names_every_file_and_what_is_wrong_with_it(flowkit: Command, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("recipe: wrong\nsteps:\n  a:\n    tol: get\n")
    ended = flowkit("validate", SHOP, CHECK, "wrong.yaml", "--tools", SHOP)

    assert ended.code == 2
    assert ended.out.splitlines() == [f"{SHOP}: agent, order_support", f"{CHECK}: order_check"]
    assert "wrong.yaml:4:5" in ended.err


def test_yaml_recipe_without_its_tools_says_how_to_give_them(flowkit: Command) -> None:
    ended = flowkit("run", CHECK, "order_id=ORD-1002")

    assert ended.code == 2
    assert "there is no tool 'get_order_status'; give some: tools=, or --tools FILE\n" in ended.err
    assert ended.err.count("give some") == 1  # of five such lines


def test_trace_that_is_none_is_named(flowkit: Command, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("# Notes\n")
    ended = flowkit("trace", "notes.txt")

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("flowkit: 'notes.txt': line 1 of the trace isn't JSON: ")


def test_trace_is_drawn(flowkit: Command, shop_data: tuple[str, ...]) -> None:
    flowkit("run", SHOP, "order_id=ORD-1002", "--trace", "run.jsonl", *shop_data)
    drawn = flowkit("trace", "run.jsonl").out

    assert "order_support  done" in drawn
    assert "one after another" in drawn


def test_nightly_report_has_more_than_two_hundred_steps(flowkit: Command, shop_data: tuple[str, ...]) -> None:
    ended = flowkit("run", NIGHTLY, "--run-id", "tonight", *shop_data)
    calls = json.loads(flowkit("runs", "show", "tonight", "--json").out)["calls"]

    assert json.loads(ended.out)["orders"] == 72
    assert len(calls) >= 200
    assert {call["state"] for call in calls} == {"finished"}


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT], ids=["killed", "ctrl-c"])
@pytest.mark.slow
def test_stopped_nightly_report_goes_on_and_repeats_nothing(
    flowkit: Command, tmp_path: Path, stop: signal.Signals
) -> None:
    database = f"database={tmp_path / 'shop.sqlite3'}"
    command = [sys.executable, "-c", "from flowkit.cli import main; main()"]
    command += ["run", NIGHTLY, "--run-id", "tonight", "--data", database, "--data", "latency=0.2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stderr is not None
        judged = 0
        while judged < 20:
            line = process.stderr.readline()
            assert line, "it ended too soon"
            judged += "judge_order" in line
        process.send_signal(stop)
        began = time.monotonic()
        _, said = process.communicate(timeout=60)
        took_s = time.monotonic() - began
    assert not (tmp_path / "nightly-2026-11-11.md").exists()

    ended = flowkit("run", NIGHTLY, "--resume", "tonight", "--data", database, "--data", "latency=0")

    assert ended.code == 0
    assert took_s < 30  # the report takes minutes; a loaded machine may take seconds to end
    assert json.loads(ended.out)["orders"] == 72
    assert (tmp_path / "nightly-2026-11-11.md").read_text().startswith("# 2026-11-11: 72 orders")
    assert ended.err.count("recorded before") >= 40
    if stop is signal.SIGINT:
        assert process.returncode == 130
        assert "--resume tonight" in said
        assert "Traceback" not in said


DOUBTFUL = """
import os, signal
from pathlib import Path
from flowkit import recipe, step, tool

@tool(effect="write")
def pay(amount_won: int) -> str:
    with Path("paid").open("a") as file:
        file.write("paid\\n")
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"

@tool(effect="read")
def say(receipt: str) -> str:
    return f"receipt {receipt}"

@recipe
def settle(amount_won: int) -> str:
    return step(say, step(pay, amount_won))
"""


def test_settling_a_write_ends_the_cached_reads_on_what_it_touches(
    flowkit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The effect may have come after the kill, and a read in between."""
    monkeypatch.setenv("FLOWKIT_CACHE_DIR", str(tmp_path / "cache"))

    async def claim() -> int:
        journal = Journal(tmp_path / "journal.sqlite3")
        run = await journal.open_run("pay", name="settle")
        await run.claim("pay", tool="pay", code="", effect="write", arguments={}, resources=["account:7"])
        await run.close()
        journal.close()
        return await read_generation()

    async def read_generation() -> int:
        cache = DiskCache(tmp_path / "cache")
        try:
            return cache.generation("account:7")
        finally:
            await cache.close()

    before = asyncio.run(claim())
    assert flowkit("runs", "resolve", "pay", "pay", "--done", "null").code == 0
    assert asyncio.run(read_generation()) > before


@pytest.mark.parametrize(
    ("settled", "code", "said"),
    [
        (("--done", '"R-1"'), 0, '"receipt R-1"'),
        (("--fail", "the bank says no"), 1, "the bank says no"),
    ],
    ids=["done", "failed"],
)
def test_write_in_doubt_waits_for_a_person_and_never_runs_again(
    flowkit: Command, tmp_path: Path, settled: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "doubtful.py").write_text(DOUBTFUL)
    command = [sys.executable, "-c", "from flowkit.cli import main; main()"]
    command += ["run", "doubtful.py", "amount_won=5", "--run-id", "pay"]
    killed = subprocess.run(command, capture_output=True, cwd=tmp_path, env=dict(os.environ))
    stopped = flowkit("run", "doubtful.py", "--resume", "pay")
    resolved = flowkit("runs", "resolve", "pay", "pay", *settled, "--by", "kim")
    ended = flowkit("runs", "resume", "pay", "doubtful.py")

    assert killed.returncode == -signal.SIGKILL
    assert stopped.code == 1
    assert "flowkit runs resolve pay pay --done JSON" in stopped.err
    assert resolved.code == 0
    assert ended.code == code
    assert said in ended.out + ended.err
    assert (tmp_path / "paid").read_text() == "paid\n"


@pytest.mark.parametrize("words", [(), ("--retry", "--done", "1"), ("--done", "not json")])
def test_resolving_needs_one_clear_word(flowkit: Command, words: tuple[str, ...]) -> None:
    ended = flowkit("runs", "resolve", "pay", "pay", *words)

    assert ended.code == 2
    assert "--done" in ended.err
