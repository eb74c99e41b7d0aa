"""Parameters that another tool fills: the parameters that replace them, and the calls that a call depends on.

`order: Order = Needs(get_order)` hides `order` and exposes the parameters of `get_order`. Tools that need the same
tool with the same arguments share one call of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Generic, Protocol, cast, get_args, get_origin

from pydantic.fields import FieldInfo
from typing_extensions import TypeVar

from flowkit.context import Context
from flowkit.errors import DefinitionError
from flowkit.references import Reference, ToolCall
from flowkit.schema_paths import find_unknown_reference
from flowkit.suggestions import suggest
from flowkit.tools.options import Approval, ApprovalRule
from flowkit.tools.schema.signatures import Parameter


class Needable(Protocol):
    """The part of a tool that this module uses."""

    @property
    def name(self) -> str: ...
    @property
    def identity(self) -> object:
        """Equal for two views of one tool."""
        ...

    @property
    def visible(self) -> tuple[Parameter, ...]:
        """The parameters that a caller sees: its own, and those of its needs."""
        ...

    @property
    def own_names(self) -> frozenset[str]:
        """Return the names that its own function takes."""
        ...

    @property
    def needs(self) -> "Sequence[Need[Any]]": ...


N_co = TypeVar("N_co", bound=Needable, covariant=True, default=Needable)


@dataclass(frozen=True, slots=True)
class Need(Generic[N_co]):
    """A parameter, the tool that fills it, and that tool's parameters that go by other names here."""

    parameter: str
    tool: N_co
    renames: Mapping[str, str] = field(default_factory=dict[str, str])

    def seen_as(self, name: str) -> str:
        """Return the needed tool's parameter name in the tool that needs it."""
        return self.renames.get(name, name)

    def bind(self, receiver: object) -> "Need[N_co]":
        """Return the same need in a tool that is bound to an object; the need may be a method of that object."""
        return replace(self, tool=cast(Any, self.tool).__get__(receiver, type(receiver)))


@dataclass(frozen=True, slots=True)
class NeedMarker:
    """The default of a parameter that is needed; a direct call that leaves it raises."""

    tool: Any
    renames: Mapping[str, str]

    def __repr__(self) -> str:
        renames = "".join(f", {name}={new!r}" for name, new in self.renames.items())
        return f"Needs({self.tool.name}{renames})"


def merge(tool: str, parts: Sequence[Parameter | Need[Any]]) -> tuple[Parameter, ...]:
    """Merge the parameters that a caller sees, each need's own in its place.

    Raises `DefinitionError` for two parameters of one name that don't agree.
    """
    seen: dict[str, tuple[Parameter, str]] = {}
    for part in parts:
        for parameter, owner in _spread(tool, part):
            known = seen.get(parameter.name)
            if known is None:
                seen[parameter.name] = (parameter, owner)
            elif not _agree(known[0], parameter):
                raise DefinitionError.about(
                    tool,
                    f"parameter {parameter.name!r} is one thing in {known[1]!r} and another in "
                    f"{owner!r}; rename one: Needs(..., {parameter.name}='other_name')",
                    parameter.name,
                )
    for part in parts:
        if isinstance(part, Need) and part.parameter in seen:
            name = part.parameter
            raise DefinitionError.about(
                tool,
                f"parameter {name!r} is needed, and {seen[name][1]!r} takes a parameter of that name "
                f"too; rename it: Needs({part.tool.name}, {name}='{name}_id')",
                name,
            )
    return tuple(parameter for parameter, _ in seen.values())


def _spread(tool: str, part: Parameter | Need[Any]) -> Iterator[tuple[Parameter, str]]:
    if isinstance(part, Parameter):
        yield part, tool
        return
    needed = part.tool
    names = {parameter.name for parameter in needed.visible}
    for name in part.renames:
        if name not in names:
            problem = f"Needs({needed.name}, {name}=...) renames a parameter that {needed.name!r} doesn't have"
            raise DefinitionError.about(tool, f"{problem}; {suggest(name, sorted(names))}", part.parameter)
    for parameter in needed.visible:
        reason = _find_obstacle(needed, parameter)
        if reason is not None:
            raise DefinitionError.about(tool, f"{needed.name!r} can't be needed: {reason}", part.parameter)
        yield replace(parameter, name=part.seen_as(parameter.name), kind="keyword"), needed.name


