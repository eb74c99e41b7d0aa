"""The form of a recipe file: `recipe.schema.json`, checked, with errors that say what was expected where.

The schema is the one description of the format; editors use it too. It picks the kind of a step by its key (`tool`,
`each`, …), so that an error is about that kind and not about all of them.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any, cast

from jsonschema import Draft202012Validator, ValidationError

from flowkit.errors import RecipeFileError
from flowkit.recipes.yaml_source import Path, YamlSource, join_errors
from flowkit.suggestions import suggest

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
