"""A function's signature: its parameters with resolved types, in order, and its result.

Strings are resolved where the function was written: its module, its closure, and the functions around it whose
frames are still running when it is decorated. A name that can't be resolved is an error that names the parameter.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import CodeType, FrameType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    NotRequired,
    ParamSpecArgs,
    ParamSpecKwargs,
    Required,
    Union,
    cast,
    get_args,
    get_origin,
)

from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typing_extensions import ReadOnly, get_type_hints, is_typeddict

from flowkit.context import CONTEXT, Context
from flowkit.errors import DefinitionError
from flowkit.tools.schema.annotations import read_typed_dict
from flowkit.tools.schema.type_forms import UNPACKS, is_unpacked, splice

Kind = Literal["positional", "plain", "star", "keyword", "extra"]


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = _Missing()
"""No default."""


@dataclass(frozen=True)
class Parameter:
    """One parameter as a caller sees it; `kind` `extra` is `**name`, annotated with the type of each value."""

    name: str
    annotation: Any
    default: Any = MISSING
    kind: Kind = "plain"

    is_optional: bool = False
    """A `Context | None = None`, which may be left out."""
    is_field: bool = False
    """Its default is pydantic's `Field(...)`, which Python would hand over as it is."""

    @cached_property
    def wire(self) -> str:
        """The name that outside callers use: the alias of a `Field`, such as a word that Python reserves."""
        metadata = _metadata(self.annotation)
        if not metadata:
            return self.name
        fields = [item for item in metadata if isinstance(item, FieldInfo)]
        aliases = [field.validation_alias or field.alias for field in fields]
        names = [alias.choices[0] if isinstance(alias, AliasChoices) else alias for alias in aliases]
        return next((name for name in names if isinstance(name, str)), self.name)

    @property
    def is_required(self) -> bool:
        return self.default is MISSING and self.kind != "extra"


