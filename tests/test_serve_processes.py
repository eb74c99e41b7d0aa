"""`flowkit serve` as processes: told to end, killed, two of them over one journal."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowkit import Journal
from flowkit.codec import JSON
from tests.test_following import fold
from tests.web_server import RUN, TOKEN, Client

pytestmark = pytest.mark.slow

FLOWKIT = ("-c", "from flowkit.cli import main; main()")

APP = """
import asyncio, os
from pathlib import Path
from flowkit import Agent, ScriptedModel, tool
from flowkit.testing import call

FLAG = Path(os.environ["FLAG"])

@tool(effect="read")
async def wait_for_flag() -> str:
    "Wait until the test lets it go on."
    while not FLAG.exists():
        await asyncio.sleep(0.01)
    return "seen"

@tool(effect="write")
async def send() -> str:
    "Send something, which takes long."
    return await wait_for_flag()

@tool(approval=True)
async def pay(won: int) -> str:
    "Pay."
    with open(FLAG.with_name("paid"), "a") as file:
        file.write("x")
    return f"paid {won}"

FIRST = ["One. ", call("wait_for_flag")]
SCRIPT = {"wait": [FIRST, "Two."], "pay": [[call("pay", won=5)], "Paid."], "rest": ["Paid."], "two": ["Two."], "send": [[call("send")]]}
agent = Agent(
    ScriptedModel(SCRIPT[os.environ["SCRIPT"]]), name="helper", tools=[wait_for_flag, send, pay], cache=False, early=False
)
"""


class Served:
    """A server's process, and a client of it."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, token: str) -> None:
        self.process = process
        self.client = Client(port, token)


