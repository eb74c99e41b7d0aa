"""pydantic's errors as short lines for a model: one for each wrong argument, also inside a large union."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic_core import ErrorDetails

from flowkit.masking import SecretPlaces
from flowkit.suggestions import suggest

MAX_VALUE = 60
MAX_LINE = 240
MAX_BRANCHES = 5

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """One error: where in the input it is, and the branch of a union it belongs to; `place` is where that union is."""

    path: Path
    place: Path
    branch: str | None
    error: ErrorDetails


@dataclass(frozen=True, slots=True)
class Problem:
    """All that is wrong at one place of the input; several branches of a union are one problem."""

    path: Path
    found: tuple[Found, ...]

    @property
    def kinds(self) -> frozenset[str]:
        """pydantic's names of what is wrong with the value itself."""
        return frozenset(found.error["type"] for found in self.found if found.path == self.path)

    @property
    def kind(self) -> str | None:
        """The only one of them."""
        return next(iter(self.kinds)) if len(self.kinds) == 1 else None

    @property
    def is_about_key(self) -> bool:
        """True if the key itself is wrong, not its value."""
        return self.found[0].error["loc"][-1] == "[key]"


def group(errors: Iterable[ErrorDetails], given: object) -> tuple[Problem, ...]:
    """Group the errors by the place in the input that they are about."""
    found = [_locate(error, given) for error in errors]
    branches: dict[Path, set[str | None]] = {}
    for item in found:
        branches.setdefault(item.place, set()).add(item.branch)
    groups: dict[Path, list[Found]] = {}
    for item in found:
        # One branch alone is the one that a discriminator chose: its errors stand where they are.
        path = item.place if len(branches[item.place]) > 1 and item.branch is not None else item.path
        groups.setdefault(path, []).append(item)
    return tuple(Problem(path, tuple(items)) for path, items in groups.items())


def _locate(error: ErrorDetails, given: object) -> Found:
    """Separate the steps of a location that are in the input from those that name branches of unions."""
    path: list[str | int] = []
    place: Path | None = None
    branch: str | None = None
    value = given
    last = len(error["loc"]) - 1
    for index, step in enumerate(error["loc"]):
        if _holds(value, step):
            value = cast(Any, value)[step]
            path.append(step)
        elif index == last and (error["type"] == "missing" or error["type"] in _UNKNOWN):
            path.append(step)
        elif place is None:
            place, branch = tuple(path), str(step)
    return Found(tuple(path), tuple(path) if place is None else place, branch, error)


_UNKNOWN = frozenset({"extra_forbidden", "unexpected_keyword_argument"})


def _holds(value: object, step: str | int) -> bool:
    if isinstance(value, Mapping):
        return step in value
    return isinstance(value, (list, tuple)) and isinstance(step, int) and step < len(cast(list[object], value))


def describe(
    problems: Sequence[Problem], given: object, names: Sequence[str], secrets: SecretPlaces
) -> tuple[str, ...]:
    """Describe each wrong argument in one line: its first problem, and how many more it has."""
    lines: dict[str | int, list[str]] = {}
    for problem in problems:
        argument = problem.path[0] if problem.path else ""
        line = _describe(problem, given, names, secrets)
        # An unknown name is a wrong argument of its own.
        lines.setdefault(line if problem.kind in _UNKNOWN else argument, []).append(line)
    return tuple(_join(found) for found in lines.values())


def _join(lines: Sequence[str]) -> str:
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return cut(lines[0], MAX_LINE - len(more)) + more


def _describe(problem: Problem, given: object, names: Sequence[str], secrets: SecretPlaces) -> str:
    where = format_path(problem.path)
    if problem.kind == "missing":
        return f"{where!r} is missing"
    if problem.kind in _UNKNOWN:
        return f"unexpected argument {where!r}{'; ' + suggest(where, names) if len(problem.path) == 1 else ''}"
    if problem.kind in _TAGS:
        return _describe_tag(problem, given, secrets)
    wanted = _describe_wanted(problem, given, secrets)
    if problem.is_about_key:
        key = "a secret" if secrets.covers(problem.path[:-1]) else shorten(problem.path[-1])
        return f"{format_path(problem.path[:-1])!r} has {key} as a key, {wanted}"
    value = _show(given, problem.path, secrets)
    if wanted == "expected a list" and isinstance(value_at(given, problem.path), (str, int, float)):
        wanted += f" such as [{value}]"
    return f"{where or 'the arguments'!r} is {value}, {wanted}"


_TAGS = frozenset({"union_tag_invalid", "union_tag_not_found"})


def _describe_tag(problem: Problem, given: object, secrets: SecretPlaces) -> str:
    """Describe what is wrong with the field that selects one of several objects."""
    context = problem.found[0].error.get("ctx", {})
    path = (*problem.path, str(context["discriminator"]).strip("'"))
    tags = context.get("expected_tags")
    what = "is missing" if tags is None else f"is {_show(given, path, secrets)}, expected one of {tags}"
    return f"{format_path(path)!r} {what}"


