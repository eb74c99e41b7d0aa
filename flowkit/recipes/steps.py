"""The functions for use in a recipe: `step`, `each`, `when`, `build`, `finally_` (and `ask`).

For a type checker each of them returns the value of the running recipe (`step(get_order, …)` is an `Order`); while
tracing it returns a `Ref` to that value.
"""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any, Generic, Literal, Never, Protocol, TypeVar, cast, overload

from typing_extensions import ParamSpec, Unpack, is_typeddict

from flowkit.errors import DefinitionError, ToolArgumentsError
from flowkit.graph import AT_MOST, Each, Step, When, item_id
from flowkit.option_checks import FUNCTION, TEXT, Expected, is_count
from flowkit.recipes.plan import AnyTool, RecipePlan
from flowkit.recipes.ref import Built, Check, Ref, Symbol, Test, as_test, here, open_scopes, operand
from flowkit.recipes.tracing import (
    CommonOptions,
    Scope,
    StepOptions,
    check_of,
    check_values,
    current_scope,
    ids_of,
    place,
)
from flowkit.schema_paths import find_problem
from flowkit.tools import Tool
from flowkit.tools.options import to_seconds

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
F = TypeVar("F")
OnError = Literal["fail", "stop", "skip", "null"]


_ONE_OR_MORE = Expected("1 or more", lambda value: is_count(value) and cast(int, value) > 0)
_LAMBDA = Expected("a function, such as a lambda", callable, takes_none=False)
_EACH_EXPECTED: Mapping[str, Expected] = {
    "do": _LAMBDA,
    "on_error": Expected(
        "'fail', 'stop', 'skip' or 'null'", lambda value: value in ("fail", "stop", "skip", "null"), takes_none=False
    ),
    "at_once": _ONE_OR_MORE,
    "at_most": replace(_ONE_OR_MORE, takes_none=False),
    "key": FUNCTION,
    "id": TEXT,
}
_WHEN_EXPECTED: Mapping[str, Expected] = {
    "then": _LAMBDA,
    "otherwise": replace(_LAMBDA, takes_none=True),
    "id": TEXT,
}


