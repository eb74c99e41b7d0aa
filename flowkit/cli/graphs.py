"""`flowkit graph`, `explain`, `validate` and `trace`: look at a recipe without running it, and at a run afterwards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flowkit.apps import load_app
from flowkit.cli.exit_codes import MISUSED
from flowkit.cli.options import AppTarget, ToolsFile
from flowkit.cli.output import make_console, note_error, say, say_exactly
from flowkit.codec import JSON
from flowkit.errors import ConfigurationError, FlowkitError
from flowkit.recipes import Recipe

Format = Literal["mermaid", "dot", "svg"]
TraceOfRun = Annotated[
    Path | None, typer.Option("--trace", metavar="FILE", help="A recorded run; each step is shown with its outcome.")
]


def draw(
    app: AppTarget,
    format: Annotated[Format, typer.Option("--format", "-f", help="The output format.")] = "mermaid",
    tools: ToolsFile = None,
    trace: TraceOfRun = None,
) -> None:
    """Draw a recipe's graph, or one run of it."""
    graph = _load(app, tools).graph()
    events = _read(trace)
    match format:
        case "mermaid":
            text = graph.to_mermaid(events)
        case "dot":
            text = graph.to_dot(events)
        case "svg":
            text = graph.to_svg(events)
    say_exactly(text.rstrip("\n"))


def explain(app: AppTarget, tools: ToolsFile = None, trace: TraceOfRun = None) -> None:
    """Explain in words what each step depends on, or how a run went."""
    say(_load(app, tools).graph().explain(_read(trace)))


def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="The apps and YAML recipes to check.")],
    tools: ToolsFile = None,
) -> None:
    """Check apps and recipe files without running them."""
    wrong = 0
    for file in files:
        try:
            app = load_app(str(file), tools=tools)
        except FlowkitError as error:
            note_error(error)
            wrong += 1
        else:
            found = [*app.agents, *app.recipes] or [*app.tools]
            say(f"{file}: {', '.join(found)}")
    if wrong:
        raise typer.Exit(MISUSED)


def _load(app: str, tools: Path | None) -> Recipe[..., Any]:
    return load_app(app, tools=tools).get_recipe()


def _read(trace: Path | None) -> list[Mapping[str, JSON]] | None:
    return None if trace is None else _open_trace(trace)


def show_trace(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file that --trace wrote.")],
    every_call: Annotated[
        bool, typer.Option("--every-call", help="Draw one row per call, however many there are.")
    ] = False,
) -> None:
    """Draw a recorded run as a timeline.

    Turns are at the top, calls below.
    """
    from flowkit.graph.pictures.gantt import draw_timeline

    console = make_console()
    chart = draw_timeline(_open_trace(file), width=console.width, every_call=every_call)
    console.print(chart)


def _open_trace(file: Path) -> list[Mapping[str, JSON]]:
    """Read the events in a trace file; raises `ConfigurationError` if it can't be read."""
    from flowkit.graph.pictures.timeline import read_trace

    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"the trace {str(file)!r} can't be read: {error.strerror}") from error
    try:
        return read_trace(lines)
    except ConfigurationError as error:
        raise ConfigurationError(f"{str(file)!r}: {error}") from error