@dataclass(frozen=True, slots=True)
class Signature:
    """A function's parameters; `context` names the one that takes the `Context`."""

    parameters: tuple[Parameter, ...]
    context: str | None
    returns: Any
    takes_positions: bool = False
    """Behind a wrapper that passes on positional arguments alone, or looks at the first of them."""

    def bind(self, values: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Bind the values, by name, to the positional and named arguments of the function."""
        positional: list[Any] = []
        named = dict(values)
        has_star = self.takes_positions or any(p.kind == "star" and named.get(p.name) for p in self.parameters)
        for parameter in self.parameters:
            match parameter.kind:
                case "positional":
                    positional.append(named.pop(parameter.name))
                case "plain":
                    if has_star:
                        positional.append(named.pop(parameter.name))
                case "star":
                    positional.extend(named.pop(parameter.name, ()))
                case _:
                    pass
        return positional, named

    @property
    def is_plain(self) -> bool:
        """All parameters can be passed by name."""
        return not self.takes_positions and all(
            parameter.kind in ("plain", "keyword", "extra") for parameter in self.parameters
        )


def read_signature(function: Callable[..., Any], *, skip_first: bool, name: str) -> Signature:
    """Read a function's parameters; raises `DefinitionError` naming the parameter that can't be one."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise DefinitionError.about(name, f"{function!r} has no signature ({error})") from error
    hints = _resolve_hints(function, name)
    context: str | None = None
    parameters: list[Parameter] = []
    declared = list(signature.parameters.values())
    for declaration in declared[1:] if skip_first else declared:
        annotation = _strip_qualifier(name, declaration.name, hints.get(declaration.name, Any))
        kind = _KINDS[declaration.kind]
        if _is_context(annotation) or declaration.default is CONTEXT:
            _check_context(name, declaration, annotation, kind, context)
            context = declaration.name
            may_be_left = declaration.default not in (CONTEXT, inspect.Parameter.empty)
            parameters.append(Parameter(declaration.name, Context, CONTEXT, kind, may_be_left))
            continue
        if isinstance(annotation, ParamSpecArgs | ParamSpecKwargs):
            problem = f"parameter {declaration.name!r} is that of a wrapper; write @functools.wraps(function) above it"
            raise DefinitionError.about(name, problem, declaration.name)
        if _holds_context(annotation):
            raise DefinitionError.about(
                name,
                f"parameter {declaration.name!r} holds a Context inside another type; annotate it Context[Data] itself",
                declaration.name,
            )
        if kind == "extra" and get_origin(annotation) in UNPACKS:
            parameters.extend(_unpack_typed_dict(get_args(annotation)[0]))
            continue
        parameters.append(_read_parameter(name, declaration.name, annotation, declaration.default, kind))
    return Signature(tuple(parameters), context, hints.get("return", MISSING), _takes_positions(function))


def _strip_qualifier(tool: str, parameter: str, annotation: Any) -> Any:
    """Strip qualifiers that only type checkers read from a parameter's annotation; refuse those that aren't allowed there."""
    origin = get_origin(annotation) or annotation
    if origin in (Final, ReadOnly):
        return (*get_args(annotation), Any)[0]
    if origin in (ClassVar, Required, NotRequired):
        where = "a class" if origin is ClassVar else "a TypedDict"
        instead = "give the parameter a default if it may be left out" if origin is NotRequired else "leave it out here"
        problem = f"parameter {parameter!r}: {origin.__name__} belongs to the fields of {where}; {instead}"
        raise DefinitionError.about(tool, problem, parameter)
    return annotation


def _takes_positions(function: Any) -> bool:
    """Return whether a wrapper accepts fewer parameters by name than the wrapped function: `def inner(*args)`, or singledispatch."""
    if not hasattr(function, "__wrapped__"):
        return False
    try:
        kinds = {parameter.kind for parameter in inspect.signature(function, follow_wrapped=False).parameters.values()}
    except (TypeError, ValueError):
        return False  # such as lru_cache, which passes on all
    passes_names = inspect.Parameter.VAR_KEYWORD in kinds
    return inspect.Parameter.VAR_POSITIONAL in kinds and (not passes_names or hasattr(function, "register"))


def unwrap(function: Any) -> Any:
    """Return the plain function below partials, wrappers and callable objects."""
    while (inner := unwrap_once(function)) is not None:
        function = inner
    return function


def unwrap_once(function: Any) -> Any:
    """Return what a partial, a wrapper or a callable object calls; None for a plain function."""
    if isinstance(function, functools.partial):
        return cast(Any, function).func
    if hasattr(function, "__wrapped__"):
        return function.__wrapped__
    if inspect.isroutine(function) or inspect.isclass(function) or not callable(function):
        return None
    return type(function).__call__


_KINDS: dict[Any, Kind] = {
    inspect.Parameter.POSITIONAL_ONLY: "positional",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "plain",
    inspect.Parameter.VAR_POSITIONAL: "star",
    inspect.Parameter.KEYWORD_ONLY: "keyword",
    inspect.Parameter.VAR_KEYWORD: "extra",
}


def _read_parameter(tool: str, name: str, annotation: Any, default: Any, kind: Kind) -> Parameter:
    if kind == "star" and is_unpacked(annotation):
        try:
            items, repeated = splice((annotation,))
        except TypeError as error:
            raise DefinitionError.about(tool, f"parameter {name!r}: {error}", name) from None
        # `*args: *tuple[int, str]` can't do without its two.
        return Parameter(name, tuple[annotation], [] if repeated is not None and len(items) == 1 else MISSING, kind)
    if kind == "star":
        return Parameter(name, list[annotation], [], kind)
    if isinstance(default, FieldInfo):
        # `= Field(...)`: what it says belongs to the type, and its default is the default.
        return Parameter(name, Annotated[annotation, default], _default_of(default), kind, is_field=True)
    if default is inspect.Parameter.empty:
        fields = [item for item in _metadata(annotation) if isinstance(item, FieldInfo)]
        found = [_default_of(item) for item in fields if _default_of(item) is not MISSING]
        return Parameter(name, annotation, found[-1] if found else MISSING, kind)
    return Parameter(name, annotation, default, kind)


@dataclass(frozen=True, slots=True)
class Factory:
    """A default that is created for each call."""

    make: Callable[..., Any]


def _default_of(field: FieldInfo) -> Any:
    if field.default_factory is not None:
        return Factory(cast(Callable[..., Any], field.default_factory))
    return MISSING if field.default is PydanticUndefined or field.default is ... else field.default


def _metadata(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def _unpack_typed_dict(typed_dict: Any) -> list[Parameter]:
    if not is_typeddict(typed_dict):
        raise DefinitionError(f"Unpack[{typed_dict!r}] is not of a TypedDict")
    hints, required = read_typed_dict(typed_dict)
    return [Parameter(name, hint, MISSING if name in required else OMIT, "keyword") for name, hint in hints.items()]


class _Omit:
    def __repr__(self) -> str:
        return "OMIT"


OMIT: Any = _Omit()
"""The default of a key that isn't passed at all when it wasn't given."""


def _is_context(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is None or origin is Context:
        return (origin or annotation) is Context
    if origin is Annotated:
        return _is_context(get_args(annotation)[0])
    if origin in (Union, UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return len(members) == 1 and _is_context(members[0])
    return False


def _holds_context(annotation: Any) -> bool:
    arguments = get_args(annotation)
    return bool(arguments) and any(_is_context(part) or _holds_context(part) for part in arguments)


def _check_context(tool: str, declaration: inspect.Parameter, annotation: Any, kind: Kind, earlier: str | None) -> None:
    problem = None
    if earlier is not None:
        problem = f"takes a second Context; {earlier!r} is one already"
    elif kind in ("star", "extra"):
        problem = "can't take a Context: it collects many values"
    elif declaration.default is CONTEXT and annotation is not Any and not _is_context(annotation):
        problem = f"has the default CONTEXT, but its type is {annotation!r}, not Context[Data]"
    if problem is not None:
        raise DefinitionError.about(tool, f"parameter {declaration.name!r} {problem}", declaration.name)


def _resolve_hints(function: Callable[..., Any], tool: str) -> dict[str, Any]:
    target = unwrap(function)
    if inspect.isclass(target):
        return {**_resolve_class_hints(target, tool), "return": target}
    annotations: dict[str, Any] = getattr(target, "__annotations__", {})
    if not annotations:
        return {}
    names = _local_names(target) if "<locals>" in getattr(target, "__qualname__", "") else {}
    try:
        return get_type_hints(target, localns=names or None, include_extras=True)
    except Exception:  # noqa: BLE001  # whatever an annotation raises, it is reported with its parameter
        pass
    return _resolve_each(annotations, {**getattr(target, "__globals__", {}), **names}, tool)


def _resolve_each(annotations: Mapping[str, Any], namespace: dict[str, Any], tool: str) -> dict[str, Any]:
    """Resolve annotations one by one; raises `DefinitionError` naming the parameter of one that can't be."""
    hints: dict[str, Any] = {}
    for parameter, annotation in annotations.items():
        # As fields of a class, where Python also resolves the text of a qualifier, such as `Final[int]`.
        holder = type("Holder", (), {"__annotations__": {parameter: annotation}})
        try:
            hints |= get_type_hints(holder, globalns=namespace, localns={}, include_extras=True)
        except Exception as error:  # as above
            where = "the return annotation" if parameter == "return" else f"parameter {parameter!r}: annotation"
            raise DefinitionError.about(
                tool, f"{where} {annotation!r} can't be resolved: {error}", parameter
            ) from error
    return hints


def _resolve_class_hints(cls: type[Any], tool: str) -> dict[str, Any]:
    """Resolve the hints of a class's constructor; a pydantic model has them in its signature alone."""
    written = {parameter.name: parameter.annotation for parameter in inspect.signature(cls).parameters.values()}
    written = {name: annotation for name, annotation in written.items() if not isinstance(annotation, str)}
    known = {name: annotation for name, annotation in written.items() if annotation is not inspect.Parameter.empty}
    return known | _resolve_hints(find_constructor(cls), tool)


def find_constructor(cls: type[Any]) -> Any:
    """Return the method that has a class's parameters: `__init__`, or `__new__` where there is no other."""
    return cls.__new__ if cls.__init__ is object.__init__ else cls.__init__


def _local_names(function: Any) -> dict[str, Any]:
    """Collect names of the functions around this one: from their running frames, then from its closure."""
    names: dict[str, Any] = {}
    code: CodeType | None = getattr(function, "__code__", None)
    if code is None:
        return names
    frame = _user_frame()
    while frame is not None:
        # A helper of the user's own may stand between, and the function in a class that is complete.
        around = frame.f_code
        if around.co_filename == code.co_filename and code.co_qualname.startswith(f"{around.co_qualname}."):
            names = {**frame.f_locals, **names}
        frame = frame.f_back
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not filled yet: defined after this function
            continue
    return names


def _user_frame() -> FrameType | None:
    """Find the nearest frame outside flowkit's own modules."""
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # what logging and typing do
    package = __name__.partition(".")[0] + "."
    while frame is not None and str(frame.f_globals.get("__name__", "")).startswith(package):
        frame = frame.f_back
    return frame