class Nestable(Protocol[P, R_co]):
    """A recipe, as a step of another one."""

    @property
    def plan(self) -> RecipePlan[R_co]:
        """The recipe's plan."""
        ...

    def name_inputs(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Mapping[str, object]:
        """Bind the inputs by name; raises `DefinitionError` for unknown ones."""
        ...

    def check_output(self, path: tuple[str | int, ...]) -> str | None:
        """Check a path in its output; return a description of the fault."""
        ...

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Never:
        """Provide a call's type; it is never called."""
        ...


class _StepMaker:
    """`step` with options."""

    def __init__(self, options: StepOptions | None = None) -> None:
        self._options = options or StepOptions()

    def _make(self, target: object, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Any:
        scope, options = current_scope("step"), self._options
        values = tuple(map(operand, args))
        named = {name: operand(value) for name, value in kwargs.items()}
        if isinstance(target, Tool):
            return self._make_call(scope, cast(AnyTool, target), values, named)
        if not hasattr(target, "plan") or not hasattr(target, "name_inputs"):
            raise DefinitionError(f"{here()}: step() takes a tool or a recipe; {target!r} is neither{_hint_at(target)}")
        recipe = cast(Nestable[..., Any], target)
        if options.retries is not None or options.timeout is not None:
            raise DefinitionError(f"{here()}: retries and timeout belong to the steps of {recipe!r}, not to it")
        inputs = recipe.name_inputs(values, named)
        return place(
            scope,
            recipe.plan.name,
            lambda name: scope.add_nested(name, recipe.plan, inputs),
            options,
            recipe.check_output,
        )

    def _make_call(self, scope: Scope, tool: AnyTool, args: tuple[object, ...], kwargs: Mapping[str, object]) -> Ref:
        options = self._options
        try:
            call = tool.call(*args, **kwargs)
        except (TypeError, ToolArgumentsError) as error:
            raise DefinitionError(f"{here()}: {error}", tool=tool.name) from None
        if options.retries and tool.effect == "write":
            raise DefinitionError(f"{here()}: {tool.name!r} is a write, which is never retried automatically")
        scope.add_tool(tool)
        made = Step(
            "",
            tool.name,
            call.arguments,
            timeout_s=to_seconds(options.timeout),
            retries=options.retries,
            optional=options.optional,
        )
        schema = tool.result_schema
        check = None if schema is None else partial(find_problem, schema)
        return place(scope, tool.name, lambda name: replace(made, id=name), options, check, can_be_optional=True)


class StepMaker(_StepMaker):
    """`step`: a tool or another recipe as a step."""

    @overload
    def __call__(self, tool: Tool[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def __call__(self, tool: Tool[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def __call__(self, tool: Nestable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def __call__(self, tool: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Return the result that the tool, called with these arguments, will have."""
        return self._make(tool, args, kwargs)

    @overload
    def options(self, *, optional: Literal[True], **common: Unpack[CommonOptions]) -> "FallbackStepMaker[None]": ...
    @overload
    def options(self, *, fallback: Callable[[], F], **common: Unpack[CommonOptions]) -> "FallbackStepMaker[F]": ...
    @overload
    def options(self, **common: Unpack[CommonOptions]) -> "StepMaker": ...
    def options(
        self,
        *,
        optional: bool = False,
        fallback: Callable[[], object] | None = None,
        **common: Unpack[CommonOptions],
    ) -> Any:
        """Return `step`, for steps with these options.

        `retries` and `timeout` replace the tool's own. `optional`: the result is None after a failure. `fallback`
        traces the replacement after a failure. `after`: steps that must have finished first, with any outcome.

        >>> quote = step.options(retries=2, timeout=5, fallback=lambda: step(flat_rate, order.weight))  # doctest: +SKIP
        """
        made = StepOptions.make(common, optional=optional, fallback=fallback)
        return FallbackStepMaker[Any](made) if made.has_stand_in else StepMaker(made)


class FallbackStepMaker(_StepMaker, Generic[F]):
    """A `step` with another value, of type `F`, after a failure."""

    @overload
    def __call__(self, tool: Tool[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> T | F: ...
    @overload
    def __call__(self, tool: Tool[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | F: ...
    @overload
    def __call__(self, tool: Nestable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | F: ...
    def __call__(self, tool: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Return the result that the tool, called with these arguments, will have, or its fallback."""
        return self._make(tool, args, kwargs)


step = StepMaker()
"""Makes a step; `step.options(…)` makes one with options."""


@overload
def each(
    items: Iterable[T],
    do: Callable[[T], R],
    *,
    on_error: Literal["null"],
    at_once: int | None = None,
    at_most: int = AT_MOST,
    key: Callable[[T], object] | None = None,
    id: str | None = None,
    after: Iterable[object] = (),
) -> list[R | None]: ...
@overload
def each(
    items: Iterable[T],
    do: Callable[[T], R],
    *,
    on_error: Literal["fail", "stop", "skip"] = "fail",
    at_once: int | None = None,
    at_most: int = AT_MOST,
    key: Callable[[T], object] | None = None,
    id: str | None = None,
    after: Iterable[object] = (),
) -> list[R]: ...
def each(
    items: Iterable[T],
    do: Callable[[T], R],
    *,
    on_error: OnError = "fail",
    at_once: int | None = None,
    at_most: int = AT_MOST,
    key: Callable[[T], object] | None = None,
    id: str | None = None,
    after: Iterable[object] = (),
) -> Any:
    """Run `do` for every item and return its results in the items' order; `do` is traced once.

    `at_once` limits the items in parallel, `at_most` the total. `key` identifies items in a journal; by default their
    index does. `on_error`: a failed item fails the step after all others have finished ("fail") or immediately
    ("stop"), is left out ("skip"), or is None ("null").
    """
    scope = current_scope("each")
    check_values(
        "each",
        {"do": do, "on_error": on_error, "at_once": at_once, "at_most": at_most, "key": key, "id": id},
        _EACH_EXPECTED,
    )
    name = scope.name(id, "each")
    body, check = scope.trace(f"{name}/", lambda: do(_item(name, items)))
    keyed: list[object] = []
    if key is not None:
        scope.trace(f"{name}/", lambda: keyed.append(operand(key(_item(name, items)))))
    node = Each(
        name,
        operand(items),
        body,
        at_once=at_once,
        at_most=at_most,
        key=keyed[0] if keyed else None,
        on_error=on_error,
        after=ids_of(after),
    )
    return scope.add(node, None if on_error == "null" else _check_items(check))


@overload
def when(
    condition: bool | Test,
    then: Callable[[], T],
    otherwise: None = None,
    *,
    id: str | None = None,
    after: Iterable[object] = (),
) -> T | None: ...
@overload
def when(
    condition: bool | Test,
    then: Callable[[], T],
    otherwise: Callable[[], F],
    *,
    id: str | None = None,
    after: Iterable[object] = (),
) -> T | F: ...
def when(
    condition: bool | Test,
    then: Callable[[], object],
    otherwise: Callable[[], object] | None = None,
    *,
    id: str | None = None,
    after: Iterable[object] = (),
) -> Any:
    """Run `then` if the condition holds in the run, else `otherwise`, if there is one; return the result, or None.

    Conditions compare values of the run by `== != < <= > >=`, `is_in()` and `is_none()`, joined by `&`, `|` and `~` or `not_()`.
    """
    scope = current_scope("when")
    check_values("when", {"then": then, "otherwise": otherwise, "id": id}, _WHEN_EXPECTED)
    test = as_test(condition)
    name = scope.name(id, "when")
    then_body, _ = scope.trace(f"{name}/then/", then)
    otherwise_body = None if otherwise is None else scope.trace(f"{name}/otherwise/", otherwise)[0]
    return scope.add(When(name, test.condition, then_body, otherwise_body, after=ids_of(after)))


def finally_(make: Callable[[], object]) -> None:
    """Add steps that run when all others have finished, whatever their outcome; `make` traces them.

    A step that refers to a failed one is skipped. A run that is cancelled or killed doesn't run them; a resumed run
    does.
    """
    scope = current_scope("finally_")
    if scope.prefix:
        raise DefinitionError(f"{here()}: finally_() stands in the recipe itself, not inside each() or when()")
    before = len(scope.nodes)
    make()
    scope.final_ids.extend(node.id for node in scope.nodes[before:])


def build(output_type: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Build an object of this type from values of the running recipe; fields are checked now, values in the run."""
    names = bind_fields(output_type, args, kwargs)
    return cast(T, Built(names))


def bind_fields(
    output_type: Callable[..., object], args: Iterable[object], kwargs: Mapping[str, object]
) -> dict[str, object]:
    """Return the values by field; raises `DefinitionError` for missing and unknown fields."""
    if is_typeddict(output_type):
        required = cast(frozenset[str], getattr(output_type, "__required_keys__", frozenset[str]()))
        known = getattr(output_type, "__annotations__", {})
        problems = [f"{name!r} is missing" for name in sorted(required - kwargs.keys())]
        problems += [f"there is no field {name!r}" for name in kwargs if name not in known]
        if problems:
            raise DefinitionError(f"{here()}: build({_name_of(output_type)}, …): {'; '.join(problems)}")
        return dict(kwargs)
    try:
        bound = signature(output_type).bind(*args, **kwargs)
    except (TypeError, ValueError) as error:
        raise DefinitionError(f"{here()}: build({_name_of(output_type)}, …): {error}") from None
    fields: dict[str, object] = {}
    for name, value in bound.arguments.items():
        if bound.signature.parameters[name].kind is bound.signature.parameters[name].VAR_KEYWORD:
            fields |= value
        else:
            fields[name] = value
    return fields


def _item(each_id: str, items: object) -> Any:
    """Make the item, in the current scope."""
    check = check_of(items)
    scope = open_scopes.get()[-1]
    return Ref(Symbol(item_id(each_id), (), "item", scope, None if check is None else lambda path: check((0, *path))))


def _check_items(check: Check | None) -> Check | None:
    """Make the check of paths into a list of such values."""
    if check is None:
        return None

    def check_list(path: tuple[str | int, ...]) -> str | None:
        if path and isinstance(path[0], str):
            return "it is a list: an index comes first, or each(…) goes through it"
        return check(path[1:]) if len(path) > 1 else None

    return check_list


def _name_of(output_type: object) -> str:
    return getattr(output_type, "__name__", repr(output_type))


def _hint_at(target: object) -> str:
    """Return what to write instead of an object that is no tool, as the end of a sentence."""
    if target is None:
        return ": was it found, by the name that it has in its set?"
    if hasattr(target, "load"):  # an MCP server
        return ": take one of its tools, by ….load().get('NAME')"
    if hasattr(target, "names"):  # a set of tools
        return ": take one tool of the set, by ….get('NAME'); an MCP server's come from its load()"
    return ": write @tool above it"
