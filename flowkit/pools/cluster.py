"""The pool on a Dask cluster: one client in its own thread and loop, used by every run of this process.

Dask receives bytes and the name of one function of flowkit, and returns bytes. Only reads and idempotent calls run
there: a lost worker may have completed its call, and Dask may run it again.
"""

import asyncio
import contextlib
import ipaddress
import logging
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from functools import partial
from secrets import token_hex
from time import monotonic, perf_counter
from typing import Any, cast
from urllib.parse import urlsplit

from flowkit.pools.calls import BLOB_BYTES, AnyTool, CallRefused, Gone, Lost, NotBegun, PoolOutcome, hash_code
from flowkit.pools.dask_traffic import Traffic
from flowkit.pools.jobs import PoolJob
from flowkit.pools.pace import Pace
from flowkit.pools.windows import DASK_WINDOW

logger = logging.getLogger("flowkit.pools")

CONNECT_WITHIN_S = 5.0
CONNECT_AGAIN_AFTER_S = 30.0
"""How long a cluster that was lost isn't asked again."""
CLOSE_WITHIN_S = 5.0


class DaskPool:
    """Calls on the cluster at an address; `close` disconnects."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._topic = f"flowkit-{token_hex(8)}"
        self._traffic = Traffic(self._topic)
        self._client: Any = None
        self._pace: Pace | None = None
        self._is_direct = False
        self._was_there = False
        self._gone_until = 0.0
        self._head = b""
        self._checked: set[tuple[str, ...]] = set()
        self._begun: dict[str, PoolJob] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._connecting = asyncio.Lock()
        self._asking = asyncio.Lock()
        self._window = asyncio.Semaphore(DASK_WINDOW)
        self._thread = threading.Thread(target=self._loop.run_forever, name="flowkit-dask", daemon=True)
        self._thread.start()

    async def prepare(self, tool: AnyTool) -> None:
        """Connect, and see that the workers have this tool's code and our versions; raises `CallRefused`."""
        await asyncio.wrap_future(self._in_thread(self._prepare(tool)))

    def submit(self, job: PoolJob) -> None:
        """Send a job when the window has room."""
        self._loop.call_soon_threadsafe(self._start, job)

    @property
    def in_flight(self) -> int:
        """The number of calls at the cluster."""
        return self._traffic.in_flight

    def close(self) -> None:
        """Abandon the calls on the cluster, and disconnect."""
        with contextlib.suppress(TimeoutError, Exception):
            self._in_thread(self._close()).result(CLOSE_WITHIN_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_WITHIN_S)
        if not self._thread.is_alive():
            self._loop.close()

    def _in_thread(self, work: Coroutine[Any, Any, None]) -> "Future[None]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    # In the pool's own loop

    async def _close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)
        await self._disconnect()

    async def _disconnect(self) -> None:
        client, self._client = self._client, None
        self._checked.clear()
        if client is not None:
            with contextlib.suppress(Exception):
                await client.close(timeout=1)

    async def _connect(self) -> Any:
        """Return the client, connected; raises `CallRefused`."""
        async with self._connecting:
            if self._client is not None and self._client.status == "running":
                return self._client
            await self._disconnect()
            if monotonic() < self._gone_until:
                raise Gone(f"the Dask cluster at {self.address} is gone")
            check_address(self.address)
            try:
                from distributed import Client
            except ImportError as error:
                raise CallRefused(
                    "pool='dask' needs the package distributed: pip install 'flowkit-agents[dask]'"
                ) from error
            from flowkit.pools.dask_worker import find_head

            self._head = find_head() + b"\n"
            try:
                client: Any = Client(
                    self.address, asynchronous=True, set_as_default=False, timeout=CONNECT_WITHIN_S, name="flowkit"
                )
                self._client = await client
            except (OSError, TimeoutError, ValueError) as error:
                if self._was_there:
                    self._gone_until = monotonic() + CONNECT_AGAIN_AFTER_S
                    raise Gone(f"the Dask cluster at {self.address} is gone: {error}") from error
                raise CallRefused(f"no Dask scheduler answers at {self.address}: {error}") from error
            self._was_there = True
            self._client.subscribe_topic(self._topic, self._hear)
            return self._client

    async def _prepare(self, tool: AnyTool) -> None:
        client = await self._connect()
        place = tool.place
        assert place is not None
        known = (place.module, place.qualname, hash_code(tool))
        async with self._asking:
            if known in self._checked:
                return
            count, refused = await self._ask_workers(client, tool)
            if refused is not None:
                # Asked again next time: the workers may be others then.
                raise CallRefused(refused)
            if count:
                self._checked.add(known)

    async def _ask_workers(self, client: Any, tool: AnyTool) -> tuple[int, str | None]:
        """Return how many workers there are, and why one can't run the tool."""
        from flowkit.pools.dask_worker import describe, find_difference, find_versions

        place = tool.place
        assert place is not None
        address = (place.module, place.qualname, place.file)
        try:
            said: dict[str, Any] = await client.run(describe, address, hash_code(tool), on_error="return")
        except Exception as error:  # noqa: BLE001  # such as a scheduler that can't read what this version of Dask says
            return 0, f"the Dask cluster can't be asked: {type(error).__name__}: {error}"
        for worker, answer in said.items():
            if not isinstance(answer, dict):
                return 0, f"worker {worker} can't run flowkit: {type(answer).__name__}: {answer}"
            theirs = cast(dict[str, str], answer)
            difference = find_difference(find_versions(), theirs)
            if difference is not None:
                return 0, f"the versions of worker {worker} differ: {difference}"
            if "refused" in theirs:
                return 0, f"worker {worker}: {theirs['refused']}"
        # Straight to the workers and from them, where all are on this machine or speak TLS.
        self._is_direct = bool(said) and all(map(is_trusted, said))
        if said and self._pace is None:
            self._pace = Pace("dask", await self._measure_way(client))
        return len(said), None

    async def _measure_way(self, client: Any) -> float:
        from flowkit.pools.dask_worker import do_nothing

        times: list[float] = []
        for number in range(5):
            began = perf_counter()
            future = client.submit(do_nothing, number, pure=False)
            await client.gather(future)
            times.append(perf_counter() - began)
            future.release()
        return min(times)

    def _start(self, job: PoolJob) -> None:
        task = self._loop.create_task(self._do(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, job: PoolJob) -> None:
        task = asyncio.current_task()
        assert task is not None
        outcome: PoolOutcome | BaseException = NotBegun("it was stopped")
        try:
            if not job.take(partial(self._cancel, task)):
                return
            async with self._window:
                outcome = await self._exchange(job)
        except asyncio.CancelledError as error:
            # Dask's own cancels its futures when its scheduler is gone.
            if not task.cancelling():
                outcome = Lost(f"the Dask cluster has released it: {error}")
        except CallRefused as refused:
            outcome = refused
        except Exception as error:  # noqa: BLE001  # whatever Dask raises; what the function raised comes back as bytes
            is_killed = type(error).__name__ == "KilledWorker"
            said = "its worker ended" if is_killed else f"{type(error).__name__}: {error}"
            outcome = Lost(f"the Dask cluster has lost it: {said}")
        finally:
            self._begun.pop(job.key, None)
            job.let_go()
            job.end(outcome)

    def _cancel(self, task: "asyncio.Task[None]") -> None:
        self._loop.call_soon_threadsafe(task.cancel)

    async def _exchange(self, job: PoolJob) -> PoolOutcome | BaseException:
        client = await self._connect()
        if not job.begin(tells=not job.has_timeout):
            return PoolOutcome("late")
        if job.has_timeout:
            self._begun[job.key] = job
        message: Any = self._head + job.call.to_bytes()
        if len(message) > BLOB_BYTES:
            # To a worker, and not through the scheduler, which would keep it.
            message = await client.scatter(message, hash=False, direct=self._is_direct)
        future = await self._traffic.send(client, message, job)
        try:
            said = await self._traffic.fetch(client, future, is_direct=self._is_direct)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await asyncio.shield(future.cancel())
            raise
        finally:
            self._traffic.release(future)
        outcome = PoolOutcome.from_bytes(said)
        if outcome.kind == "done" and self._pace is not None:
            self._pace.note(job.tool.name, outcome.took_s)
        return outcome

    def _hear(self, event: Any) -> None:
        """Record for a job, when its worker reports it, that its function has started: its timeout counts now."""
        job = self._begun.get(event[1])
        if job is not None:
            job.tell_begun()


def check_address(address: str) -> None:
    """Raise `CallRefused` for a scheduler that could be impersonated on the network: its messages are unpickled."""
    if not is_trusted(address):
        raise CallRefused(
            f"{address} is neither on this machine nor tls://, and Dask would run what anybody on the way sends it:"
            " give the cluster certificates (distributed.comm.tls) and use tls://"
        )


def is_trusted(address: str) -> bool:
    """Return True if an address is on this machine or uses TLS."""
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    if parts.scheme in ("tls", "wss", "inproc"):
        return True
    try:
        return parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
