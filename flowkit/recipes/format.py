"""The form of a recipe file: `recipe.schema.json`, checked, with errors that say what was expected where.

The schema is the one description of the format; editors use it too. It picks the kind of a step by its key (`tool`,
`each`, …), so that an error is about that kind and not about all of them.

A recipe written as a YAML file.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, cast
from unicodedata import is_normalized

import yaml
from jsonschema import Draft202012Validator, ValidationError
from pydantic import PydanticUserError, TypeAdapter

from flowkit.codec import JSON
from flowkit.errors import DefinitionError, RecipeFileError
from flowkit.graph import get_bodies
from flowkit.recipes.data import write_recipe
from flowkit.recipes.plan import RecipePlan
from flowkit.recipes.yaml_source import Path, YamlSource, add_resolvers, join_errors
from flowkit.suggestions import suggest
from flowkit.tools.schema.annotations import Adapter
from flowkit.tools.schema.signatures import MISSING

_KINDS = ("tool", "ask", "recipe", "each", "when")


@cache
def read_format() -> dict[str, Any]:
    """Read the JSON Schema of recipe files."""
    return json.loads(files("flowkit").joinpath("recipe.schema.json").read_text(encoding="utf-8"))


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(read_format())


def find_format_errors(source: YamlSource) -> dict[Path, RecipeFileError]:
    """Find each place that the format doesn't allow, with its error."""
    errors = list(cast(Any, _validator()).iter_errors(source.value))
    found: dict[Path, RecipeFileError] = {}
    # an unknown key is mostly the misspelt one that another error misses
    for error in sorted(errors, key=lambda error: error.validator != "additionalProperties"):
        if _path(error) not in found:
            try:
                _report(source, error)
            except RecipeFileError as reported:
                found[_path(error)] = reported
    return found


def _path(error: ValidationError) -> Path:
    return tuple(error.absolute_path)


def _report(source: YamlSource, error: ValidationError) -> None:
    path, value = _path(error), cast(Any, error.instance)
    schema = cast(dict[str, Any], error.schema)
    expected = cast(Any, error.validator_value)
    where = f"{_name(path)}: " if path else ""
    match error.validator:
        case "additionalProperties":
            known = sorted(schema.get("properties", {}))
            unknown = [key for key in value if key not in known]
            raise join_errors(
                source.make_error((*path, key), f"{where}unknown key {key!r}; {suggest(key, known)}", at_key=True)
                for key in unknown
            )
        case "required":
            missing = next(key for key in expected if key not in value)
            source.fail(path, f"{where}the key {missing!r} is missing{_describe(schema, missing)}", at_key=True)
        case "type":
            source.fail(path, f"{where}expected {_article(expected)}, found {_kind(value)}")
        case "enum":
            source.fail(path, f"{where}{value!r} isn't known; {suggest(value, map(str, expected))}")
        case "pattern":
            # a pattern stands on names alone, mostly on keys
            source.fail(
                (*path, value),
                f"{where}{value!r} isn't a name (a letter or '_', then letters, digits, '_', '-', '.')",
                at_key=True,
            )
        case "minProperties" if schema.get("properties", {}).keys() >= set(_KINDS):
            source.fail(path, f"{where}a step has one of the keys {', '.join(_KINDS)}", at_key=True)
        case "minProperties" | "maxProperties" if "value" in schema.get("properties", {}) or (
            "all" in schema.get("properties", {})
        ):
            forms = "{value: …, equals: …} with one comparison, {all: […]}, {any: […]} or {not: …}"
            source.fail(path, f"{where}a condition is {forms}")
        case "minProperties" | "minItems":
            source.fail(path, f"{where}is empty; expected at least one")
        case "minimum":
            source.fail(path, f"{where}is {value!r}, at least {expected}")
        case "exclusiveMinimum":
            source.fail(path, f"{where}is {value!r}, expected more than {expected}")
        case "maximum":
            source.fail(path, f"{where}is {value!r}, at most {expected}")
        case "const":
            source.fail(path, f"{where}is {value!r}, expected {json.dumps(expected)}")
        case _:
            source.fail(path, f"{where}{error.message}")


def _name(path: Path) -> str:
    return ".".join(map(str, path))


