"""What tells one function from another across processes: its source, and what it was made with.

Two tools of one name can differ in nothing but the object that their methods are bound to, or in what their closures
hold; their results must not be mixed up in a cache. Values with a canonical form that can't change stand for
themselves; any other object stands for itself in this process only, so its results are never shared with another.
"""

import functools
import hashlib
import inspect
import secrets
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any, cast

from pydantic import BaseModel

from flowkit.codec import JSON
from flowkit.tools.keys import NotKeyable, canonicalize
from flowkit.tools.schema.signatures import unwrap

_tokens: dict[int, str] = {}


def find_source(function: Callable[..., Any]) -> str:
    """A hash of the function's source; of its compiled code where there is no source to read."""
    plain = unwrap(function)
    try:
        text = inspect.getsource(plain)
    except (OSError, TypeError):
        code = getattr(plain, "__code__", None)
        text = repr(plain) if code is None else f"{code.co_code!r}{code.co_consts!r}{code.co_names!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def identify(function: Callable[..., Any]) -> JSON:
    """What the function was made with: its receiver, the arguments of partials, what its closure holds."""
    parts: list[JSON] = []
    current: Any = function
    while isinstance(current, functools.partial):
        parts.append([_identify_value(value) for value in current.args])
        current = current.func  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(current, types.MethodType):
        parts.append(_identify_value(current.__self__))
        current = current.__func__
    elif not inspect.isroutine(current) and not inspect.isclass(current):
        parts.append(_identify_value(current))  # a callable object
    while current is not None:
        for cell in getattr(current, "__closure__", None) or ():
            try:
                held = cell.cell_contents
            except ValueError:
                continue
            if held is not getattr(current, "__wrapped__", None):
                parts.append(_identify_value(held))
        current = getattr(current, "__wrapped__", None)
    return parts


def _identify_value(value: object) -> JSON:
    if isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)):
        return ["named", getattr(value, "__module__", ""), getattr(value, "__qualname__", value.__name__)]
    if isinstance(value, types.FunctionType):
        return ["function", value.__module__, value.__qualname__, find_source(value)]
    if hasattr(value, "code") and hasattr(value, "needs"):
        return ["tool", str(getattr(value, "name", ""))]
    try:
        return canonicalize(value) if _is_frozen(value) else ["object", _token(value)]
    except (NotKeyable, RecursionError):
        return ["object", _token(value)]


def _is_frozen(value: Any) -> bool:
    """Whether the value stays what it is: a list of today tells nothing of the list that the function meets later."""
    if isinstance(value, (tuple, frozenset)):
        return all(_is_frozen(item) for item in cast(Iterable[object], value))
    if isinstance(value, BaseModel):
        return value.model_config.get("frozen", False) and all(_is_frozen(item) for _, item in value)
    if is_dataclass(value):
        is_frozen = bool(cast(Any, type(value)).__dataclass_params__.frozen)
        return is_frozen and all(_is_frozen(getattr(value, field.name)) for field in fields(value))
    return not isinstance(value, (list, dict, set, bytearray, deque))


def _token(value: object) -> str:
    """A name for this very object, never used again for another one."""
    identity = id(value)
    if identity not in _tokens:
        try:
            weakref.finalize(value, _tokens.pop, identity, None)
        except TypeError:
            # It can't say when it is gone, and its id may be given to another: not the same twice.
            return secrets.token_hex(16)
        _tokens[identity] = secrets.token_hex(16)
    return _tokens[identity]
