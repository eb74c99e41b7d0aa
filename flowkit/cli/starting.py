"""A spinner while a command imports packages or waits, which takes half a second, or several on a slow machine.

It runs before all other imports, so it uses only small modules of the standard library.
"""

import os
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

FIRST_S = 0.15
"""A command that is ready sooner shows nothing."""
EVERY_S = 0.1
_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


@contextmanager
def show_start(what: str = "starting") -> Generator[None]:
    """Show the current action and its elapsed time on a terminal; remove the line when the block exits."""
    if not sys.stderr.isatty():
        yield
        return
    is_over = threading.Event()
    turning = threading.Thread(target=_turn, args=(is_over, what), daemon=True)
    turning.start()
    try:
        yield
    finally:
        is_over.set()
        turning.join()


def _turn(is_over: threading.Event, what: str) -> None:
    shown, widest = 0, 0
    wait_s = FIRST_S
    began = time.monotonic()
    while not is_over.wait(wait_s):
        passed_s = int(time.monotonic() - began)
        line = f"{_FRAMES[shown % len(_FRAMES)]} {what}" + (f", {passed_s} s" if passed_s else "")
        _write(f"\r{line}")
        shown, wait_s, widest = shown + 1, EVERY_S, max(widest, len(line))
    if shown:
        # A dumb terminal, such as Emacs's shell, would show the escape sequence.
        _write(f"\r{' ' * widest}\r" if os.environ.get("TERM") == "dumb" else "\r\x1b[K")


def _write(text: str) -> None:
    # A terminal that can't show the frames shows dots.
    encoded = text.encode(sys.stderr.encoding or "ascii", "replace")
    sys.stderr.buffer.write(encoded)
    sys.stderr.buffer.flush()
