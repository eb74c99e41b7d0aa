"""A value that is known only when the recipe runs, while the recipe is being traced.

A recipe's function is called once, with a `Ref` in place of each input, and each step returns another. A `Ref` can do
what a graph can express: it can be passed on, accessed (`order.address`, `order.items[0]`), and compared. Everything
else (its truth, its length, its text, a sum) needs the value, so it raises immediately, with the line and what to
write instead. Python doesn't ask the object for `is`, `not`, `and`, `or`, `match` and `{ref!r}`; `check_source` finds
those.

Every attribute is a path, so that no name of `Ref` hides a field: there are no methods, and flowkit itself reads a
`Ref` with `symbol_of`.
"""

import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from os import sep
from pathlib import Path
from typing import Any, NoReturn, cast

from pydantic_core import PydanticSerializationError, to_jsonable_python

from flowkit.errors import DefinitionError
from flowkit.graph.conditions import Both, Compare, Condition, Either, IsIn, IsNone, IsTrue, Not, Operator
from flowkit.references import Reference

_PACKAGE = str(Path(__file__).parent) + sep
Check = Callable[[tuple[str | int, ...]], str | None]

open_scopes: ContextVar[tuple[object, ...]] = ContextVar("open_scopes", default=())
"""The recipe that is being traced, and inside it the bodies; a `Ref` is used in its own scope or one inside it."""

traced_file: ContextVar[str | None] = ContextVar("traced_file", default=None)
"""Where the recipe that is being traced is written."""


@dataclass(frozen=True, slots=True, eq=False)
class Symbol:
    """The target of a `Ref`: a path in the result of a step, an input or an item.

    `scope` is the body it was made in; it may be used there and in bodies inside it. `check` describes the fault
    of a path, None if there is none or the result's type isn't known.
    """

    call_id: str
    path: tuple[str | int, ...]
    label: str
    scope: object
    check: Check | None = None

    @property
    def reference(self) -> Reference:
        return Reference(self.call_id, self.path)

    def enter(self, key: str | int) -> "Symbol":
        """Return the symbol of a field or an item; raises `DefinitionError` when the type has none."""
        path = (*self.path, key)
        label = f"{self.label}.{key}" if isinstance(key, str) and key.isidentifier() else f"{self.label}[{key!r}]"
        problem = None if self.check is None else self.check(path)
        if problem is not None:
            raise DefinitionError(f"{here()}: {label}: {problem}")
        return replace(self, path=path, label=label)


_ADVICE = {
    "truth": "its truth isn't known until the recipe runs; write when(condition, lambda: step(…), otherwise=…)",
    "items": "its items aren't known until the recipe runs; write each(items, lambda item: step(…))",
    "length": "its length isn't known until the recipe runs; let a tool count: step(tool, …)",
    "value": "its value isn't known until the recipe runs; let a tool compute with it: step(tool, …)",
    "text": "its text isn't known until the recipe runs; let a tool or ask(model, '… {name} …', name=…) write with it",
    "hash": "its value isn't known until the recipe runs, so it is no key of a dict and no member of a set",
    "call": "only its data travel, no methods; let a tool do it: step(tool, …)",
    "await": "a step isn't awaited; the recipe itself waits for what a step needs",
    "change": "a result can't be changed; let a tool make a new one: step(tool, …)",
    "type": "its type can't be asked for before the recipe runs; write when(condition, lambda: step(…), otherwise=…)",
    "slice": "a path has names and indices from 0; let a tool cut it: step(tool, …)",
}


def here() -> str:
    """File and line of the innermost frame in the file of the recipe being traced, else of the first outside flowkit."""
    file = traced_file.get()
    outside = ""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # the documented way to a caller's line
    while frame is not None:
        name = frame.f_code.co_filename
        if name == file:
            return f"{name}:{frame.f_lineno}"
        if not outside and not name.startswith(_PACKAGE):
            outside = f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return outside or "?"


def refuse(label: str, topic: str) -> NoReturn:
    """Raise an error that says what to write instead."""
    raise DefinitionError(f"{here()}: {label!r} is a value of the running recipe: {_ADVICE[topic]}")


def _refusing(topic: str) -> Any:
    def refuse_it(self: "Ref", *_: object, **__: object) -> NoReturn:
        refuse(symbol_of(self).label, topic)

    return refuse_it


class Ref:
    """A value of the running recipe; to type checkers it has the type that the step returns."""

    __slots__ = ("__symbol",)

    def __init__(self, symbol: Symbol) -> None:
        object.__setattr__(self, "_Ref__symbol", symbol)

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":
            # isinstance() asks for it when the type doesn't fit
            refuse(symbol_of(self).label, "type")
        if name.startswith("__") and name.endswith("__"):
            # copy, pickle and pydantic look for protocols by such names
            raise AttributeError(name)
        return Ref(symbol_of(self).enter(name))

    def __getitem__(self, key: object) -> Any:
        symbol = symbol_of(self)
        if type(key) is str or (type(key) is int and key >= 0):
            return Ref(symbol.enter(key))
        return refuse(symbol.label, "slice")

    def __repr__(self) -> str:
        return f"<Ref {symbol_of(self).label}>"

    def __eq__(self, other: object) -> Any:
        return _test(self, "==", other)

    def __ne__(self, other: object) -> Any:
        return _test(self, "!=", other)

    def __lt__(self, other: object) -> "Test":
        return _test(self, "<", other)

    def __le__(self, other: object) -> "Test":
        return _test(self, "<=", other)

    def __gt__(self, other: object) -> "Test":
        return _test(self, ">", other)

    def __ge__(self, other: object) -> "Test":
        return _test(self, ">=", other)

    def __and__(self, other: object) -> "Test":
        return as_test(self) & other

    def __or__(self, other: object) -> "Test":
        return as_test(self) | other

    __rand__ = __and__
    __ror__ = __or__

    def __invert__(self) -> "Test":
        return ~as_test(self)

    __bool__ = _refusing("truth")
    __iter__ = __reversed__ = __contains__ = __aiter__ = __next__ = __anext__ = _refusing("items")
    __len__ = __length_hint__ = _refusing("length")
    __str__ = __format__ = __bytes__ = __fspath__ = _refusing("text")
    __hash__ = _refusing("hash")
    __call__ = _refusing("call")
    __await__ = __enter__ = __exit__ = __aenter__ = __aexit__ = _refusing("await")
    __setattr__ = __delattr__ = __setitem__ = __delitem__ = _refusing("change")
    __instancecheck__ = __subclasscheck__ = _refusing("type")
    __int__ = __float__ = __complex__ = __index__ = __round__ = __trunc__ = __floor__ = __ceil__ = _refusing("value")
    __neg__ = __pos__ = __abs__ = _refusing("value")
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __matmul__ = __rmatmul__ = _refusing("value")
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = _refusing("value")
    __divmod__ = __rdivmod__ = __pow__ = __rpow__ = __lshift__ = __rlshift__ = _refusing("value")
    __rshift__ = __rrshift__ = __xor__ = __rxor__ = _refusing("value")


