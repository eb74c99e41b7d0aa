"""The pool on this machine: as many processes as cores, each behind a thread that sends it one call at a time.

It isn't a `ProcessPoolExecutor`, which can't end one call: there a call that hangs keeps its process for good. Here a
call that is stopped takes its process along, and the next call gets a new one. A process is started fresh (never
forked), when a call waits and none is free; it leads a process group, so that what a tool starts ends with it.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from contextlib import suppress
from multiprocessing import spawn
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any, cast

from flowkit.pools.calls import Lost, NotBegun, PoolOutcome
from flowkit.pools.child import CALL, GO, NO, READY
from flowkit.pools.jobs import PoolJob
from flowkit.pools.pace import Pace
from flowkit.tools.places import FunctionAddress

STARTS_AT_MOST = 3
"""How many processes may go before a call has begun until it counts as failed."""
END_WITHIN_S = 2.0
"""How long a process without a call may take to end by itself when the pool is closed."""

_PROGRAM = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[3]);"
    " from flowkit.pools.child import serve; serve(int(sys.argv[1]), int(sys.argv[2]))"
)


class ProcessPool:
    """Processes for the calls of every run in this process; `close` stops them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pace = Pace("process")
        self.refused: set[tuple[FunctionAddress, str]] = set()
        """The functions that a fresh process refused."""
        self._jobs: deque[PoolJob] = deque()
        self._changed = threading.Condition()
        self._seats: list[_Seat] = []
        self._free = 0
        self._is_closed = False

    def submit(self, job: PoolJob) -> None:
        """Queue a job; it begins when a process is free."""
        with self._changed:
            if self._is_closed:
                job.end(NotBegun("the pool is closed"))
                return
            self._jobs.append(job)
            if self._free < len(self._jobs) and len(self._seats) < self.size:
                self._free += 1
                self._seats.append(_Seat(self))
            self._changed.notify()

    def next_job(self) -> PoolJob | None:
        """Wait for the next job; None when the pool is closed."""
        with self._changed:
            while not self._jobs and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                return None
            self._free -= 1
            return self._jobs.popleft()

    def give_back(self) -> None:
        """Report that a process is free again."""
        with self._changed:
            self._free += 1

    def close(self) -> None:
        """Kill every process, and wait until they have exited; calls in flight are lost."""
        with self._changed:
            self._is_closed = True
            left = list(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()
        for job in left:
            job.end(NotBegun("the pool was closed"))
        for seat in self._seats:
            seat.hang_up()
        for seat in self._seats:
            seat.wait_ended()

    @property
    def queued(self) -> int:
        """The number of jobs that wait for a process."""
        return len(self._jobs)

    @property
    def pids(self) -> list[int]:
        """The processes that live now."""
        return [pid for seat in self._seats if (pid := seat.pid) is not None]


class _Seat:
    """A slot for one process, and the thread that communicates with it."""

    def __init__(self, pool: ProcessPool) -> None:
        self._pool = pool
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._is_working = False
        self._calls = 0
        """How many calls its process was given."""
        # It has to live as long as its processes: on Linux they end with the thread that has started them.
        self._thread = threading.Thread(target=self._serve, name="flowkit-pool", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    def _serve(self) -> None:
        while (job := self._pool.next_job()) is not None:
            self._is_working = True
            outcome = self._do(job)
            self._is_working = False
            self._pool.give_back()
            job.end(outcome)
            del job, outcome
        self._discard(END_WITHIN_S)

    def _do(self, job: PoolJob) -> PoolOutcome | BaseException:
        if not job.take(self.kill):
            return NotBegun("it was stopped")
        try:
            how = ""
            for _ in range(STARTS_AT_MOST):
                try:
                    outcome = self._exchange(job)
                    if outcome.kind == "refused" and self._may_be_stale(job):
                        self._discard()
                        continue
                    return outcome
                except (EOFError, OSError) as error:
                    how = self._discard() or str(error)
                    if job.has_begun:
                        return Lost(f"the process that ran it ended ({how})")
                    if job.is_stopped:
                        return NotBegun("it was stopped")
            return NotBegun(f"the process that should have run it ended before it began ({how})")
        except Exception as error:  # noqa: BLE001  # such as no memory for another process
            self._discard()
            return Lost(str(error)) if job.has_begun else NotBegun(str(error))
        finally:
            job.let_go()

    def _may_be_stale(self, job: PoolJob) -> bool:
        """Return whether a process that starts now may know newer code than this one: its module was reloaded here.

        Asked once for each code, so that one that is nowhere doesn't cost a process for every call.
        """
        call = job.call
        if self._calls == 1 or (call.place, call.code) in self._pool.refused:
            self._pool.refused.add((call.place, call.code))
            return False
        return True

    def _exchange(self, job: PoolJob) -> PoolOutcome:
        if self._connection is None:
            self._start()
        connection = self._connection
        assert connection is not None
        self._calls += 1
        began = perf_counter()
        connection.send_bytes(CALL + job.call.to_bytes())
        message = connection.recv_bytes()
        if message == READY:
            connection.send_bytes(GO if job.begin() else NO)
            message = connection.recv_bytes()
        outcome = PoolOutcome.from_bytes(message[1:])
        if outcome.kind == "done":
            self._pool.pace.note(job.tool.name, outcome.took_s, perf_counter() - began - outcome.took_s)
        return outcome

    def _start(self) -> None:
        self._calls = 0
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            # What multiprocessing gives its own children, too: `-W`, `-X`, `-I` and their like.
            flags = cast(list[str], cast(Any, subprocess)._args_from_interpreter_flags())
            path = json.dumps([entry or os.getcwd() for entry in sys.path])
            command = [os.fsdecode(spawn.get_executable()), *flags, "-c", _PROGRAM]
            self._process = subprocess.Popen(
                [*command, str(number), str(os.getpid()), path],
                stdin=subprocess.PIPE,
                stdout=_find_output(),
                pass_fds=(number,),
                process_group=0,
            )
        self._connection = Connection(ours.detach())

    def kill(self) -> None:
        """Kill the process at once, with all that it has started."""
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def _discard(self, within_s: float = 0.0) -> str:
        """Discard what is left of a process; return how it ended. A free one may end on its own `within_s`."""
        connection, process = self._connection, self._process
        self._connection = None
        if connection is not None:
            connection.close()
        if process is None:
            return ""
        with suppress(subprocess.TimeoutExpired):
            process.wait(within_s)
        self.kill()
        code = process.wait()
        self._process = None
        if process.stdin is not None:
            process.stdin.close()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def hang_up(self) -> None:
        """Kill what works; what is free ends when its thread has closed the connection."""
        if self._is_working:
            self.kill()

    def wait_ended(self) -> None:
        """Wait until the process is gone."""
        self._thread.join(2 * END_WITHIN_S)
        self.kill()
        process = self._process
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_WITHIN_S)


def _find_output() -> int | None:
    """Return the file that this process prints to now: a server over stdio prints elsewhere."""
    try:
        return sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):  # such as a text in memory, or none at all
        return None
