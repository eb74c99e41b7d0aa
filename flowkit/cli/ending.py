"""Shut down long-running commands: on a signal, and without waiting for threads that can't be stopped."""

import asyncio
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

from flowkit.cli.exit_codes import STOPPED


def end_at_sigterm() -> None:
    """Exit with code 0 on SIGTERM until an event loop handles it: while the process starts, it has nothing to release.

    Without a handler, the first process of a container ignores the signal and is killed after its grace period.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)


def stop_by_signals(stop: asyncio.Event) -> None:
    """Set `stop` at the first signal; exit immediately at the second."""

    def end() -> None:
        if stop.is_set():
            os._exit(STOPPED)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows: Ctrl-C cancels instead
            loop.add_signal_handler(number, end)


def cancel_at_sigterm() -> None:
    """Cancel the current task at SIGTERM, for a command whose results so far are worth keeping; CI stops jobs by it.

    Passing it on as Ctrl-C would do nothing in a background job, where a shell makes processes ignore SIGINT.
    """
    task = asyncio.current_task()
    assert task is not None
    with suppress(NotImplementedError):  # Windows has no SIGTERM from outside
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def leave(runner: asyncio.Runner) -> None:
    """Exit the process even if a tool's thread hangs: Python would wait for the thread, and can't stop it."""
    sys.stdout.flush()
    if any(not thread.daemon and thread is not threading.current_thread() for thread in threading.enumerate()):
        os._exit(0)
    runner.close()
