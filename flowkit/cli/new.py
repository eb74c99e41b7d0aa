"""`flowkit new`: create an app from an example."""

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
    name: Annotated[str, typer.Argument(metavar="NAME", help="The folder to create.")],
    template: Annotated[Name, typer.Option("--from", help="The example to copy.")] = "shop",
) -> None:
    """Create an app: a folder with a copy of one of the examples."""
    folder = Path(name)
    if folder.exists():
        raise ConfigurationError(f"{name!r} already exists")
    chosen, source = TEMPLATES[template], _find_templates()
    try:
        folder.mkdir(parents=True)
        for file in chosen.files:
            with as_file(source / file) as path:
                shutil.copyfile(path, folder / file)
    except OSError as error:
        raise ConfigurationError(f"can't create {name!r}: {error.strerror}") from error
    app = folder / chosen.files[0]
    print(f"{app} is {chosen.description}. Try:")
    for command in chosen.commands:
        print(f"  {command.format(app=quote(str(app)))}")


def _find_templates() -> Traversable:
    """Find the wheel's copies of the apps, or in a checkout the apps themselves."""
    templates = files("flowkit") / "templates"
    return templates if templates.is_dir() else Path(__file__).parents[2] / "recipes"
