"""The command line on a real terminal: what a person is asked, and what Ctrl-C stops."""

import fcntl
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import pytest

from shop_data import open_database
from tests.command import SHOP
from tests.server import ScriptedServer, call, chat

PATIENCE_S = 20.0


class Terminal:
    """A program on a terminal of its own, 24 lines of `width` characters."""

    def __init__(self, *words: str, width: int = 100, environment: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from flowkit.cli import main; main()", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", "COLUMNS": str(width), **environment},
            start_new_session=True,
        )
        os.close(slave)
        self.shown = ""
        """All that it has shown, escape sequences included."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def wait_for(self, text: str, *, since: int = 0) -> int:
        """Read until `text` is shown after position `since`; the position behind it."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self.shown[since:]:
            assert self._read(deadline - time.monotonic()), f"no {text!r} in {self.shown!r}"
        return self.shown.index(text, since) + len(text)

    def wait_ended(self) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(PATIENCE_S)

    def type(self, text: str) -> None:
        """What a person types."""
        os.write(self._master, text.encode())

    def _read(self, within_s: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, within_s))
        try:
            data = os.read(self._master, 65536) if ready else b""
        except OSError:  # Linux's way to say that nobody holds the other end any more
            data = b""
        self.shown += data.decode(errors="replace")
        return bool(data)


def talk(server: ScriptedServer, folder: Path, *words: str) -> Terminal:
    data = ("--data", f"database={folder / 'shop.sqlite3'}", "--data", "latency=0")
    environment = {"OPENAI_API_KEY": "any", "FLOWKIT_JOURNAL": str(folder / "journal.sqlite3")}
    chosen = ("--model", "m", "--base-url", server.base_url, "--user", "c-2")
    return Terminal("chat", SHOP, *words, *chosen, *data, environment=environment)


def list_refunds(folder: Path) -> list[int]:
    with open_database(folder / "shop.sqlite3") as db:
        return [row["amount_won"] for row in db.execute("SELECT amount_won FROM refunds")]


REFUND = chat(call("refund_order", order_id="ORD-1043", amount_won=259_000, reason="cancelled"))


@pytest.mark.parametrize(
    ("answer", "refunds", "read"),
    [
        pytest.param("y", [259_000], "refunded", id="yes"),
        pytest.param("네", [259_000], "refunded", id="yes in Korean", marks=pytest.mark.slow),
        pytest.param("", [], "the person said no", id="nothing", marks=pytest.mark.slow),
    ],
)
def test_person_at_the_terminal_decides_on_a_write(tmp_path: Path, answer: str, refunds: list[int], read: str) -> None:
    with ScriptedServer([REFUND, chat("That is all.")]) as server, talk(server, tmp_path, "Refund it.") as terminal:
        terminal.wait_for('approve refund_order(order_id="ORD-1043", amount_won=259000, reason="cancelled")? [y/N] ')
        terminal.type(f"{answer}\n")
        terminal.wait_for("That is all.")
        code = terminal.wait_ended()
        result = server.requests[1].body["messages"][-1]["content"]

    assert code == 0
    assert list_refunds(tmp_path) == refunds
    assert read in result


SLOW_START = """
import threading
from flowkit.cli.starting import show_start
with show_start("loading"):
    threading.Event().wait(1)
print("ready")
"""


@pytest.mark.parametrize(("term", "cleared"), [("xterm", "\r\x1b[K"), ("dumb", "\r         \r")])
def test_something_moves_while_a_command_starts(term: str, cleared: str) -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": term}
    with subprocess.Popen([sys.executable, "-c", SLOW_START], stdout=slave, stderr=slave, env=environment) as process:
        process.wait(60)
    os.close(slave)
    shown = os.read(master, 65536).decode()
    os.close(master)

    assert len({line for line in shown.split("\r") if line.endswith("loading")}) >= 2
    assert shown.endswith(f"{cleared}ready\r\n")


