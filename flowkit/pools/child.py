"""A process of the pool on this machine: reads calls from its parent, does them one after another, and ends with it.

A byte says what a message is: the parent sends `C` with a call, and `G` (go) or `N` (no); the child answers `R`, for
ready to begin, and `O` with the outcome.
"""

import asyncio
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection

from flowkit.pools.performing import perform

CALL, GO, NO, READY, OUTCOME = b"C", b"G", b"N", b"R", b"O"

_PR_SET_PDEATHSIG = 1


def serve(number: int, parent: int) -> None:
    """Serve the socket of this number until the parent has gone."""
    # First the pipe from which nothing ever comes but its end, and that only when the parent has gone.
    life = os.dup(0)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    _die_with(parent, life)
    # Ctrl-C is the parent's to handle. Not SIG_IGN, which the programs that a tool starts would inherit.
    signal.signal(signal.SIGINT, _do_nothing)
    connection = Connection(number)
    with asyncio.Runner() as runner:
        while True:
            try:
                message = connection.recv_bytes()
            except (EOFError, OSError):
                return
            outcome = perform(message[1:], lambda: _may_begin(connection), runner.run)
            del message
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            except (OSError, ValueError, AttributeError):
                pass  # nobody reads what the tool has printed
            try:
                connection.send_bytes(OUTCOME + outcome)
            except OSError:
                return
            del outcome


def _do_nothing(*_: object) -> None:
    """Handle a signal that isn't for this process."""


def _may_begin(connection: Connection) -> bool:
    try:
        connection.send_bytes(READY)
        return connection.recv_bytes() == GO
    except (EOFError, OSError):
        os._exit(1)


def _die_with(parent: int, life: int) -> None:
    """Make sure that this process ends with its parent, however that ends and whatever runs here."""
    if sys.platform == "linux":
        import ctypes

        # The kernel's own way, since a function in C may hold every thread of this process up.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    threading.Thread(target=_wait_for_end, args=(life,), name="flowkit-pool-life", daemon=True).start()


def _wait_for_end(life: int) -> None:
    os.read(life, 1)
    # With whatever a tool has started: the process leads a group of its own.
    os.killpg(0, signal.SIGKILL)
