"""Recipes from YAML files.

A file is read as plain data, checked against `recipe.schema.json`, and then turned into the same nodes that a
function under `@recipe` makes. Tools, models, agents and other recipes are given by name; nothing in a file is
imported, called or evaluated. Every error names file, line, column, key and what was expected.
"""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path as FilePath
from typing import Any, TypeVar, cast

from jsonschema import Draft202012Validator, SchemaError

from flowkit.codec import JSON
from flowkit.errors import DefinitionError, FlowkitError, GraphError, RecipeFileError
from flowkit.graph import INPUTS, Body
from flowkit.mcp_client.entries import read_entry
from flowkit.recipes.blocks import AnyTarget, Known, StepReader
from flowkit.recipes.decorator import Recipe, order_nodes
from flowkit.recipes.format import find_format_errors
from flowkit.recipes.input_findings import find_missing_values, find_secret_inputs
from flowkit.recipes.plan import AnyTool, RecipePlan, output_of_schema
from flowkit.recipes.values import FileScope, ValueReader
from flowkit.recipes.yaml_source import Path, YamlSource, join_errors, read_yaml
from flowkit.references import Reference
from flowkit.schema_paths import find_unknown_reference
from flowkit.tools import Tool
from flowkit.tools.toolsets import Toolset

AnyRecipe = Recipe[..., Any]
T = TypeVar("T")


def load_recipe(
    path: str | FilePath,
    *,
    tools: Iterable[AnyTool | Toolset | Callable[..., Any]] = (),
    models: Mapping[str, AnyTarget] | None = None,
    recipes: Iterable[AnyRecipe] = (),
) -> Recipe[..., JSON]:
    """Load the recipe in a file; its steps may use `tools`, `models` (or agents) and other `recipes` by name.

    Raises `RecipeFileError` with all errors of the file.
    """
    name = str(path)
    try:
        data = FilePath(path).read_bytes()
    except OSError as error:
        raise RecipeFileError(f"can't be read: {error.strerror or error}", path=name) from None
    return read_recipe(data, name, tools=tools, models=models, recipes=recipes)


def read_recipe(
    data: bytes,
    name: str,
    *,
    tools: Iterable[AnyTool | Toolset | Callable[..., Any]] = (),
    models: Mapping[str, AnyTarget] | None = None,
    recipes: Iterable[AnyRecipe] = (),
) -> Recipe[..., JSON]:
    """Read a recipe from the bytes of a file; errors call it `name`."""
    source = read_yaml(data, name)
    misformed = find_format_errors(source)
    # A step of the wrong form isn't read further; with other parts wrong, nothing is.
    in_steps = {path[:2] for path in misformed if path[0:1] in (("steps",), ("finally",)) and len(path) > 1}
    if any(path[:2] not in in_steps for path in misformed):
        raise join_errors(misformed.values())
    servers = connect_servers(source)
    try:
        given = Toolset(*tools, *servers)
    except DefinitionError as error:
        source.fail(("mcp",), str(error), at_key=True)
    known = Known(
        {tool.name: tool for tool in given},
        {} if models is None else models,
        {recipe.name: recipe.plan for recipe in recipes},
    )
    return Recipe(_Loader(source, known, in_steps, list(misformed.values())).load())


def connect_servers(source: YamlSource) -> list[Toolset]:
    """Connect once to each of the file's MCP servers, in parallel, and return their tools."""
    data = cast(Mapping[str, Any], source.value)
    entries = cast(Mapping[str, Mapping[str, JSON]], data.get("mcp", {}))
    if not entries:
        return []

    def connect(name: str) -> Toolset | FlowkitError:
        try:
            return read_entry(name, entries[name], os.environ).load()
        except FlowkitError as error:
            return error

    with ThreadPoolExecutor(len(entries)) as threads:
        found = dict(zip(entries, threads.map(connect, entries), strict=True))
    for name, tools in found.items():
        if isinstance(tools, FlowkitError):
            source.fail(("mcp", name), f"mcp.{name}: {tools}", at_key=True)
    return [tools for tools in found.values() if isinstance(tools, Toolset)]