def _describe(schema: dict[str, Any], key: str) -> str:
    description = schema.get("properties", {}).get(key, {})
    text = cast(dict[str, str], description).get("description", "") if isinstance(description, dict) else ""
    return f": {text}" if text else ""


def _article(kind: str) -> str:
    words = {"object": "keys with values", "array": "a list", "string": "text", "integer": "a whole number"}
    return words.get(kind, f"a {kind}")


def _kind(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return f"the text {value[:40]!r}"
        case int() | float():
            return f"the number {value!r}"
        case list():
            return "a list"
        case _:
            return "keys with values"


_WIDTH = 120


class _Dumper(yaml.SafeDumper):
    """Quotes exactly the texts that our reader would read as another value, and escapes those that it would compose."""

    def write_double_quoted(self, text: str, split: bool = True) -> None:
        emitter = cast(Any, self)  # the stubs leave its options out
        allowed = emitter.allow_unicode
        emitter.allow_unicode = allowed and is_normalized("NFC", text)
        try:
            cast(Any, super()).write_double_quoted(text, split)
        finally:
            emitter.allow_unicode = allowed


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # YAML folds these line breaks of Unicode outside of double quotes, where they are escaped.
    is_changed = any(mark in text for mark in "\x85\u2028\u2029\ufeff") or not is_normalized("NFC", text)
    style = '"' if is_changed else None
    return cast(Any, dumper).represent_scalar("tag:yaml.org,2002:str", text, style=style)


add_resolvers(_Dumper)
_Dumper.add_representer(str, _write_text)


def to_yaml(plan: RecipePlan[Any]) -> str:
    """Write the recipe as YAML; raises `DefinitionError` naming everything that a file can't express."""
    problems = list(_find_unsayable(plan))
    if problems:
        raise DefinitionError(f"recipe {plan.name!r} can't be written as YAML: {'; '.join(problems)}")
    return to_yaml_text(write_recipe(plan))


def to_yaml_text(value: JSON) -> str:
    """Write JSON as YAML that our reader reads back as the same."""
    # types-PyYAML of November 2026 leaves the type of `width` open
    return yaml.dump(  # pyright: ignore[reportUnknownMemberType]
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH
    )


def _find_unsayable(plan: RecipePlan[Any]) -> Iterator[str]:
    names = {f"its name {plan.name!r}": plan.name}
    inputs = cast(Mapping[str, Mapping[str, JSON]], plan.parameters.get("properties", {}))
    names |= {f"the input {name!r}": name for name in inputs}
    for name in _local_names(plan.body.nodes):
        names[f"the step {name!r}"] = name
    allowed = read_format()["$defs"]["name"]["pattern"]
    for what, name in names.items():
        if not re.search(allowed, name):
            yield f"{what} has other characters than letters, digits, '_', '-' and '.'"
    for name, annotation in plan.annotations.items():
        what = "its output" if name == "return" else f"the input {name!r}"
        if annotation is not MISSING and (check := _find_python_check(annotation)):
            yield f"{what} is checked by Python code ({check})"
    required = cast(list[str], plan.parameters.get("required", []))
    for name, schema in inputs.items():
        if name not in required and "default" not in schema:
            yield f"the default of the input {name!r} isn't JSON"


def _local_names(nodes: Any) -> Iterator[str]:
    for node in nodes:
        yield node.id.rsplit("/", 1)[-1]
        for _, body in get_bodies(node):
            yield from _local_names(body.nodes)


def _find_python_check(annotation: Any) -> str | None:
    """Name the first function that validates values of a type."""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    except PydanticUserError:
        # the standard library's TypedDict before Python 3.12
        adapter = TypeAdapter(Adapter().adapt(annotation))
    stack: list[object] = [adapter.core_schema]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            schema = cast(dict[str, Any], item)
            kind = schema.get("type")
            if isinstance(kind, str) and kind.startswith("function-") and isinstance(schema.get("function"), dict):
                function = schema["function"].get("function")
                return getattr(function, "__name__", repr(function))
            if schema.get("post_init"):
                return "__post_init__"
            stack.extend(value for key, value in schema.items() if key not in ("metadata", "serialization"))
        elif isinstance(item, (list, tuple)):
            stack.extend(cast(list[object], item))
    return None
