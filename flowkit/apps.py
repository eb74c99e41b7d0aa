"""Apps: a file with agents and recipes, found by `path.py` or `path.py:name`.

A file may define the data of its runs: a function `open_data(…)`, plain, async or an async context manager, returns the
`data` of a run, and closes it afterwards. `--data key=value` sets its keyword parameters, by their types. A parameter
called `user` receives the run's user; its default is the user if none is named.
"""

import importlib.util
import inspect
import re
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast
from unicodedata import normalize

from pydantic import TypeAdapter, ValidationError

from flowkit.agent import Agent
from flowkit.errors import ConfigurationError, FlowkitError
from flowkit.models.base import Model
from flowkit.recipes import Recipe
from flowkit.tools import Tool

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class App:
    """The agents and recipes of a file by name; `selected` is the part after the colon, `tools_file` the file with a
    recipe's tools.

    A model has the name of its variable and its own name, which `Recipe.to_yaml` writes.
    """

    path: Path
    selected: str | None
    agents: Mapping[str, Agent[Any]]
    recipes: Mapping[str, Recipe[..., Any]]
    tools: Mapping[str, Tool[..., Any]]
    models: Mapping[str, Model]
    open_data: Callable[..., object] | None = None
    tools_file: Path | None = None

    @property
    def target(self) -> str:
        """The form that a command line takes."""
        return str(self.path) if self.selected is None else f"{self.path}:{self.selected}"

    def get_agent(self) -> Agent[Any]:
        """Return the selected agent; raises `ConfigurationError` when the choice isn't clear."""
        return self._choose("agent", self.agents)

    def get_recipe(self) -> Recipe[..., Any]:
        """Return the selected recipe; raises `ConfigurationError` when the choice isn't clear."""
        return self._choose("recipe", self.recipes)

    def find_user(self, user: str | None) -> str | None:
        """Return the user of a run: the given one, or else the default of `open_data`."""
        if user is not None or self.open_data is None:
            return user
        default = _get_default(self.open_data, "user")
        return default if isinstance(default, str) else None

    def _choose(self, kind: str, found: Mapping[str, T]) -> T:
        if self.selected is not None:
            if self.selected in found:
                return found[self.selected]
            raise ConfigurationError(f"{self.path} has no {kind} {self.selected!r}; {_say_found(kind, found)}")
        if len(found) == 1:
            return next(iter(found.values()))
        if found:
            raise ConfigurationError(
                f"{self.path} has several {kind}s; name one, {self.path}:{next(iter(found))}: {_say_found(kind, found)}"
            )
        raise ConfigurationError(f"{self.path} has no {kind}")

    @asynccontextmanager
    async def open(self, options: Mapping[str, str], user: str | None) -> AsyncGenerator[tuple[object, str | None]]:
        """Open the data of a run; return it with its user, and close it on leaving.

        Raises `ConfigurationError` for an option that the app doesn't take, or a value that doesn't fit.
        """
        if self.open_data is None:
            if options:
                raise ConfigurationError(f"{self.path} takes no data: it has no function open_data")
            yield None, user
            return
        values = _read_options(self.open_data, options, user, self.path)
        try:
            opened = self.open_data(**values)
            if inspect.isawaitable(opened):
                opened = await opened
        except OSError as error:
            raise ConfigurationError(f"{self.path}: open_data failed: {error}") from error
        user = self.find_user(user)
        if isinstance(opened, AbstractAsyncContextManager):
            async with cast(AbstractAsyncContextManager[object], opened) as data:
                yield data, user
        elif isinstance(opened, AbstractContextManager):
            with cast(AbstractContextManager[object], opened) as data:
                yield data, user
        else:
            yield opened, user


def load_app(target: str, *, tools: Path | None = None) -> App:
    """Load the app at `path.py` or `path.py:name`, or the YAML recipe at `path.yaml` with the tools of the app `tools`.

    Raises `ConfigurationError`, one line, when it can't be used.
    """
    path, selected = split_target(target)
    if path.suffix in (".yaml", ".yml"):
        return _load_recipe_file(path, selected, tools)
    if path.suffix != ".py":
        raise ConfigurationError(f"{path} isn't an app: path.py, path.py:name or path.yaml is expected")
    names = _public_names(_import_file(path))
    app = App(
        path,
        selected,
        agents={name: cast(Agent[Any], value) for name, value in names.items() if isinstance(value, Agent)},
        recipes={name: cast(Recipe[..., Any], value) for name, value in names.items() if isinstance(value, Recipe)},
        tools={name: cast(Tool[..., Any], value) for name, value in names.items() if isinstance(value, Tool)},
        models=_find_models(names),
        open_data=cast(Callable[..., object] | None, names.get("open_data")),
    )
    if not (app.agents or app.recipes or app.tools):
        raise ConfigurationError(f"{path} is no app: it has no agent, no recipe and no tool")
    return app


