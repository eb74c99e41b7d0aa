"""The identity of a function: its code, and the values it was created with, at any depth.

Two tools of one name may differ only in the object that their methods are bound to, or in their closures; a cache must
not mix up their results. Immutable values have an identity that is valid in every process: plain values, importable
classes, functions, tools, and frozen objects of these. Anything else, above all an object with state, is identified
only within this process: by a `token`, and a key that contains one is never stored on disk.
"""

import functools
import hashlib
import inspect
import secrets
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, Protocol, cast, get_args, get_origin, runtime_checkable

from pydantic import BaseModel

from flowkit.codec import JSON, dump_sorted
from flowkit.context import CONTEXT
from flowkit.tools.keys import NotKeyable, canonicalize, find_hidden_state, is_plain_value
from flowkit.tools.schema.signatures import unwrap

_MADE_BY_A_CLASS_STATEMENT = 1 << 9
"""The bit `Py_TPFLAGS_HEAPTYPE` of `type.__flags__`: made at run time, and not a part of the interpreter."""
_tokens: dict[int, str] = {}


@dataclass(frozen=True, slots=True)
class MadeWith:
    """Everything that a function closes over, for a cache key; `is_durable` if it means the same in every process."""

    parts: JSON
    is_durable: bool


@runtime_checkable
class IdentifiedTool(Protocol):
    """The parts of a tool that make up its identity; the class itself is in a layer above."""

    function: Callable[..., Any]
    needs: tuple[Any, ...]
    version: str | None

    @property
    def code_parts(self) -> JSON: ...


def find_source(function: Callable[..., Any]) -> str:
    """Hash the function's source; its compiled code where there is no source to read."""
    plain = unwrap(function)
    try:
        text = inspect.getsource(plain)
    except (OSError, TypeError):
        code = getattr(plain, "__code__", None)
        text = repr(plain) if code is None else dump_sorted(_code_form(code)).decode()
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def identify(
    function: Callable[..., Any],
    *,
    annotations: Iterable[object] = (),
    is_versioned: bool = False,
    has_signature: bool = True,
) -> MadeWith:
    """Find what a tool's function was made with: receivers, arguments of partials, closures, all the way down.

    The defaults of a function with a signature are arguments, which the key has anyway. A version that the author
    declares replaces the code, but not what the function closes over. The classes
    among the `annotations` of its parameters count where no import finds them.
    """
    walk = _Walk()
    try:
        parts = [walk.identify_top(function, with_code=not is_versioned, with_defaults=not has_signature)]
        parts += [walk.identify(found) for part in annotations for found in _find_local_classes(part)]
    except RecursionError:
        return MadeWith(["deep", secrets.token_hex(16)], False)
    return MadeWith(parts, walk.is_durable)


