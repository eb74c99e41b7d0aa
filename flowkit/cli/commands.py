"""All commands under one name.

A command's module is imported when the command is called, or shown by `--help`: together they import for a second.
"""

import os
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from flowkit import __version__
from flowkit.cli.log_output import start_logging
from flowkit.cli.starting import show_start

COMMANDS = {
    "chat": "chat:chat",
    "run": "recipes:run",
    "serve": "serve:serve",
    "worker": "worker:worker",
    "mcp": "mcp:mcp",
    "tools": "tools:list_tools",
    "graph": "graphs:draw",
    "explain": "graphs:explain",
    "validate": "graphs:validate",
    "schema": "schema:show",
    "trace": "traces:show",
    "new": "new:create",
    "measure": "measure:measure_models",
    "cache": "caches:app",
    "runs": "runs:app",
    "journal": "journals:app",
}
"""The module of each command, in this package, and what of it is the command or a group of them."""


class _Imported(MutableMapping[str, Any]):
    """The commands by their names, each imported when it is first looked up."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._known:
            self._known[name] = _import(name, *COMMANDS[name].split(":"))
        return self._known[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._known[name] = command

    def __delitem__(self, name: str) -> None:
        del self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


def _import(name: str, module: str, member: str) -> Any:
    with show_start():
        found = getattr(import_module(f"flowkit.cli.{module}"), member)
    around = typer.Typer(rich_markup_mode=None, add_completion=False, callback=common)
    if isinstance(found, typer.Typer):
        around.add_typer(found, name=name)
    else:
        around.command(name)(found)
    group = get_command(around)
    assert isinstance(group, TyperGroup)
    return group.commands[name]


class _Group(TyperGroup):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = _Imported()


app = typer.Typer(
    name="flowkit",
    cls=_Group,
    help="Run agents and recipes whose tools are typed Python functions, in one graph, while the model is still streaming.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
)


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
