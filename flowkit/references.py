"""A call, and the references in its arguments: the one kind of node and the one kind of edge.

Three spellings, one value: `Needs` and recipes make `Reference` directly, a model writes
`{"from_call": "get_order", "path": "/address/city"}` (RFC 6901), YAML writes `${{ steps.get_order.address.city }}`.

References are found and resolved once, on the original arguments. A tool's result is opaque: a result that looks like
a reference is inserted unchanged and never resolved.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowkit.codec import JSON
from flowkit.errors import GraphError, ResolutionError, ToolArgumentsError
from flowkit.suggestions import suggest

Path = tuple[str | int, ...]

SCALARS = frozenset({str, int, float, bool, type(None)})
"""The types of values that contain no others; most values have one of these types, so they are checked first."""

LONGEST_POINTER = 1000
"""How many characters a JSON pointer may have; a model that repeats itself writes any number of them."""

CANDIDATES_SHOWN = 5
"""How many keys or indices an error offers."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A value inside another call's result; the empty path is the whole of it.

    A text in the path is a key, an int an index; a text of digits also fits a list, as in a JSON pointer.
    """

    call_id: str
    path: Path = ()

    def __str__(self) -> str:
        return f"{self.call_id}{format_pointer(self.path)}"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool to run with these arguments; values, or lists and dicts of values, may be `Reference`.

    `id` is unique in its graph. Two calls with the same name and arguments are two calls.
    """

    id: str
    name: str
    arguments: Mapping[str, object] = field(default_factory=dict[str, object])


MANY = 32
"""The length of a list from which one check of all items in C is faster than a Python loop."""


def find_references(value: object) -> list[Reference]:
    """Find the references in a value and in the lists, tuples and dicts it is made of, in order."""
    found: list[Reference] = []
    if type(value) not in SCALARS:
        _collect(value, found)
    return found


def find_open(arguments: Mapping[str, object]) -> tuple[list[Reference], tuple[str, ...]]:
    """Find the references in a call's arguments, in order, and the names of the arguments that hold one."""
    found: list[Reference] = []
    names: list[str] = []
    for name, value in arguments.items():
        if type(value) is Reference:
            found.append(value)
            names.append(name)
        elif type(value) not in SCALARS:
            count = len(found)
            _collect(value, found)
            if len(found) > count:
                names.append(name)
    return found, tuple(names)


def _collect(value: Any, found: list[Reference]) -> None:
    kind: type[object] = value.__class__
    if kind is Reference:
        found.append(value)
        return
    # Asked of the type, since a value that `isinstance` has narrowed needs a cast: a call, in a walk made for each call.
    items: Iterable[object]
    if kind is list or issubclass(kind, (list, tuple)):
        items = value
    elif issubclass(kind, dict):
        items = value.values()
    else:
        return
    if len(value) > MANY and SCALARS.issuperset(map(type, items)):
        return
    for item in items:
        if type(item) is Reference:
            found.append(item)
        elif type(item) not in SCALARS:
            _collect(item, found)


def substitute(value: Any, replace: Callable[[Reference], object]) -> object:
    """Replace each reference in a value once; the replacements aren't searched."""
    kind: type[object] = value.__class__
    if kind in SCALARS:
        return value
    if kind is Reference:
        return replace(value)
    if kind is list or issubclass(kind, list):
        items: list[object] = value
        return [
            replace(item) if type(item) is Reference else item if type(item) in SCALARS else substitute(item, replace)
            for item in items
        ]
    if issubclass(kind, dict):
        pairs: dict[object, object] = value
        return {key: item if type(item) in SCALARS else substitute(item, replace) for key, item in pairs.items()}
    if issubclass(kind, tuple):
        parts: tuple[object, ...] = value
        return tuple([substitute(item, replace) for item in parts])
    return value


