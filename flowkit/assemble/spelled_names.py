"""Names as models spell them, and the wrapper in which some models put parallel calls.

A model may add `functions.`, a channel marker or a blank to a name, or change its case. What was meant is looked up
among the names that the model was told; a name that leads nowhere stays as it was, for the model to read.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

from flowkit.assemble.arguments_text import MAX_GLUED, read_object
from flowkit.codec import JSON, dumps

_WRAPPERS = frozenset(("multi_tool_use.parallel", "multi_tool_use_parallel", "parallel"))
_PREFIX = re.compile(r"^(?:functions?|tools?|default_api)[.:/]", re.IGNORECASE)
_SUFFIX = re.compile(r"(?:<\|.*|:\d+|\(\))$", re.DOTALL)
_OTHER = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class WrappedCall:
    """One call inside a wrapper; `raw` is the JSON text of its arguments."""

    name: str
    arguments: dict[str, JSON]
    raw: str


def clean_name(name: str, known: Collection[str]) -> str:
    """Return the known name that was meant, or `name` itself when there is none, or more than one.

    >>> clean_name("functions.get_weather<|channel|>commentary", {"get_weather"})
    'get_weather'
    >>> clean_name("Get_Weather ", {"get_weather"})
    'get_weather'
    >>> clean_name("functions.fly", {"get_weather"})
    'functions.fly'
    """
    if not known or name in known:
        return name
    short = name.strip()
    while short not in known:
        shorter = _PREFIX.sub("", _SUFFIX.sub("", short).strip()).strip()
        if shorter == short:
            break
        short = shorter
    if short in known:
        return short
    alike = [other for other in known if _normalise(other) == _normalise(short)]
    return alike[0] if len(alike) == 1 else name


def is_wrapper(name: str, known: Collection[str]) -> bool:
    """Return whether this is the name of a wrapper, and of no tool; without known names, nothing is one."""
    if not known or name in known:
        return False
    return name in _WRAPPERS or _PREFIX.sub("", name.strip()) in _WRAPPERS


def unwrap(arguments: Mapping[str, JSON], known: Collection[str]) -> tuple[WrappedCall, ...]:
    """Unwrap the calls in a wrapper's `tool_uses`; none when any of them can't be read."""
    uses = arguments.get("tool_uses")
    if not isinstance(uses, list) or len(uses) > MAX_GLUED:
        return ()
    calls: list[WrappedCall] = []
    for use in uses:
        if not isinstance(use, dict):
            return ()
        name = use.get("recipient_name", use.get("name"))
        parameters = use.get("parameters", use.get("arguments", cast(JSON, {})))
        if isinstance(parameters, str):
            parameters = read_object(parameters)
        if not isinstance(name, str) or not isinstance(parameters, dict):
            return ()
        calls.append(WrappedCall(clean_name(name, known), parameters, dumps(parameters).decode()))
    return tuple(calls)


def _normalise(name: str) -> str:
    return _OTHER.sub("_", name.lower()).strip("_")
