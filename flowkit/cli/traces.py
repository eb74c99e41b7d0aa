"""`flowkit trace`: draw a recorded run in the terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from flowkit.cli.output import make_console
from flowkit.codec import JSON
from flowkit.errors import ConfigurationError


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file that --trace wrote.")],
    every_call: Annotated[
        bool, typer.Option("--every-call", help="Draw one row per call, however many there are.")
    ] = False,
) -> None:
    """Draw a recorded run as a timeline: turns above, calls below."""
    from flowkit.graph.pictures.gantt import draw_timeline

    console = make_console()
    chart = draw_timeline(open_trace(file), width=console.width, every_call=every_call)
    console.print(chart)


def open_trace(file: Path) -> list[Mapping[str, JSON]]:
    """Read the events in a trace file; raises `ConfigurationError` if it can't be read."""
    from flowkit.graph.pictures.timeline import read_trace

    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"the trace {str(file)!r} can't be read: {error.strerror}") from error
    return read_trace(lines)
