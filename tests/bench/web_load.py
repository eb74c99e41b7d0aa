"""Many runs with many viewers that come, go and vanish: is any event lost or doubled, and does memory stay flat?

    python -m tests.bench.web_load [SECONDS] [--json]

A server in a process of its own drives 200 runs at every moment: when one ends, the next begins. Each has two viewers.
A viewer reads for a moment, closes or cuts its connection, and comes back with its last number; the text that it put
together is compared with the whole. The server's memory is read from its process: `flat` compares the last quarter
of the time with the second, when all caches are full.
"""

import asyncio
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from starlette.requests import Request

from flowkit import Agent, codec, serve_app
from flowkit.models.base import ModelRequest
from flowkit.models.scripted import Script, ScriptedModel
from flowkit.web.served import Bounds
from flowkit.web.server import bind, make_server
from tests.bench.report import Report
from tests.web_server import Client

RUNS = 200
VIEWERS = 2
PIECES = 12
PIECE_S = 0.5
WHOLE = "".join(f"piece {number} " for number in range(PIECES))


def get_user(request: Request) -> str:
    """Everybody is one user, whose bounds are high enough."""
    return "load"


async def serve(folder: Path) -> None:
    """Serve until the process is ended; the first line on standard output is the port."""
    script = [part for number in range(PIECES) for part in (f"piece {number} ", PIECE_S)]

    def answer(_: ModelRequest) -> Script:
        model.requests.clear()  # it remembers them for tests; here that would be all that grows
        return script

    model = ScriptedModel(answer)
    agent = Agent(model, name="load", cache=False)
    bounds = replace(Bounds(), streams=RUNS * VIEWERS * 2, runs=RUNS * 2)
    web = serve_app(agent, get_user=get_user, journal=folder / "journal.sqlite3", bounds=bounds)
    listening = bind("127.0.0.1", 0)
    print(listening.getsockname()[1], flush=True)
    await make_server(web, web.aclose).serve([listening])


@dataclass
class Figures:
    """What all viewers saw."""

    runs: int = 0
    connections: int = 0
    events: int = 0
    wrong: list[str] = field(default_factory=list[str])
    memory: list[int] = field(default_factory=list[int])


class Viewer:
    """One tab: what it has seen of its run, by numbers, through all its connections."""

    def __init__(self, client: Client, run: str) -> None:
        self._client = client
        self._run = run
        self.last = -1
        self.text = ""
        self.events = 0
        self.connections = 0
        self.is_over = False
        self.is_doubled = False

    async def watch(self) -> None:
        """Read until the run's end, with a cut now and then."""
        while not self.is_over:
            self.connections += 1
            with suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
                async with (
                    self._client.open("GET", f"/api/runs/{self._run}/events?after={self.last}") as (answer, reader),
                    asyncio.timeout(random.uniform(0.5, 8.0)),
                ):
                    if answer.status == 204:
                        return
                    while line := await reader.readline():
                        if line.startswith(b"data: "):
                            self._take(line)

    def _take(self, line: bytes) -> None:
        event = codec.loads(line.removeprefix(b"data: "))
        assert isinstance(event, dict)
        number, at, text = event["seq"], event.get("at"), event.get("text")
        assert isinstance(number, int)
        self.is_doubled |= number <= self.last
        self.last = number
        self.events += 1
        if isinstance(at, int) and isinstance(text, str):
            self.is_doubled |= at != len(self.text)
            self.text += text
        self.is_over = event["type"] == "run.finished"

    @property
    def is_right(self) -> bool:
        """Whether it saw everything, and nothing twice."""
        return self.is_over and not self.is_doubled and self.text == WHOLE


async def start_and_watch(client: Client, until: float, figures: Figures) -> None:
    """Start runs one after the other until the time is over, each with its viewers."""
    await asyncio.sleep(random.uniform(0, PIECES * PIECE_S))  # they don't all end at once
    while time.monotonic() < until:
        run = f"run-{random.getrandbits(128):032x}"
        await client.ask("POST", "/api/runs", {"message": "Go", "run": run}, until=b"run.started")
        viewers = [Viewer(client, run) for _ in range(VIEWERS)]
        await asyncio.gather(*(viewer.watch() for viewer in viewers))
        figures.runs += 1
        figures.connections += sum(viewer.connections for viewer in viewers)
        figures.events += sum(viewer.events for viewer in viewers)
        figures.wrong += [run for viewer in viewers if not viewer.is_right]


async def load(seconds: float, folder: Path) -> Figures:
    """Put the load on a server and read its memory every second."""
    figures = Figures()
    with start_server(folder) as (port, process):
        until = time.monotonic() + seconds
        tasks = [asyncio.create_task(start_and_watch(Client(port), until, figures)) for _ in range(RUNS)]
        while time.monotonic() < until:
            await asyncio.sleep(1)
            figures.memory.append(read_memory(process.pid))
        await asyncio.gather(*tasks)
    return figures


@contextmanager
def start_server(folder: Path) -> Generator[tuple[int, subprocess.Popen[str]]]:
    """Run the server in another process."""
    command = [sys.executable, "-m", __spec__.name, "--serve", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ}) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline()), process
        finally:
            process.terminate()
            process.wait(20)


def read_memory(process: int) -> int:
    """Read the resident bytes of a process; Linux alone says them."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def main() -> None:
    if "--serve" in sys.argv:
        asyncio.run(serve(Path(sys.argv[-1])))
        return
    seconds = next((float(word) for word in sys.argv[1:] if not word.startswith("-")), 120.0)
    report = Report("web_load", json="--json" in sys.argv)
    with TemporaryDirectory() as folder:
        found = asyncio.run(load(seconds, Path(folder)))
    report.row(
        f"viewers that lost or doubled an event, of {found.runs * VIEWERS}",
        float(len(found.wrong)),
        0.0,
        runs=found.runs,
        connections=found.connections,
        events=found.events,
    )
    if any(found.memory):
        quarter = len(found.memory) // 4
        before = statistics.median(found.memory[quarter : 2 * quarter])
        after = statistics.median(found.memory[-quarter:])
        samples = "/".join(str(size // 2**20) for size in found.memory[:: max(1, len(found.memory) // 8)])
        report.row("the server's memory, last quarter by second", after / before, 1.05, MB=samples)
    report.print()


if __name__ == "__main__":
    main()