@pytest.mark.slow
def test_server_that_says_nothing_is_named_with_the_time(tmp_path: Path) -> None:
    with ScriptedServer([chat(3.0, "Hello at last.")]) as server, talk(server, tmp_path, "Hello?") as terminal:
        host = f"127.0.0.1:{server.port}"
        first = terminal.wait_for(f"waiting for m at {host}, ")
        later = terminal.wait_for(f"waiting for m at {host}, ", since=first)
        terminal.wait_for("Hello at last.", since=later)
        code = terminal.wait_ended()

    assert code == 0


@pytest.mark.slow
def test_ctrl_c_ends_the_answer_and_not_the_conversation(tmp_path: Path) -> None:
    replies = [chat("I think", 30.0, "about it."), chat("Hello again.")]
    with ScriptedServer(replies) as server, talk(server, tmp_path) as terminal:
        terminal.wait_for("> ")
        terminal.type("Hello?\n")
        terminal.wait_for("I think")
        os.killpg(terminal.process.pid, signal.SIGINT)
        stopped = terminal.wait_for("stopped")
        terminal.wait_for("> ", since=stopped)
        terminal.type("And now?\n")
        again = terminal.wait_for("Hello again.")
        terminal.wait_for("> ", since=again)
        terminal.type("\n")
        code = terminal.wait_ended()

    assert code == 0
    assert "Traceback" not in terminal.shown


@pytest.mark.parametrize("width", [60, 72, 100])
def test_sentences_break_between_words(tmp_path: Path, width: int) -> None:
    environment = {"FLOWKIT_JOURNAL": str(tmp_path / "journal.sqlite3")}
    with Terminal("runs", "list", width=width, environment=environment) as terminal:
        terminal.wait_ended()
        short = terminal.shown
    with Terminal("explain", SHOP, width=width, environment=environment) as terminal:
        code = terminal.wait_ended()
        lines = terminal.shown.rpartition("\x1b[K")[2].splitlines()

    assert (code, "no runs yet" in short) == (0, True)
    assert max(map(len, lines)) <= width
    assert any(line.startswith("  ") for line in lines)
    assert {"get_order_status/weight_kg", "get_order_status/total_won"} <= set(" ".join(lines).replace(",", "").split())


@pytest.mark.parametrize("width", [60, 72])
def test_help_lists_commands_with_whole_sentences(width: int) -> None:
    with Terminal("--help", width=width, environment={}) as terminal:
        code = terminal.wait_ended()

    assert code == 0
    assert "..." not in terminal.shown.partition("Commands:")[2]
    assert "cancel and resume a journal's runs." in " ".join(terminal.shown.split())


def run_program(words: str, redirections: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell, which connects its streams."""
    line = f"{shlex.quote(sys.executable)} -m flowkit {words} {redirections}"
    environment = {**os.environ, "FLOWKIT_JOURNAL": str(folder / "journal.sqlite3"), "FLOWKIT_CACHE": "off"}
    return subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full, a device that is full")
@pytest.mark.parametrize("words", ["schema", f"tools {SHOP}"])
def test_output_that_can_not_be_written_is_an_error_in_one_line(words: str, tmp_path: Path) -> None:
    ended = run_program(words, "</dev/null >/dev/full", tmp_path)

    assert (ended.returncode, ended.stderr) == (1, "flowkit: No space left on device\n")


@pytest.mark.parametrize("redirections", ["<&-", "</dev/null 2>&-", "</dev/null >&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_traceback(redirections: str, tmp_path: Path) -> None:
    ended = run_program(f"run {SHOP} order_id=ORD-1002 --data latency=0", redirections, tmp_path)
    listed = run_program("runs list", "</dev/null", tmp_path)

    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False)
    assert "done" in listed.stdout  # and the journal is whole


@pytest.mark.parametrize("words", ["schema", f"tools {SHOP}"])
def test_reader_that_has_seen_enough_is_no_traceback(words: str, tmp_path: Path) -> None:
    ended = run_program(words, "</dev/null | head -1", tmp_path)

    assert (len(ended.stdout.splitlines()), ended.stderr) == (1, "")
