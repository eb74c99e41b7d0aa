"""A Dask scheduler and its workers, each a process of its own that a test may kill."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from tests.servers.processes import find_free_port

ROOT = Path(__file__).parents[2]

Process = subprocess.Popen[bytes]

START_S = 120.0


class DaskCluster:
    """A cluster on this machine; `address` is the scheduler's, and every worker has one thread."""

    def __init__(
        self,
        workers: int = 2,
        *,
        environment: Mapping[str, str] | None = None,
        options: tuple[str, ...] = (),
        protocol: str = "tcp",
    ) -> None:
        self._folder = TemporaryDirectory(prefix="flowkit-dask-", ignore_cleanup_errors=True)
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
            **(environment or {}),
        }
        self._options = options
        self._count = workers
        self.port = find_free_port()
        self.address = f"{protocol}://127.0.0.1:{self.port}"
        self._processes: list[Process] = []
        self.workers: list[Process] = []

    def __enter__(self) -> Self:
        try:
            self.start_scheduler()
            for _ in range(self._count):
                self.add_worker()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start_scheduler(self) -> None:
        """Start the scheduler, and wait until it listens."""
        protocol = self.address.partition(":")[0]
        where = (
            "--protocol",
            protocol,
            "--host",
            f"{protocol}://127.0.0.1",
            "--port",
            str(self.port),
            "--no-dashboard",
        )
        self.scheduler = self._start("scheduler", *where, until="Scheduler at:")

    def add_worker(self, environment: Mapping[str, str] | None = None) -> Process:
        """Start a worker, and wait until the scheduler knows it."""
        bounds = ("--nworkers", "1", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0")
        where = (self.address, "--local-directory", self._folder.name)
        worker = self._start("worker", *where, *bounds, until="Registered to:", environment=environment)
        self.workers.append(worker)
        return worker

    def _start(self, kind: str, *arguments: str, until: str, environment: Mapping[str, str] | None = None) -> Process:
        setpriv = shutil.which("setpriv")
        log = Path(self._folder.name) / f"{kind}-{len(self._processes)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [
                    # Gone with the tests, however they end.
                    *(() if setpriv is None else (setpriv, "--pdeathsig", "KILL")),
                    *(sys.executable, "-m", "dask", kind, *arguments, *self._options),
                ],
                env={**self._environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self._processes.append(process)
        end = time.monotonic() + START_S
        while until not in (said := log.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"dask {kind} doesn't start: {said[-2000:]}")
            time.sleep(0.05)
        return process

    def close(self) -> None:
        """Kill what is left."""
        for process in self._processes:
            process.kill()
            process.wait()
        self._folder.cleanup()