def _load_recipe_file(path: Path, selected: str | None, tools: Path | None) -> App:
    """Load a YAML recipe as an app; its tools and its `open_data` are those of the Python file `tools`."""
    from flowkit.recipes.files import load_recipe

    given = None if tools is None else load_app(str(tools))
    if given is None:
        recipe = load_recipe(path)
    else:
        models = {**given.models, **given.agents}
        recipe = load_recipe(path, tools=given.tools.values(), models=models, recipes=given.recipes.values())
    return App(
        path,
        selected,
        agents={},
        recipes={recipe.name: recipe},
        tools={} if given is None else given.tools,
        models={} if given is None else given.models,
        open_data=None if given is None else given.open_data,
        tools_file=tools,
    )


def is_target(text: str) -> bool:
    """Return whether a text names an app's file, whether or not it exists."""
    return re.search(r"\.(py|ya?ml)(:\w*)?$", text) is not None


def split_target(target: str) -> tuple[Path, str | None]:
    """Split off the name after the last colon; raises `ConfigurationError` when there is no such file."""
    path = Path(target)
    selected = None
    if not path.exists() and ":" in target:
        head, _, name = target.rpartition(":")
        # A path follows the colon of a drive: C:\\apps\\shop.py
        if not re.search(r"[\\/.]", name):
            path, selected = Path(head), name
    path = _find_composed(path)
    if path.is_dir():
        raise ConfigurationError(f"{str(path)!r} is a folder; name a file in it")
    if not path.is_file():
        raise ConfigurationError(f"no file {str(path)!r}")
    # Python composes the names in a file.
    return path, normalize("NFC", selected) if selected else None


def _find_composed(path: Path) -> Path:
    """Find the file whose name is this one's when both are composed (NFC); the path itself where it exists.

    A Mac's file names come decomposed, and Linux takes the two for different names.
    """
    if path.exists() or path.name.isascii() or not path.parent.is_dir():
        return path
    wanted = normalize("NFC", path.name)
    return next((one for one in path.parent.iterdir() if normalize("NFC", one.name) == wanted), path)


def read_value(annotation: Any, text: str) -> object:
    """Read text from a command line as a value of this type: as plain text, or else as JSON.

    Raises `ValueError` with the expected type.
    """
    adapter: TypeAdapter[object] = TypeAdapter(str if annotation is inspect.Parameter.empty else annotation)
    try:
        return adapter.validate_python(text)
    except ValidationError as error:
        try:
            return adapter.validate_json(text)
        except ValidationError:
            raise ValueError(error.errors()[0]["msg"]) from error


def _import_file(path: Path) -> ModuleType:
    """Import the file as a module, with its folder on the import path, as if Python had been started on it."""
    full = path.resolve()
    name = full.stem
    known = sys.modules.get(name)
    if known is not None:
        if getattr(known, "__file__", None) == str(full):
            return known
        name = f"flowkit_app_{name}"
    if str(full.parent) not in sys.path:
        sys.path.insert(0, str(full.parent))
    spec = importlib.util.spec_from_file_location(name, full)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path} can't be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the file is somebody's program: anything can be raised
        del sys.modules[name]
        raise ConfigurationError(f"{path} doesn't import: {_say_import_error(error, full)}") from error
    return module


def _say_import_error(error: BaseException, path: Path) -> str:
    """Describe the error in one line, with the line of the file that it came from."""
    if isinstance(error, SyntaxError):
        return error.msg if error.lineno is None else f"line {error.lineno}: {error.msg}"
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    where = "" if line is None else f"line {line}: "
    kind = "" if isinstance(error, FlowkitError) else f"{type(error).__name__}: "
    return where + kind + " ".join(str(error).split())


def _public_names(module: ModuleType) -> dict[str, Any]:
    """Return the names that the module offers: its `__all__`, or all without a leading underscore."""
    names = vars(module)
    chosen = names.get("__all__")
    if isinstance(chosen, (list, tuple)):
        return {name: names[name] for name in cast(list[str], chosen) if name in names}
    return {name: value for name, value in names.items() if not name.startswith("_")}


def _find_models(names: Mapping[str, Any]) -> dict[str, Model]:
    """Find the models among them without calling them, since a `DefaultModel` only answers with a key."""
    members = {"name", "source", "stream"}
    found = {name: value for name, value in names.items() if not isinstance(value, type) and members <= {*dir(value)}}
    return {**{model.name: model for model in found.values()}, **found}


def _read_options(
    function: Callable[..., object], options: Mapping[str, str], user: str | None, path: Path
) -> dict[str, object]:
    parameters = inspect.signature(function, eval_str=True).parameters
    values: dict[str, object] = {}
    for name, text in options.items():
        if name not in parameters:
            raise ConfigurationError(f"{path} takes no data {name!r}; it takes {', '.join(parameters) or 'none'}")
        try:
            values[name] = read_value(parameters[name].annotation, text)
        except ValueError as error:
            raise ConfigurationError(f"data {name!r} is {text!r}: {error}") from error
    if user is not None and "user" in parameters:
        values["user"] = user
    missing = [
        name for name, parameter in parameters.items() if parameter.default is parameter.empty and name not in values
    ]
    if missing:
        raise ConfigurationError(f"{path} needs --data {missing[0]}=…")
    return values


def _get_default(function: Callable[..., object], name: str) -> object:
    parameter = inspect.signature(function).parameters.get(name)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def _say_found(kind: str, found: Mapping[str, object]) -> str:
    return f"its {kind}s are {', '.join(found)}" if found else f"it has no {kind}"
