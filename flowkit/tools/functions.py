"""A function with a signature as a tool's implementation."""

import functools
import inspect
import types
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from copy import copy
from typing import Any, cast, get_args, get_origin

from pydantic import TypeAdapter

from flowkit.context import Context
from flowkit.errors import DefinitionError, ToolArgumentsError
from flowkit.masking import SecretPlaces
from flowkit.schema_paths import find_mismatch
from flowkit.tools.implementation import ArgumentReader
from flowkit.tools.needs import Need, NeedMarker, merge
from flowkit.tools.schema.arguments import Arguments, ArgumentsReader
from flowkit.tools.schema.arguments_schema import Schema, build_adapter, build_parameters_schema, generate
from flowkit.tools.schema.docstrings import Documentation, read_call_documentation, read_documentation
from flowkit.tools.schema.flat import FlatReader, flatten_schema, open_flat
from flowkit.tools.schema.repair import Repairer
from flowkit.tools.schema.results import ResultType, find_table, keep
from flowkit.tools.schema.secret_types import holds_secret, may_hold_secret
from flowkit.tools.schema.signatures import MISSING, Factory, Parameter, read_signature, unwrap, unwrap_once


class FunctionCallee:
    """A function with a signature; everything is read from it when it is made, but its docstring and its schema."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        skip_first: bool = False,
        secrets: frozenset[str] = frozenset(),
        flatten: bool = False,
    ) -> None:
        self.name = name
        self.function = function
        self._signature = signature = read_signature(function, skip_first=skip_first, name=name)
        _refuse_generator(name, function, signature.returns)
        parts: list[Parameter | Need[Any]] = []
        for parameter in signature.parameters:
            if isinstance(parameter.default, NeedMarker):
                parts.append(Need(parameter.name, parameter.default.tool, parameter.default.renames))
            elif parameter.name != signature.context:
                parts.append(parameter)
        self._parts = tuple(parts)
        self.needs = tuple(part for part in parts if isinstance(part, Need))
        own = [part for part in parts if isinstance(part, Parameter)]
        self.own_names = frozenset(name for parameter in own for name in (parameter.name, parameter.wire))
        self._wires = {parameter.name: parameter.wire for parameter in own}
        self.visible = merge(name, parts)
        self.takes_context = signature.context is not None
        self.is_async, returns = read_return(function, signature.returns)
        problem = find_table(returns)
        if problem is not None:
            raise DefinitionError.about(name, problem)
        self.results = ResultType(returns)
        # The schema tells where, and is read only where there may be any: most tools never need it.
        may_hold = any(may_hold_secret(parameter.annotation) for parameter in self.visible)
        hidden = [p for p in own if p.name in secrets or (may_hold and holds_secret(p.annotation))]
        names = secrets | {name for parameter in hidden for name in (parameter.name, parameter.wire)}
        self.secrets = SecretPlaces(names, (lambda: self.schema) if may_hold or names else None)
        self._needed = {
            parameter.name: Parameter(parameter.name, parameter.annotation, kind="keyword")
            for parameter in signature.parameters
            if isinstance(parameter.default, NeedMarker)
        }
        self._schema: Schema | None = None
        hidden_names = self._hidden
        self._fills = tuple(
            p for p in signature.parameters if p.name in hidden_names or (p.is_field and not p.is_required)
        )
        self._readers: dict[frozenset[str], ArgumentsReader] = {}
        # A wrapper that isn't `async` itself may give something to await, or may have awaited it.
        self._may_be_awaited = self.is_async and not inspect.iscoroutinefunction(function)
        self.takes_values = signature.is_plain and not self._fills and not self._may_be_awaited
        self._flat = self._find_flat() if flatten else None
        # Made now, so that a type that can't be an argument is told at decoration.
        self._inner_reader(frozenset())
        if self._flat is not None:
            self.reader(frozenset())
        if self.needs:
            self._check_needs(self._inner_reader(frozenset(self._needed)).adapter)

    def _check_needs(self, adapter: TypeAdapter[dict[str, Any]]) -> None:
        """Raise `DefinitionError` for a needed result that never fits its parameter, by the rule that recipes use."""
        schema = generate(adapter, "validation")
        for need in self.needs:
            result = need.tool.result_schema
            misfit = None if result is None else find_mismatch(result, (), schema, need.parameter)
            if misfit is not None:
                problem = f"parameter {need.parameter!r} needs {need.tool.name!r}, whose result {misfit}"
                raise DefinitionError.about(self.name, problem, need.parameter)

    @property
    def _hidden(self) -> frozenset[str]:
        context = self._signature.context
        return frozenset([*self._needed, *(() if context is None else (context,))])

    @property
    def documentation(self) -> Documentation:
        described: Any = self.function
        while isinstance(described, functools.partial):
            described = cast(Any, described).func
        is_function = inspect.isroutine(described)
        return read_documentation(described) if is_function else read_call_documentation(described)

    @property
    def parameter_descriptions(self) -> Mapping[str, str]:
        texts = dict(self.documentation.parameters)
        for need in self.needs:
            for name, text in need.tool.parameter_descriptions.items():
                texts.setdefault(need.seen_as(name), text)
        return texts

    def check_probe(self, probe: Callable[..., Any]) -> None:
        """Raise `DefinitionError` for a probe that can't take the arguments: it is called after a crash, too late."""
        parameters = [p for p in self._signature.parameters if p.name != self._signature.context]
        if any(parameter.kind == "extra" for parameter in parameters):
            return
        try:
            inspect.signature(probe).bind(**{parameter.name: None for parameter in parameters})
        except TypeError as error:
            problem = f"its probe can't be called with the tool's arguments, by name: {error}"
            raise DefinitionError.about(self.name, problem) from None
        except ValueError:
            return  # written in C, without a signature

    @property
    def schema(self) -> Schema:
        if self._schema is None:
            adapter = self._inner_reader(frozenset()).adapter
            schema = build_parameters_schema(self.name, adapter, self.visible, self.parameter_descriptions)
            self._schema = schema if self._flat is None else flatten_schema(self.name, schema, self._flat)
        return self._schema

    @property
    def own_checks(self) -> Mapping[str, tuple[str, ...]]:
        return find_own_checks(self._inner_reader(frozenset()).adapter.core_schema)

    def _find_flat(self) -> str:
        if len(self._parts) != 1 or self.needs or not isinstance(self._parts[0], Parameter):
            raise DefinitionError.about(self.name, "flatten is for one parameter, and no needs")
        return self._parts[0].name

    def reader(self, given: frozenset[str]) -> ArgumentReader:
        inner = self._inner_reader(given)
        return inner if self._flat is None else FlatReader(inner, self._flat, self.schema)

    def _inner_reader(self, given: frozenset[str]) -> ArgumentsReader:
        """Return the arguments reader for calls that supply these `Needs` parameters themselves."""
        if given not in self._readers:
            parts = [
                self._needed[part.parameter] if isinstance(part, Need) and part.parameter in given else part
                for part in self._parts
            ]
            parameters = merge(self.name, parts) if given else self.visible
            secrets = self.secrets.adding(
                {need.seen_as(name) for need in self.needs if need.parameter not in given for name in need.tool.secrets}
            )
            self._readers[given] = ArgumentsReader(
                self.name,
                build_adapter(self.name, parameters),
                tuple(parameter.wire for parameter in parameters if parameter.kind != "extra"),
                Repairer(
                    {parameter.wire: parameter.annotation for parameter in parameters},
                    frozenset(parameter.wire for parameter in parameters if not parameter.is_required),
                ),
                secrets,
            )
        return self._readers[given]

    def invoke(self, arguments: Arguments, context: Context[Any] | None) -> Any:
        values = arguments.values
        if self.takes_values:
            result = self.function(**values)
            return result if self.is_async else keep(result)
        missing = [name for name in self._needed if name not in values]
        if missing:
            raise ToolArgumentsError(self.name, [f"{missing[0]!r} is needed, and nothing filled it"])
        if self._signature.context is not None:
            values = {**values, self._signature.context: context}
        positional, named = self._signature.bind(values)
        result = self.function(*positional, **named)
        if not self.is_async:
            return keep(result)
        return _give(result) if self._may_be_awaited and not inspect.isawaitable(result) else result

    def bind(self, receiver: object) -> "FunctionCallee":
        bound = copy(self)
        bound.function = types.MethodType(self.function, receiver)
        bound.needs = tuple(need.bind(receiver) for need in self.needs)
        bindings = {need.parameter: need for need in bound.needs}
        bound._parts = tuple(bindings[part.parameter] if isinstance(part, Need) else part for part in self._parts)
        return bound

    def renamed(self, name: str) -> "FunctionCallee":
        renamed = copy(self)
        renamed.name = name
        renamed._readers = {given: reader.renamed(name) for given, reader in self._readers.items()}
        return renamed

    def name_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        own = [part for part in self._parts if isinstance(part, Parameter)]
        names = [parameter.name for parameter in own if parameter.kind in ("positional", "plain")]
        star = next((parameter.name for parameter in own if parameter.kind == "star"), None)
        if len(args) > len(names) and star is None:
            raise TypeError(f"{self.name}() takes {len(names)} positional arguments, not {len(args)}")
        arguments: dict[str, Any] = dict(zip(names, args, strict=False))
        if star is not None and len(args) > len(names):
            arguments[star] = list(args[len(names) :])
        twice = arguments.keys() & kwargs.keys()
        if twice:
            raise TypeError(f"{self.name}() got {sorted(twice)[0]!r} twice")
        arguments |= kwargs
        arguments = {self._wires.get(name, name): value for name, value in arguments.items()}
        return arguments if self._flat is None else open_flat(arguments, self._flat)

    def fill_direct_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not self._fills:
            return args, kwargs
        bound = inspect.signature(self.function).bind(*args, **kwargs)
        for parameter in self._fills:
            if parameter.name in bound.arguments:
                continue
            if parameter.name in self._hidden:
                if parameter.is_optional:
                    continue
                raise TypeError(
                    f"{self.name}() was called directly without {parameter.name!r}; "
                    "only a run fills it: give it, or use ctx.call"
                )
            default = parameter.default
            bound.arguments[parameter.name] = default.make() if isinstance(default, Factory) else default
        return bound.args, bound.kwargs