class Test:
    """A comparison of values of the running recipe; `&`, `|` and `~` join it with others."""

    __slots__ = ("condition",)
    __test__ = False  # pytest takes classes called Test* for tests

    def __init__(self, condition: Condition) -> None:
        self.condition = condition

    def __and__(self, other: object) -> "Test":
        return Test(Both(self.condition, as_test(other).condition))

    def __or__(self, other: object) -> "Test":
        return Test(Either(self.condition, as_test(other).condition))

    __rand__ = __and__
    __ror__ = __or__

    def __invert__(self) -> "Test":
        return Test(Not(self.condition))

    def __bool__(self) -> NoReturn:
        refuse(repr(self), "truth")

    def __repr__(self) -> str:
        return str(self.condition)


class Built:
    """The result of `build`: a value with fields that may be values of the running recipe."""

    __slots__ = ("__fields",)

    def __init__(self, fields: Mapping[str, object]) -> None:
        object.__setattr__(self, "_Built__fields", fields)

    def __getattribute__(self, name: str) -> Any:
        fields = fields_of(self)
        if name not in fields:
            raise AttributeError(name)
        return fields[name]

    def __getitem__(self, name: str) -> Any:
        return fields_of(self)[name]

    def __repr__(self) -> str:
        return f"<built {fields_of(self)!r}>"


def fields_of(built: Built) -> Mapping[str, object]:
    """Return the values given to `build`, by field."""
    return object.__getattribute__(built, "_Built__fields")


def symbol_of(ref: Ref) -> Symbol:
    """Return the symbol of `ref`."""
    return object.__getattribute__(ref, "_Ref__symbol")


def as_test(value: object) -> Test:
    """Make a condition: a comparison as it is, a `Ref` alone as "is true"."""
    if type(value) is Test:
        return value
    if type(value) is Ref:
        return Test(IsTrue(operand(value)))
    raise DefinitionError(
        f"{here()}: a condition compares values of the running recipe, as in when(order.status == 'paid', …); "
        f"this one is {value!r}"
    )


def not_(condition: object) -> Test:
    """Negate a condition; the same as ``, which type checkers don't like on a comparison."""
    return ~as_test(condition)


def is_none(value: object) -> Test:
    """Make the condition that `value` is None, for `when`."""
    return Test(IsNone(operand(value)))


def is_in(value: object, options: object) -> Test:
    """Make the condition that `value` is one of `options`, for `when`."""
    if type(options) is not Ref and not isinstance(options, (list, tuple, set, frozenset)):
        raise DefinitionError(f"{here()}: is_in() looks in a list, tuple or set; this is {options!r}")
    among = operand(cast(object, options))
    return Test(IsIn(operand(value), tuple(cast(list[object], among)) if type(among) is list else among))


def operand(value: object) -> object:
    """Return `value` as a graph holds it: JSON, with a `Reference` for each `Ref`.

    Raises `DefinitionError` for a `Ref` of another recipe or of a body that has ended, and for what isn't JSON.
    """
    if type(value) is Ref:
        symbol = symbol_of(value)
        if symbol.scope not in open_scopes.get():
            raise DefinitionError(
                f"{here()}: {symbol.label!r} belongs to another recipe, or to the inside of an each() or when() that has"
                " ended; give it out as that step's result"
            )
        return symbol.reference
    if type(value) is Test:
        raise DefinitionError(f"{here()}: the condition ({value!r}) isn't a value; use it in when(…)")
    if type(value) is Built:
        return {name: operand(item) for name, item in fields_of(value).items()}
    if isinstance(value, Mapping):
        fields = cast(Mapping[object, object], value)
        return {_key(key): operand(item) for key, item in fields.items()}
    if isinstance(value, (list, tuple)):
        return [operand(item) for item in cast(list[object], value)]
    if isinstance(value, (set, frozenset)):
        # sorted, so that the same recipe is the same graph in every process
        return [operand(item) for item in sorted(cast(set[object], value), key=repr)]
    try:
        return to_jsonable_python(value, bytes_mode="base64", inf_nan_mode="strings")
    except PydanticSerializationError as error:
        raise DefinitionError(f"{here()}: {value!r} can't be a value of a recipe, which holds JSON: {error}") from None


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise DefinitionError(f"{here()}: the key {key!r} isn't text")
    return key


def _test(ref: Ref, operator: Operator, other: object) -> Test:
    return Test(Compare(operand(ref), operator, operand(other)))
