"""The end of long-running commands: by a signal, and without waiting for what can't be stopped."""

import asyncio
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

from flowkit.cli.exit_codes import STOPPED


def end_at_sigterm() -> None:
    """End the process with 0 at SIGTERM, until a loop handles it: while it starts or waits, there is nothing to release.

    Without a handler the first process of a container ignores the signal, and is killed at the end of its grace.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)


def stop_by_signals(stop: asyncio.Event) -> None:
    """Set `stop` when the process is asked to end; at the second signal it ends at once."""

    def end() -> None:
        if stop.is_set():
            os._exit(STOPPED)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows: Ctrl-C cancels instead
            loop.add_signal_handler(number, end)


def leave(runner: asyncio.Runner) -> None:
    """End the process even if a tool's thread hangs: a thread can't be stopped, and would be waited for."""
    sys.stdout.flush()
    if any(not thread.daemon and thread is not threading.current_thread() for thread in threading.enumerate()):
        os._exit(0)
    runner.close()
