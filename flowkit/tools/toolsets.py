"""A set of tools as one model sees it: unique names, aliases that APIs accept, schemas for its server.

A `Toolset` doesn't change. Tools that change between turns come from a function; `current` calls it and returns the set
for the next turn.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any
from weakref import WeakKeyDictionary

from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.errors import DefinitionError
from flowkit.messages import ToolSpec
from flowkit.suggestions import suggest
from flowkit.targets import Lowered, Target, lower
from flowkit.targets.offers import describe_result, offer_references
from flowkit.tools.core import Tool
from flowkit.tools.decorator import make_tool
from flowkit.tools.lives import Life, open_lives
from flowkit.tools.schema.aliases import make_aliases

logger = logging.getLogger("flowkit.tools")

AnyTool = Tool[..., Any]
Filter = Callable[[AnyTool], bool]
Change = Callable[[AnyTool], AnyTool]
"""Returns the replacement of a tool, under its name, or the tool itself."""

Source = Callable[[Context[Any]], "Iterable[ToolLike] | Awaitable[Iterable[ToolLike]]"]
"""Returns the tools of one turn: `Iterable[ToolLike]`, or a coroutine of it."""


@dataclass(frozen=True, slots=True)
class _Changing:
    """Tools that are listed again before each turn, with the prefixes and filters of the enclosing sets."""

    source: Source
    life: Life | None = None
    steps: tuple[tuple[str, Filter | None], ...] = ()
    changes: tuple[Change, ...] = ()


class Toolset:
    """Tools by their names, in the order of the arguments.

    Takes tools, functions and other sets. `filter` keeps the tools for which it is true, then `prefix` is added to
    their names. The same tool may appear twice. Raises `DefinitionError` for two tools with one name, or two names with
    the same alias. `target` is the server's schema dialect, unless `specs` gets another; by default it is that of the
    first set inside, or `"openai"`.

    >>> def get_order(order_id: str) -> str: "Look an order up."; return order_id
    >>> tools = Toolset(get_order, prefix="shop.")
    >>> dict(tools.aliases), tools.resolve("shop_get_order")
    ({'shop_get_order': 'shop.get_order'}, <tool shop.get_order>)
    """

    def __init__(
        self, *tools: "ToolLike", prefix: str = "", filter: Filter | None = None, target: Target | None = None
    ) -> None:
        inner: list[Target] = [item.target for item in tools if isinstance(item, Toolset)]
        self.target: Target = target or (inner[0] if inner else "openai")
        self._tools: dict[str, AnyTool] = {}
        self._changing: list[_Changing] = []
        for item in tools:
            if isinstance(item, Toolset):
                self._changing.extend(item._changing)
            for tool in item._tools.values() if isinstance(item, Toolset) else (make_tool(item),):
                if filter is None or filter(tool):
                    self._add(tool.renamed(prefix + tool.name))
        self._last: _Last | None = None
        self._is_source = False
        step = (prefix, filter)
        self._changing = [replace(changing, steps=(*changing.steps, step)) for changing in self._changing]
        self.aliases: Mapping[str, str] = make_aliases(self._tools)
        """The name of every tool by the name under which it travels."""

    @classmethod
    def dynamic(cls, source: Source, *, life: Life | None = None) -> "Toolset":
        """Make a set with tools that are listed again before each turn; until then it is empty.

        `life` is entered when a run starts, and left after every outcome of the run.
        """
        tools = cls()
        tools._changing.append(_Changing(source, life))
        tools._is_source = True
        return tools

    def opened(self, context: Context[Any]) -> AbstractAsyncContextManager[None]:
        """Hold open the resources that the tools and the dynamic sources need for one run."""
        named = (changing.life for changing in self._changing)
        return open_lives((*named, *list_lives(self._tools.values())), context)

    def _add(self, tool: AnyTool) -> None:
        if tool.is_unbound:
            raise DefinitionError.about(tool.name, f"it is a method: give that of an object, `thing.{tool.__name__}`")
        known = self._tools.setdefault(tool.name, tool)
        if known.identity != tool.identity:
            raise DefinitionError(f"two tools are called {tool.name!r}; give one a prefix or a name", tool=tool.name)

    def __iter__(self) -> Iterator[AnyTool]:
        if self._is_source:
            # Unpacked into an agent's tools it would silently add none.
            raise DefinitionError(
                "the tools of a dynamic set, such as an MCP server's, are known only during a run: "
                "give the set itself, tools=[server.tools], not [*server.tools]"
            )
        return iter(self._tools.values())

    def __len__(self) -> int:
        return len(self._tools)

    def __contains__(self, name: object) -> bool:
        return name in self._tools

    def __repr__(self) -> str:
        return f"Toolset({', '.join([*self._tools, *('…' for _ in self._changing)])})"

    @property
    def names(self) -> tuple[str, ...]:
        """The tools' own names."""
        return tuple(self._tools)

    @property
    def is_dynamic(self) -> bool:
        """Return whether `current` may return other tools."""
        return bool(self._changing)

    @property
    def lives(self) -> tuple[Life | None, ...]:
        """The resources that each dynamic source holds during a run; None for one that holds nothing."""
        return tuple(changing.life for changing in self._changing)

    def get(self, name: str) -> AnyTool | None:
        """Find the tool of this name."""
        return self._tools.get(name)

    def find(self, name: str) -> AnyTool | None:
        """Return the tool of this name in the set, or among those that its tools need."""
        found = self.get(name)
        if found is not None:
            return found
        needing = (tool for tool in self._tools.values() if name in tool.needed_tools)
        return next((tool.needed_tools[name] for tool in needing), None)

    def resolve(self, wire_name: str) -> AnyTool | None:
        """Find the tool by the name under which it travels, or by its own, which models copy from the history."""
        return self._tools.get(self.aliases.get(wire_name, wire_name))

    async def current(self, context: Context[Any]) -> "Toolset":
        """Return the set for the next turn, with tools that dynamic sources name now; this one when there are none.

        While they name the same tools, and the filters keep the same of them, it is the same set. A tool that can't be
        one, or has a name that is taken, is left out with a word in the log: it came from elsewhere, and must not take
        the others with it.
        """
        if not self._changing:
            return self
        named: list[list[ToolLike]] = [await _ask(changing.source, context) for changing in self._changing]
        last = self._last
        is_known = last is not None and all(map(_are_same, last.named, named))
        usable = last.usable if last is not None and is_known else [[*_list_usable(items)] for items in named]
        # Called each time: a filter may depend on more than the tool, such as a setting or the hour.
        chosen = [*map(_choose, self._changing, usable)]
        if last is not None and is_known and all(map(_are_same, last.chosen, chosen)):
            return last.tools
        tools = Toolset(*self._tools.values(), target=self.target)
        added: set[str] = set()
        for changing, items in zip(self._changing, chosen, strict=True):
            for tool in items:
                try:
                    placed = _place(tool, changing)
                    tools._add(placed)
                    added.add(placed.name)
                except DefinitionError as error:
                    logger.warning("tool %r is left out: %s", tool.name, error, extra={"tool": tool.name})
        tools.aliases = make_aliases(tools._tools, marked=added)
        self._last = _Last(named, usable, chosen, tools)
        return tools

    def replacing(self, tools: "Mapping[str, ToolLike] | Change") -> "Toolset":
        """Return the same set with other tools under some of its names, or with each changed by a function.

        A function also changes the tools that come later from a dynamic source. Raises `DefinitionError` for a name
        that the set hasn't.
        """
        if callable(tools):
            replaced = {tool.name: tools(tool).renamed(tool.name) for tool in self._tools.values()}
            changing = [replace(changing, changes=(*changing.changes, tools)) for changing in self._changing]
        else:
            for name in tools.keys() - self._tools.keys():
                raise DefinitionError(f"there is no tool {name!r} to replace; {suggest(name, self._tools)}", tool=name)
            replaced = {name: make_tool(tool).renamed(name) for name, tool in tools.items()}
            changing = self._changing
        result = Toolset(*(replaced.get(name, tool) for name, tool in self._tools.items()), target=self.target)
        result._changing = changing
        return result

    def specs(self, target: Target | None = None, *, references: bool = False) -> tuple[ToolSpec, ...]:
        """Return the specifications for the model; `references` lets one call use another's result in the same turn."""
        return tuple(
            _find_spec(wire_name, self._tools[name], target or self.target, references)
            for wire_name, name in self.aliases.items()
        )

    def raise_arguments(
        self, name: str, arguments: Mapping[str, JSON], target: Target | None = None
    ) -> dict[str, JSON]:
        """Convert arguments from the `target` schema that the model wrote to those that the tool takes."""
        tool = self._tools.get(name)
        return dict(arguments) if tool is None else lower_tool(tool, target or self.target).raise_arguments(arguments)

    def lower_arguments(
        self, name: str, arguments: Mapping[str, JSON], target: Target | None = None
    ) -> dict[str, JSON]:
        """Convert a tool's arguments to the `target` schema, as the model would write them."""
        tool = self._tools.get(name)
        return dict(arguments) if tool is None else lower_tool(tool, target or self.target).lower_arguments(arguments)


