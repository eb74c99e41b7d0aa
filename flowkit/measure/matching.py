"""Whether the calls that a model made are the ones that a case expects.

Each expected call has to be met by one that was made, and no call may be left over unless the case says `more_calls`.
Their order doesn't count. An argument that the case doesn't name may be anything (`only: true` forbids it); one that the
model left out counts as its default. Texts are equal but for case and the space around them, numbers by their value,
objects in the fields that the case names, lists item by item. In place of a value a case may write

- `{any: [a, b]}`: one of these values,
- `{contains: word}` or `{contains: [a, b]}`: a text that holds them all, in any case,
- `{regex: "…"}`: a text in which this is found,
- `{equals: value}`: this value, for one that looks like the forms above.
"""

import re
from collections.abc import Mapping, Sequence
from typing import cast

from flowkit.codec import JSON, dumps
from flowkit.measure.cases import Case, ExpectedCall
from flowkit.measure.records import MadeCall

Defaults = Mapping[str, Mapping[str, JSON]]
"""The defaults of arguments by tool."""


def find_wrong_calls(case: Case, made: Sequence[MadeCall], defaults: Defaults) -> str | None:
    """Find what is wrong with the calls that were made, in one line; None where they are right or aren't judged."""
    if case.calls is None:
        return None
    met = _pair(case.calls, made, defaults)
    missing = [expected for index, expected in enumerate(case.calls) if index not in met]
    left = [call for index, call in enumerate(made) if index not in met.values()]
    problems: list[str] = []
    for expected in missing:
        alike = next((call for call in left if call.tool in expected.tools), None)
        if alike is None:
            problems.append(f"no call of {' or '.join(expected.tools)}")
            continue
        left.remove(alike)
        wrong = find_misfit(expected, alike, defaults)
        problems.append(f"{alike.tool}: {wrong}")
    if not case.more_calls:
        problems += [f"a call of {call.tool} too many" for call in left]
    return "; ".join(problems) or None


def find_misfit(expected: ExpectedCall, made: MadeCall, defaults: Defaults) -> str | None:
    """Find the argument of this call that isn't the expected one, and describe it."""
    if made.tool not in expected.tools:
        return f"is {made.tool}"
    usual = defaults.get(made.tool, {})
    for name, wanted in expected.arguments.items():
        if name not in made.arguments and name not in usual:
            if not fits(wanted, None):
                return f"{name} is missing, expected {_say(wanted)}"
            continue
        value = made.arguments.get(name, usual.get(name))
        if not fits(wanted, value):
            return f"{name} is {_say(value)}, expected {_say(wanted)}"
    if expected.only:
        for name, value in made.arguments.items():
            if name not in expected.arguments and (name not in usual or not fits(usual[name], value)):
                return f"{name} is {_say(value)}, expected none"
    return None


def fits(wanted: JSON, value: JSON) -> bool:
    """Return whether a value is what a case wants.

    >>> fits("Busan", "busan "), fits(2, 2.0), fits({"city": "Seoul"}, {"city": "seoul", "zip": 1})
    (True, True, True)
    >>> fits({"contains": ["broken", "cup"]}, "The cup is broken"), fits({"any": [1, 2]}, 3), fits(1, True)
    (True, False, False)
    """
    match wanted:
        case {"any": list(choices)} if len(wanted) == 1:
            return any(fits(choice, value) for choice in choices)
        case {"contains": str() | list() as words} if len(wanted) == 1:
            said = value if isinstance(value, str) else dumps(value).decode()
            return all(
                str(word).casefold() in said.casefold() for word in ([words] if isinstance(words, str) else words)
            )
        case {"regex": str(pattern)} if len(wanted) == 1:
            return isinstance(value, str) and re.search(pattern, value) is not None
        case {"equals": literal} if len(wanted) == 1:
            return _equal(literal, value)
        case dict():
            return isinstance(value, dict) and all(
                name in value and fits(inner, value[name]) for name, inner in wanted.items()
            )
        case list():
            return (
                isinstance(value, list)
                and len(value) == len(wanted)
                and all(fits(inner, item) for inner, item in zip(wanted, value, strict=True))
            )
        case _:
            return _equal(wanted, value)


def _equal(wanted: JSON, value: JSON) -> bool:
    match wanted, value:
        case (bool(), _) | (_, bool()):
            return wanted is value
        case ((int() | float()), (int() | float())):
            return float(wanted) == float(value)
        case str(), str():
            return wanted.strip().casefold() == value.strip().casefold()
        case list(), list():
            return len(wanted) == len(value) and all(map(_equal, wanted, value))
        case dict(), dict():
            return wanted.keys() == value.keys() and all(_equal(inner, value[name]) for name, inner in wanted.items())
        case _:
            return wanted == value


def _pair(wanted: Sequence[ExpectedCall], made: Sequence[MadeCall], defaults: Defaults) -> dict[int, int]:
    """Pair as many expected calls as possible, each with a call of its own, so that no pairing blocks another."""
    fitting = [
        [at for at, call in enumerate(made) if find_misfit(expected, call, defaults) is None] for expected in wanted
    ]
    holder: dict[int, int] = {}

    def find_place(expected: int, tried: set[int]) -> bool:
        for at in fitting[expected]:
            if at not in tried:
                tried.add(at)
                if at not in holder or find_place(holder[at], tried):
                    holder[at] = expected
                    return True
        return False

    for expected in range(len(wanted)):
        find_place(expected, set())
    return {expected: at for at, expected in holder.items()}


def read_defaults(schema: Mapping[str, JSON]) -> dict[str, JSON]:
    """Read the defaults of a tool's schema, by argument; null for an optional one without a default."""
    properties = cast(Mapping[str, JSON], schema.get("properties") or {})
    return {
        name: property_schema["default"]
        for name, property_schema in properties.items()
        if isinstance(property_schema, dict) and "default" in property_schema
    }


def _say(value: JSON) -> str:
    text = dumps(value).decode()
    return text if len(text) <= 60 else f"{text[:59]}…"
