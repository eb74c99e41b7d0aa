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

Name = Literal["shop", "knowledge", "assistant", "order_check"]

IGNORED = """\
.venv/
__pycache__/
.pytest_cache/
.env
*.sqlite3
*.sqlite3-*
*.ics
"""
README = """\
# {folder}

This is {description}.
It was made by `flowkit new` and needs flowkit{extras}.

## Try it

{commands}

Without a key the offline demo model answers.
Set `OPENAI_API_KEY` or `ANTHROPIC_API_KEY`, or `OPENAI_BASE_URL` for a gateway or a local server, for any other model.

## Change it

Replace the tools in `{main}` with your own: a function with types, a docstring and an effect.
`flowkit tools {tools}` shows what a model sees of them, and `--lint` what to improve.

## Test it

    python -m pytest
"""


@dataclass(frozen=True, slots=True)
class Template:
    """An app to copy: its files, with the app itself first, and commands to try. `{app}` is replaced by its path."""

    files: tuple[str, ...]
    test: str
    description: str
    commands: tuple[str, ...]
    extras: tuple[str, ...] = ()
    tools: str = ""


TEMPLATES: Mapping[Name, Template] = {
    "shop": Template(
        ("shop.py", "shop_data.py", "shop_carrier.py"),
        "shop_test.py",
        "an agent and a recipe over a small database",
        ('flowkit chat {app} "Where is my order?"', "flowkit run {app} order_id=ORD-1002"),
    ),
    "knowledge": Template(
        (
            "knowledge.py",
            "knowledge_encoder.py",
            "knowledge_index.py",
            "knowledge_passages.py",
            "knowledge_synonyms.py",
        ),
        "knowledge_test.py",
        "an agent and recipes that search a folder of documents",
        ('flowkit run {app}:search query="…" --data documents=FOLDER',),
        extras=("local", "apps"),
    ),
    "assistant": Template(
        ("assistant.py", "assistant_calendar.py"),
        "assistant_test.py",
        "an agent that manages a calendar and reminders, and checks the weather",
        ('flowkit chat {app} "How is the weather in Seoul?"',),
        extras=("apps",),
    ),
    "order_check": Template(
        ("order_check.yaml", "shop.py", "shop_data.py", "shop_carrier.py"),
        "order_check_test.py",
        "a recipe file with the tools of a Python file",
        (
            "flowkit run {app} --tools {folder}/shop.py order_id=ORD-1002",
            "flowkit graph {app} --tools {folder}/shop.py",
            "flowkit schema > {folder}/recipe.schema.json",
        ),
        tools="shop.py",
    ),
}


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The folder to create.")],
    template: Annotated[Name, typer.Option("--from", help="The example to copy; order_check is a YAML file.")] = "shop",
) -> None:
    """Create an app: a folder with an example, a test and a README."""
    folder = Path(name)
    if folder.exists():
        raise ConfigurationError(f"{name!r} already exists")
    chosen = TEMPLATES[template]
    try:
        _write_folder(folder, chosen)
    except OSError as error:
        raise ConfigurationError(f"can't create {name!r}: {error.strerror}") from error
    app = folder / chosen.files[0]
    print(f"{app} is {chosen.description}. Try:")
    for command in _list_commands(chosen, app, folder):
        print(f"  {command}")


def _write_folder(folder: Path, chosen: Template) -> None:
    """Create the folder with the example's files, its test as `test_….py`, a README and a .gitignore."""
    source = _find_templates()
    folder.mkdir(parents=True)
    base = chosen.test.removesuffix("_test.py")
    for file, target in [*((file, file) for file in chosen.files), (chosen.test, f"test_{base}.py")]:
        with as_file(source / file) as path:
            shutil.copyfile(path, folder / target)
    main = chosen.files[0]
    text = README.format(
        folder=folder.name,
        description=chosen.description,
        extras=f" with the extras {' and '.join(f'`{extra}`' for extra in chosen.extras)}" if chosen.extras else "",
        commands="\n".join(f"    {command}" for command in _list_commands(chosen, Path(main), Path())),
        main=chosen.tools or main,
        tools=chosen.tools or main,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / ".gitignore").write_text(IGNORED, encoding="utf-8")


def _list_commands(chosen: Template, app: Path, folder: Path) -> list[str]:
    """List the commands to try, with paths relative to the current folder."""
    return [command.format(app=quote(str(app)), folder=quote(str(folder))) for command in chosen.commands]


def _find_templates() -> Traversable:
    """Return the folder of the apps: the wheel's copies, or in a checkout the originals."""
    templates = files("flowkit") / "templates"
    return templates if templates.is_dir() else Path(__file__).parents[2] / "recipes"