def resolve(value: object, results: Callable[[str], JSON]) -> object:
    """Replace each reference in a value by its target; `results` returns a call's result by its id.

    Raises `ResolutionError` when a path isn't in the result.

    >>> resolve({"to": Reference("get_order", ("city",))}, {"get_order": {"city": "Busan"}}.__getitem__)
    {'to': 'Busan'}
    """
    return substitute(value, lambda reference: lookup(results(reference.call_id), reference.path, reference.call_id))


def lookup(result: JSON, path: Path, name: str = "result") -> JSON:
    """Look up the value at `path` in `result`; raises `ResolutionError` with the part of the path that exists.

    >>> lookup({"hotels": [{"id": 7}]}, ("hotels", "id"), "search")
    Traceback (most recent call last):
    ...
    flowkit.errors.ResolutionError: 'search' has a list of 1 at /hotels: expected an index before 'id', such as /hotels/0/id
    """
    value = result
    for depth, key in enumerate(path):
        if isinstance(value, dict):
            if key in value:
                value = value[key]
                continue
            # A pointer's digits may name a key of an object whose keys are text.
            if isinstance(key, int) and str(key) in value:
                value = value[str(key)]
                continue
            raise ResolutionError(f"{_at(name, path[:depth])} has no {key!r}; {suggest(key, map(str, value))}")
        if isinstance(value, list):
            index = _as_index(key)
            if index is None:
                raise ResolutionError(_ambiguity(name, path, depth, len(value)))
            if index >= len(value) or index < -len(value):
                raise ResolutionError(f"{_at(name, path[:depth])} is a list of {len(value)}: there is no index {index}")
            value = value[index]
            continue
        kind = "null" if value is None else type(value).__name__
        raise ResolutionError(f"{_at(name, path[:depth])} is {kind}, so it has no {key!r}")
    return value


def escape_key(key: str | int) -> str:
    """Escape a key as one part of a pointer (RFC 6901), which is also its form in the ids of an item's nodes."""
    return str(key).replace("~", "~0").replace("/", "~1")


def format_pointer(path: Path) -> str:
    """Format a path as JSON pointer (RFC 6901); the empty path is the empty text."""
    return "".join(f"/{escape_key(key)}" for key in path)


def parse_pointer(pointer: str) -> Path:
    """Parse a JSON pointer (RFC 6901) into a path; keys stay text, since `0` may be a key or an index.

    Raises `GraphError` for what isn't a pointer.

    >>> parse_pointer("/items/0/a~1b")
    ('items', '0', 'a/b')
    """
    if pointer == "":
        return ()
    if len(pointer) > LONGEST_POINTER:
        raise GraphError(f"a JSON pointer of {len(pointer)} characters: expected at most {LONGEST_POINTER}")
    if not pointer.startswith("/"):
        raise GraphError(f"{pointer!r} isn't a JSON pointer: expected '' or a text that begins with '/'")
    if re.search(r"~(?![01])", pointer):
        raise GraphError(f"{pointer!r} isn't a JSON pointer: '~' stands only in '~0' (for '~') and '~1' (for '/')")
    return tuple(key.replace("~1", "/").replace("~0", "~") for key in pointer[1:].split("/"))


def read_model_references(
    tool: str, arguments: Mapping[str, JSON], labels: Mapping[str, str], offered: Collection[str] | None = None
) -> dict[str, object]:
    """Read a model's arguments with its reference objects as `Reference`, and `{"literal": x}` as x.

    `labels` maps the model's label of each earlier call to the call's id. `offered` are the parameters with a schema
    that accepts a reference (all when None). Only a parameter's whole value can be one. Raises `ToolArgumentsError`.

    >>> read_model_references("ship", {"to": {"from_call": "get_order", "path": "/city"}}, {"get_order": "call-1"})
    {'to': Reference(call_id='call-1', path=('city',))}
    """
    read: dict[str, object] = {}
    problems: list[str] = []
    for name, value in arguments.items():
        read[name] = value
        if not isinstance(value, dict) or (offered is not None and name not in offered):
            continue
        if value.keys() == {"literal"}:
            read[name] = value["literal"]
        elif "from_call" in value and value.keys() <= {"from_call", "path"}:
            try:
                read[name] = _read_model_reference(value, labels)
            except GraphError as error:
                problems.append(f"{name!r}: {error}")
    if problems:
        raise ToolArgumentsError(tool, problems)
    return read


