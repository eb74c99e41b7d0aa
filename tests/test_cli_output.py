"""What commands print: never a traceback after the work is done, and nothing that drives the terminal."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.display.words import clean, clean_json
from flowkit.events import CallFailed, CallFinished, CallNew, CallSealed, EventLog, RunFinished, RunStarted
from flowkit.journal import Journal
from tests.command import Command

APP = '''
from pathlib import Path
from flowkit import Agent, ScriptedModel, recipe, step, tool
from flowkit.testing import call


@tool(effect="write")
def 보내기(q: str) -> str:
    """Send it: ✓."""
    with open("sent.log", "a") as log:
        log.write("sent\\n")
    return "ok ✓"


agent = Agent(ScriptedModel([[call("보내기", q="a")], "Sent — it’s done ✓ 👍"]), tools=[보내기])


@recipe
def again(q: str) -> str:
    return step(보내기, q)
'''


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp949", "cp1252", "cp437", "ascii"])
def test_what_the_output_cannot_encode_is_escaped_after_the_work_is_done(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONUTF8": "0",
        "PYTHONIOENCODING": encoding,
        "HOME": str(tmp_path),
        "FLOWKIT_CACHE_DIR": str(tmp_path / "cache"),
        "FLOWKIT_JOURNAL": str(tmp_path / "j"),
    }

    def flowkit(*words: str) -> bytes:
        command = [sys.executable, "-c", "from flowkit.cli import main; main()", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr.decode("utf-8", "replace")
        return done.stdout

    assert flowkit("chat", "app.py", "hello").decode(encoding).startswith("Sent ")
    flowkit("run", "app.py", "q=a")
    assert json.loads(flowkit("run", "app.py", "q=a", "--json").decode(encoding)) == "ok ✓"
    assert (tmp_path / "sent.log").read_text().count("sent") == 3
    assert json.loads(flowkit("tools", "app.py", "--json").decode(encoding))[0]["name"] == "보내기"
    for words in (
        ["tools", "app.py"],
        ["graph", "app.py"],
        ["explain", "app.py"],
        ["runs", "list"],
        ["cache", "stats"],
    ):
        flowkit(*words)


@given(st.text())
def test_a_cleaned_text_drives_nothing_and_cleaned_json_is_the_same_json(text: str) -> None:
    for letter in clean(text):
        assert letter in "\n\t" or (letter.isprintable() or letter.isspace() or ord(letter) > 0xA0)
        assert letter not in "\x1b\x9b\x7f\r\u202e\u2066\u200f"
    dumped = json.dumps({text: [text]}, ensure_ascii=False)
    assert json.loads(clean_json(dumped)) == {text: [text]}
    assert "\u202e" not in clean_json(dumped)


EVIL = "\x1b]0;owned\x07\x1b[2J\u202etxt.exe\u2066\x9b31m\r"


def is_harmless(text: str) -> bool:
    return not set(text) & set("\x1b\x07\x9b\r\u202e\u2066")


@pytest.fixture
def evil_journal(tmp_path: Path) -> Path:
    """A run whose every word was chosen by somebody who wants to drive the terminal."""
    path = tmp_path / "journal.sqlite3"

    async def main() -> None:
        journal = Journal(path)
        run = await journal.open_run("r", name=EVIL, user=EVIL)
        await run.record("n", state="finished", value=EVIL, effect="read", tool=EVIL, arguments={EVIL: EVIL})
        await run.record("f", state="failed", error=EVIL, effect="read")
        await run.ask(EVIL, name=EVIL, arguments={"a": EVIL})
        await run.finish("failed", error=EVIL)
        journal.close()

    asyncio.run(main())
    return path


@pytest.mark.parametrize("words", [["list"], ["show", "r"], ["list", "--json"], ["show", "r", "--json"], ["stats"]])
def test_control_and_bidi_characters_are_shown_as_escapes_by_every_command_on_runs(
    flowkit: Command, evil_journal: Path, words: list[str]
) -> None:
    shown = flowkit("runs", *words)
    assert shown.code == 0
    assert is_harmless(shown.out + shown.err)
    if words[0] != "stats":
        assert "owned" in shown.out, "escaped, not hidden"
        assert "\\u202e" in shown.out


def test_control_characters_of_a_trace_are_shown_as_escapes(flowkit: Command, tmp_path: Path) -> None:
    log = EventLog("r", lambda: 0.0)
    log.emit(RunStarted, EVIL)
    log.emit(CallNew, "a", EVIL)
    log.emit(CallSealed, "a", {"x": EVIL})
    log.emit(CallFinished, "a", EVIL)
    log.emit(CallNew, "b", EVIL)
    log.emit(CallFailed, "b", EVIL)
    log.emit(RunFinished, "failed", None, EVIL)
    (tmp_path / "t").write_text("\n".join(json.dumps(event.to_json()) for event in log.events))
    shown = flowkit("trace", str(tmp_path / "t"))
    assert shown.code == 0
    assert is_harmless(shown.out + shown.err)


def test_a_run_that_fails_with_such_a_text_says_it_escaped(flowkit: Command, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        f"from flowkit import ToolError, recipe, step, tool\n\n\n@tool(effect='read')\ndef fail(q: str) -> str:\n"
        f"    raise ToolError({EVIL!r})\n\n\n@recipe\ndef bad(q: str) -> str:\n    return step(fail, q)\n"
    )
    shown = flowkit("run", "app.py", "q=1")
    assert shown.code == 1
    assert is_harmless(shown.out + shown.err)
    assert "\\x1b]0;owned\\x07" in shown.err


def test_a_run_that_is_done_says_that_nothing_ran(flowkit: Command, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from flowkit import recipe, step, tool\n\n\n@tool(effect='write')\ndef pay(won: int) -> int:\n"
        "    return won\n\n\n@recipe\ndef settle(won: int) -> int:\n    return step(pay, won)\n"
    )
    first = flowkit("run", "app.py", "won=5", "--run-id", "tonight")
    assert "nothing ran" not in first.err
    again = flowkit("run", "app.py", "won=5", "--run-id", "tonight")
    assert (again.code, again.out) == (0, "5\n")
    assert "run 'tonight' is already done: nothing ran" in again.err
