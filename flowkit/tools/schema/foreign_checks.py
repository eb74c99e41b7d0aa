"""Checks of schemas that others wrote, as strict as those of functions: null where `nullable`, formats, bounded patterns.

A pattern of a stranger, matched by backtracking, can hold the event loop for hours on a text of forty letters, so
patterns are matched in linear time, by the engine that pydantic has.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from functools import cache, lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any, cast
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from pydantic_core import SchemaError, SchemaValidator, core_schema

from flowkit.codec import JSON
from flowkit.schema_paths import resolve
from flowkit.tools.schema.arguments_schema import Schema
from flowkit.tools.schema.problems import shorten

logger = logging.getLogger("flowkit.tools")

_SAME = ("allOf", "anyOf", "oneOf")
_FORMATS: Mapping[str, Any] = {
    "date": date,
    "date-time": datetime,
    "time": time,
    "duration": timedelta,
    "uuid": UUID,
    "ipv4": IPv4Address,
    "ipv6": IPv6Address,
}
"""The formats that functions of these types check, and no others: of the rest each program has its own idea."""


def make_validator(draft: Any, schema: Schema) -> Any:
    """Make the validator of a tool's schema in its draft."""
    from jsonschema import FormatChecker, validators
    from jsonschema.exceptions import ValidationError as Refused

    checker = FormatChecker(formats=())
    for name, kind in _FORMATS.items():
        checker.checks(name, raises=ValidationError)(_make_check(kind))
    usual: Any = draft.VALIDATORS

    def or_null(keyword: str) -> Callable[..., Iterator[Any]]:
        def check(validator: Any, value: Any, instance: Any, held: Any) -> Iterator[Any]:
            if not (instance is None and held.get("nullable") is True):
                yield from usual[keyword](validator, value, instance, held) or ()

        return check

    def match(validator: Any, pattern: str, instance: Any, held: Any) -> Iterator[Any]:
        if isinstance(instance, str) and not _matches(pattern, instance):
            yield Refused(f"{instance!r} does not match {pattern!r}")

    own: dict[str, Any] = {name: or_null(name) for name in ("type", "enum", "const", *_SAME, "$ref") if name in usual}
    made: Any = cast(Any, validators).extend(draft, {**own, "pattern": match})
    return made(schema, format_checker=checker)


def read_scalar(holder: object, key: str | int, kinds: set[str]) -> str | None:
    """Read a number or a truth value that came as text, in place; return a description of the repair, None if there was none."""
    place = cast(dict[object, object], holder)
    try:
        value = place[key]
    except (KeyError, IndexError, TypeError):
        return None
    if not isinstance(value, str) or "string" in kinds:
        return None
    for kind, python in (("integer", int), ("number", float), ("boolean", bool)):
        if kind in kinds:
            try:
                place[key] = read = _adapter(python).validate_python(value)
            except ValidationError:
                continue
            return f"{shorten(value)} read as {shorten(read)}"
    return None


def find_endless(schema: Schema) -> str | None:
    """Find where a schema refers to itself without end.

    A reference leads to itself, or needs itself to be filled.
    """
    for path, held in _walk(schema, "#"):
        if _leads_to_itself(schema, held, ()):
            return path
    return None if _can_be_filled(schema, schema, frozenset(), set()) else "#"


def _make_check(kind: Any) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        if isinstance(value, str):
            # As from JSON: a number as text is no date there.
            _adapter(kind).validate_json(TypeAdapter(str).dump_json(value))
        return True

    return check


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _matches(pattern: str, text: str) -> bool:
    matcher = _compile(pattern)
    if matcher is None:
        return True
    try:
        matcher.validate_python(text)
    except ValidationError:
        return False
    return True


@lru_cache(maxsize=1000)
def _compile(pattern: str) -> SchemaValidator | None:
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError:
        # It looks around or back, which only backtracking can; the tool gets the text unchecked.
        logger.warning("the pattern %r can't be matched in bounded time, so it isn't checked", pattern)
        return None


def _walk(held: JSON, path: str) -> Iterator[tuple[str, Schema]]:
    stack: list[tuple[str, JSON]] = [(path, held)]
    while stack:
        place, value = stack.pop()
        if isinstance(value, dict):
            yield place, value
            stack += [
                (f"{place}/{name}", inner) for name, inner in value.items() if name not in ("enum", "const", "default")
            ]
        elif isinstance(value, list):
            stack += [(f"{place}/{number}", inner) for number, inner in enumerate(value)]


def _leads_to_itself(root: Schema, held: JSON, trail: tuple[str, ...]) -> bool:
    """Return whether reading one value by this schema comes back to the schema."""
    if not isinstance(held, dict):
        return False
    reference = held.get("$ref")
    if isinstance(reference, str):
        if reference in trail:
            return True
        if _leads_to_itself(root, resolve(reference, root), (*trail, reference)):
            return True
    return any(
        _leads_to_itself(root, inner, trail)
        for keyword in _SAME
        for inner in (cast(list[JSON], held[keyword]) if isinstance(held.get(keyword), list) else ())
    )


def _can_be_filled(root: Schema, held: JSON, trail: frozenset[str], filled: set[str]) -> bool:
    """Return whether some finite value fits, by references and required parts; `filled` are references known to."""
    if not isinstance(held, dict):
        return held is not False
    reference = held.get("$ref")
    if isinstance(reference, str) and reference not in filled:
        target = resolve(reference, root)
        if reference in trail or (target is not None and not _can_be_filled(root, target, trail | {reference}, filled)):
            return False
        filled.add(reference)
    for keyword, decide in (("allOf", all), ("anyOf", any), ("oneOf", any)):
        branches = held.get(keyword)
        if (
            isinstance(branches, list)
            and branches
            and not decide(_can_be_filled(root, one, trail, filled) for one in branches)
        ):
            return False
    kind = held.get("type")
    if held.get("nullable") is True or (kind != "object" and kind != "array" and kind is not None):
        return True
    if kind == "array" or (kind is None and "items" in held):
        least = held.get("minItems", 0)
        return not (isinstance(least, int) and least > 0) or _can_be_filled(
            root, held.get("items", True), trail, filled
        )
    properties, required = held.get("properties"), held.get("required")
    known = properties if isinstance(properties, dict) else {}
    names = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
    return all(_can_be_filled(root, known[name], trail, filled) for name in names if name in known)
