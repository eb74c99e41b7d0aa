"""Options that several commands share, and how their values are read."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from flowkit.errors import ConfigurationError

AppTarget = Annotated[str, typer.Argument(metavar="APP", help="An app: path.py, or path.py:name for one of several.")]
Model = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="NAME", help="A model's name, or 'local' for the offline demo model."),
]
BaseUrl = Annotated[str | None, typer.Option(metavar="URL", help="Where an OpenAI-compatible server listens.")]
Data = Annotated[list[str] | None, typer.Option("--data", "-d", metavar="KEY=VALUE", help="For the app's open_data.")]
User = Annotated[
    str | None,
    typer.Option("--user", "-u", metavar="NAME", help="Whose run it is; cached results are kept apart by it."),
]
Session = Annotated[
    str | None,
    typer.Option("--session", "-s", metavar="NAME", help="A conversation kept in the journal: go on with it."),
]
Trace = Annotated[Path | None, typer.Option(metavar="FILE", help="Write every event as a line of JSON.")]
ToolsFile = Annotated[
    Path | None, typer.Option("--tools", metavar="FILE", help="For a YAML recipe: the Python file with its tools.")
]
JournalPath = Annotated[
    Path | None,
    typer.Option("--journal", metavar="FILE", help="The journal; FLOWKIT_JOURNAL or the usual one when left out."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def read_pairs(pairs: Iterable[str] | None, what: str) -> dict[str, str]:
    """`key=value` texts as a dict; raises `ConfigurationError` for a text without `=` and for a key twice."""
    values: dict[str, str] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ConfigurationError(f"{what} {pair!r} isn't key=value")
        if key in values:
            raise ConfigurationError(f"{what} {key!r} is given twice")
        values[key] = value
    return values
