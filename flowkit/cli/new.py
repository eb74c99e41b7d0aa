"""`flowkit new`: an app to begin with."""

import shutil
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from flowkit.errors import ConfigurationError

FILES = ("shop.py", "shop_data.py", "shop_carrier.py")


def create(name: Annotated[str, typer.Argument(metavar="NAME", help="The folder to make.")]) -> None:
    """Start an app: a folder with the shop, ready to be changed."""
    folder = Path(name)
    if folder.exists():
        raise ConfigurationError(f"{name!r} is already there")
    source = _find_templates()
    try:
        folder.mkdir(parents=True)
        for file in FILES:
            with as_file(source / file) as path:
                shutil.copyfile(path, folder / file)
    except OSError as error:
        raise ConfigurationError(f"{name!r} can't be made: {error.strerror}") from error
    app = folder / FILES[0]
    print(f"{app} is an agent and a recipe over a small database. Try:")
    print(f'  flowkit chat {quote(str(app))} "Where is my order?"')
    print(f"  flowkit run {quote(str(app))} order_id=ORD-1002")


def _find_templates() -> Traversable:
    """The wheel's copy of the shop; in a checkout the shop itself."""
    templates = files("flowkit") / "templates"
    return templates if templates.is_dir() else Path(__file__).parents[2] / "recipes"
