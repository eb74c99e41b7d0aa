"""Notify followers of runs, in any process, of new events; at most once per `NOTIFY_S`.

Never notify inside the transaction that writes: from the notification to the end of the commit the server holds a lock
that all notifying transactions share, and a durable commit waits for the disk.
"""

import logging
import time
from collections.abc import Iterable

import psycopg

from flowkit.journal.postgres.listening import CHANNEL
from flowkit.journal.postgres.session import ANSWER_S, Session
from flowkit.journal.postgres.texts import bind
from flowkit.journal.postgres.writing import begin
from flowkit.journal.store import Changes

NOTIFY_S = 0.1
logger = logging.getLogger("flowkit.journal")


class Bell:
    """Collects the runs that have something new."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._runs: set[int] = set()
        self._rung = 0.0

    def add(self, written: Iterable[Changes]) -> None:
        """Announce these soon; of a run that ended, now."""
        is_end = False
        for changes in written:
            if changes.events or changes.ending is not None:
                self._runs.add(changes.run)
                is_end = is_end or changes.ending is not None
        if is_end or time.monotonic() >= self._rung + NOTIFY_S:
            self.ring()

    def ring(self) -> None:
        """Announce all that were added."""
        if not self._runs:
            return
        runs, self._runs = self._runs, set()
        self._rung = time.monotonic()
        told = "; ".join(bind("SELECT pg_notify(%s, %s)", CHANNEL, str(run)) for run in sorted(runs))
        try:
            self._session.once(lambda link: link.run(f"{begin(durable=False)}; {told}; COMMIT", ANSWER_S))
        except psycopg.Error as error:
            # Who follows a run asks every second anyway.
            logger.debug("%s", self._session.address.hide(str(error)))
