"""`flowkit new`: an app to begin with."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

import typer

from flowkit.errors import ConfigurationError

Name = Literal["shop", "knowledge", "assistant"]


@dataclass(frozen=True, slots=True)
class Template:
    """An app that is copied: its files, the app's own first, what it is, and commands to try with `{app}` for its path."""

    files: tuple[str, ...]
    description: str
    commands: tuple[str, ...]


TEMPLATES: Mapping[Name, Template] = {
    "shop": Template(
        ("shop.py", "shop_data.py", "shop_carrier.py"),
        "an agent and a recipe over a small database",
        ('flowkit chat {app} "Where is my order?"', "flowkit run {app} order_id=ORD-1002"),
    ),
    "knowledge": Template(
        ("knowledge.py", "knowledge_index.py", "knowledge_passages.py"),
        "an agent and recipes that search a folder of documents",
        ('flowkit run {app}:search query="…" --data documents=FOLDER',),
    ),
    "assistant": Template(
        ("assistant.py",),
        "an agent that keeps a calendar and reminders, and knows the weather",
        ('flowkit chat {app} "How is the weather in Seoul?"',),
    ),
}


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The folder to make.")],
    template: Annotated[Name, typer.Option("--from", help="The app that is copied.")] = "shop",
) -> None:
    """Start an app: a folder with one of the examples, ready to be changed."""
    folder = Path(name)
    if folder.exists():
        raise ConfigurationError(f"{name!r} is already there")
    chosen, source = TEMPLATES[template], _find_templates()
    try:
        folder.mkdir(parents=True)
        for file in chosen.files:
            with as_file(source / file) as path:
                shutil.copyfile(path, folder / file)
    except OSError as error:
        raise ConfigurationError(f"{name!r} can't be made: {error.strerror}") from error
    app = folder / chosen.files[0]
    print(f"{app} is {chosen.description}. Try:")
    for command in chosen.commands:
        print(f"  {command.format(app=quote(str(app)))}")


def _find_templates() -> Traversable:
    """The wheel's copies of the apps; in a checkout the apps themselves."""
    templates = files("flowkit") / "templates"
    return templates if templates.is_dir() else Path(__file__).parents[2] / "recipes"
