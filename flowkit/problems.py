"""pydantic's errors as short lines for a model: one for each wrong argument."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pydantic_core import ErrorDetails

MAX_VALUE = 60
MAX_LINE = 240


@dataclass(frozen=True, slots=True)
class Problem:
    """All that is wrong at one place of the arguments."""

    path: tuple[str | int, ...]
    errors: tuple[ErrorDetails, ...]


def group(errors: Iterable[ErrorDetails], given: object) -> tuple[Problem, ...]:
    """Errors by the place in the input that they are about; the branches of a union fall together."""
    groups: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for error in errors:
        groups.setdefault(find_place(error, given), []).append(error)
    return tuple(Problem(path, tuple(found)) for path, found in groups.items())


def find_place(error: ErrorDetails, given: object) -> tuple[str | int, ...]:
    """The part of the error's location that is in the input: the rest names branches of a union."""
    path: list[str | int] = []
    value = given
    for index, step in enumerate(error["loc"]):
        if isinstance(value, dict) and step in value:
            value = cast(dict[object, object], value)[step]
        elif isinstance(value, (list, tuple)) and isinstance(step, int) and step < len(cast(list[object], value)):
            value = cast(list[object], value)[step]
        elif index == 0 or (error["type"] in ("missing", "extra_forbidden") and index == len(error["loc"]) - 1):
            return (*path, step)
        else:
            break
        path.append(step)
    return tuple(path)


def describe(
    problems: Sequence[Problem], given: object, names: Sequence[str], secrets: frozenset[str]
) -> tuple[str, ...]:
    """One line for each wrong argument, the first problem of each; unknown ones with the nearest name."""
    lines: dict[str | int, list[str]] = {}
    for problem in problems:
        argument = problem.path[0] if problem.path else ""
        lines.setdefault(argument, []).append(_describe(problem, given, names, secrets))
    return tuple(_join(found) for found in lines.values())


def _join(lines: Sequence[str]) -> str:
    more = f" (and {len(lines) - 1} more in it)" if len(lines) > 1 else ""
    return f"{lines[0][: MAX_LINE - len(more)]}{more}"


def _describe(problem: Problem, given: object, names: Sequence[str], secrets: frozenset[str]) -> str:
    where = format_path(problem.path)
    kinds = {error["type"] for error in problem.errors}
    if kinds == {"missing"}:
        return f"{where!r} is missing"
    if kinds == {"extra_forbidden"}:
        hint = find_nearest(str(problem.path[-1]), names) if len(problem.path) == 1 else ""
        return f"unexpected argument {where!r}{hint}"
    is_secret = bool(problem.path) and problem.path[0] in secrets
    value = "" if is_secret else f" is {shorten(value_at(given, problem.path))},"
    wanted = list(dict.fromkeys(_wanted(error) for error in problem.errors))
    text = " or ".join(wanted[:4]) + (f" or {len(wanted) - 4} other forms" if len(wanted) > 4 else "")
    return f"{where!r}{value} {text}"


def find_nearest(name: str, names: Sequence[str]) -> str:
    """What to say of the names there are to one who used another."""
    near = difflib.get_close_matches(name, names, 1)
    if near:
        return f"; the nearest is {near[0]!r}"
    return f"; there are {', '.join(names)}" if names else "; it takes none"


def _wanted(error: ErrorDetails) -> str:
    message = error["msg"]
    for lead in ("Input should be ", "Value error, ", "Assertion failed, "):
        message = message.removeprefix(lead)
    return message if len(message) <= MAX_LINE // 2 else message[: MAX_LINE // 2 - 1] + "…"


def value_at(given: object, path: Sequence[str | int]) -> object:
    """The value at a path of the input; the whole of it for the empty path."""
    value = given
    for step in path:
        try:
            value = cast(Mapping[object, object], value)[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def format_path(path: Sequence[str | int]) -> str:
    """`filters.tags[0]`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def shorten(value: object) -> str:
    """A value's `repr`, cut in the middle of nowhere when it is long."""
    text = repr(value)
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}…"