def _read_model_reference(value: Mapping[str, JSON], labels: Mapping[str, str]) -> Reference:
    label, pointer = value["from_call"], value.get("path", "")
    if not isinstance(label, str) or label not in labels:
        known = ", ".join(map(repr, labels)) or "none yet"
        raise GraphError(f"from_call is {label!r}, expected the label of an earlier call of this turn: {known}")
    if not isinstance(pointer, str):
        raise GraphError(f"path is {pointer!r}, expected a JSON pointer such as '/address/city', or ''")
    return Reference(labels[label], parse_pointer(pointer))


_EXPRESSION = re.compile(r"\$\{\{(.*)\}\}", re.DOTALL)
_STEP = re.compile(r"""\s*(?:\.?([^\W\d][\w-]*)|\[\s*(-?\d+)\s*\]|\[\s*"((?:[^"\\]|\\.)*)"\s*\]|\[\s*'([^']*)'\s*\])""")


def parse_expression(text: str) -> Path | None:
    """Parse a recipe file's `${{ … }}` as one path; None when the text is no expression.

    >>> parse_expression("${{ steps.order.items[0]['unit price'] }}")
    ('steps', 'order', 'items', 0, 'unit price')

    Raises `GraphError` for an expression that can't be read, or that is only a part of the text.
    """
    stripped = text.strip()
    whole = _EXPRESSION.fullmatch(stripped)
    if whole is None or "${{" in whole[1]:
        if "${{" in text:
            raise GraphError(f"{text!r}: an expression has to be the whole value: '${{{{ steps.name.field }}}}'")
        return None
    body = whole[1].strip()
    path: list[str | int] = []
    position = 0
    while position < len(body):
        step = _STEP.match(body, position)
        if step is None or (not path and step[1] is None) or (path and step[1] is not None and "." not in step[0]):
            raise GraphError(f"{text!r}: expected a name, .field, [0] or ['key'] at {body[position:]!r}")
        name, index, double, single = step.groups()
        if index is not None:
            path.append(int(index))
        else:
            path.append(name or single or (double or "").replace('\\"', '"').replace("\\\\", "\\"))
        position = step.end()
    if not path:
        raise GraphError(f"{text!r}: expected a name between the braces")
    return tuple(path)


def format_expression(path: Path) -> str:
    """Format a path as the `${{ … }}` that `parse_expression` reads."""
    text = ""
    for key in path:
        if isinstance(key, int):
            text += f"[{key}]"
        elif re.fullmatch(r"[^\W\d][\w-]*", key):
            text += f".{key}" if text else key
        else:
            escaped = key.replace("\\", "\\\\").replace('"', '\\"')
            text += f'["{escaped}"]'
    return f"${{{{ {text} }}}}"


def _as_index(key: str | int) -> int | None:
    if isinstance(key, int):
        return key
    # RFC 6901, section 4: an index is "0" or digits without a leading zero.
    return int(key) if re.fullmatch(r"0|[1-9][0-9]*", key, re.ASCII) else None


def _at(name: str, path: Path) -> str:
    return f"{name!r} at {format_pointer(path)}" if path else f"{name!r}"


def _ambiguity(name: str, path: Path, depth: int, length: int) -> str:
    before, after = path[:depth], path[depth:]
    examples = [format_pointer((*before, index, *after)) for index in range(min(length, CANDIDATES_SHOWN))]
    where = f" at {format_pointer(before)}" if before else ""
    offer = f", such as {' or '.join(examples)}" if examples else ", and it is empty"
    return f"{name!r} has a list of {length}{where}: expected an index before {after[0]!r}{offer}"
