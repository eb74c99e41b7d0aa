"""The options of `@tool`, checked: a tool's effect, the scope of its results, and more."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from string import Formatter
from typing import Any, Literal, cast
from unicodedata import normalize

from flowkit.context import Context
from flowkit.errors import DefinitionError
from flowkit.identity import SCOPES, Scope
from flowkit.masking import LONG_ECHO, NO_SECRETS, SecretPlaces
from flowkit.option_checks import (
    COUNT,
    FLAG,
    FUNCTION,
    NAMES,
    OPTIONAL_FLAG,
    TEXT,
    TIME,
    Expected,
    find_misfit,
    show,
)
from flowkit.references import Reference

Effect = Literal["read", "idempotent", "write"]
ApprovalRule = Callable[[Mapping[str, Any], Context[Any]], bool]
Approval = bool | ApprovalRule
PoolName = Literal["process", "dask"]

EFFECTS: tuple[Effect, ...] = ("read", "idempotent", "write")
"""From the weakest to the strongest."""

POOLS: tuple[PoolName, ...] = ("process", "dask")
POOL_SLOTS: Mapping[PoolName, str] = {"process": "pool:process", "dask": "pool:dask"}
"""The slots that bound the calls of a run in each pool, where a tool names none of its own."""

READ_RETRIES = 1
"""The default number of retries of a failed read."""


def _are_errors(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(kind, type) and issubclass(kind, Exception) for kind in cast(tuple[object, ...], value)
    )


_EXPECTED: Mapping[str, Expected] = {
    "name": TEXT,
    "description": TEXT,
    "ttl": TIME,
    "version": TEXT,
    "resource": Expected(
        "a string, or a tuple of them", lambda value: isinstance(value, str) or NAMES.fits(value), takes_none=False
    ),
    "slot": TEXT,
    "timeout": TIME,
    "retries": COUNT,
    "approval": Expected(
        "True, False or a function of the arguments and the context",
        lambda value: isinstance(value, bool) or callable(value),
    ),
    "accepts_references": FLAG,
    "cache_errors": Expected("a tuple of exception classes", _are_errors, takes_none=False),
    "probe": FUNCTION,
    "secret": NAMES,
    "max_result_chars": COUNT,
    "strict": OPTIONAL_FLAG,
    "flatten": FLAG,
    "pool": TEXT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The arguments of `@tool(...)`; None for omitted ones."""

    name: str | None = None
    description: str | None = None
    effect: Effect | None = None
    ttl: float | timedelta | None = None
    scope: Scope | None = None
    version: str | None = None
    resource: str | tuple[str, ...] = ()
    slot: str | None = None
    timeout: float | timedelta | None = None
    retries: int | None = None
    approval: Approval | None = None
    accepts_references: bool = False
    cache_errors: tuple[type[Exception], ...] = ()
    probe: Callable[..., Any] | None = None
    secret: tuple[str, ...] = ()
    max_result_chars: int | None = None
    strict: bool | None = None
    flatten: bool = False
    pool: PoolName | None = None

    @property
    def ttl_s(self) -> float | None:
        return to_seconds(self.ttl)

    @property
    def timeout_s(self) -> float | None:
        return to_seconds(self.timeout)

    @property
    def claimed_effect(self) -> Effect | None:
        """The declared effect: by name, or by a TTL, which only a read can have."""
        return self.effect or (None if self.ttl is None else "read")

    @property
    def resources(self) -> tuple[str, ...]:
        return (self.resource,) if isinstance(self.resource, str) else tuple(self.resource)

    def check(self, tool: str) -> None:
        """Raise `DefinitionError` for options that can't be, alone or together."""
        problem = next(self._problems(), None)
        if problem is not None:
            raise DefinitionError.about(tool, problem)

    def _problems(self) -> Iterator[str]:
        given = {name: value for name, default in _DEFAULTS.items() if (value := getattr(self, name)) is not default}
        if not given:
            return  # as most tools have it
        misfit = find_misfit(given, _EXPECTED)
        if misfit is not None:
            yield misfit
        if self.effect is not None and self.effect not in EFFECTS:
            yield f"effect is {self.effect!r}, expected one of {', '.join(map(repr, EFFECTS))}"
        if self.scope is not None and self.scope not in SCOPES:
            yield f"scope is {self.scope!r}, expected one of {', '.join(map(repr, SCOPES))}"
        if self.pool is not None and self.pool not in POOLS:
            yield f"pool is {self.pool!r}, expected one of {', '.join(map(repr, POOLS))}"
        if self.ttl is not None and self.effect not in (None, "read"):
            yield f"ttl is only for reads, and effect is {self.effect!r}"
        if self.ttl_s is not None and not self.ttl_s > 0:
            yield f"ttl is {self.ttl!r}, expected more than 0 seconds"
        if self.timeout_s is not None and not self.timeout_s > 0:
            yield f"timeout is {self.timeout!r}, expected more than 0 seconds"
        if self.retries is not None and self.retries < 0:
            yield f"retries is {self.retries!r}, expected 0 or more"
        if self.retries and self.claimed_effect in (None, "write"):
            yield "a write is never retried automatically: retries needs effect='read' or 'idempotent'"
        if callable(self.approval) and not _takes_two(self.approval):
            yield f"approval is {show(self.approval)}, expected one that takes the arguments, as a dict, and the context"
        if inspect.iscoroutinefunction(self.approval):
            yield f"approval is {show(self.approval)}, which is async: a rule returns True or False at once"
        if self.probe is not None and self.claimed_effect == "read":
            yield "a probe tells whether a write has happened; a read just runs again"
        if self.cache_errors and self.ttl is None:
            yield "cache_errors needs a ttl"
        if self.max_result_chars is not None and self.max_result_chars < 1:
            yield f"max_result_chars is {self.max_result_chars!r}, expected 1 or more"