class _Loader:
    """Turns the validated data of one file into a plan."""

    def __init__(
        self, source: YamlSource, known: Known, skipped: Collection[Path], errors: list[RecipeFileError]
    ) -> None:
        self._source = source
        self._known = known
        self._skipped = skipped
        self._errors = errors
        self._data = cast(Mapping[str, Any], source.value)

    def load(self) -> RecipePlan[JSON]:
        data, name = self._data, str(self._data["recipe"])
        schema = self._read_inputs()
        returns = self._try(lambda: self._read_type(("returns",)) if "returns" in data else None)
        values = ValueReader(self._source, schema, self._find_results())
        reader = StepReader(self._known, values, self._read_type, skipped=self._skipped, errors=self._errors)
        scope = FileScope("")
        main, final = cast(Mapping[str, Any], data["steps"]), cast(Mapping[str, Any], data.get("finally", {}))
        for key, steps in (("steps", main), ("finally", final)):
            for step in steps:
                if step in scope.steps or step == INPUTS:
                    self._source.fail((key, step), f"{key}.{step}: the name is taken", at_key=True)
                scope.steps[step] = step
        nodes = reader.read_steps(("steps",), main, scope) + reader.read_steps(("finally",), final, scope)
        last = list(main)[-1]
        value = self._try(
            lambda: values.read(("output",), data["output"], scope) if "output" in data else Reference(last)
        )
        body = Body(tuple(nodes), None)
        for found in (*find_missing_values(body, reader.tools), *find_secret_inputs(body, reader.tools)):
            place = ("steps", found.step, "with", found.argument)
            self._errors.append(self._source.make_error(place, f"steps.{found.step}: {found}"))
        if self._errors:
            raise join_errors(self._errors)
        interface = Tool.from_schema(name, "", schema, _never_run, effect="read")
        if interface.secrets:
            secret = interface.secrets.list_arguments()[0]
            raise self._source.make_error(
                ("inputs", secret),
                f"inputs.{secret}: it is a secret, and inputs are kept; hand it on in the run's data",
            )
        plan = RecipePlan(
            name,
            str(data.get("description", "")),
            interface,
            output_of_schema(name, returns),
            Body(order_nodes(nodes, list(final)), value),
            defaults={key: held["default"] for key, held in self._properties(schema) if "default" in held},
            final_ids=tuple(final),
            tools=reader.tools,
            requests=reader.requests,
            nestings=reader.nestings,
        )
        try:
            _ = plan.graph
        except GraphError as error:
            self._source.fail((), str(error))
        return plan

    def _try(self, read: Callable[[], T]) -> T | None:
        """Call a function that reads a part of the file, and note its error."""
        try:
            return read()
        except RecipeFileError as error:
            self._errors.append(error)
            return None

    def _read_inputs(self) -> dict[str, JSON]:
        properties: dict[str, JSON] = {
            name: dict(self._read_type(("inputs", name))) for name in self._data.get("inputs", {})
        }
        required: list[JSON] = [
            name for name, held in properties.items() if "default" not in cast(dict[str, JSON], held)
        ]
        schema: dict[str, JSON] = {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }
        if "$defs" in self._data:
            schema["$defs"] = self._data["$defs"]
        self._check_schema(("inputs",), schema)
        for name, held in self._properties(schema):
            if "default" in held:
                self._check_default(name, schema, held["default"])
        return schema

    def _check_default(self, name: str, schema: Mapping[str, JSON], default: JSON) -> None:
        whole = {**schema, "required": []}
        for error in cast(Any, Draft202012Validator(whole)).iter_errors({name: default}):
            self._source.fail(("inputs", name, "default"), f"inputs.{name}.default: {error.message}")

    def _properties(self, schema: Mapping[str, JSON]) -> list[tuple[str, Mapping[str, JSON]]]:
        return list(cast(Mapping[str, Mapping[str, JSON]], schema["properties"]).items())

    def _read_type(self, path: Path) -> Mapping[str, JSON]:
        held = self._at(path)
        schema = {"type": held} if isinstance(held, str) else cast(Mapping[str, JSON], held)
        if path[0] == "inputs":  # checked with all inputs, by `_read_inputs`
            return schema
        whole = {**schema, "$defs": self._data["$defs"]} if "$defs" in self._data and "$defs" not in schema else schema
        self._check_schema(path, whole)
        return whole

    def _check_schema(self, path: Path, schema: Mapping[str, JSON]) -> None:
        """Refuse a schema that isn't one, and one that leads out of the file."""
        where = ".".join(map(str, path))
        try:
            # with its formats, among them that a pattern is a regular expression
            cast(Any, Draft202012Validator).check_schema(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
        except SchemaError as error:
            inner = tuple(key for key in error.absolute_path if key != "properties")
            self._source.fail((*path, *inner), f"{where}: not a JSON Schema: {error.message}")
        unknown = find_unknown_reference(schema)
        if unknown is not None:
            self._source.fail(path, f"{where}: {unknown} isn't in this file; write $ref: '#/$defs/name'")
        probe = dict.fromkeys(self._data.get("inputs", {})) if path == ("inputs",) else None
        try:
            list(cast(Any, Draft202012Validator(cast(Any, schema))).iter_errors(probe))
        except RecursionError:
            self._source.fail(path, f"{where}: a schema refers only to itself, so nothing fits it")

    def _find_results(self) -> dict[str, Mapping[str, JSON]]:
        """Find the schemas of the steps' results where their tools and recipes declare them.

        Use may precede the step.
        """
        found: dict[str, Mapping[str, JSON]] = {}
        steps = cast(Mapping[str, Any], {**self._data["steps"], **self._data.get("finally", {})})
        for name, data in steps.items():
            schema: Mapping[str, JSON] | None = None
            match data:
                case {"fallback": _} | {"optional": True}:
                    pass
                case {"tool": str() as tool} if tool in self._known.tools:
                    schema = self._known.tools[tool].result_schema
                case {"recipe": str() as recipe} if recipe in self._known.recipes:
                    schema = self._known.recipes[recipe].output.schema
                case _:
                    pass
            if schema is not None:
                found[name] = schema
        return found

    def _at(self, path: Path) -> JSON:
        value: Any = self._data
        for key in path:
            value = value[key]
        return value


def _never_run(arguments: dict[str, JSON]) -> None:
    """Fill the place of a function in the recipe's interface, which is a tool; it is never called."""