ToolLike = AnyTool | Toolset | Callable[..., Any]
"""A tool, a set of them, or a function that becomes one."""


def list_lives(tools: Iterable[AnyTool]) -> Iterator[Life]:
    """List what these tools and their needs hold open during a run."""
    for tool in tools:
        if tool.life is not None:
            yield tool.life
        for needed in tool.needed_tools.values():
            if needed.life is not None:
                yield needed.life


async def _ask(source: Source, context: Context[Any]) -> "list[ToolLike]":
    """Resolve the current tools of a dynamic source, including dynamic sets in it."""
    asked = source(context)
    items = asked if isinstance(asked, Iterable) else await asked
    return [await item.current(context) if isinstance(item, Toolset) else item for item in items]


@dataclass(frozen=True, slots=True)
class _Last:
    """The last answer of each dynamic source, the tools in it, those that the filters kept, and the set made of them."""

    named: list[list[ToolLike]]
    usable: list[list[AnyTool]]
    chosen: list[list[AnyTool]]
    tools: Toolset


def _are_same(before: Sequence[object], now: Sequence[object]) -> bool:
    return before is now or (
        len(before) == len(now) and all(one is other for one, other in zip(before, now, strict=True))
    )


def _list_usable(items: "Iterable[ToolLike]") -> Iterator[AnyTool]:
    for item in items:
        if isinstance(item, Toolset):
            yield from item
            continue
        try:
            yield make_tool(item)
        except DefinitionError as error:
            logger.warning("a tool is left out: %s", error)