async def _give(result: Any) -> Any:
    return result


def _refuse_generator(name: str, function: Callable[..., Any], returns: Any) -> None:
    plain = unwrap(function)
    is_generator = inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain)
    if is_generator or (get_origin(returns) or returns) in (AsyncIterable, AsyncIterator, AsyncGenerator):
        problem = "a generator can't be a tool; return a list, and tell how far it is by `ctx.progress(...)`"
        raise DefinitionError.about(name, problem)


def read_return(function: Callable[..., Any], annotation: Any) -> tuple[bool, Any]:
    """Return whether the result is awaitable, and the type of the final value."""
    origin = get_origin(annotation)
    if isinstance(origin, type) and issubclass(origin, Awaitable):
        arguments = get_args(annotation)
        return True, arguments[-1] if arguments else MISSING
    return _is_async(function), annotation


def _is_async(function: Any) -> bool:
    """Return whether the function, or one that it wraps, is `async`: a wrapper of either kind may hold the other."""
    while not inspect.iscoroutinefunction(function):
        inner = unwrap_once(function)
        if inner is None:
            return False
        function = inner
    return True


_ELSEWHERE = frozenset({"pydantic", "pydantic_core", "flowkit"})
"""Whose functions do what the schema says already, by a format or a pattern."""


def find_own_checks(core: Any) -> dict[str, tuple[str, ...]]:
    """Find what checks each parameter beyond its schema, by function names, from pydantic's schema of them all."""
    definitions = {held["ref"]: held for held in core.get("definitions", ())}
    fields = cast(Mapping[str, Any], (core["schema"] if definitions else core).get("fields", {}))
    found = {name: tuple(dict.fromkeys(_find(field, definitions, set()))) for name, field in fields.items()}
    return {name: names for name, names in found.items() if names}


def _find(core: Any, definitions: Mapping[str, Any], seen: set[str]) -> Iterator[str]:
    if isinstance(core, (list, tuple)):
        for item in cast(list[Any], core):
            yield from _find(item, definitions, seen)
    if not isinstance(core, dict):
        return
    held = cast(dict[str, Any], core)
    kind = str(held.get("type"))
    if kind == "definition-ref" and held["schema_ref"] not in seen:
        seen.add(held["schema_ref"])
        yield from _find(definitions[held["schema_ref"]], definitions, seen)
    if kind.startswith("function-"):
        function = held["function"]["function"]
        if inspect.isroutine(function) and str(function.__module__).partition(".")[0] not in _ELSEWHERE:
            yield function.__qualname__.rpartition("<locals>.")[2]
    if kind == "dataclass" and held.get("post_init"):
        yield f"{held['cls'].__name__}.__post_init__"
    for key, item in held.items():
        if key not in ("metadata", "serialization", "default"):
            yield from _find(item, definitions, seen)
