"""`flowkit measure` as a user runs it, against a real server."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest

from tests.command import ROOT, Command, make_command
from tests.extra_packages import NEEDS_ALL
from tests.server import ScriptedServer, chat
from tests.test_measure import APP, CASES, script
from tests.timed_server import Answer, Said, TimedServer

PRICES = ("--price", "cheap=1/2", "--price", "strong=20/40")


@pytest.fixture
def flowkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    (tmp_path / "orders.py").write_text(APP)
    (tmp_path / "cases.yaml").write_text(CASES)
    return make_command(tmp_path, monkeypatch)


@pytest.fixture
def server() -> Iterator[TimedServer]:
    with TimedServer(script) as running:
        running.clock.wait_read = lambda reads: None  # nobody looks at its clock here
        yield running


def test_table_json_and_page(flowkit: Command, server: TimedServer, tmp_path: Path) -> None:
    ended = flowkit(
        *("measure", "orders.py", "--models", f"cheap@{server.base_url},strong@{server.base_url}"),
        *("--cases", "cases.yaml", *PRICES, "--json", "m.json", "--html", "m.html", "--repeat", "2"),
    )
    assert ended.code == 0
    assert re.search(r"^cheap .* 6/8 +8/8 +2 +300\+50 +\$0.0004$", ended.out, re.MULTILINE)
    assert re.search(r"^strong .* 8/8 +8/8 +2 +300\+50 +\$0.008$", ended.out, re.MULTILINE)
    assert "a router that asks cheap first:" in ended.out
    assert len(json.loads((tmp_path / "m.json").read_bytes())["runs"]) == 16
    page = (tmp_path / "m.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert "주문 A2는 어디에 있나요?" in page
    assert not re.search(r'(src|href)="', page), "one file that needs nothing else"
    assert "<script" not in page


def test_against_ends_with_1_when_something_got_worse(
    flowkit: Command, server: TimedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    run = ("measure", "orders.py", "--cases", "cases.yaml", "--allow", "time=100000")
    assert flowkit(*run, "--models", "model=strong", "--json", "before.json").code == 0
    same = flowkit(*run, "--models", "model=strong", "--against", "before.json")
    assert same.code == 0
    assert "nothing is worse than in before.json" in same.out
    worse = flowkit(*run, "--models", "model=cheap", "--against", "before.json")
    assert worse.code == 1
    assert "worse: model: right 100%, now 75% (-25 points)" in worse.out


def test_against_a_measurement_of_others_is_refused_before_anybody_is_asked(
    flowkit: Command, server: TimedServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    run = ("measure", "orders.py", "--models", "new=strong", "--cases")
    assert flowkit(*run, "cases.yaml", "--json", "before.json").code == 0
    asked = len(server.requests)
    other = flowkit("measure", "orders.py", "--models", "strong", "--cases", "cases.yaml", "--against", "before.json")
    (tmp_path / "others.yaml").write_text("cases:\n  - message: Anything\n")
    others = flowkit(*run, "others.yaml", "--against", "before.json")
    assert (other.code, others.code, len(server.requests)) == (2, 2, asked)
    assert "no model in common: 'strong' here, 'new' there" in other.err
    assert "no case in common: 'Anything' here, 'Where is A1?'" in others.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "start"),
    [
        (signal.SIGINT, ()),
        (signal.SIGTERM, ()),
        (signal.SIGTERM, ("sh", "-c", """trap '' INT; exec "$@" """, "sh")),  # as a shell's background job
    ],
)
def test_who_stops_a_measurement_keeps_what_was_measured(
    tmp_path: Path, number: signal.Signals, start: tuple[str, ...]
) -> None:
    (tmp_path / "orders.py").write_text(APP)
    (tmp_path / "cases.yaml").write_text("cases:\n  - message: One\n  - message: Two\n    answer: {contains: '2'}\n")
    replies = {"a": [chat("1"), chat("2")], "b": [chat("1"), chat("I think", 600.0, "2")]}
    with ScriptedServer(replies) as server:
        command = [*start, sys.executable, "-c", "from flowkit.cli import main; main()", "measure", "orders.py"]
        command += ["--models", "a,b", "--base-url", server.base_url, "--cases", "cases.yaml"]
        command += ["--json", "now.json", "--html", "now.html"]
        environment = {**os.environ, "OPENAI_API_KEY": "any", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path
        ) as process:
            assert process.stderr is not None
            told = [process.stderr.readline() for _ in range(2)]
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert [line.split() for line in told] == [["ok", "a", "One"], ["ok", "b", "One"]]
    assert len(json.loads((tmp_path / "now.json").read_bytes())["runs"]) == 2, "the run that hung isn't one"
    said = "stopped after 2 of 4 runs: only these are counted"
    assert said in out
    assert said in (tmp_path / "now.html").read_text(encoding="utf-8")


def test_mistakes_in_cases_are_told_a_line_each_and_nobody_is_asked(
    flowkit: Command, server: TimedServer, tmp_path: Path
) -> None:
    (tmp_path / "cases.yaml").write_text("cases:\n  - message: Hi\n    cals: []\n  - message: Ho\n    answr: {}\n")
    ended = flowkit("measure", "orders.py", "--models", f"cheap@{server.base_url}", "--cases", "cases.yaml")
    assert ended.code == 2
    assert ended.err.splitlines() == [
        "flowkit: cases.yaml:3: cases.0: unknown key 'cals'; did you mean 'calls'?",
        "flowkit: cases.yaml:5: cases.1: unknown key 'answr'; did you mean 'answer'?",
    ]
    assert server.requests == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--models", "a,a"), "--models names 'a' twice"),
        (("--models", "a", "--price", "b=1/2"), "--price 'b' is none of the models a"),
        (("--models", "a", "--price", "a=1"), "expected dollars per million tokens"),
        (("--models", "a", "--allow", "tme=1"), "did you mean 'time'?"),
        (("--models", "a", "--against", "gone.json"), "can't be read"),
        (("--models", "a", "--run-write", "refnd"), "there is no tool 'refnd' to run for real"),
        (("--models", "a", "--json", "gone/m.json"), "can't be written"),
    ],
)
def test_wrong_usage_is_told_before_anybody_is_asked(flowkit: Command, words: tuple[str, ...], told: str) -> None:
    ended = flowkit("measure", "orders.py", "--cases", "cases.yaml", *words)
    assert ended.code == 2
    assert told in ended.err


def test_schema_of_cases_is_printed_for_editors(flowkit: Command) -> None:
    ended = flowkit("schema", "cases")
    assert ended.code == 0
    assert json.loads(ended.out)["title"] == "flowkit cases"


@pytest.mark.slow
def test_page_is_drawn_in_a_browser(flowkit: Command, server: TimedServer, tmp_path: Path) -> None:
    """Nothing hangs out of the page on a phone, and it is dark where the reader wants it dark."""
    if which("chromium") is None:
        pytest.skip("chromium isn't installed")
    pytest.importorskip("playwright", reason=NEEDS_ALL)
    from playwright.sync_api import sync_playwright

    with (tmp_path / "cases.yaml").open("a", encoding="utf-8") as cases:
        cases.write(
            "\n  - message: 주문 A2는 어디에 있나요?\n    name: 지난주에 주문한 찻잔 세트가 지금 어디쯤 있나요?\n"
        )
    models = ",".join(f"{name}@{server.base_url}" for name in ("cheap", "middle", "strong"))
    flowkit(
        *("measure", "orders.py", "--models", models, "--cases", "cases.yaml", "--html", "m.html"),
        *(*PRICES, "--price", "middle=5/10"),
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=which("chromium"), args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
            page.goto((tmp_path / "m.html").as_uri())
            if folder := os.environ.get("FLOWKIT_SCREENSHOTS"):
                page.set_viewport_size({"width": 1000, "height": 800})
                page.screenshot(path=f"{folder}/measure-{scheme}.png", full_page=True)
                page.set_viewport_size({"width": 390, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            cut = page.evaluate("""[...document.querySelectorAll("svg text:not([transform])")].filter(text => {
                const box = text.getBBox(), view = text.ownerSVGElement.viewBox.baseVal;
                return box.x < 0 || box.x + box.width > view.width;
            }).map(text => text.textContent)""")
            assert cut == [], "a name in Korean is as wide as its syllables"
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert colour == {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
        browser.close()


@pytest.mark.slow
def test_embedded_model_is_measured_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On some of the app's own cases, with the model that needs no network."""
    import yaml

    from flowkit.models.offline.local import describe_download

    if describe_download() is not None:
        pytest.skip("the offline demo model isn't here, and tests download nothing")
    flowkit = make_command(tmp_path, monkeypatch)
    file = yaml.safe_load((ROOT / "recipes" / "cases" / "shop.yaml").read_text(encoding="utf-8"))
    file["cases"] = [case for case in file["cases"] if "ORD-1002" in case["message"]]  # a return among them
    (tmp_path / "few.yaml").write_text(json.dumps(file, ensure_ascii=False), encoding="utf-8")
    ended = flowkit(
        *("measure", str(ROOT / "recipes" / "shop.py"), "--models", "local", "--json", "m.json"),
        *("--cases", "few.yaml", "--data", f"database={tmp_path / 'shop.sqlite3'}", "--data", "latency=0"),
    )
    assert ended.code == 0, ended.err
    runs = json.loads((tmp_path / "m.json").read_bytes())["runs"]
    assert len(runs) == len(file["cases"]) >= 5
    assert all(run["first_token_s"] > 0 for run in runs if run["status"] == "done")
    right = sum(bool(run["calls_right"]) for run in runs)
    assert right >= len(runs) // 2, ended.out


def test_answers_can_be_of_any_server(flowkit: Command, tmp_path: Path) -> None:
    """A model that never says anything right is a row like any other."""
    with TimedServer(lambda model, message, turn: Answer([Said(0.0, "no")])) as server:
        server.clock.wait_read = lambda reads: None
        ended = flowkit("measure", "orders.py", "--models", f"mute@{server.base_url}", "--cases", "cases.yaml")
    assert ended.code == 0
    assert re.search(r"^mute .* 0/4 +0/4 ", ended.out, re.MULTILINE)
