"""`flowkit schema`: the JSON Schemas of flowkit's files, for editors and other checkers."""

from importlib.resources import files
from typing import Annotated, Literal

import typer


def show(
    kind: Annotated[
        Literal["recipe", "cases"], typer.Argument(metavar="KIND", help="The file: recipe, or cases.")
    ] = "recipe",
) -> None:
    """Print the JSON Schema of a recipe file or a cases file.

    An editor validates and completes such files with it.
    """
    print(files("flowkit").joinpath(f"{kind}.schema.json").read_text(encoding="utf-8").rstrip())
