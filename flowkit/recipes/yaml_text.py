"""A recipe written as a YAML file."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast
from unicodedata import is_normalized

import yaml
from pydantic import PydanticUserError, TypeAdapter

from flowkit.codec import JSON
from flowkit.errors import DefinitionError
from flowkit.graph import get_bodies
from flowkit.recipes.data import write_recipe
from flowkit.recipes.format import read_format
from flowkit.recipes.plan import RecipePlan
from flowkit.recipes.yaml_source import add_resolvers
from flowkit.tools.schema.annotations import Adapter
from flowkit.tools.schema.signatures import MISSING

_WIDTH = 120


class _Dumper(yaml.SafeDumper):
    """Quotes exactly the texts that our reader would take for something else, and escapes those that it would compose."""

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
