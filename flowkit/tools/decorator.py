"""`@tool` and `Needs`: how a function becomes a tool, and how one tool names another that it needs."""

import functools
import inspect
import re
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, cast, overload

from typing_extensions import ParamSpec, TypeVar

from flowkit.errors import DefinitionError
from flowkit.suggestions import check_option_names
from flowkit.tools.core import Tool
from flowkit.tools.functions import FunctionCallee
from flowkit.tools.needs import NeedMarker
from flowkit.tools.options import Approval, Effect, Options, PoolName, Scope

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
C = TypeVar("C")


@overload
def tool(function: "Tool[P, R]", /) -> "Tool[P, R]": ...
@overload
def tool(function: "classmethod[C, P, R]", /) -> "Tool[P, R]": ...
@overload
def tool(function: "staticmethod[P, R]", /) -> "Tool[P, R]": ...
@overload
def tool(function: Callable[P, R], /) -> "Tool[P, R]": ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    effect: Effect | None = None,
    ttl: float | timedelta | None = None,
    scope: Scope | None = None,
    version: str | None = None,
    resource: str | tuple[str, ...] = (),
    slot: str | None = None,
    timeout: float | timedelta | None = None,
    retries: int | None = None,
    approval: Approval | None = None,
    accepts_references: bool = False,
    cache_errors: tuple[type[Exception], ...] = (),
    probe: Callable[..., Any] | None = None,
    secret: tuple[str, ...] = (),
    max_result_chars: int | None = None,
    strict: bool | None = None,
    flatten: bool = False,
    pool: PoolName | None = None,
) -> "ToolDecorator": ...
def tool(function: Any = None, /, **options: Any) -> Any:
    """Make a tool of a function; as `@tool` or `@tool(...)`.

    Effect and cache:

    - `effect` is `"read"`, `"idempotent"` or `"write"`; a tool without one is treated as a write.
    - `ttl` keeps results for this many seconds, and makes the tool a read.
    - `scope` is who shares cached results: this `"run"`, the `"session"`, the `"user"`, or `"all"`.
    - `version` replaces the hash of the source in cache keys. Set it if the functions that the tool calls may change.
    - `resource` names the data that it reads or writes, such as `"order:{order_id}"`.
    - `slot` names a limit on calls in parallel.
    - `timeout` and `retries` apply to one call; a write is never retried.

    Process: `pool="process"` calls a CPU-bound function in other processes of this machine, `pool="dask"` on the
    workers of a Dask cluster. Such a function is defined at the top level of a module, and takes and returns JSON.

    Control:

    - `approval` is True, or a rule on the arguments and the context.
    - `accepts_references` lets a model pass a result directly into a write.
    - `probe` checks whether a write in doubt has happened.

    Visibility:

    - `secret` parameters are masked in all output.
    - `max_result_chars` limits the part of a result that a model reads.
    - `strict=False` leaves the schema unchanged.
    - `flatten` replaces the only parameter, a model, by the model's fields.

    Raises `DefinitionError`, naming the parameter, for a function that can't be a tool.
    """
    check_option_names(options, Options, "@tool")
    if function is None:
        return ToolDecorator(Options(**options))
    return make_tool(function, Options(**options))


class ToolDecorator:
    """The decorator that `@tool(...)` returns."""

    def __init__(self, options: Options) -> None:
        self._options = options

    @overload
    def __call__(self, function: "classmethod[C, P, R]", /) -> "Tool[P, R]": ...
    @overload
    def __call__(self, function: "staticmethod[P, R]", /) -> "Tool[P, R]": ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> "Tool[P, R]": ...
    def __call__(self, function: Any, /) -> Any:
        return make_tool(function, self._options)


def make_tool(function: Any, options: Options | None = None) -> Tool[..., Any]:
    """Make the tool of a function, method, partial or callable object.

    A tool is returned unchanged unless there are options.
    """
    if isinstance(function, Tool):
        if options is None or options == Options():
            return cast(Tool[..., Any], function)
        if not function.has_signature:
            raise DefinitionError(f"tool {function.name!r} has a schema: give its options to `Tool.from_schema`")
        function = cast(Tool[..., Any], function).function
    options = options or Options()
    is_method = not isinstance(function, staticmethod) and _is_method(function)
    is_class_method = isinstance(function, classmethod)
    plain: Any = cast(Any, function).__func__ if is_class_method or isinstance(function, staticmethod) else function
    if not callable(plain):
        hint = f"; a name is given as @tool(name={plain!r})" if isinstance(plain, str) else ""
        if hasattr(plain, "as_tool"):  # an agent
            hint = "; an agent is given as tools=[….as_tool()]"
        elif hasattr(plain, "tools"):  # an MCP server
            hint = "; its tools are in its attribute `tools`: write tools=[….tools]"
        raise DefinitionError(f"{plain!r} can't be a tool: it can't be called{hint}")
    name = options.name if isinstance(options.name, str) and options.name else _find_name(plain)
    # Before they are used: `secret="token"` would mask every parameter that is named by one of its letters.
    options.check(name)
    callee = FunctionCallee(
        name, plain, skip_first=is_method, secrets=frozenset(options.secret), flatten=options.flatten
    )
    if options.probe is not None:
        callee.check_probe(options.probe)
    return Tool[..., Any](callee, options, is_method=is_method, is_class_method=is_class_method)


@overload
def Needs(tool: "Tool[..., Coroutine[Any, Any, T]]", /, **renames: str) -> T: ...
@overload
def Needs(tool: "Tool[..., T]", /, **renames: str) -> T: ...
def Needs(tool: "Tool[..., Any]", /, **renames: str) -> Any:
    """Mark a parameter that another tool fills: `order: Order = Needs(get_order)`.

    The parameter is hidden, and replaced by the other tool's own parameters. Parameters with the same name must have
    the same type, or be renamed: `Needs(get_order, order_id="first_order_id")`.
    """
    if not isinstance(tool, Tool):  # pyright: ignore[reportUnnecessaryIsInstance]  # users without a type checker
        raise DefinitionError(f"Needs({tool!r}): only a tool can be needed; decorate it with @tool")
    return NeedMarker(tool, renames)


def _is_method(function: Any) -> bool:
    """Return whether the first parameter is the object: the function is defined in a class and doesn't look static."""
    if isinstance(function, classmethod):
        return True
    if not inspect.isfunction(function):
        return False
    holder = function.__qualname__.rpartition(".")[0]
    if not holder or holder.endswith("<locals>"):
        return False
    first = next(iter(inspect.signature(function).parameters.values()), None)
    # `@staticmethod` above `@tool` can't be seen from here, but its first parameter has a type and another name.
    return first is not None and (first.name in ("self", "cls") or first.annotation is inspect.Parameter.empty)


def _find_name(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = cast(Any, function).func
    name = getattr(function, "__name__", None)
    if name is None:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(function).__name__).lower()
    if name == "<lambda>":
        raise DefinitionError("a lambda has no name of its own; give it one: tool(name=...)(lambda ...)")
    return name
