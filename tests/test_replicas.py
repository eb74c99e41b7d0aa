"""The shop behind a proxy: replicas that start and show runs, workers that drive them, and any of them killed."""

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import IO

import pytest

from flowkit import Journal
from flowkit.web.server import bind
from shop_data import open_database, prepare_database
from tests.command import SHOP
from tests.fleet import FLOWKIT
from tests.server import ScriptedServer, call, chat
from tests.stores import journal_at
from tests.test_following import fold
from tests.web_server import RUN, TOKEN, Client

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("journal_store")]
PAUSE_S = 5.0
"""How long the model thinks in the middle of its answer, while a replica is killed."""


class Processes:
    """The replicas and workers of one test, which share a journal, the shop's database and a model."""

    def __init__(self, folder: Path, journal: str, base_url: str, host: str) -> None:
        self._folder = folder
        self._options = ("--journal", journal, "--data", f"database={folder / 'shop.sqlite3'}", "--data", "latency=0")
        self._host = host
        self._environment = {
            **os.environ,
            "OPENAI_BASE_URL": base_url,
            "OPENAI_API_KEY": "any",
            "FLOWKIT_TOKEN": TOKEN,
            "FLOWKIT_CACHE_DIR": str(folder / "cache"),
        }
        self.started: list[subprocess.Popen[str]] = []

    def start(self, command: str, *options: str, stdout: int | IO[str] | None = None) -> "subprocess.Popen[str]":
        """Start `flowkit serve` or `flowkit worker`."""
        words = (*FLOWKIT, command, SHOP, *self._options, *options)
        with (self._folder / "log").open("a") as log:
            process = subprocess.Popen(
                words, env=self._environment, stdout=stdout or log, stderr=log, stdin=subprocess.DEVNULL, text=True
            )
        self.started.append(process)
        return process

    async def serve(self) -> "tuple[subprocess.Popen[str], int]":
        """Start a replica and wait until it listens."""
        options = ("--port", "0", "--queue", "journal", "--user", "c-1", "--name", self._host)
        process = self.start("serve", *options, stdout=subprocess.PIPE)
        assert process.stdout is not None
        found = re.match(r"http://127\.0\.0\.1:(\d+)/", await asyncio.to_thread(process.stdout.readline))
        assert found is not None, (self._folder / "log").read_text()
        return process, int(found[1])

    def close(self) -> None:
        for process in self.started:
            process.kill()
        for process in self.started:
            process.communicate()


@asynccontextmanager
async def balance(targets: Sequence[int]) -> AsyncGenerator[tuple[int, Sequence[int]]]:
    """A proxy that gives each connection to the first target that answers; its port."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(2**16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in targets:
            with suppress(OSError):
                back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
                await asyncio.gather(pump(reader, back_writer), pump(back_reader, writer))
                return
        writer.close()

    listening = bind("127.0.0.1", 0)
    async with await asyncio.start_server(take, sock=listening):
        yield listening.getsockname()[1], targets


def find_large_order(database: Path) -> str:
    """An order of the first customer that is worth more than may be refunded without a person."""
    prepare_database(database)
    with open_database(database) as db:
        row = db.execute(
            "SELECT orders.id FROM orders JOIN order_items ON order_id = orders.id JOIN products ON products.id ="
            " product_id WHERE customer_id = 'c-1' GROUP BY orders.id HAVING sum(price_won * quantity) >= 60000"
        ).fetchone()
    assert row is not None
    return str(row[0])


def count_refunds(database: Path) -> int:
    with open_database(database) as db:
        return int(db.execute("SELECT count(*) FROM refunds").fetchone()[0])


@contextmanager
def shop_model(order: str) -> Generator[ScriptedServer]:
    """A model that asks for a large refund, and then says that it is done."""
    refund = call("refund_order", order_id=order, amount_won=60_000, reason="it was cancelled")
    with ScriptedServer([chat("One moment. ", PAUSE_S, refund), *[chat("It is refunded.")] * 5]) as server:
        yield server


def test_started_on_one_replica_and_watched_and_approved_on_the_other_when_the_first_is_killed(tmp_path: Path) -> None:
    database = tmp_path / "shop.sqlite3"
    order = find_large_order(database)
    journal_address = str(journal_at(tmp_path / "j.sqlite3"))

    async def go(model: ScriptedServer, stack: AsyncExitStack) -> None:
        targets: list[int] = []
        port, _ = await stack.enter_async_context(balance(targets))
        processes = Processes(tmp_path, journal_address, model.base_url, f"127.0.0.1:{port}")
        stack.callback(processes.close)
        first_worker = processes.start("worker")
        (first, first_port), (_, second_port) = await asyncio.gather(processes.serve(), processes.serve())
        targets += [first_port, second_port]
        client = Client(port)

        begun = await client.ask(
            "POST", "/api/runs", {"message": "Refund me", "run": RUN}, until=b"text.delta", limit_s=120
        )
        assert begun.status == 201
        first.kill()
        await asyncio.to_thread(first.wait)
        assert "run.finished" not in [event["type"] for event in begun.events]
        last = begun.events[-1]["seq"]
        seen = await client.ask("GET", f"/api/runs/{RUN}/events?after={last}", limit_s=120)
        assert seen.events[-1]["status"] == "waiting"
        first_worker.kill()
        processes.start("worker")
        [waiting] = await list_waiting(client)
        assert waiting["name"] == "refund_order"
        yes = {"call": waiting["call"], "approved": True}
        assert (await client.ask("POST", f"/api/runs/{RUN}/decisions", yes)).status == 202
        last = seen.events[-1]["seq"]
        rest = await client.ask("GET", f"/api/runs/{RUN}/events?after={last}", limit_s=120)
        whole = fold([*begun.events, *seen.events, *rest.events])
        assert whole["status"] == ("done", "It is refunded.")
        assert count_refunds(database) == 1
        assert (await client.ask("POST", f"/api/runs/{RUN}/decisions", yes)).status == 409

    async def main() -> None:
        with shop_model(order) as model:
            async with AsyncExitStack() as stack:
                await go(model, stack)

    asyncio.run(main())
    with closing(Journal(journal_address)) as journal:
        [run] = journal.runs()
        assert (run.status, run.user) == ("done", "c-1")


async def list_waiting(client: Client) -> list[dict[str, object]]:
    """The calls of the run that wait for a person."""
    waiting = (await client.ask("GET", f"/api/runs/{RUN}")).json["waiting"]
    assert isinstance(waiting, list)
    return [dict(call) for call in waiting if isinstance(call, dict)]
