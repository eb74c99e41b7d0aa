"""The command line, run in this process against a real HTTP server, and as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from importlib.abc import MetaPathFinder
from pathlib import Path

import pytest

from flowkit.cli.new import TEMPLATES
from flowkit.models.offline.weights import SMOLLM2
from shop_data import open_database
from tests.command import ROOT, SHOP, Command
from tests.server import Reply, ScriptedServer, Thinking, call, chat, error, page


@pytest.fixture
def shop_data(tmp_path: Path) -> tuple[str, ...]:
    return ("--data", f"database={tmp_path / 'shop.sqlite3'}", "--data", "latency=0.05")


def ask_shop(*extra: str, message: str = "Where is my order?") -> tuple[str, ...]:
    return ("chat", SHOP, message, "--model", "m", *extra)


def test_help_says_what_each_command_does_in_a_whole_sentence(
    flowkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = flowkit("--help")

    _, _, commands = ended.out.partition("Commands:\n")
    assert commands.count("\n") >= 16
    assert all(line.endswith(".") and not line.endswith("...") for line in commands.split("\n") if line)


ORDER_AND_SHIPPING = chat(
    Thinking("Two things."),
    "Let me look.",
    call("get_order_status", order_id="ORD-1002"),
    call("calculate_shipping", destination="Busan", weight_kg=2),
)


def test_chat_answers_from_the_database(flowkit: Command, shop_data: tuple[str, ...]) -> None:
    with ScriptedServer([ORDER_AND_SHIPPING, chat("It has shipped.")]) as server:
        ended = flowkit(*ask_shop(*shop_data, "--base-url", server.base_url))
        results = [message["content"] for message in server.requests[1].body["messages"] if message["role"] == "tool"]

    assert (ended.code, ended.out) == (0, "Let me look.\nIt has shipped.\n")
    assert json.loads(results[0])["status"] == "shipped"
    assert json.loads(results[1])["fee_won"] == 4000
    assert '✓ calculate_shipping(destination="Busan", weight_kg=2)' in ended.err
    assert "first token" in ended.err
    assert "2 turns · 3 calls" in ended.err  # the prefetched latest order is the third


def test_each_customer_gets_their_own_order_and_the_second_time_from_the_cache(
    flowkit: Command, shop_data: tuple[str, ...]
) -> None:
    replies = [chat(call("get_order_status")), chat("There it is.")]
    with ScriptedServer(replies, cycle=True) as server:
        said = [
            flowkit(*ask_shop(*shop_data, "--base-url", server.base_url, "--user", user)).err
            for user in ("c-1", "c-2", "c-2")
        ]

    assert "ORD-1066" in said[0]
    assert "ORD-1067" in said[1]
    assert "ORD-1067" in said[2]
    # The prefetched call and the model's own.
    assert said[2].count("⚡ from the cache") == 2


def test_trace_holds_every_event_as_a_line(flowkit: Command, shop_data: tuple[str, ...], tmp_path: Path) -> None:
    with ScriptedServer([ORDER_AND_SHIPPING, chat("It has shipped.")]) as server:
        flowkit(*ask_shop(*shop_data, "--base-url", server.base_url, "--trace", "run.jsonl"))
    events = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]

    assert events[0]["type"] == "run.started"
    assert events[-1]["type"] == "run.finished"
    assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})


def test_message_may_come_from_a_pipe(flowkit: Command, shop_data: tuple[str, ...]) -> None:
    with ScriptedServer([chat("Hello.")]) as server:
        ended = flowkit("chat", SHOP, "--base-url", server.base_url, *shop_data, stdin="Hello?\n")
        asked = server.requests[0].body["messages"][-1]["content"]

    assert (ended.out, asked) == ("Hello.\n", "Hello?")


def test_write_that_needs_a_person_waits_where_nobody_can_be_asked(
    flowkit: Command, shop_data: tuple[str, ...]
) -> None:
    refund = call("refund_order", order_id="ORD-1034", amount_won=60_000, reason="cancelled")
    with ScriptedServer([chat(refund)]) as server:
        ended = flowkit(*ask_shop(*shop_data, "--base-url", server.base_url, message="Refund it."))

    assert ended.code == 1
    assert "waits for approval of refund_order" in ended.err


def test_session_goes_on_where_it_was(flowkit: Command, shop_data: tuple[str, ...]) -> None:
    with ScriptedServer([chat("Hello, Minji."), chat("You are Minji.")]) as server:
        flowkit(*ask_shop(*shop_data, "--base-url", server.base_url, "-s", "monday", message="I am Minji."))
        flowkit(*ask_shop(*shop_data, "--base-url", server.base_url, "-s", "monday", message="Who am I?"))
        asked = [message["content"] for message in server.requests[1].body["messages"] if message["role"] != "system"]

    assert asked == ["I am Minji.", "Hello, Minji.", "Who am I?"]


def test_refund_that_a_person_approved_elsewhere_is_paid_once(
    flowkit: Command, shop_data: tuple[str, ...], tmp_path: Path
) -> None:
    refund = call("refund_order", order_id="ORD-1043", amount_won=259_000, reason="cancelled")
    with ScriptedServer([chat(refund), chat("It is paid.")]) as server:
        url = ("--base-url", server.base_url)
        waiting = flowkit(*ask_shop(*shop_data, *url, "--user", "c-2", "-s", "monday", message="Refund it."))
        run = json.loads(flowkit("runs", "list", "--json").out)[0]
        asked = json.loads(flowkit("runs", "show", run["run"], "--json").out)["waiting"][0]["call"]
        approved = flowkit("runs", "approve", run["run"], asked, "--by", "kim")
        done = flowkit("runs", "resume", run["run"], SHOP, *shop_data, *url, "--model", "m")
        again = flowkit("runs", "resume", run["run"], SHOP, *shop_data, *url, "--model", "m")

    assert f"flowkit runs approve {run['run']}" in waiting.err
    assert (run["status"], approved.code) == ("waiting", 0)
    assert (done.code, done.out) == (0, "It is paid.\n")
    assert again.code == 0
    with open_database(tmp_path / "shop.sqlite3") as db:
        assert [tuple(row) for row in db.execute("SELECT order_id, amount_won FROM refunds")] == [("ORD-1043", 259_000)]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (error(401, "Incorrect API key provided"), "refused the key (401)"),
        (error(404, "The model 'm' does not exist"), "does not exist"),
        (page(), "answered with a web page instead of a stream"),
    ],
    ids=["wrong key", "no such model", "a page"],
)
def test_trouble_with_the_server_is_one_line(
    flowkit: Command, shop_data: tuple[str, ...], tmp_path: Path, reply: Reply, said: str
) -> None:
    with ScriptedServer([reply] * 9) as server:
        ended = flowkit(*ask_shop(*shop_data, "--base-url", server.base_url))

    assert ended.code == 1
    assert len([line for line in ended.err.splitlines() if line.startswith("flowkit: ")]) == 1
    assert said in ended.err
    assert (tmp_path / "shop.sqlite3").read_bytes()[:15] == b"SQLite format 3"


def test_server_that_is_not_there_is_one_line(flowkit: Command, shop_data: tuple[str, ...]) -> None:
    with ScriptedServer([]) as server:
        gone = server.base_url
    ended = flowkit(*ask_shop(*shop_data, "--base-url", gone))

    assert ended.code == 1
    assert len([line for line in ended.err.splitlines() if line.startswith("flowkit: ")]) == 1


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import nowhere_to_be_found", "line 1: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("x = (", "line 1: '(' was never closed"),
        ("x = 1", "is no app: it has no agent, no recipe and no tool"),
        ("from flowkit import tool\n@tool\ndef f() -> int:\n    return 1", "has no agent"),
        ("raise SystemExit(3)", "doesn't import"),
    ],
    ids=["import", "syntax", "empty", "no agent", "exit"],
)
def test_app_that_cannot_be_used_is_one_line(flowkit: Command, tmp_path: Path, program: str, said: str) -> None:
    (tmp_path / "broken_app.py").write_text(program)
    ended = flowkit("chat", "broken_app.py", "hello")

    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert said in ended.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("chat", "nothing.py", "hello"), "no file 'nothing.py'"),
        (("chat", f"{SHOP}:nobody", "hello"), "has no agent 'nobody'; its agents are agent"),
        (("chat", SHOP, " "), "nothing to say"),
        (("trace", "/dev/null"), "the trace holds no events"),
        (("chat", SHOP, "hello", "--data", "colour=blue"), "takes no data 'colour'; it takes user, database, latency"),
        (("chat", SHOP, "hello", "--data", "latency=soon"), "data 'latency' is 'soon'"),
        (("chat", SHOP, "hello", "--data", "database"), "--data 'database' isn't key=value"),
        (("chat", SHOP, "hello", "--data", "database=/dev/null/x.db"), "can't be opened"),
        (("chat", SHOP, "hello", "--trace", "/nowhere/x"), "can't be written"),
        (("chat", SHOP, "hello", "--user", "nobody"), "no customer 'nobody'"),
        (("run", SHOP, "order=ORD-1"), "has no input 'order'; it has order_id, express"),
        (("run", SHOP), "order_id"),
        (("tools", f"{SHOP}:nothing"), "has no agent and no tool 'nothing'; it has agent, get_order_status"),
        (("runs", "show", "x"), "no journal at"),
        (("cache", "show", "abc"), "no entry"),
    ],
)
def test_wrong_use_is_one_line(flowkit: Command, words: tuple[str, ...], said: str) -> None:
    ended = flowkit(*words)

    assert ended.code == 2
    assert len(ended.err.splitlines()) == 1
    assert said in ended.err


def test_tools_are_listed_with_their_promises(flowkit: Command) -> None:
    text = flowkit("tools", SHOP)
    listed = json.loads(flowkit("tools", SHOP, "--json").out)

    assert "get_order_status read, cached 1 min per user" in text.out
    assert [tool["name"] for tool in listed][:2] == ["get_order_status", "search_products"]
    assert listed[3]["needs"] == ["get_order_status"]
    assert sorted(listed[2]["parameters"]["properties"]) == ["destination", "express", "weight_kg"]


TWO_AGENTS = """
from flowkit import Agent, DefaultModel, Toolset, tool

