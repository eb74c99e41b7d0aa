"""Conditions of `when`: a closed set of frozen values, so that they can be drawn, written as YAML and journaled.

An operand is a JSON value or a `Reference`. Comparing values that have no order (a text with a number, anything with
null) raises `ToolError`, so that the node fails with the reason.
"""

import operator as operators
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, assert_never, cast

from flowkit.errors import ToolError
from flowkit.references import Reference, find_references, substitute

_ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operators.lt,
    "<=": operators.le,
    ">": operators.gt,
    ">=": operators.ge,
}

Operator = Literal["==", "!=", "<", "<=", ">", ">="]
Resolve = Callable[[object], object]


class _Evaluated:
    __slots__ = ()

    def evaluate(self, resolve: Resolve) -> bool:
        """Return whether it holds; `resolve` returns an operand with its references replaced by values."""
        return _evaluate(cast("Condition", self), resolve)

    def references(self) -> Iterator[Reference]:
        """Yield the references in it, in order."""
        return _find_operands(cast("Condition", self))

    def substitute(self, replace: Callable[[Reference], object]) -> "Condition":
        """Return the same condition with each reference replaced."""
        return _substitute_operands(cast("Condition", self), replace)


@dataclass(frozen=True, slots=True)
class Compare(_Evaluated):
    """`left operator right`; equality is JSON's, so true isn't 1."""

    left: object
    operator: Operator
    right: object

    def __str__(self) -> str:
        return f"{_text(self.left)} {self.operator} {_text(self.right)}"


@dataclass(frozen=True, slots=True)
class IsIn(_Evaluated):
    """`value` equals one of `options`: a tuple, or a reference to a list."""

    value: object
    options: object

    def __str__(self) -> str:
        return f"{_text(self.value)} in {_text(self.options)}"


@dataclass(frozen=True, slots=True)
class IsNone(_Evaluated):
    """`value` is null."""

    value: object

    def __str__(self) -> str:
        return f"{_text(self.value)} is none"


@dataclass(frozen=True, slots=True)
class IsTrue(_Evaluated):
    """`value` is a boolean, and true."""

    value: object

    def __str__(self) -> str:
        return _text(self.value)


@dataclass(frozen=True, slots=True)
class Not(_Evaluated):
    """The opposite."""

    condition: "Condition"

    def __str__(self) -> str:
        return f"not ({self.condition})"


@dataclass(frozen=True, slots=True)
class Both(_Evaluated):
    """Left and right; right isn't looked at when left is false."""

    left: "Condition"
    right: "Condition"

    def __str__(self) -> str:
        return f"({self.left} and {self.right})"


@dataclass(frozen=True, slots=True)
class Either(_Evaluated):
    """Left or right; right isn't looked at when left is true."""

    left: "Condition"
    right: "Condition"

    def __str__(self) -> str:
        return f"({self.left} or {self.right})"


Condition = Compare | IsIn | IsNone | IsTrue | Not | Both | Either


def _evaluate(condition: Condition, resolve: Resolve) -> bool:
    match condition:
        case Compare(left, operator, right):
            return _compare(resolve(left), operator, resolve(right), condition)
        case IsIn(value, options):
            found, among = resolve(value), resolve(options)
            if not isinstance(among, (list, tuple)):
                raise ToolError(f"{condition}: expected a list to look in, got {among!r}")
            return any(_equal(found, option) for option in cast(list[object], among))
        case IsNone(value):
            return resolve(value) is None
        case IsTrue(value):
            truth = resolve(value)
            if not isinstance(truth, bool):
                raise ToolError(f"{condition}: expected true or false, got {truth!r}")
            return truth
        case Not(inner):
            return not _evaluate(inner, resolve)
        case Both(left, right):
            return _evaluate(left, resolve) and _evaluate(right, resolve)
        case Either(left, right):
            return _evaluate(left, resolve) or _evaluate(right, resolve)
        case _:
            assert_never(condition)


def _find_operands(condition: Condition) -> Iterator[Reference]:
    match condition:
        case Compare(left, _, right):
            yield from find_references((left, right))
        case IsIn(value, options):
            yield from find_references((value, options))
        case IsNone(value) | IsTrue(value):
            yield from find_references(value)
        case Not(inner):
            yield from _find_operands(inner)
        case Both(left, right) | Either(left, right):
            yield from _find_operands(left)
            yield from _find_operands(right)
        case _:
            assert_never(condition)


def _substitute_operands(condition: Condition, replace: Callable[[Reference], object]) -> Condition:
    match condition:
        case Compare(left, operator, right):
            return Compare(substitute(left, replace), operator, substitute(right, replace))
        case IsIn(value, options):
            return IsIn(substitute(value, replace), substitute(options, replace))
        case IsNone(value):
            return IsNone(substitute(value, replace))
        case IsTrue(value):
            return IsTrue(substitute(value, replace))
        case Not(inner):
            return Not(_substitute_operands(inner, replace))
        case Both(left, right):
            return Both(_substitute_operands(left, replace), _substitute_operands(right, replace))
        case Either(left, right):
            return Either(_substitute_operands(left, replace), _substitute_operands(right, replace))
        case _:
            assert_never(condition)


def _compare(left: object, operator: Operator, right: object, condition: Condition) -> bool:
    if operator == "==":
        return _equal(left, right)
    if operator == "!=":
        return not _equal(left, right)
    if not (_is_number(left) and _is_number(right)) and not (isinstance(left, str) and isinstance(right, str)):
        raise ToolError(f"{condition}: {left!r} and {right!r} have no order")
    return _ORDERINGS[operator](left, right)


def _equal(left: object, right: object) -> bool:
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return left == right


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, cast(tuple[object, ...], value)))})"
    return str(value) if isinstance(value, Reference) else repr(value)
