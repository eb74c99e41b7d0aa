"""Checks in types that are Python code, which no JSON Schema can say: pydantic's validators and `__post_init__`."""

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, cast

_ELSEWHERE = frozenset({"pydantic", "pydantic_core", "flowkit"})
"""Whose functions do what the schema says already, by a format or a pattern."""


def find_own_checks(core: Any) -> dict[str, tuple[str, ...]]:
    """Find what checks each parameter beyond its schema, by function names, from pydantic's schema of them all."""
    definitions = {held["ref"]: held for held in core.get("definitions", ())}
    fields = cast(Mapping[str, Any], (core["schema"] if definitions else core).get("fields", {}))
    found = {name: tuple(dict.fromkeys(_find(field, definitions, set()))) for name, field in fields.items()}
    return {name: names for name, names in found.items() if names}


def _find(core: Any, definitions: Mapping[str, Any], seen: set[str]) -> Iterator[str]:
    if isinstance(core, (list, tuple)):
        for item in cast(list[Any], core):
            yield from _find(item, definitions, seen)
    if not isinstance(core, dict):
        return
    held = cast(dict[str, Any], core)
    kind = str(held.get("type"))
    if kind == "definition-ref" and held["schema_ref"] not in seen:
        seen.add(held["schema_ref"])
        yield from _find(definitions[held["schema_ref"]], definitions, seen)
    if kind.startswith("function-"):
        function = held["function"]["function"]
        if inspect.isroutine(function) and str(function.__module__).partition(".")[0] not in _ELSEWHERE:
            yield function.__qualname__.rpartition("<locals>.")[2]
    if kind == "dataclass" and held.get("post_init"):
        yield f"{held['cls'].__name__}.__post_init__"
    for key, item in held.items():
        if key not in ("metadata", "serialization", "default"):
            yield from _find(item, definitions, seen)