class _Walk:
    """Walks over everything that a function holds; each object is visited once, so cycles end."""

    def __init__(self) -> None:
        self.is_durable = True
        self._entered: dict[int, int] = {}

    def identify_top(self, function: Any, *, with_code: bool, with_defaults: bool) -> JSON:
        """Identify the tool's own function, below what wraps it and binds it."""
        place = self._entered.get(id(function))
        if place is not None:
            return ["again", place]
        if isinstance(function, types.FunctionType):
            return self._function(function, with_code=with_code, with_defaults=with_defaults)
        if isinstance(function, types.MethodType):
            receiver = self.identify(function.__self__)
            return [
                "method",
                receiver,
                self.identify_top(function.__func__, with_code=with_code, with_defaults=with_defaults),
            ]
        if isinstance(function, functools.partial):
            partial = cast("functools.partial[Any]", function)
            held = self._partial_values(partial)
            return ["partial", held, self.identify_top(partial.func, with_code=with_code, with_defaults=with_defaults)]
        return self.identify(function)

    def identify(self, value: object) -> JSON:
        """Return a form that no different value has."""
        if value is None or is_plain_value(value):
            return canonicalize(value)
        place = self._entered.get(id(value))
        if place is not None:
            return ["again", place]
        self._entered[id(value)] = len(self._entered)
        if not _tells_its_class(value):
            return self._object(value)
        try:
            return self._identify_new(value)
        except NotKeyable:
            return self._object(value)

    def _identify_new(self, value: Any) -> JSON:
        match value:
            case types.FunctionType():
                return self._function(value, with_code=True, with_defaults=True)
            case types.MethodType():
                return ["method", self.identify(value.__self__), self.identify(value.__func__)]
            case types.BuiltinFunctionType() | types.MethodWrapperType():
                return self._builtin(value)
            case functools.partial():
                partial = cast("functools.partial[Any]", value)
                return ["partial", self._partial_values(partial), self.identify(partial.func)]
            case types.MethodDescriptorType() | types.WrapperDescriptorType() | types.ClassMethodDescriptorType():
                return ["builtin", self.identify(value.__objclass__), value.__name__]
            case types.ModuleType():
                is_known = sys.modules.get(value.__name__) is value
                return ["module", value.__name__] if is_known else self._object(value)
            case type():
                return self._class(cast("type[object]", value))
            case tuple() | frozenset() if type(cast(object, value)) in (tuple, frozenset):
                return self._collection(cast("tuple[object, ...] | frozenset[object]", value))
            # Its class first: an object that has an answer for every name, such as a mock or a proxy, is no tool.
            case _ if hasattr(cast("type[object]", type(value)), "code_parts") and isinstance(value, IdentifiedTool):
                return self._tool(value)
            case _ if value is CONTEXT:
                return ["context"]
            case _ if get_origin(value) is not None:
                arguments = [self.identify(argument) for argument in get_args(value)]
                return ["alias", self.identify(get_origin(value)), arguments]
            case _:
                return self._record(value)

    def _function(self, function: types.FunctionType, *, with_code: bool, with_defaults: bool) -> JSON:
        self._entered.setdefault(id(function), len(self._entered))
        parts: list[JSON] = ["function", function.__module__, function.__qualname__]
        if with_code:
            parts += [find_source(function), _code_form(function.__code__)]
        for cell in function.__closure__ or ():
            try:
                parts.append(self.identify(cell.cell_contents))
            except ValueError:
                parts.append(["empty"])
        wrapped = getattr(function, "__wrapped__", None)
        if with_defaults or wrapped is not None:
            named = function.__kwdefaults__ or {}
            parts.append([self.identify(default) for default in function.__defaults__ or ()])
            parts.append([[name, self.identify(default)] for name, default in sorted(named.items())])
        if wrapped is not None:
            # The innermost has the signature, and so defaults that are filled in.
            parts.append(self.identify_top(wrapped, with_code=with_code, with_defaults=with_defaults))
        held = {name: part for name, part in vars(function).items() if name != "__wrapped__"}
        held |= _find_own_globals(function)
        if held:
            parts.append([[name, self.identify(part)] for name, part in sorted(held.items())])
        return parts

    def _partial_values(self, partial: "functools.partial[Any]") -> JSON:
        named = [[name, self.identify(value)] for name, value in sorted(partial.keywords.items())]
        return [[self.identify(value) for value in partial.args], cast(JSON, named)]

    def _builtin(self, function: Any) -> JSON:
        receiver: object = getattr(function, "__self__", None)
        if receiver is None or isinstance(receiver, types.ModuleType):
            return ["builtin", getattr(function, "__module__", None) or "", function.__qualname__]
        return ["builtin", self.identify(receiver), function.__name__]

    def _class(self, found: type[object]) -> JSON:
        return ["class", found.__module__, found.__qualname__] if _can_be_imported(found) else self._object(found)

    def _collection(self, values: "tuple[object, ...] | frozenset[object]") -> JSON:
        forms = [self.identify(value) for value in values]
        return [type(values).__name__, sorted(forms, key=dump_sorted) if isinstance(values, frozenset) else forms]

    def _tool(self, tool: IdentifiedTool) -> JSON:
        needs = [self.identify(need.tool) for need in tool.needs]
        top = self.identify_top(tool.function, with_code=tool.version is None, with_defaults=True)
        return ["tool", tool.code_parts, needs, top]

    def _record(self, value: Any) -> JSON:
        """Identify a frozen object by its class and fields if nothing else is in it; else by identity."""
        kind = cast("type[object]", type(value))
        if find_hidden_state(value):
            return self._object(value)
        if isinstance(value, Enum):
            # Its class is named where it can be imported; else it holds what was made for that class alone.
            return ["enum", self.identify(kind), value.name]
        held: Mapping[str, object] | None = None
        if isinstance(value, BaseModel):
            if value.model_config.get("frozen", False):
                held = value.__dict__ | (value.model_extra or {})
        elif is_dataclass(kind) and cast(Any, kind).__dataclass_params__.frozen:
            held = {field.name: getattr(value, field.name) for field in fields(kind)}
        if held is None:
            return self._object(value)
        return ["record", self.identify(kind), [[name, self.identify(part)] for name, part in sorted(held.items())]]

    def _object(self, value: object) -> JSON:
        self.is_durable = False
        return ["object", _token(value)]


