"""The definitions of one schema: their names for `$defs`, their merged content, and the form of their values."""

from collections.abc import Callable
from typing import Any, cast

from flowkit.codec import JSON
from flowkit.schema_paths import Schema, alternatives, resolve, types_within


class NotStrict(Exception):
    """A schema that can't be lowered without losing values; `path` is a JSON pointer into the faithful one."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(f"{path or '/'}: {text}")
        self.path = path
        self.text = text


class Definitions:
    """The places of one schema that references point to, each with a name of its own for `$defs`."""

    def __init__(self, root: Schema) -> None:
        self.root = root
        self._names: dict[str, str] = {}

    def find(self, reference: str, path: str) -> tuple[str, dict[str, JSON]]:
        """Find the name and the schema that `reference` points to; raises `NotStrict` when it isn't in this schema."""
        schema = resolve(reference, self.root)
        if schema is None:
            raise NotStrict(path, f"the reference {reference!r} points to no schema in here")
        if reference not in self._names:
            name = reference.rsplit("/", 1)[-1].replace("~1", "/").replace("~0", "~").strip("#") or "Arguments"
            name = "".join(
                letter if (letter.isascii() and letter.isalnum()) or letter in "_-" else "_" for letter in name
            )
            while name in self._names.values():
                name += "_"
            self._names[reference] = name
        return self._names[reference], schema

    def accepts_null(self, schema: Schema) -> bool:
        """Return whether null is a value of `schema`."""
        return "null" in types_within(dict(schema), self.root)

    def merge(self, schema: Schema, path: str) -> dict[str, JSON]:
        """Merge `schema`, its `$ref` and all of its `allOf` into one schema.

        Raises `NotStrict` if they contradict each other.
        """
        parts = alternatives(schema, "allOf")
        if "$ref" in schema:
            parts.append({"$ref": schema["$ref"]})
        merged = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
        for part in parts:
            whole = self.find(str(part["$ref"]), path)[1] if list(part) == ["$ref"] else dict(part)
            if "$ref" in whole or "allOf" in whole:
                whole = self.merge(whole, path)
            for key, value in whole.items():
                merged[key] = _join(key, merged[key], value, path) if key in merged else value
        return merged


def _join(key: str, first: JSON, second: JSON, path: str) -> JSON:
    if first == second:
        return first
    if key == "properties" and isinstance(first, dict) and isinstance(second, dict):
        shared: dict[str, JSON] = {
            name: {"allOf": [first[name], second[name]]} for name in first.keys() & second.keys()
        }
        return {**first, **second, **shared}
    if key == "required" and isinstance(first, list) and isinstance(second, list):
        return [*first, *(name for name in second if name not in first)]
    # What describes goes by who stands nearer; what constrains has to hold both.
    if key not in ("title", "description", "default", "examples"):
        raise NotStrict(path, f"several schemas at once that differ in {key!r}")
    return first


class AlternativeShape:
    """The form of an alternative's values: by type, and by full validation if types don't decide.

    Both are computed at first use, since definitions still grow while a schema is lowered.
    """

    def __init__(self, schema: Schema, root: Schema) -> None:
        self._schema = schema
        self._root = root
        self._types: frozenset[str] | None = None
        self._is_valid: Callable[[JSON], bool] | None = None

    @property
    def types(self) -> frozenset[str]:
        if self._types is None:
            self._types = types_within(dict(self._schema), self._root)
        return self._types

    def fits(self, value: JSON) -> bool:
        if self._is_valid is None:
            from jsonschema import Draft202012Validator

            root = cast(Any, Draft202012Validator(dict(self._root)))  # its stub leaves evolve untyped
            self._is_valid = cast(Callable[[JSON], bool], root.evolve(schema=dict(self._schema)).is_valid)
        return self._is_valid(value)
