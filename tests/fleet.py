"""Workers as processes over one journal, and an app whose writes leave a line outside, so that each can be counted."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import EllipsisType

from flowkit import Journal
from flowkit.apps import load_app
from flowkit.errors import RunBusy
from flowkit.journal import Recorded, Resolution
from flowkit.web.served import Served, make_served

FLOWKIT = (sys.executable, "-c", "from flowkit.cli import main; main()")
LIMIT_S = 240.0
"""How long anything may take on a busy machine."""
APP = '''
"""Orders that are looked up, paid and shipped."""

import asyncio
import os
import time
from pathlib import Path

from flowkit import recipe, step, tool

FOLDER = Path(__file__).parent
PACE_S = float(os.environ.get("PACE", "0"))


def tell(name: str, words: str) -> None:
    file = os.open(FOLDER / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{words} {os.getpid()} {time.time()}\\n".encode())
    os.close(file)


async def pass_by(place: str, order: str) -> None:
    tell("seen", f"{place} {order}")
    await asyncio.sleep(PACE_S)
    while (FOLDER / f"hold-{place}").exists():
        await asyncio.sleep(0.01)


@tool(effect="read")
async def look_up(order: str) -> str:
    await pass_by("look_up", order)
    return order


@tool
async def pay(order: str) -> str:
    await pass_by("pay", order)
    tell("effects", f"pay {order}")
    await asyncio.sleep(PACE_S)
    return order


@tool
async def ship(order: str) -> str:
    await pass_by("ship", order)
    tell("effects", f"ship {order}")
    return order


@recipe
def serve_order(order: str) -> str:
    found = step(look_up, order)
    paid = step(pay, found)
    checked = step.options(id="check")(look_up, paid)
    return step(ship, checked)


@tool(approval=True)
async def refund(order: str) -> str:
    tell("effects", f"refund {order}")
    return order


@recipe
def refund_order(order: str) -> str:
    return step(refund, order)
'''


CACHED_APP = (
    APP.partition("@tool")[0].replace("import recipe", "import CONTEXT, Context, recipe")
    + '''
def count(place: str, order: str) -> int:
    path = FOLDER / "effects"
    lines = path.read_text().splitlines() if path.exists() else []
    return sum(line.startswith(f"{place} {order}/") for line in lines)


@tool(effect="read", ttl=300, scope="user", resource="order:{order}")
async def look_up(order: str, ctx: Context[None] = CONTEXT) -> str:
    """Say how often this user's order is paid."""
    await pass_by("look_up", order)
    return f"{ctx.user}/{order}/{count('pay', f'{ctx.user}/{order}')}"


@tool(effect="write", resource="order:{order}")
async def pay(order: str, seen: str) -> str:
    await pass_by("pay", order)
    tell("effects", f"pay {seen}")
    await asyncio.sleep(PACE_S)
    return order


@tool
async def ship(seen: str) -> str:
    tell("effects", f"ship {seen}")
    return seen


@recipe
def serve_order(order: str) -> str:
    found = step(look_up, order)
    paid = step(pay, order, found)
    checked = step.options(id="check")(look_up, paid)
    return step(ship, checked)
'''
)
"""The same with reads that are cached for each user, each of which says which state of the order it has seen."""


class Fleet:
    """The processes of one test; all are killed at its end."""

    def __init__(
        self, folder: Path, journal: str, *, pace_s: float = 0.02, options: Iterable[str] = (), app: str = APP
    ) -> None:
        self.folder = folder
        self.journal = journal
        self._options = tuple(options)
        self.app = folder / "orders_app.py"
        self.app.write_text(app)
        self.environment = {**os.environ, "PACE": str(pace_s), "PYTHONUNBUFFERED": "1"}
        self.workers: list[subprocess.Popen[bytes]] = []

    def load(self) -> Served:
        """The app, in this process."""
        return make_served(load_app(str(self.app)))

    def start(self, *options: str) -> "subprocess.Popen[bytes]":
        """Start a worker."""
        command = (*FLOWKIT, "worker", str(self.app), "--journal", self.journal, *self._options, *options)
        with (self.folder / "workers.log").open("ab") as log:
            worker = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self.workers.append(worker)
        return worker

    def hold(self, place: str) -> None:
        """Let no call go on at this place."""
        (self.folder / f"hold-{place}").touch()

    def release(self, place: str) -> None:
        """Let all go on."""
        (self.folder / f"hold-{place}").unlink()

    def read(self, name: str) -> list[tuple[str, str, int, float]]:
        """What the app told: where, of which order, in which process, when."""
        path = self.folder / name
        lines = path.read_text().splitlines() if path.exists() else []
        return [(place, order, int(pid), float(at)) for place, order, pid, at in (line.split() for line in lines)]

    def count_effects(self) -> Mapping[tuple[str, str], int]:
        """How often each write of each order happened."""
        return Counter((place, order) for place, order, _, _ in self.read("effects"))

    def find_worker(self, pid: int) -> "subprocess.Popen[bytes]":
        """The worker that has this number."""
        return next(worker for worker in self.workers if worker.pid == pid)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that other processes do."""
        until = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < until, self.read_log()
            wait_a_moment()

    def wait_for_statuses(self, journal: Journal, *wanted: str) -> None:
        """Wait until every run has one of these states."""
        self.wait_until(lambda: all(run.status in wanted for run in journal.runs(limit=10_000)))

    def settle(
        self,
        journal: Journal,
        run_id: str,
        node: str,
        choose: Callable[[], Resolution],
        *,
        user: str | EllipsisType | None = ...,
    ) -> Recorded:
        """Settle a write in doubt by what is so when it is taken.

        It is refused while the call that was claimed could still begin, in a process that wakes.
        """
        settled: list[Recorded] = []

        def is_taken() -> bool:
            with suppress(RunBusy):
                settled.append(journal.resolve(run_id, node, choose(), by="ann", user=user))
            return bool(settled)

        self.wait_until(is_taken)
        return settled[0]

    def count_ready(self) -> int:
        """How many workers have begun to take runs."""
        return (self.folder / "workers.log").read_text().count("working on")

    def read_log(self) -> str:
        """What the workers said."""
        return (self.folder / "workers.log").read_text()[-5000:]

    def close(self) -> None:
        """Kill what is left."""
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
        for worker in self.workers:
            worker.wait()


@contextmanager
def start_fleet(folder: Path, journal: str, **options: object) -> Generator[Fleet]:
    """Processes that are gone on leaving."""
    fleet = Fleet(folder, journal, **options)  # pyright: ignore[reportArgumentType]
    try:
        yield fleet
    finally:
        fleet.close()


def wait_a_moment() -> None:
    """What a loop does that waits for another process."""
    threading.Event().wait(0.02)
