"""YAML text as plain JSON values, each of which knows its line and column.

Only data is read: no tags but YAML's own for text, numbers, booleans, null, lists and mappings, no anchors, no merge
keys. The text is composed (NFC) before it is read; characters that it escapes are not. Scalars follow the JSON schema
of YAML 1.2, so that `no`, `on`, `12:30` and `2024-01-01` stay text. Nothing in the file is looked up, called or
imported.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast
from unicodedata import normalize

import yaml

from flowkit.codec import JSON
from flowkit.errors import RecipeFileError

MAX_SIZE_BYTES = 4_000_000
MAX_DEPTH = 100

Path = tuple[str | int, ...]
"""The keys and indices that lead from the top of the file to a value."""

_TAG = "tag:yaml.org,2002:"
_SCALARS = {
    "null": (re.compile(r"^(?:~|null|Null|NULL|)$"), "~nN\0"),
    "bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    "int": (re.compile(r"^-?[0-9]+$"), "-0123456789"),
    "float": (re.compile(r"^-?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"), "-.0123456789"),
}


@dataclass(frozen=True, slots=True)
class SourcePosition:
    """The position of a value, counted from 1; `key_line` and `key_column` are its key's, if it has one."""

    line: int
    column: int
    key_line: int
    key_column: int


@dataclass(frozen=True, slots=True)
class YamlSource:
    """A file's value and the place of each of its parts."""

    name: str
    value: JSON
    places: Mapping[Path, SourcePosition]

    def fail(self, path: Path, message: str, *, at_key: bool = False) -> NoReturn:
        """Raise `RecipeFileError` for the value at `path`, or for the nearest one above it that exists."""
        raise self.make_error(path, message, at_key=at_key)

    def make_error(self, path: Path, message: str, *, at_key: bool = False) -> RecipeFileError:
        """Make the error that `fail` raises."""
        while path not in self.places and path:
            path = path[:-1]
        place = self.places[path]
        line, column = (place.key_line, place.key_column) if at_key else (place.line, place.column)
        return RecipeFileError(message, path=self.name, line=line, column=column)


def join_errors(errors: Iterable[RecipeFileError]) -> RecipeFileError:
    """Return one error for all of these, from the top of the file."""
    found = {str(single): single for error in errors for single in error.errors}
    first, *others = sorted(found.values(), key=lambda error: (error.line or 0, error.column or 0))
    if not others:
        return first
    return RecipeFileError("", path=first.path, line=first.line, column=first.column, errors=(first, *others))


def read_yaml(data: bytes, name: str) -> YamlSource:
    """Read the one document in `data`; raises `RecipeFileError` for everything that isn't plain data."""
    if len(data) > MAX_SIZE_BYTES:
        raise RecipeFileError(f"{len(data):,} bytes, at most {MAX_SIZE_BYTES:,}", path=name)
    try:
        # A Mac's file names and some editors write "조회" as seven letters; Python's own names are composed.
        text = normalize("NFC", data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeFileError("not UTF-8 text", path=name, line=line, column=1) from None
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = ", ".join(filter(None, (error.context, error.problem)))
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise RecipeFileError(f"not YAML: {problem}", path=name, line=line, column=column) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise RecipeFileError(f"not YAML: {error.reason}", path=name, line=line, column=1) from None
    if root is None:
        raise RecipeFileError("the file is empty; expected a recipe", path=name, line=1, column=1)
    reader = _Reader(name)
    value = reader.read(root, (), root)
    return YamlSource(name, value, reader.places)


class _Loader(yaml.SafeLoader):
    """Composes nodes, and refuses everything but plain data."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = cast(Any, self).peek_event()  # the stubs leave it untyped
        if getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(
                problem="anchors and aliases aren't read; write the value out", problem_mark=event.start_mark
            )
        if self.depth >= MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=event.start_mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def add_resolvers(target: Any) -> None:
    """Make a loader or dumper class read numbers, booleans and null as YAML 1.2 does, and nothing else."""
    target.yaml_implicit_resolvers = {}
    for name, (pattern, first) in _SCALARS.items():
        target.add_implicit_resolver(_TAG + name, pattern, [letter.replace("\0", "") for letter in first])


add_resolvers(_Loader)


class _Reader:
    """Turns nodes into values and notes their places."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.places: dict[Path, SourcePosition] = {}

    def read(self, node: yaml.Node, path: Path, key: yaml.Node) -> JSON:
        start, key_start = node.start_mark, key.start_mark
        self.places[path] = SourcePosition(start.line + 1, start.column + 1, key_start.line + 1, key_start.column + 1)
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._read_mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.read(item, (*path, index), item) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._read_scalar(node)
        return self._fail(node, f"the tag {node.tag!r} isn't read here; only plain data is")

    def _read_mapping(self, node: yaml.MappingNode, path: Path) -> JSON:
        result: dict[str, JSON] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._fail(key, "a key is text")
            name = str(key.value)
            if name in result:
                first = self.places[(*path, name)].key_line
                self._fail(key, f"the key {name!r} is there twice, first in line {first}")
            result[name] = self.read(value, (*path, name), key)
        return result

    def _read_scalar(self, node: yaml.ScalarNode) -> JSON:
        text: str = node.value
        match node.tag.removeprefix(_TAG):
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int" if _SCALARS["int"][0].match(text) and len(text) <= 4000:
                return int(text)
            case "float" if _SCALARS["float"][0].match(text):
                number = float(text)
                return number if abs(number) != float("inf") else self._fail(node, f"{text} is too large a number")
            case _:
                return self._fail(node, f"{text[:40]!r} can't be read as {node.tag.removeprefix(_TAG)!r}")

    def _fail(self, node: yaml.Node, message: str) -> NoReturn:
        mark = node.start_mark
        raise RecipeFileError(message, path=self.name, line=mark.line + 1, column=mark.column + 1)