@tool(effect="read")
def look(word: str) -> str:
    "Look a word up."
    return word

@tool(effect="read")
def count(word: str) -> int:
    "Count its letters."
    return len(word)

@tool(effect="read")
def spell(word: str) -> list[str]:
    "Spell it."
    return [*word]

first = Agent(DefaultModel(), tools=[look, count])
second = Agent(DefaultModel(), tools=[look])
chooses = Agent(DefaultModel(), tools=[Toolset.dynamic(lambda _: [spell])])
"""


@pytest.mark.parametrize(
    ("named", "listed"),
    [
        ("", ["look", "count", "spell"]),
        (":first", ["look", "count"]),
        (":second", ["look"]),
        (":chooses", ["look", "count", "spell"]),
        (":spell", ["spell"]),
    ],
)
def test_tools_are_those_of_what_is_named_or_of_all(
    flowkit: Command, tmp_path: Path, named: str, listed: list[str]
) -> None:
    (tmp_path / "two_agents.py").write_text(TWO_AGENTS)

    assert [tool["name"] for tool in json.loads(flowkit("tools", f"two_agents.py{named}", "--json").out)] == listed


def test_cache_tells_what_it_holds_and_forgets_it(flowkit: Command, shop_data: tuple[str, ...]) -> None:
    with ScriptedServer([ORDER_AND_SHIPPING, chat("It has shipped.")]) as server:
        flowkit(*ask_shop(*shop_data, "--base-url", server.base_url))
    stats = json.loads(flowkit("cache", "stats", "--json").out)
    cleared = flowkit("cache", "clear", "--tool", "calculate_shipping")

    assert stats["tools"]["calculate_shipping"]["entries"] == 1
    assert cleared.out == "1 entry cleared\n"
    left = json.loads(flowkit("cache", "stats", "--json").out)["tools"].get("calculate_shipping", {"entries": 0})
    assert left["entries"] == 0
    assert flowkit("cache", "path").out.strip() == os.environ["FLOWKIT_CACHE_DIR"]


def test_cache_that_is_off_says_so(flowkit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_CACHE", "off")

    assert flowkit("cache", "stats").err == "flowkit: the cache is turned off by FLOWKIT_CACHE\n"


@pytest.mark.parametrize(
    ("words", "app", "count"),
    [
        ((), "shop.py", 4),
        (("--from", "knowledge"), "knowledge.py", 6),
        (("--from", "assistant"), "assistant.py", 3),
        (("--from", "order_check"), "order_check.yaml", 4),
    ],
    ids=["shop", "knowledge", "assistant", "order_check"],
)
def test_new_app_is_a_whole_copy(
    flowkit: Command, tmp_path: Path, words: tuple[str, ...], app: str, count: int
) -> None:
    made = flowkit("new", "mine", *words)
    tools = "mine/shop.py" if app.endswith(".yaml") else f"mine/{app}"
    listed = flowkit("tools", tools)
    again = flowkit("new", "mine", *words)

    assert (made.code, listed.code, again.code) == (0, 0, 2)
    assert f"mine/{app} is a" in made.out
    assert len([*(tmp_path / "mine").glob("*.py")]) == count
    assert (tmp_path / "mine" / "README.md").read_text().startswith("# mine\n")
    assert "*.sqlite3\n" in (tmp_path / "mine" / ".gitignore").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("template", TEMPLATES)
def test_new_apps_own_test_passes(flowkit: Command, tmp_path: Path, template: str) -> None:
    if template == "knowledge":
        pytest.importorskip("numpy", reason="the extra `local` isn't installed")
    flowkit("new", "mine", "--from", template)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "."]
    ended = subprocess.run(command, cwd=tmp_path / "mine", capture_output=True, text=True, check=False)

    assert (ended.returncode, "1 passed" in ended.stdout) == (0, True), ended.stdout


def test_wheel_holds_the_apps_that_new_copies() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    copied = [file for template in TEMPLATES.values() for file in (*template.files, template.test)]

    assert built["force-include"] == {f"recipes/{file}": f"flowkit/templates/{file}" for file in copied}


@pytest.mark.slow
def test_without_a_key_the_offline_model_calls_and_shows_real_data(
    flowkit: Command, shop_data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not SMOLLM2.is_here:
        pytest.skip("the offline model's weights aren't here; `flowkit chat --model local` fetches them")
    monkeypatch.delenv("OPENAI_API_KEY")
    question = "Where is my order ORD-1002, and what does it cost to send 2 kg to Busan?"
    ended = flowkit("chat", SHOP, question, *shop_data)

    assert ended.code == 0
    assert "the offline demo model answers" in ended.err
    assert "ORD-1002" in ended.out
    assert "4,000" in ended.out


@pytest.mark.parametrize("words", [(), ("--model", "local")], ids=["no key", "local"])
def test_offline_model_without_its_packages_says_what_to_install_and_what_else_helps(
    flowkit: Command, shop_data: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    ended = flowkit("chat", SHOP, "Where is my order?", *words, *shop_data)

    assert ended.code == 2
    said = ended.err.splitlines()[-1]
    assert said.startswith("flowkit: ")
    assert "pip install 'flowkit-agents[local]'" in said
    assert "--base-url or OPENAI_API_KEY" in said


def test_ctrl_c_while_the_command_still_imports_is_no_traceback(
    flowkit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(MetaPathFinder):
        def find_spec(self, fullname: str, path: object, target: object = None) -> None:
            if fullname == "flowkit.cli.commands":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "flowkit.cli.commands", raising=False)
    monkeypatch.setattr("sys.meta_path", [Interrupting(), *sys.meta_path])
    assert flowkit("--version").code == 130


def test_a_command_imports_only_what_it_needs() -> None:
    code = """
