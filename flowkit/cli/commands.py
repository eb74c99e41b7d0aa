"""All commands under one name, and what each of them logs to stderr.

A command's module is imported when the command is called or listed by `--help`: importing all of them takes a second.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from flowkit import __version__
from flowkit.cli.options import CommandGroup
from flowkit.cli.starting import show_start
from flowkit.errors import ConfigurationError
from flowkit.suggestions import suggest

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
    "trace": "graphs:show_trace",
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


class _Group(CommandGroup):
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


LEVELS: Mapping[str, int] = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
BY_COUNT = ("warning", "info", "debug")
"""The level of no, one and two `-v`."""


def start_logging(verbose: int, wanted: str | None) -> Callable[[], None]:
    """Send flowkit's log to stderr; return a function that stops it.

    `wanted` is a comma-separated list of levels: `debug` sets all of flowkit, `flowkit.cache=debug` one logger. `-v`
    overrides the level for all. Raises `ConfigurationError` for an unknown level.
    """
    levels = {"flowkit": LEVELS["warning"], **read_levels(wanted or "")}
    if verbose:
        levels["flowkit"] = LEVELS[BY_COUNT[min(verbose, len(BY_COUNT) - 1)]]
    handler = logging.StreamHandler(sys.stderr)
    if verbose or wanted:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = {name: logging.getLogger(name) for name in levels}
    before = {name: logger.level for name, logger in loggers.items()}
    for name, logger in loggers.items():
        logger.setLevel(levels[name])
    loggers["flowkit"].addHandler(handler)

    def stop() -> None:
        loggers["flowkit"].removeHandler(handler)
        for name, logger in loggers.items():
            logger.setLevel(before[name])

    return stop


def read_levels(text: str) -> dict[str, int]:
    """Read levels by logger.

    >>> read_levels("info,flowkit.cache=debug")
    {'flowkit': 20, 'flowkit.cache': 10}
    """
    levels: dict[str, int] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, is_named, level = part.rpartition("=")
        if level.lower() not in LEVELS:
            raise ConfigurationError(f"FLOWKIT_LOG: {level!r} is no level: {suggest(level.lower(), LEVELS)}")
        if is_named and name != "flowkit" and not name.startswith("flowkit."):
            raise ConfigurationError(f"FLOWKIT_LOG: {name!r} is none of flowkit's loggers: flowkit.cache, for example")
        levels[name or "flowkit"] = LEVELS[level.lower()]
    return levels
