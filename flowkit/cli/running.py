"""Show a run: live on a terminal, as plain text in a pipe, as JSON lines in a file."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from flowkit import codec
from flowkit.cli.output import CleanConsole, note
from flowkit.display.plain import PlainDisplay
from flowkit.display.summary import say_summary, summarise
from flowkit.display.terminal import TerminalDisplay
from flowkit.errors import ConfigurationError
from flowkit.events import Event, EventLog
from flowkit.graph import Graph

TICK_S = 0.1
STOP_WITHIN_S = 0.8
"""Ctrl-C ends a run within a second: a tool that can't be stopped isn't waited for longer than this."""


class Runs(Protocol):
    """A run to display: an agent's or a recipe's."""

    @property
    def log(self) -> EventLog: ...
    @property
    def is_done(self) -> bool: ...
    def __aiter__(self) -> AsyncIterator[Event]: ...
    def cancel(self) -> None: ...
    async def wait(self) -> object: ...


@contextmanager
def open_trace(path: Path | None) -> Generator[BinaryIO | None]:
    """Open an empty file for events; raises `ConfigurationError` if it can't be written."""
    if path is None:
        yield None
        return
    try:
        file = path.open("wb", buffering=0)
    except OSError as error:
        raise ConfigurationError(f"the trace {str(path)!r} can't be written: {error.strerror}") from error
    with file:
        yield file


async def watch(
    run: Runs,
    *,
    trace: BinaryIO | None = None,
    quiet: bool = False,
    graph: Graph | None = None,
    with_summary: bool = True,
    server: str | None = None,
    opens: str = "",
) -> None:
    """Show a run until it finishes. If this coroutine is cancelled, cancel the run, which has STOP_WITHIN_S to stop.

    `quiet` shows nothing but still writes the trace. `graph` is the recipe's graph. `server` is the model's host.
    `opens` names what must be opened before the first turn.
    """
    if quiet:
        await _follow(run, trace, lambda event: None)
    elif sys.stdout.isatty():
        await _follow_on_terminal(
            run, trace, TerminalDisplay(CleanConsole(highlight=False), graph=graph, server=server, opens=opens)
        )
    else:
        await _follow_in_pipe(run, trace, graph)
    if with_summary and not quiet:
        show_summary(run.log.events)


def show_summary(events: Sequence[Event]) -> None:
    """Show the run's summary; in a pipe, write it to standard error."""
    console = CleanConsole(highlight=False) if sys.stdout.isatty() else None
    for line in say_summary(summarise(events)):
        if console is None:
            note(line)
        else:
            console.print(line, style="dim")


async def _follow(run: Runs, trace: BinaryIO | None, show: Callable[[Event], None]) -> None:
    """Pass every event to `show` and to the trace, including the events of a run that is being stopped."""
    seen = -1

    def take(event: Event) -> None:
        if trace is not None:
            trace.write(codec.dumps(event.to_json()) + b"\n")
        show(event)

    try:
        async for event in run:
            seen = event.seq
            take(event)
    finally:
        if not run.is_done:
            run.cancel()
            await asyncio.wait([asyncio.ensure_future(run.wait())], timeout=STOP_WITHIN_S)
            for event in run.log.events:
                if event.seq > seen:
                    take(event)


async def _follow_in_pipe(run: Runs, trace: BinaryIO | None, graph: Graph | None) -> None:
    display = PlainDisplay(sys.stdout, sys.stderr, graph=graph)
    try:
        await _follow(run, trace, display.show)
    finally:
        display.end()


async def _follow_on_terminal(run: Runs, trace: BinaryIO | None, display: TerminalDisplay) -> None:
    with display:
        ticking = asyncio.ensure_future(_tick(display, run.log))
        try:
            await _follow(run, trace, display.show)
        finally:
            ticking.cancel()
            await asyncio.wait([ticking])


async def _tick(display: TerminalDisplay, log: EventLog) -> None:
    """Refresh the times of running calls."""
    began = asyncio.get_running_loop().time() - (log.events[-1].t if log.events else 0.0)
    while True:
        await asyncio.sleep(TICK_S)
        display.refresh(asyncio.get_running_loop().time() - began)
