"""Check users' options before they are used: a wrong type is reported in a sentence, at the call that passed it.

Type checkers find most such errors; without one, the program would fail with a `TypeError` deep inside the library.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import isnan
from typing import cast


@dataclass(frozen=True, slots=True)
class Expected:
    """The values that an option accepts: `words` describes them, `fits` checks one.

    `hint` suggests what to write instead of a misfit; `instead` is the whole sentence for a common one.
    """

    words: str
    fits: Callable[[object], bool]
    hint: Callable[[object], str] = lambda _: ""
    instead: Callable[[object], str] = lambda _: ""
    takes_none: bool = True


def find_misfit(given: Mapping[str, object], expected: Mapping[str, Expected]) -> str | None:
    """Return the sentence on the first option with an invalid value; None if all are valid.

    >>> find_misfit({"ttl": "5m"}, {"ttl": TIME})
    "ttl is '5m', expected seconds or a timedelta, such as 300 or timedelta(minutes=5)"
    """
    for name, value in given.items():
        kind = expected.get(name)
        if kind is None or kind.fits(value) or (value is None and kind.takes_none):
            continue
        if instead := kind.instead(value):
            return instead
        hint = kind.hint(value)
        return f"{name} is {show(value)}, expected {kind.words}{f': {hint}' if hint else ''}"
    return None


def show(value: object) -> str:
    """Name a value in a sentence: a function or a class by its name, the rest as it prints."""
    name = getattr(value, "__name__", None)
    if isinstance(value, type):
        return f"the class {name}"
    if callable(value) and isinstance(name, str):
        return f"the function {name}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def is_number(value: object) -> bool:
    """Return whether it is a number, and not a boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not isnan(value)


def is_count(value: object) -> bool:
    """Return whether it is a whole number, and not a boolean."""
    return isinstance(value, int) and not isinstance(value, bool)


def has_methods(*names: str) -> Callable[[object], bool]:
    """Return a test for objects, not classes, that have these methods."""
    return lambda value: not isinstance(value, type) and all(hasattr(type(value), name) for name in names)


def _is_names(value: object) -> bool:
    return (
        isinstance(value, Iterable)
        and not isinstance(value, str | bytes | Mapping)
        and all(isinstance(item, str) for item in cast(Iterable[object], value))
    )


def _are_slots(value: object) -> bool:
    if isinstance(value, Mapping):
        named = cast(Mapping[object, object], value)
        return all(isinstance(name, str) and is_count(count) for name, count in named.items())
    return is_count(value)


TEXT = Expected("a string", lambda value: isinstance(value, str))
FLAG = Expected("True or False", lambda value: isinstance(value, bool), takes_none=False)
OPTIONAL_FLAG = Expected("True, False or None", lambda value: isinstance(value, bool))
COUNT = Expected("a whole number", is_count)
NUMBER = Expected("a number", is_number)
FUNCTION = Expected("a function", callable)
TIME = Expected(
    "seconds or a timedelta, such as 300 or timedelta(minutes=5)",
    lambda value: isinstance(value, timedelta) or is_number(value),
)
NAMES = Expected(
    "a tuple of names", _is_names, lambda value: f"({value!r},)" if isinstance(value, str) else "", takes_none=False
)
SLOTS = Expected('a whole number, or numbers by name such as {"all": 16, "db": 4}', _are_slots, takes_none=False)
