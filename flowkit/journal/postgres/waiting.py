"""Waiting for a server that starts: in a deploy the database and what uses it often start at the same time."""

import time
from collections.abc import Callable

from flowkit.journal.postgres.address import Address

PAUSE_S = 0.25


def wait_until_up(address: Address, wait_s: float, tell: Callable[[str], None]) -> bool:
    """Wait until the server takes connections, at most `wait_s`; whether it does.

    `tell` is called once, when there is something to wait for. A server that refuses this role or database is up.
    """
    from psycopg import pq
    from psycopg.conninfo import make_conninfo

    connection = make_conninfo(**address.parameters).encode()
    until = time.monotonic() + wait_s
    is_told = False
    while True:
        # What the client makes of it: the text of the error is in the server's language, and its code isn't given.
        found = pq.PGconn.ping(connection)
        if found not in (pq.Ping.REJECT, pq.Ping.NO_RESPONSE):
            return True
        left_s = until - time.monotonic()
        if left_s <= 0:
            return False
        if not is_told:
            is_told = True
            cause = "doesn't answer" if found == pq.Ping.NO_RESPONSE else "is starting up, or ending"
            tell(f"{address.name} {cause}; waiting for up to {wait_s:g} s")
        time.sleep(min(PAUSE_S, left_s))
