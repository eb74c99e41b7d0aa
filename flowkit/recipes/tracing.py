"""A recipe's function while it is traced: the scopes that collect its nodes.

The innermost open `Scope` collects the nodes that `step` and its kin make; a lambda given to `each` or `when` is
traced in a scope of its own, which becomes the node's body.

A node is named after its tool (`get_order`, then `get_order_2`); in a body the name begins with the control's:
`each/search_products`, `when/then/refund_order`, `quote/1/quote`. `id=` gives another name; a journal finds a step
again by it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypedDict, cast

from flowkit.errors import DefinitionError
from flowkit.graph import INPUTS, Body, Fallback, Group, Node
from flowkit.option_checks import FLAG, FUNCTION, TEXT, TIME, Expected, find_misfit, is_count
from flowkit.recipes.model_steps import AskRequest
from flowkit.recipes.plan import AnyTool, Nesting, RecipePlan
from flowkit.recipes.ref import Check, Ref, Symbol, here, open_scopes, operand, symbol_of
from flowkit.references import Reference
from flowkit.suggestions import check_option_names

Seconds = float | timedelta

_RESERVED = ("inputs", "item", "index")


@dataclass(eq=False)
class Scope:
    """A body that is being traced: the recipe itself, or the inside of an `each`, `when` or fallback.

    `tools`, `asked` and `nested` are the whole recipe's, by name.
    """

    prefix: str
    tools: dict[str, AnyTool] = field(default_factory=dict[str, AnyTool])
    asked: dict[str, AskRequest] = field(default_factory=dict[str, AskRequest])
    nested: dict[str, Nesting] = field(default_factory=dict[str, Nesting])
    nodes: list[Node] = field(default_factory=list[Node])
    final_ids: list[str] = field(default_factory=list[str])
    taken: set[str] = field(default_factory=lambda: set(_RESERVED))

    def name(self, wanted: str | None, default: str) -> str:
        """Choose an id for a node; raises `DefinitionError` when the requested one is taken."""
        if wanted is not None and (wanted in self.taken or not wanted or "/" in wanted):
            problem = "can't be one" if not wanted or "/" in wanted or wanted in _RESERVED else "is taken"
            raise DefinitionError(f"{here()}: the id {wanted!r} {problem}; every step needs one of its own")
        base = default.replace("/", "_") if wanted is None else wanted
        local, count = base, 1
        while local in self.taken:
            count += 1
            local = f"{base}_{count}"
        self.taken.add(local)
        return self.prefix + local

    def add(self, node: Node, check: Check | None = None) -> Ref:
        """Put a node at the end; the `Ref` to its result."""
        self.nodes.append(node)
        return Ref(Symbol(node.id, (), node.id.rsplit("/", 1)[-1], self, check))

    def add_tool(self, tool: AnyTool) -> None:
        """Note a tool; raises `DefinitionError` when another one has its name."""
        known = self.tools.setdefault(tool.name, tool)
        if known.identity != tool.identity:
            raise DefinitionError(
                f"{here()}: two tools are called {tool.name!r}; give one another name: @tool(name=…)", tool=tool.name
            )

    def add_request(self, request: AskRequest) -> None:
        """Note whom a step asks; raises `DefinitionError` when another one has that name."""
        known = self.asked.setdefault(request.name, request)
        if known.asks_another(request):
            raise DefinitionError(f"{here()}: two models or agents are called {request.name!r}; give one another name")

    def add_nested(self, group_id: str, plan: RecipePlan[Any], inputs: Mapping[str, object]) -> Group:
        """Make the group that another recipe becomes here."""
        for tool in plan.tools.values():
            self.add_tool(tool)
        for request in plan.requests.values():
            self.add_request(request)
        self.nested[group_id] = Nesting(plan, inputs)
        return plan.nest(group_id, inputs)

    def trace(self, prefix: str, make: Callable[[], object]) -> tuple[Body, Check | None]:
        """Trace `make` under ids that begin with `prefix`; return its body, and the check of its value's paths."""
        inner = Scope(prefix, self.tools, self.asked, self.nested)
        token = open_scopes.set((*open_scopes.get(), inner))
        try:
            value = make()
            body = Body(tuple(inner.nodes), operand(value))
        finally:
            open_scopes.reset(token)
        return body, check_of(value)