def _find_own_globals(function: types.FunctionType) -> dict[str, object]:
    """Find the globals that a function names, if they are no module's, as those of `exec`: it closes over them."""
    held = function.__globals__
    # By the name that they have themselves: `functools.wraps` gives a wrapper the name of another's module.
    module = sys.modules.get(str(held.get("__name__")))
    if module is not None and vars(module) is held:
        return {}
    return {name: held[name] for name in _find_names(function.__code__) if name in held}


def _find_names(code: types.CodeType) -> set[str]:
    inner = [_find_names(part) for part in code.co_consts if isinstance(part, types.CodeType)]
    return set(code.co_names).union(*inner)


def _code_form(code: types.CodeType) -> JSON:
    """Return a function's compiled code without its position.

    Two lambdas of one line share their source, but not this.
    """
    constants = [
        _code_form(part) if isinstance(part, types.CodeType) else _show_constant(part) for part in code.co_consts
    ]
    names = [*code.co_names, "", *code.co_varnames, "", *code.co_freevars, "", *code.co_cellvars]
    return [code.co_code.hex(), cast(JSON, names), constants]


def _show_constant(constant: object) -> JSON:
    if isinstance(constant, frozenset):
        # A set is written in the order of its hashes, which is another in each process.
        return ["frozenset", *sorted(map(ascii, cast("frozenset[object]", constant)))]
    return [type(constant).__name__, ascii(constant)]


def _can_be_imported(found: type[object]) -> bool:
    """Return whether the class's name leads back to it, so that it is the only one of this name."""
    if found.__module__ == "builtins" and not found.__flags__ & _MADE_BY_A_CLASS_STATEMENT:
        # `NoneType`, which every `int | None` holds, and its like are nowhere in `builtins`, and yet there is but one.
        return True
    place: Any = sys.modules.get(found.__module__)
    for name in found.__qualname__.split("."):
        place = getattr(place, name, None)
    return place is found


def _tells_its_class(value: object) -> bool:
    """Return whether an object says of which class it is: a mock or a proxy names another, and acts as one of it."""
    try:
        return value.__class__ is type(value)
    except Exception:  # noqa: BLE001  # a proxy whose object is gone, or anybody's code
        return False


def _find_local_classes(annotation: Any) -> Iterable[type[object]]:
    if get_origin(annotation) is not None:
        for part in get_args(annotation):
            yield from _find_local_classes(part)
    elif inspect.isclass(annotation) and not _can_be_imported(annotation):
        yield annotation


def _token(value: object) -> str:
    """Return a name for this very object, never used for another one."""
    identity = id(value)
    if identity not in _tokens:
        try:
            weakref.finalize(value, _tokens.pop, identity, None).atexit = False
        except TypeError:
            # It can't say when it is gone, and its id may be given to another: not the same twice.
            return secrets.token_hex(16)
        _tokens[identity] = secrets.token_hex(16)
    return _tokens[identity]
