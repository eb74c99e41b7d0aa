"""Notify followers of runs, in any process, of new events, and listen for such notifications.

A process uses one connection and one thread while it has followers. A notification that is sent while nobody listens
is lost, and a pooler in transaction mode forwards none, so a follower also polls once a second.
"""

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterable

import psycopg

from flowkit.journal.postgres.address import Address
from flowkit.journal.postgres.session import ANSWER_S, Session
from flowkit.journal.postgres.texts import bind
from flowkit.journal.postgres.writing import begin
from flowkit.journal.store import Changes

CHANNEL = "flowkit"
AGAIN_S = 1.0
"""How long after a failure it connects again."""
logger = logging.getLogger("flowkit.journal")


class Listener:
    """The followers of runs, by the runs' numbers."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._wakers: dict[int, list[Callable[[], None]]] = {}
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._bell = -1

    def listen(self, run: int, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` in another thread when this run has new events, until the returned function is called."""
        if self._pid != os.getpid():
            self._pid, self._lock, self._wakers, self._thread = os.getpid(), threading.Lock(), {}, None
        with self._lock:
            self._wakers.setdefault(run, []).append(wake)
            if self._thread is None:
                ear, self._bell = os.pipe()
                self._thread = threading.Thread(target=self._work, args=(ear,), name="flowkit-follow", daemon=True)
                self._thread.start()

        def stop() -> None:
            with self._lock:
                wakers = self._wakers.get(run, [])
                if wake in wakers:
                    wakers.remove(wake)
                if not wakers:
                    self._wakers.pop(run, None)
                if not self._wakers:
                    self._ring()

        return stop

    def close(self) -> None:
        """Listen no more."""
        with self._lock:
            self._wakers.clear()
            self._ring()

    def _ring(self) -> None:
        """Let the thread stop; a later listener starts another. The lock is held."""
        if self._thread is not None and self._pid == os.getpid():
            self._thread = None
            os.close(self._bell)

    def _work(self, ear: int) -> None:
        try:
            is_over = False
            while not is_over:
                try:
                    is_over = self._listen(ear)
                except psycopg.Error as error:
                    logger.debug("%s", self._address.hide(str(error)))
                    is_over = bool(select.select([ear], [], [], AGAIN_S)[0])
        finally:
            os.close(ear)

    def _listen(self, ear: int) -> bool:
        """Wake the listeners of announced runs until the bell rings; True then."""
        with psycopg.connect("", **self._address.parameters, autocommit=True, prepare_threshold=None) as connection:
            connection.execute(f"LISTEN {CHANNEL}".encode())
            self._wake_all()  # earlier notifications are lost
            pgconn = connection.pgconn
            while True:
                ready, _, _ = select.select([ear, pgconn.socket], [], [])
                if ear in ready:
                    return True
                pgconn.consume_input()
                while (found := pgconn.notifies()) is not None:
                    self._wake(found.extra)

    def _wake(self, payload: bytes) -> None:
        with self._lock:
            wakers = list(self._wakers.get(int(payload), ())) if payload.isdigit() else []
        for wake in wakers:
            wake()

    def _wake_all(self) -> None:
        with self._lock:
            wakers = [wake for some in self._wakers.values() for wake in some]
        for wake in wakers:
            wake()


NOTIFY_S = 0.1


class Bell:
    """Collects the runs with new events, and announces them at most once per `NOTIFY_S`, or when one ends.

    Never notify inside the transaction that writes: from the notification to the end of the commit the server holds a
    lock that all notifying transactions share, and a durable commit waits for the disk.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._runs: set[int] = set()
        self._rung = 0.0
        self._has_end = False

    def add(self, written: Iterable[Changes]) -> None:
        """Collect these runs."""
        for changes in written:
            if changes.events or changes.ending is not None:
                self._runs.add(changes.run)
                self._has_end = self._has_end or changes.ending is not None

    def ring_if_due(self) -> None:
        """Announce what was added, if one ended or the time has come."""
        if self._has_end or time.monotonic() >= self._rung + NOTIFY_S:
            self.ring()

    def ring(self) -> None:
        """Announce all that were added."""
        if not self._runs:
            return
        runs, self._runs = self._runs, set()
        self._has_end = False
        self._rung = time.monotonic()
        told = "; ".join(bind("SELECT pg_notify(%s, %s)", CHANNEL, str(run)) for run in sorted(runs))
        try:
            self._session.once(lambda link: link.run(f"{begin(durable=False)}; {told}; COMMIT", ANSWER_S))
        except psycopg.Error as error:
            # Followers also poll every second.
            logger.debug("%s", self._session.address.hide(str(error)))