_DEFAULTS: Mapping[str, object] = {field.name: field.default for field in fields(Options)}


def to_seconds(time: float | timedelta | None) -> float | None:
    """Convert seconds or a `timedelta` to seconds."""
    return time.total_seconds() if isinstance(time, timedelta) else time


def strongest(effects: Sequence[Effect]) -> Effect:
    """Return the strongest of these effects."""
    return max(effects, key=EFFECTS.index)


def narrowest(scopes: Sequence[Scope]) -> Scope:
    """Return the narrowest of these scopes."""
    return min(scopes, key=SCOPES.index)


def _takes_two(rule: Callable[..., object]) -> bool:
    try:
        inspect.signature(rule).bind(None, None)
    except TypeError:
        return False
    except ValueError:
        pass  # a built-in function may have no signature to look at
    return True


_PLACEHOLDER = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def placeholders(template: str) -> tuple[str, ...]:
    """Return the paths that a resource names: `order.id` for `order:{order.id}`.

    Raises `ValueError` for other forms.
    """
    paths: list[str] = []
    for _, path, form, conversion in Formatter().parse(template):
        if path is None:
            continue
        if form or conversion or not _PLACEHOLDER.fullmatch(path):
            raise ValueError(f"placeholder {{{path}}} is not a parameter or a path in one")
        paths.append(path)
    return tuple(paths)


def fill(template: str, values: Mapping[str, Any], secrets: SecretPlaces = NO_SECRETS) -> str:
    """Fill in a resource; a value that is None, secret or still a reference is replaced by its family, `order:*`."""
    text = ""
    found = [secret for secret in secrets.find(values) if len(secret) >= LONG_ECHO] if secrets else ()
    for literal, path, _, _ in Formatter().parse(template):
        text += literal
        if path is not None:
            is_secret = bool(secrets) and secrets.hold_at(path.split("."))
            shown = "*" if is_secret else _show(_look_up(path, values))
            text += "*" if any(secret in shown for secret in found) else shown
    return text


def _look_up(path: str, values: Mapping[str, Any]) -> object:
    name, *steps = path.split(".")
    value: Any = values.get(name)
    for step in steps:
        value = cast(Mapping[str, Any], value).get(step) if isinstance(value, Mapping) else getattr(value, step, None)
    return None if isinstance(value, Reference) else value


def _show(value: object) -> str:
    if value is None:
        return "*"
    shown = getattr(value, "value", value) if hasattr(type(value), "__members__") else value
    text = str(shown)
    if not text.isascii():
        text = normalize("NFC", text)  # a name typed and the same name from a Mac's folder are one resource
    # A star in a value isn't the family, so it is written as URLs do.
    return text.replace("%", "%25").replace("*", "%2A")