def current_scope(word: str) -> Scope:
    """Return the innermost scope; raises `DefinitionError` outside of a recipe."""
    scopes = open_scopes.get()
    if not scopes:
        raise DefinitionError(f"{here()}: {word}() makes a step of a recipe; call it in a function under @recipe")
    return cast(Scope, scopes[-1])


class CommonOptions(TypedDict, total=False):
    """Options of a step that leave the type of its result alone; `step.options` says what they do."""

    id: str | None
    retries: int | None
    timeout: Seconds | None
    after: Iterable[object]


@dataclass(frozen=True, slots=True)
class StepOptions:
    """The options given to `step.options(…)`."""

    id: str | None = None
    retries: int | None = None
    timeout: Seconds | None = None
    optional: bool = False
    fallback: Callable[[], object] | None = None
    after: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.optional and self.fallback is not None:
            raise DefinitionError(f"{here()}: a step with a fallback isn't optional; make the fallback's step optional")

    @classmethod
    def make(
        cls, common: "CommonOptions", *, optional: bool = False, fallback: Callable[[], object] | None = None
    ) -> "StepOptions":
        """Read the options as given, with the ids of the steps that `after` names; `TypeError` for unknown ones."""
        check_option_names(common, CommonOptions, "a step")
        check_values("a step", {**common, "optional": optional, "fallback": fallback}, _EXPECTED)
        return cls(
            common.get("id"),
            common.get("retries"),
            common.get("timeout"),
            optional,
            fallback,
            ids_of(common.get("after", ())),
        )

    @property
    def has_stand_in(self) -> bool:
        """Return whether a failure yields another value."""
        return self.optional or self.fallback is not None


_EXPECTED: Mapping[str, Expected] = {
    "id": TEXT,
    "retries": Expected("0 or more", lambda value: is_count(value) and cast(int, value) >= 0),
    "timeout": TIME,
    "after": Expected(
        "a list of steps",
        lambda value: isinstance(value, Iterable) and not isinstance(value, str | Ref),
        takes_none=False,
    ),
    "optional": FLAG,
    "fallback": FUNCTION,
}


def check_values(what: str, given: Mapping[str, object], expected: Mapping[str, Expected]) -> None:
    """Raise `DefinitionError`, with file and line, for a value that an option of a recipe's word doesn't take."""
    misfit = find_misfit(given, expected)
    if misfit is not None:
        raise DefinitionError(f"{here()}: {what}: {misfit}")


def place(
    scope: Scope,
    default: str,
    make: Callable[[str], Node],
    options: StepOptions,
    check: Check | None = None,
    *,
    can_be_optional: bool = False,
) -> Ref:
    """Add the node that `make` returns for an id; in a `Fallback` where the options need one.

    `can_be_optional` says that `make` has seen to `optional` itself.
    """
    name = scope.name(options.id, default)
    if options.fallback is None and (can_be_optional or not options.optional):
        return scope.add(replace(make(name), after=options.after), None if options.optional else check)
    inner = f"{name}/1/{default.replace('/', '_')}"
    tries = [Body((make(inner),), Reference(inner))]
    if options.fallback is not None:
        tries.append(scope.trace(f"{name}/2/", options.fallback)[0])
    return scope.add(Fallback(name, tuple(tries), optional=options.optional, after=options.after))


def ids_of(steps: Iterable[object]) -> tuple[str, ...]:
    """Return the ids of the steps that these values come from."""
    ids: list[str] = []
    for value in steps:
        reference = operand(value)
        if not isinstance(reference, Reference) or reference.call_id == INPUTS:
            raise DefinitionError(f"{here()}: after= names steps; {value!r} isn't one")
        ids.append(reference.call_id)
    return tuple(ids)


def check_of(value: object) -> Check | None:
    """Return the check of paths into this value."""
    if type(value) is not Ref:
        return None
    symbol = symbol_of(value)
    check = symbol.check
    return None if check is None else lambda path: check((*symbol.path, *path))