def _choose(changing: _Changing, tools: list[AnyTool]) -> list[AnyTool]:
    """Choose the tools that the sets around them keep."""
    if all(chosen is None for _, chosen in changing.steps):
        return tools
    return [tool for tool in tools if _is_chosen(tool, changing)]


def _is_chosen(tool: AnyTool, changing: _Changing) -> bool:
    for prefix, chosen in changing.steps:
        if chosen is not None and not chosen(tool):
            return False
        tool = tool.renamed(prefix + tool.name)
    return True


def _place(tool: AnyTool, changing: _Changing) -> AnyTool:
    """Return the tool as the sets around it name and change it."""
    for prefix, _ in changing.steps:
        tool = tool.renamed(prefix + tool.name)
    for change in changing.changes:
        tool = change(tool).renamed(tool.name)
    return tool


_lowered: WeakKeyDictionary[AnyTool, dict[Target, Lowered]] = WeakKeyDictionary()


def lower_tool(tool: AnyTool, target: Target) -> Lowered:
    """Lower the tool's schema to `target`, once."""
    known = _lowered.setdefault(tool, {})
    if target not in known:
        known[target] = lower(tool.parameters, target, strict=tool.strict)
    return known[target]


def takes_references(tool: AnyTool) -> bool:
    """Return whether a model may put a reference into its arguments.

    For a tool that can do harm, its author must agree.
    """
    return tool.accepts_references or (tool.effect == "read" and not tool.approval)


_specs: WeakKeyDictionary[AnyTool, dict[tuple[str, Target, bool], ToolSpec]] = WeakKeyDictionary()
"""Made once: each request holds those of all its tools for as long as its answer comes."""


def _find_spec(wire_name: str, tool: AnyTool, target: Target, references: bool) -> ToolSpec:
    known = _specs.setdefault(tool, {})
    spec = known.get((wire_name, target, references))
    if spec is None:
        spec = known[wire_name, target, references] = _make_spec(wire_name, tool, target, references)
    return spec


def _make_spec(wire_name: str, tool: AnyTool, target: Target, references: bool) -> ToolSpec:
    lowered = lower_tool(tool, target)
    description = tool.description
    own_name = ""
    if wire_name != tool.name and not tool.name.isascii():
        # The alias has lost letters, and models choose tools largely by name.
        description = f"{tool.name}: {description}" if description else tool.name
        own_name = tool.name
    if references:
        description = describe_result(description, tool.result_schema)
        if takes_references(tool):
            lowered = offer_references(lowered)
    return ToolSpec(wire_name, description, MappingProxyType(dict(lowered.schema)), lowered.strict, own_name)
