"""Many runs with many viewers that come, go and vanish: is any event lost or doubled, and does memory stay flat?

    python -m tests.bench.web_load [SECONDS] [--json]

200 runs, each with two viewers, one server and all viewers in this process. A viewer reads for a moment, closes or cuts
its connection, and comes back with its last number; what it saw is then put together and compared with the journal.
"""

import asyncio
import random
import resource
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from starlette.requests import Request

from flowkit import Agent, Journal, ScriptedModel, codec, serve_app
from flowkit.web.bounds import Bounds
from tests.bench.report import Report
from tests.web_server import Client, serving

RUNS = 200
VIEWERS = 2
PIECE_S = 0.5


def get_user(request: Request) -> str:
    """Everybody is one user, whose bounds are high enough."""
    return "load"


class Viewer:
    """One tab: what it has seen of its run, by numbers, through all its connections."""

    def __init__(self, client: Client, run: str) -> None:
        self._client = client
        self._run = run
        self.numbers: list[int] = []
        self.text = ""
        self.connections = 0
        self.is_over = False

    async def watch(self) -> None:
        """Read until the run's end, with a cut now and then."""
        while not self.is_over:
            after = self.numbers[-1] if self.numbers else -1
            self.connections += 1
            with suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
                async with (
                    self._client.open("GET", f"/api/runs/{self._run}/events?after={after}") as (answer, reader),
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
        self.numbers.append(number)
        if isinstance(at, int) and isinstance(text, str):
            self.text = self.text[:at] + text
        self.is_over = event["type"] == "run.finished"


async def load(seconds: float, folder: Path) -> dict[str, object]:
    pieces = [part for number in range(int(seconds / PIECE_S)) for part in (f"piece {number} ", PIECE_S)]
    agent = Agent(ScriptedModel([pieces] * RUNS), name="load", cache=False)
    journal = Journal(folder / "journal.sqlite3")
    bounds = replace(Bounds(), streams=RUNS * VIEWERS * 2, runs=RUNS)
    web = serve_app(agent, get_user=get_user, journal=journal, bounds=bounds)
    began = time.monotonic()
    memory: list[int] = []
    async with serving(web) as client:
        names = [f"run-{number:032x}" for number in range(RUNS)]
        for name in names:
            await client.ask("POST", "/api/runs", {"message": "Go", "run": name}, until=b"run.started")
        viewers = [Viewer(client, name) for name in names for _ in range(VIEWERS)]
        watching = [asyncio.create_task(viewer.watch()) for viewer in viewers]
        while not all(task.done() for task in watching):
            await asyncio.sleep(seconds / 6)
            memory.append(_read_memory())
        await asyncio.gather(*watching)
        whole = "".join(part for part in pieces if isinstance(part, str))
        wrong = [v for v in viewers if v.text != whole or len(set(v.numbers)) != len(v.numbers) or not v.is_over]
    journal.close()
    return {
        "wrong": len(wrong),
        "connections": sum(viewer.connections for viewer in viewers),
        "events": sum(len(viewer.numbers) for viewer in viewers),
        "seconds": round(time.monotonic() - began),
        "MB": "/".join(str(size // 2**20) for size in memory),
    }


def _read_memory() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    seconds = next((float(word) for word in sys.argv[1:] if not word.startswith("-")), 120.0)
    report = Report("web_load", json="--json" in sys.argv)
    with TemporaryDirectory() as folder:
        found = asyncio.run(load(seconds, Path(folder)))
    wrong = found.pop("wrong")
    assert isinstance(wrong, int)
    report.row(f"viewers that lost or doubled an event, of {RUNS * VIEWERS}", float(wrong), 0.0, **found)
    report.print()


if __name__ == "__main__":
    main()