import contextlib, sys
from flowkit.cli import main
with contextlib.suppress(SystemExit):
    sys.argv = ["flowkit", *{words}]
    main()
print(*(name for name in {names} if name in sys.modules))
"""
    heavy = ["yaml", "mcp", "starlette", "flowkit.agent", "flowkit.measure", "flowkit.exports"]

    def list_imported(*words: str) -> str:
        program = code.format(words=words, names=heavy)
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return ended.stdout.splitlines()[-1]

    assert list_imported("--version") == ""
    assert list_imported("chat", "--help") == "flowkit.agent"


@pytest.mark.slow
def test_ctrl_c_stops_an_answer_that_has_long_to_go(tmp_path: Path) -> None:
    with ScriptedServer([chat("I think", 600.0, "about it.")]) as server:
        command = [sys.executable, "-c", "from flowkit.cli import main; main()"]
        command += ["chat", SHOP, "Hello?", "--model", "m", "--base-url", server.base_url]
        command += ["--data", f"database={tmp_path / 'shop.sqlite3'}"]
        environment = {**os.environ, "OPENAI_API_KEY": "any", "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
        ) as process:
            assert process.stdout is not None
            assert process.stdout.read(7) == "I think"
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        assert server.wait_ended(1)[0].outcome == "left"

    assert process.returncode == 130
    assert "Traceback" not in err
