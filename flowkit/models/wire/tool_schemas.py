"""The schemas of tools as servers take them: an object at the root, and parameters with names that can travel.

One schema that a server refuses makes it refuse the whole request. So alternatives at the root, which OpenAI and
Anthropic refuse, become one object whose description tells them. And Anthropic takes names of letters, digits, `_`, `.`
and `-` only: others travel as aliases, and come back as they were. Arguments are validated by the tool's own schema.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import cast

from flowkit.codec import JSON, dumps, loads
from flowkit.messages import ToolSpec

_TOGETHER = ("anyOf", "oneOf", "allOf")
_REFUSED = (*_TOGETHER, "not", "enum", "if", "then", "else")
_KEY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_KEY_CHARS = 64

Aliases = Mapping[str, Mapping[str, str]]
"""By tool, the names of parameters by the aliases under which they travel."""


def object_schema(parameters: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return a tool's schema as servers accept it: several refuse one without `properties`, or with alternatives.

    >>> object_schema({"anyOf": [{"required": ["id"]}, {"required": ["name"]}]})["description"]
    'anyOf: [{"required":["id"]},{"required":["name"]}]'
    """
    schema: dict[str, JSON] = {"type": "object", "properties": {}} | dict(parameters)
    return _flatten(schema) if any(name in schema for name in _REFUSED) else schema


def _flatten(schema: dict[str, JSON]) -> dict[str, JSON]:
    flat = {name: value for name, value in schema.items() if name not in _REFUSED}
    own = _object(schema.get("properties"))
    found: dict[str, list[JSON]] = {}
    required = _names(schema)
    for keyword in _TOGETHER:
        branches = [_resolve(branch, schema) for branch in _list(schema.get(keyword))]
        for branch in branches:
            for name, inner in _object(branch.get("properties")).items():
                if name not in own and inner not in found.setdefault(name, []):
                    found[name].append(inner)
        needs = [_names(branch) for branch in branches]
        for name in dict.fromkeys(name for names in needs for name in names):
            if name not in required and (keyword == "allOf" or all(name in names for names in needs)):
                required.append(name)
    flat["properties"] = {
        **own,
        **{name: kinds[0] if len(kinds) == 1 else {"anyOf": kinds} for name, kinds in found.items()},
    }
    if required:
        flat["required"] = cast(JSON, required)
    told = ", ".join(f"{name}: {dumps(schema[name]).decode()}" for name in _REFUSED if name in schema)
    said = schema.get("description")
    flat["description"] = f"{said} ({told})" if isinstance(said, str) and said else told
    return flat


def _resolve(branch: JSON, root: Mapping[str, JSON]) -> Mapping[str, JSON]:
    own = _object(branch)
    reference = own.get("$ref")
    if not isinstance(reference, str):
        return own
    _, _, path = reference.partition("#/")
    place, _, name = path.partition("/")
    return _object(_object(root.get(place)).get(name))


def _object(value: JSON) -> Mapping[str, JSON]:
    return value if isinstance(value, dict) else {}


def _list(value: JSON) -> list[JSON]:
    return value if isinstance(value, list) else []


def _names(schema: Mapping[str, JSON]) -> list[str]:
    return [name for name in _list(schema.get("required")) if isinstance(name, str)]


def make_key(name: str) -> str:
    """Make the alias of a parameter; the name itself where it can travel.

    >>> make_key("city"), make_key("filter[status]"), make_key("도시")
    ('city', 'filter_status_ff36dac2', 'field_abbc940f')
    """
    if _KEY.fullmatch(name):
        return name
    # Letters are lost, so that other names would look the same.
    mark = hashlib.sha256(name.encode(errors="replace")).hexdigest()[:8]
    readable = re.sub(r"[^a-zA-Z0-9_.-]+", "_", name).strip("_")[: _KEY_CHARS - 9]
    return f"{readable or 'field'}_{mark}"


def rename_parameters(schema: dict[str, JSON]) -> dict[str, JSON]:
    """Give the parameters names that can travel; the description of one that was renamed begins with its own name."""
    properties = _object(schema.get("properties"))
    if all(map(_KEY.fullmatch, properties)):
        return schema
    renamed: dict[str, JSON] = {
        **schema,
        "properties": {make_key(name): _name(name, properties[name]) for name in properties},
    }
    if "required" in schema:
        renamed["required"] = [make_key(name) for name in _names(schema)]
    return renamed


def _name(name: str, schema: JSON) -> JSON:
    if make_key(name) == name or not isinstance(schema, dict):
        return schema
    said = schema.get("description")
    described = f"{name}: {said}" if isinstance(said, str) and said else name
    if "$ref" not in schema:
        return {**schema, "description": described}
    return {
        "anyOf": [{name: value for name, value in schema.items() if name != "description"}],
        "description": described,
    }


def rename_arguments(arguments: Mapping[str, JSON]) -> dict[str, JSON]:
    """Rename the arguments of an earlier call as `rename_parameters` does with its parameters."""
    return {make_key(name): value for name, value in arguments.items()}


def find_aliases(tools: Iterable[ToolSpec]) -> Aliases:
    """Find the aliases of the tools that have any."""
    found: dict[str, Mapping[str, str]] = {}
    for tool in tools:
        names = _object(object_schema(tool.parameters)["properties"])
        if aliases := {alias: name for name in names if (alias := make_key(name)) != name}:
            found[tool.name] = aliases
    return found


class OwnNames:
    """Arguments as they arrive, in any pieces, with the parameters' own names in place of their aliases.

    >>> names = OwnNames({"field_abbc940f": "도시"})
    >>> names.feed('{"field_abb'), names.feed('c940f": "field_abbc940f"}')
    ('{', '"도시": "field_abbc940f"}')
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._depth = 0
        self._key: str | None = None
        """The key that has begun, with its quotes."""
        self._is_key_next = False
        self._in_text = self._is_escaped = False

    def feed(self, piece: str) -> str:
        """Return what is known now; the beginning of a key waits for its end."""
        told: list[str] = []
        for char in piece:
            self._read(char, told)
        return "".join(told)

    def _read(self, char: str, told: list[str]) -> None:
        if self._key is not None or self._in_text:
            ends = char == '"' and not self._is_escaped
            self._is_escaped = char == "\\" and not self._is_escaped
            if self._key is None:
                told.append(char)
                self._in_text = not ends
            else:
                self._key += char
                if ends:
                    told.append(self._translate(self._key))
                    self._key, self._is_key_next = None, False
            return
        if char == '"' and self._is_key_next and self._depth == 1:
            self._key = char
            return
        told.append(char)
        match char:
            case '"':
                self._in_text = True
            case "{" | "[":
                self._depth += 1
                self._is_key_next = char == "{"
            case "}" | "]":
                self._depth -= 1
                self._is_key_next = False
            case ",":
                self._is_key_next = True
            case _:
                pass

    def _translate(self, key: str) -> str:
        try:
            name = loads(key)
        except ValueError:
            return key
        own = self._names.get(name) if isinstance(name, str) else None
        return key if own is None else dumps(own).decode()