@contextmanager
def serve(folder: Path, script: str, *options: str) -> Generator[Served]:
    """Start it; killed on leaving if it hasn't ended."""
    app = folder / "app.py"
    app.write_text(APP)
    command = [
        sys.executable,
        *FLOWKIT,
        "serve",
        str(app),
        "--port",
        "0",
        "--journal",
        str(folder / "j.sqlite3"),
    ]
    environment = {**os.environ, "FLAG": str(folder / "flag"), "SCRIPT": script, "FLOWKIT_TOKEN": TOKEN}
    process = subprocess.Popen([*command, *options], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.match(r"http://127\.0\.0\.1:(\d+)/#token=(.+)", process.stdout.readline())
        assert found is not None
        yield Served(process, int(found[1]), found[2])
    finally:
        process.kill()
        process.communicate()


def seqs(events: Sequence[Mapping[str, JSON]]) -> list[int]:
    return [int(str(event["seq"])) for event in events]


def test_sigterm_ends_the_streams_and_the_process_and_the_run_goes_on_elsewhere(tmp_path: Path) -> None:
    async def go() -> None:
        said = {"message": "Hi", "run": RUN}
        with serve(tmp_path, "wait") as first:
            watching = asyncio.create_task(first.client.ask("POST", "/api/runs", said, limit_s=90))
            while (await first.client.ask("GET", f"/api/runs/{RUN}/events", until=b"call.started")).status != 200:
                pass
            second = asyncio.create_task(first.client.ask("GET", f"/api/runs/{RUN}/events", limit_s=90))
            await first.client.ask("GET", "/api/app")
            first.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(first.process.wait, 60) == 0
            seen, also_seen = await watching, await second
        assert seen.events[-1]["type"] == "call.cancelled"
        assert also_seen.status in (200, 429)
        (tmp_path / "flag").touch()
        with serve(tmp_path, "two") as again:
            assert (await again.client.ask("GET", f"/api/runs/{RUN}")).json["status"] == "stopped"
            assert (await again.client.ask("POST", f"/api/runs/{RUN}/resume", {})).status == 202
            last = seen.events[-1]["seq"]
            rest = await again.client.ask("GET", f"/api/runs/{RUN}/events?after={last}", limit_s=90)
        whole = fold([*seen.events, *rest.events])
        assert whole["text.delta", 1] == "One. "
        assert whole["turn/1/call/0"] == ("call.finished", "seen")
        assert whole["status"] == ("done", "Two.")

    asyncio.run(go())


def test_killed_server_leaves_a_run_that_another_goes_on_with_by_a_button(tmp_path: Path) -> None:
    async def go() -> None:
        with serve(tmp_path, "two") as again:
            with serve(tmp_path, "wait") as first:
                said = {"message": "Hi", "run": RUN}
                seen = await first.client.ask("POST", "/api/runs", said, until=b"call.started")
                # What another process has read is in the journal, and stays there.
                await again.client.ask("GET", f"/api/runs/{RUN}/events", until=b"call.started")
                first.process.kill()
            (tmp_path / "flag").touch()
            before = await again.client.ask("GET", f"/api/runs/{RUN}/events")
            assert before.headers["flowkit-run-status"] == "stopped"
            assert (await again.client.ask("POST", f"/api/runs/{RUN}/resume", {})).status == 202
            last = max(seqs(seen.events))
            rest = await again.client.ask("GET", f"/api/runs/{RUN}/events?after={last}", limit_s=90)
            whole = await again.client.ask("GET", f"/api/runs/{RUN}/events")
        numbers = seqs(whole.events)
        assert numbers == sorted(set(numbers))
        assert set(seqs(seen.events)).isdisjoint(seqs(rest.events))
        assert fold([*seen.events, *rest.events])["text.delta", 1] == "One. "
        assert fold([*seen.events, *rest.events])["status"] == ("done", "Two.")

    asyncio.run(go())


def test_write_of_a_killed_server_is_in_doubt_when_its_run_is_cancelled(tmp_path: Path) -> None:
    async def go() -> None:
        with serve(tmp_path, "two") as again:
            with serve(tmp_path, "send") as first:
                said = {"message": "Hi", "run": RUN}
                await first.client.ask("POST", "/api/runs", said, until=b"call.started")
                first.process.kill()
                first.process.wait()
            assert (await again.client.ask("POST", f"/api/runs/{RUN}/cancel", {})).status == 202
            seen = fold((await again.client.ask("GET", f"/api/runs/{RUN}/events")).events)
        assert seen["turn/1/call/0"] == ("call.in_doubt", None)
        assert seen["status"] == ("cancelled", None)

    asyncio.run(go())


def test_run_of_one_server_is_watched_and_decided_in_another(tmp_path: Path) -> None:
    async def go() -> None:
        with serve(tmp_path, "pay") as first, serve(tmp_path, "rest") as second:
            seen = await first.client.ask("POST", "/api/runs", {"message": "Pay", "run": RUN}, limit_s=90)
            assert seen.events[-1]["status"] == "waiting"
            first.process.kill()
            yes = {"call": "turn/1/call/0", "approved": True}
            answers = await asyncio.gather(
                *(second.client.ask("POST", f"/api/runs/{RUN}/decisions", yes) for _ in range(3))
            )
            assert sorted(answer.status for answer in answers) == [202, 409, 409]
            last = seen.events[-1]["seq"]
            rest = await second.client.ask("GET", f"/api/runs/{RUN}/events?after={last}", limit_s=90)
            assert fold([*seen.events, *rest.events])["status"] == ("done", "Paid.")
            assert (tmp_path / "paid").read_text() == "x"

    asyncio.run(go())


def test_live_run_of_another_server_is_followed_and_not_driven(tmp_path: Path) -> None:
    async def go() -> None:
        with serve(tmp_path, "wait") as first, serve(tmp_path, "wait") as second:
            await first.client.ask("POST", "/api/runs", {"message": "Hi", "run": RUN}, until=b"call.started")
            watching = asyncio.create_task(second.client.ask("GET", f"/api/runs/{RUN}/events", limit_s=90))
            assert (await second.client.ask("POST", f"/api/runs/{RUN}/resume", {})).status == 409
            (tmp_path / "flag").touch()
            seen = await watching
            assert seen.headers["flowkit-run-status"] == "running"
            assert fold(seen.events)["status"] == ("done", "Two.")

    asyncio.run(go())


def test_live_run_of_another_server_is_cancelled(tmp_path: Path) -> None:
    async def go() -> None:
        with serve(tmp_path, "wait") as first, serve(tmp_path, "wait") as second:
            await first.client.ask("POST", "/api/runs", {"message": "Hi", "run": RUN}, until=b"call.started")
            watching = asyncio.create_task(second.client.ask("GET", f"/api/runs/{RUN}/events", limit_s=90))
            assert (await second.client.ask("POST", f"/api/runs/{RUN}/cancel", {})).status == 202
            seen = await watching
            assert seen.events[-1]["status"] == "cancelled"
            assert (await first.client.ask("GET", f"/api/runs/{RUN}")).json["status"] == "cancelled"
            assert (await second.client.ask("POST", f"/api/runs/{RUN}/cancel", {})).status == 409

    asyncio.run(go())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "--token"),
        (["--host", "0.0.0.0", "--token", "short"], "too short"),
        (["--tools", "nothing.py"], "no file"),
    ],
)
def test_unsafe_or_impossible_server_is_refused_in_one_line(options: list[str], said: str, tmp_path: Path) -> None:
    app = tmp_path / "app.yaml" if "--tools" in options else tmp_path / "app.py"
    app.write_text("" if app.suffix == ".yaml" else APP)
    environment = {**os.environ, "FLAG": "x", "SCRIPT": "two"}
    environment.pop("FLOWKIT_TOKEN", None)
    command = [
        sys.executable,
        *FLOWKIT,
        "serve",
        str(app),
        "--journal",
        str(tmp_path / "j.sqlite3"),
        *options,
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_port_that_is_taken_is_said_in_one_line(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP)
    environment = {**os.environ, "FLAG": "x", "SCRIPT": "two"}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, *FLOWKIT, "serve", str(app), "--port", port]
        command += ["--journal", str(tmp_path / "j.sqlite3")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"127.0.0.1:{port}" in done.stderr


def test_journal_of_a_server_that_was_told_to_end_is_whole(tmp_path: Path) -> None:
    async def go() -> None:
        with serve(tmp_path, "two") as first:
            await first.client.ask("POST", "/api/runs", {"message": "Hi", "run": RUN}, limit_s=90)
            first.process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(first.process.wait, 60) == 0
        journal = Journal(tmp_path / "j.sqlite3")
        assert [run.status for run in journal.runs()] == ["done"]
        journal.close()

    asyncio.run(go())
