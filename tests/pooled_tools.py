"""Tools that run in pools; they stand in a module of their own, since another process imports it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydantic import SecretStr

from flowkit import InDoubt, Needs, ToolError, tool


@dataclass(frozen=True)
class Point:
    """A place on a plane."""

    x: int
    y: int


@tool(effect="read", pool="process")
def add(first: int, second: int) -> int:
    """Add two numbers."""
    return first + second


@tool(effect="read", pool="process")
def where() -> int:
    """Tell the process."""
    return os.getpid()


@tool(effect="read", pool="process")
async def where_later() -> int:
    """Tell the process, from a coroutine."""
    await asyncio.sleep(0)
    return os.getpid()


@tool(effect="read", pool="process")
def spin(ms: float) -> int:
    """Keep a core busy."""
    until = time.perf_counter() + ms / 1000
    while time.perf_counter() < until:
        pass
    return os.getpid()


@tool(effect="read", pool="process")
def move(point: Point, day: date, by: int = 1) -> Point:
    """Move a point."""
    return Point(point.x + by, point.y + day.day)


@tool(effect="read", pool="process")
def shift(dx: int, moved: Point = Needs(move)) -> Point:
    """Shift what was moved."""
    return Point(moved.x + dx, moved.y)


@tool(effect="read", pool="process", secret=("token",))
def count_letters(token: SecretStr) -> int:
    """Count a secret's letters."""
    return len(token.get_secret_value())


class Odd(Exception):
    """An error with a constructor of its own."""

    def __init__(self, code: int, *, why: str) -> None:
        super().__init__(f"{code}: {why}")


@tool(effect="read", pool="process", ttl=60, cache_errors=(Odd,), retries=0)
def refuse(how: str) -> int:
    """Fail."""
    match how:
        case "tool":
            raise ToolError("sold out", retryable=False)
        case "doubt":
            raise InDoubt("no answer")
        case "odd":
            raise Odd(3, why="odd")
        case "exit":
            sys.exit(2)
        case _:
            raise ValueError("deep inside")


@tool(effect="read", pool="process", retries=0)
def show() -> object:
    """Give what isn't JSON."""
    return object()


def _die_first(mark: str) -> int:
    path = Path(mark)
    if path.exists():
        return os.getpid()
    path.write_text(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@tool(effect="read", pool="process")
def die_once(mark: str) -> int:
    """Be killed, but for the second time."""
    return _die_first(mark)


@tool(effect="write", pool="process")
def write_and_die(mark: str) -> int:
    """Write a line, and be killed."""
    with open(mark, "a") as file:
        file.write("written\n")
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@tool(effect="write", pool="process")
def write(mark: str) -> int:
    """Write a line."""
    with open(mark, "a") as file:
        file.write("written\n")
    return os.getpid()


@tool(effect="write", pool="process")
def note(mark: str, name: str) -> str:
    """Write a line in the middle of some work."""
    time.sleep(0.005)
    with open(mark, "a") as file:
        file.write(f"{name}\n")
    time.sleep(0.005)
    return name


@tool(effect="read", pool="process", retries=0, timeout=0.5)
def hang(mark: str) -> int:
    """Never end, with a child that doesn't either; both say who they are."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(mark).write_text(f"{os.getpid()} {child.pid}")
    while True:
        pass


@tool(effect="write", pool="process")
def hang_writing(mark: str) -> int:
    """Say who it is, and never end."""
    Path(mark).write_text(str(os.getpid()))
    while True:
        pass


@tool(effect="read", pool="process")
def make_text(size: int) -> str:
    """Give a text of this size."""
    return "x" * size


@tool(effect="read", pool="process")
def measure(text: str) -> int:
    """Give a text's size."""
    return len(text)


@tool(effect="read", pool="dask")
def add_far(first: int, second: int) -> int:
    """Add two numbers."""
    return first + second


@tool(effect="read", pool="dask")
def where_far(ms: float = 0) -> int:
    """Tell the process, after keeping a core busy."""
    until = time.perf_counter() + ms / 1000
    while time.perf_counter() < until:
        pass
    return os.getpid()


@tool(effect="read", pool="dask", retries=0)
def refuse_far(how: str) -> int:
    """Fail."""
    if how == "tool":
        raise ToolError("sold out")
    raise ValueError("deep inside")


@tool(effect="read", pool="dask")
def make_text_far(size: int) -> str:
    """Give a text of this size."""
    return "x" * size


@tool(effect="idempotent", pool="dask")
def put_text_far(size: int) -> str:
    """Put a text of this size, and give it."""
    return "x" * size


@tool(effect="read", pool="dask")
def measure_far(text: str) -> int:
    """Give a text's size."""
    return len(text)


@tool(effect="read", pool="dask")
def die_once_far(mark: str) -> int:
    """Be killed, but for the second time."""
    return _die_first(mark)


@tool(effect="idempotent", pool="dask")
def put_and_die_far(mark: str) -> int:
    """Put a line in place, and be killed."""
    Path(mark).write_text("put")
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@tool(effect="read", pool="dask", timeout=0.5, retries=0)
def wait_far(seconds: float) -> float:
    """Sleep."""
    time.sleep(seconds)
    return seconds


@tool(effect="read", pool="dask", retries=0)
def wait_for_file_far(mark: str, awaited: str) -> int:
    """Say that it runs, and wait for a file."""
    Path(mark).write_text(str(os.getpid()))
    while not Path(awaited).exists():
        time.sleep(0.01)
    return os.getpid()


@tool(effect="read", pool="dask", retries=1)
def wait_again_far(mark: str, awaited: str) -> int:
    """Say that it runs, and wait for a file."""
    return wait_for_file_far(mark, awaited)
