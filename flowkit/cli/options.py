"""Options that several commands share, and the reader of key=value texts."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any
from unicodedata import normalize

import typer
from typer.core import TyperGroup

from flowkit.errors import ConfigurationError


class CommandGroup(TyperGroup):
    """A group whose help lists its commands with whole sentences, which click would cut off in a narrow terminal."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a line for each command."""
        rows = [(name, command.get_short_help_str(limit=1000)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


AppTarget = Annotated[
    str, typer.Argument(metavar="APP", help="The app: path.py, or path.py:name if the file holds several.")
]
Model = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="NAME", help="The model to call, or 'local' for the offline demo model."),
]
BaseUrl = Annotated[str | None, typer.Option(metavar="URL", help="The base URL of an OpenAI-compatible server.")]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", "-d", metavar="KEY=VALUE", help="A parameter of the app's open_data; repeatable."),
]
User = Annotated[
    str | None,
    typer.Option("--user", "-u", metavar="NAME", help="The user the run belongs to; cached results are per user."),
]
Session = Annotated[
    str | None,
    typer.Option("--session", "-s", metavar="NAME", help="Continue this conversation, which the journal keeps."),
]
Trace = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write every event to this file, one JSON object per line.")
]
ToolsFile = Annotated[
    Path | None,
    typer.Option("--tools", metavar="FILE", help="The Python file that defines the tools of a YAML recipe."),
]
JournalAddress = Annotated[
    str | None,
    typer.Option(
        "--journal",
        metavar="FILE|URL",
        help="The journal: a file, or postgresql://…; defaults to FLOWKIT_JOURNAL, or a file in your state folder.",
    ),
]


def _use_cache(context: typer.Context, place: str | None) -> str | None:
    """Set this cache in the environment while the command runs, so that programs it starts use it too."""
    if place is None:
        return None
    is_folder = "://" not in place and place.lower() != "off"
    named = {"FLOWKIT_CACHE": "on", "FLOWKIT_CACHE_DIR": place} if is_folder else {"FLOWKIT_CACHE": place}
    before = {name: os.environ.get(name) for name in named}
    os.environ.update(named)

    def restore() -> None:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    context.call_on_close(restore)
    return place


CacheAddress = Annotated[
    str | None,
    typer.Option(
        "--cache",
        metavar="FOLDER|URL|off",
        help="The cache: a folder, redis://…, or off; defaults to FLOWKIT_CACHE, or a folder of yours.",
        callback=_use_cache,
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        "--wait", metavar="SECONDS", min=0, help="How long to wait for a database that takes no connections yet."
    ),
]
WAIT_S = 30.0
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def read_pairs(pairs: Iterable[str] | None, what: str) -> dict[str, str]:
    """Parse `key=value` texts into a dict; raises `ConfigurationError` for a text without `=` and for a key twice."""
    values: dict[str, str] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigurationError(f"{what} {pair!r} isn't key=value")
        key = normalize("NFC", key)  # as Python composes the name of a parameter
        if key in values:
            raise ConfigurationError(f"{what} {key!r} is given twice")
        values[key] = value
    return values