def _describe_wanted(problem: Problem, given: object, secrets: SecretPlaces) -> str:
    inner = [found for found in problem.found if found.path != problem.path]
    direct = list(dict.fromkeys(_wanted(found.error) for found in problem.found if found.path == problem.path))
    if not inner:
        return _alternatives(direct)
    # Branches whose shape fits, with something wrong inside: the nearest is the one with the least wrong, and of those
    # rather one that has its fields and its tag.
    by_branch: dict[str | None, list[Found]] = {}
    for found in inner:
        by_branch.setdefault(found.branch, []).append(found)
    nearest = min(by_branch, key=lambda branch: (len(by_branch[branch]), _count_foreign(by_branch[branch])))
    first = by_branch[nearest][0]
    rest = format_path(first.path[len(problem.path) :])
    is_missing = first.error["type"] == "missing"
    what = "is missing" if is_missing else f"is {_show(given, first.path, secrets)}, {_wanted(first.error)}"
    labels = [_clean(str(branch)) for branch in by_branch]
    return f"which is none of {_list(labels)}; for {_clean(str(nearest))}: {rest!r} {what}"


def _count_foreign(found: Sequence[Found]) -> int:
    return sum(one.error["type"] in ("missing", "literal_error") for one in found)


def _show(given: object, path: Path, secrets: SecretPlaces) -> str:
    value = value_at(given, path)
    if not secrets:
        return shorten(value)
    return "a secret" if path and secrets.covers(path) else shorten(secrets.mask_at(value, path))


def _alternatives(wanted: Sequence[str]) -> str:
    expected = [text.removeprefix("expected ") for text in wanted if text.startswith("expected ")]
    others = [text for text in wanted if not text.startswith("expected ")]
    return "; ".join([*([f"expected {_list(expected, ' or ')}"] if expected else []), *others[:2]])


def _list(items: Sequence[str], joint: str = ", ") -> str:
    more = f" and {len(items) - MAX_BRANCHES} more" if len(items) > MAX_BRANCHES else ""
    return joint.join(items[:MAX_BRANCHES]) + more


def _clean(branch: str) -> str:
    """Clean a branch's name for a reader: `function-after[check(), list[int]]` becomes `list[int]`."""
    match = re.fullmatch(r"function-\w+\[[^,]*, (.*)\]", branch)
    return _clean(match[1]) if match else branch


_KINDS = {
    "int": "an integer",
    "float": "a number",
    "decimal": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "iterable": "a list",
    "dict": "an object",
    "mapping": "an object",
    "model": "an object",
    "dataclass": "an object",
    "date": "a date such as 2026-01-31",
    "datetime": "a date and time such as 2026-01-31T12:00:00Z",
    "time": "a time such as 12:00:00",
    "time_delta": "a duration such as PT1H30M",
    "uuid": "a UUID",
    "none": "null",
    "timezone_aware": "a date and time with its zone, such as 2026-01-31T12:00:00Z",
    "timezone_naive": "a date and time without a zone, such as 2026-01-31T12:00:00",
}
_LIMITS = {
    "greater_than_equal": ("at least {ge}", "ge"),
    "greater_than": ("more than {gt}", "gt"),
    "less_than_equal": ("at most {le}", "le"),
    "less_than": ("less than {lt}", "lt"),
    "multiple_of": ("a multiple of {multiple_of}", "multiple_of"),
    "too_short": ("at least {min_length} items", "min_length"),
    "too_long": ("at most {max_length} items", "max_length"),
    "string_too_short": ("at least {min_length} characters", "min_length"),
    "string_too_long": ("at most {max_length} characters", "max_length"),
    "string_pattern_mismatch": ("text that matches {pattern}", "pattern"),
    "enum": ("{expected}", "expected"),
    "literal_error": ("{expected}", "expected"),
}


def _wanted(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    text, needed = _LIMITS.get(kind, ("", ""))
    if text and needed in context:
        return cut(f"expected {text.format_map(context)}", MAX_LINE // 2)
    noun = _KINDS.get(re.sub(r"_(type|parsing|from_\w+|attributes_type)$", "", kind))
    if noun is not None:
        return f"expected {noun}"
    message = re.sub(r"^(Value error|Assertion failed), ", "", error["msg"])
    message = re.sub(r"^Input (should be|is not) ", "expected ", message)
    return cut(message or "which its own check refuses", MAX_LINE // 2)


def value_at(given: object, path: Sequence[str | int]) -> object:
    """Return the value at a path of the input; None where there is none."""
    value: Any = given
    for step in path:
        if not _holds(value, step):
            return None
        value = value[step]
    return value


def format_path(path: Sequence[str | int]) -> str:
    """Format a path, such as `filters.tags[0]`."""
    return "".join(_format_steps(path))


def _format_steps(path: Sequence[str | int]) -> Iterator[str]:
    for index, step in enumerate(path):
        yield f"[{step}]" if isinstance(step, int) else f".{step}" if index else step


def shorten(value: object) -> str:
    """Shorten a value's `repr` to a part of a line."""
    return cut(repr(value), MAX_VALUE)


def cut(text: str, limit: int) -> str:
    """Cut the end of a text that is too long."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
