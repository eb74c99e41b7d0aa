"""All commands under one name."""

import os
from typing import Annotated

import typer

from flowkit import __version__
from flowkit.cli import (
    caches,
    chat,
    costs,
    exports,
    graphs,
    journals,
    mcp,
    measure,
    new,
    recipes,
    runs,
    schema,
    serve,
    tools,
    traces,
    worker,
)
from flowkit.cli.log_output import start_logging

app = typer.Typer(
    name="flowkit",
    help="Run agents and recipes whose tools are typed Python functions, in one graph, while the model is still streaming.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)
app.command("chat")(chat.chat)
app.command("run")(recipes.run)
app.command("serve")(serve.serve)
app.command("worker")(worker.worker)
app.command("mcp")(mcp.mcp)
app.command("tools")(tools.list_tools)
app.command("graph")(graphs.draw)
app.command("explain")(graphs.explain)
app.command("validate")(graphs.validate)
app.command("schema")(schema.show)
app.command("trace")(traces.show)
app.command("new")(new.create)
app.command("measure")(measure.measure_models)
app.add_typer(caches.app, name="cache")
runs.app.command("export")(exports.export)
runs.app.command("costs")(costs.costs)
app.add_typer(runs.app, name="runs")
app.add_typer(journals.app, name="journal")


def _say_version(wanted: bool) -> None:
    if wanted:
        print(f"flowkit-agents {__version__}")
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_say_version, is_eager=True)
    ] = False,
    verbose: Annotated[
        int,
        typer.Option("--verbose", "-v", count=True, help="Log to stderr: -v a line for each run, -vv its states, too."),
    ] = 0,
) -> None:
    """Read the options that every command has."""
    context.call_on_close(start_logging(verbose, os.environ.get("FLOWKIT_LOG")))