def _find_obstacle(needed: Any, parameter: Parameter) -> str | None:
    """Find why this parameter can't be among those of another tool, and what to write instead."""
    if needed.options.flatten:
        return f"flatten hides its {parameter.name!r}; leave flatten out, or give it the fields as parameters"
    if parameter.kind == "extra":
        return f"its **{parameter.name} has no names to stand here; take a dict[str, ...] as one parameter instead"
    if parameter.wire != parameter.name:
        return f"its {parameter.name!r} is called {parameter.wire!r} outside; leave the alias out"
    if not needed.has_signature and find_unknown_reference(
        needed.parameters["properties"][parameter.name], allow_ids=True
    ):
        return f"the schema of its {parameter.name!r} refers to others beside it; write them out in its place"
    return None


def _agree(first: Parameter, second: Parameter) -> bool:
    return (
        type(first.default) is type(second.default)
        and first.default == second.default
        and _meaning(first.annotation) == _meaning(second.annotation)
    )


def _meaning(annotation: Any) -> object:
    """Return an annotation without its words: the type and the constraints."""
    if get_origin(annotation) is not Annotated:
        return annotation
    inner, *metadata = get_args(annotation)
    constraints: list[object] = []
    for item in metadata:
        if isinstance(item, FieldInfo):
            constraints.append((*cast(list[object], item.metadata), item.alias, item.discriminator))
        elif not isinstance(item, str):
            constraints.append(item)
    return (_meaning(inner), repr([item for item in constraints if item != (None, None)]))


def find_calls(tool: Needable, call: ToolCall) -> tuple[ToolCall, ...]:
    """List the calls that it needs, and last the call itself; a need with a given value isn't called."""
    calls: list[ToolCall] = []
    places: dict[object, str] = {}

    def place(tool: Needable, names: Mapping[str, str], place_id: str) -> dict[str, object]:
        """Return the references that fill the tool's needs; `names` maps its parameters to those of the call."""
        filled: dict[str, object] = {}
        for need in tool.needs:
            if tool is top and need.parameter in call.arguments:
                continue
            inner = {p.name: names[need.seen_as(p.name)] for p in need.tool.visible}
            key = (need.tool.identity, tuple(inner.items()))
            if key not in places:
                need_id = f"{place_id}/{need.parameter}"
                arguments = {
                    name: call.arguments[outer]
                    for name, outer in inner.items()
                    if name in need.tool.own_names and outer in call.arguments
                }
                arguments |= place(need.tool, inner, need_id)
                places[key] = need_id
                calls.append(ToolCall(need_id, need.tool.name, arguments))
            filled[need.parameter] = Reference(places[key])
        return filled

    top = tool
    names = {parameter.name: parameter.name for parameter in tool.visible}
    filled = place(tool, names, call.id)
    # An argument without a parameter stays with the call, which refuses it by name.
    own = {name: value for name, value in call.arguments.items() if name in tool.own_names or name not in names}
    return (*calls, replace(call, arguments=own | filled))


def combine_approvals(own: Approval, needs: Sequence[Need[Any]]) -> Approval:
    """Combine the approval rules: a call must be approved when its tool or a needed tool requires it."""
    if own is True or any(need.tool.approval is True for need in needs):
        return True
    rules = [] if own is False else [own]
    rules += [_seen_from(need) for need in needs if need.tool.approval is not False]
    if len(rules) < 2:
        return rules[0] if rules else False
    return lambda arguments, context: any(rule(arguments, context) for rule in rules)


def _seen_from(need: Need[Any]) -> ApprovalRule:
    rule = cast(Callable[[Mapping[str, Any], Context[Any]], bool], need.tool.approval)

    def ask(arguments: Mapping[str, Any], context: Context[Any]) -> bool:
        outer = {p.name: need.seen_as(p.name) for p in need.tool.visible}
        return rule({name: arguments[seen] for name, seen in outer.items() if seen in arguments}, context)

    return ask
