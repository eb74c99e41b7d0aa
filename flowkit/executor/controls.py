"""The start of a control: when its references are available, it adds its body's nodes to the graph and waits for them.

A control occupies no slot and has no task; each node of a body notifies it on completion.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import assert_never, cast

from flowkit.codec import JSON
from flowkit.errors import ToolError
from flowkit.executor import phases
from flowkit.executor.entries import Entry
from flowkit.executor.intake import Intake
from flowkit.executor.settling import Settler
from flowkit.executor.table import Table
from flowkit.graph import (
    Body,
    BodyCopies,
    Each,
    Fallback,
    Group,
    ModelStep,
    Node,
    When,
    find_all_references,
    index_id,
    item_id,
)
from flowkit.references import Reference, ToolCall, escape_key, find_references, lookup, substitute

Ended = Callable[[JSON, str | None], None]
"""Called with a body's value, or with its failure."""

NodesEnded = Callable[[int, Sequence[Node], str | None], None]
"""Called with the number of the nodes, the nodes, and a failure; None if each has a value."""


class Controls:
    """The controls of a run: opens their bodies, and finishes each with its body."""

    def __init__(self, table: Table, intake: Intake, settler: Settler) -> None:
        self.settler = settler
        self.intake = intake
        self.value = table.value
        self.entries = table.entries

    def begin(self, entry: Entry) -> None:
        """Open the body of a control; the control ends with it."""
        node = entry.node
        match node:
            case Group():
                self.run_body(entry, node.body, partial(self.finish, entry))
            case When():
                self._choose(entry, node)
            case Fallback():
                self._try_next(entry, node, 0)
            case Each():
                _Items(self, entry, node).begin()
            case ModelStep() | ToolCall():
                raise TypeError(f"{entry.id!r} has no body")
            case _:
                assert_never(node)

    def finish(self, entry: Entry, value: JSON, failure: str | None = None) -> None:
        """Finish a control whose body has finished."""
        if entry.has_ended:
            return
        entry.value = value
        self.settler.end(entry, "finished" if failure is None else "failed", error=failure)

    def resolve(self, value: object) -> object:
        """Resolve the references in a control's value."""
        return substitute(value, self.value)

    def run_body(self, entry: Entry, body: Body, ended: Ended) -> None:
        """Add the nodes of a body; when all have finished, make its value of theirs."""

        def nodes_ended(_number: int, _nodes: Sequence[Node], failure: str | None) -> None:
            if failure is None:
                self.make_value(body, self.value, ended)
            else:
                ended(None, failure)

        self.run_nodes(entry, body.nodes, nodes_ended)

    def run_nodes(self, entry: Entry, nodes: Sequence[Node], ended: NodesEnded, number: int = 0) -> None:
        """Add nodes, and call back when all have ended."""
        if not nodes:
            ended(number, nodes, None)
            return
        told = (_OpenNodes(self.entries, nodes, ended, number).note_end,)
        for node in nodes:
            if entry.phase >= phases.ENDED:
                return
            child = self.intake.add(node, entry)
            if child.phase >= phases.ENDED:
                told[0](child)
            else:
                child.on_end = told

    def make_value(self, body: Body, value_of: Callable[[Reference], JSON], ended: Ended) -> None:
        """Make a body's value of those of its nodes."""
        try:
            value = substitute(body.value, value_of)
            ended(cast(JSON, value if body.finish is None else body.finish(value)), None)
        except ToolError as error:
            ended(None, str(error))

    def _choose(self, entry: Entry, node: When) -> None:
        try:
            holds = node.condition.evaluate(self.resolve)
        except ToolError as error:
            self.finish(entry, None, str(error))
            return
        taken, left_out = (node.then, node.otherwise) if holds else (node.otherwise, node.then)
        if left_out is not None:
            because = f"{node.condition} is {'true' if holds else 'false'}"
            for skipped in left_out.nodes:
                self.intake.skip_node(skipped, because, entry)
        if taken is None:
            self.finish(entry, None)
        else:
            self.run_body(entry, taken, partial(self.finish, entry))

    def _try_next(self, entry: Entry, node: Fallback, number: int) -> None:
        def ended(value: JSON, failure: str | None) -> None:
            if failure is None or entry.has_ended:
                self.finish(entry, value, failure)
                for body in node.tries[number + 1 :] if failure is None else ():
                    for skipped in body.nodes:
                        self.intake.skip_node(skipped, f"{node.id} has a result", entry)
            elif number + 1 < len(node.tries):
                self._try_next(entry, node, number + 1)
            else:
                self.finish(entry, None, None if node.optional else failure)

        self.run_body(entry, node.tries[number], ended)


class _OpenNodes:
    """Counts the unfinished nodes of a body, and calls back when none is left."""

    __slots__ = ("_ended", "_entries", "_left", "_nodes", "_number")

    def __init__(self, entries: Mapping[str, Entry], nodes: Sequence[Node], ended: NodesEnded, number: int) -> None:
        self._entries = entries
        self._nodes = nodes
        self._ended = ended
        self._left = len(nodes)
        self._number = number

    def note_end(self, child: Entry) -> None:
        """Count one more finished node."""
        self._left -= 1
        if not self._left:
            ended, nodes = self._ended, self._nodes  # locals first: calling an attribute looks it up each time
            failure = None if child.state == "finished" and len(nodes) == 1 else self._find_failure()
            ended(self._number, nodes, failure)

    def _find_failure(self) -> str | None:
        for node in self._nodes:
            child = self._entries[node.id]
            if child.state != "finished" and not child.is_usable:
                because = self._entries[child.extra.because] if child.extra and child.extra.because else child
                return f"{because.node.name!r} ({because.id}): {because.error or because.state}"
        return None


class _Items:
    """One `Each` in progress: the next item, and the results so far."""

    def __init__(self, controls: Controls, entry: Entry, node: Each) -> None:
        self._controls = controls
        self._entry = entry
        self._node = node
        self._items: list[JSON] = []
        self._names: list[str] = []
        self._results: dict[int, JSON] = {}
        self._failures: dict[int, str] = {}
        self._next = 0
        self._at_work = 0
        self._is_starting = False
        old, value = f"{node.id}/", node.body.value
        self._copies = BodyCopies(node.body, old)
        self._result_of: int | None = None
        """The position of the node whose result is the body's value, the common case: it needs no walk."""
        if type(value) is Reference and not value.path and node.body.finish is None:
            places = enumerate(node.body.nodes)
            self._result_of = next((place for place, inner in places if inner.id == value.call_id), None)
        # Most bodies don't use the index, and an entry costs half as much as a node.
        named = {reference.call_id for inner in node.body.nodes for reference in find_all_references(inner)}
        named.update(reference.call_id for reference in find_references(node.body.value))
        self._names_item = item_id(node.id) in named
        self._names_index = index_id(node.id) in named

    def begin(self) -> None:
        try:
            self._items = self._find_items()
            self._names = self._name_items()
        except ToolError as error:
            self._controls.finish(self._entry, None, str(error))
            return
        self._start_more()

    def _find_items(self) -> list[JSON]:
        """Return the items; raises `ToolError` if they aren't a list, are too many, or are missing."""
        items = self._controls.resolve(self._node.over)
        if not isinstance(items, (list, tuple)):
            raise ToolError(f"expected a list to go through, got {items!r:.80}")
        count = len(cast(list[JSON], items))
        if count > self._node.at_most:
            raise ToolError(f"{count} items, at most {self._node.at_most}")
        return cast(list[JSON], items)

    def _name_items(self) -> list[str]:
        """Return each item's key, as used in the ids of its nodes."""
        if self._node.key is None:
            return [str(index) for index in range(len(self._items))]
        names: list[str] = []
        for index, item in enumerate(self._items):
            key = substitute(self._node.key, lambda reference, i=index, it=item: self._look_up(reference, i, it))
            if not isinstance(key, (str, int)) or isinstance(key, bool):
                raise ToolError(f"the key of item {index} is {key!r}, expected a text or an integer")
            names.append(escape_key(key))
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None:
            raise ToolError(f"two items have the key {twice!r}")
        return names

    def _look_up(self, reference: Reference, index: int, item: JSON) -> JSON:
        if reference.call_id == item_id(self._node.id):
            return lookup(item, reference.path, f"item {index}")
        if reference.call_id == index_id(self._node.id):
            return index
        return cast(JSON, self._controls.resolve(reference))

    def _start_more(self) -> None:
        """Start items while the limit allows; items that finish immediately must not recurse."""
        if self._is_starting:
            return
        self._is_starting = True
        try:
            count = len(self._items)
            limit = self._node.at_once or count
            while self._next < count and self._at_work < limit and self._entry.phase < phases.ENDED:
                index = self._next
                self._next += 1
                self._at_work += 1
                self._start(index)
        finally:
            self._is_starting = False
        if self._next == len(self._items) and not self._at_work and not self._entry.has_ended:
            self._finish()

    def _start(self, index: int) -> None:
        node = self._node
        new = f"{node.id}/{self._names[index]}/"
        if self._names_item:
            self._controls.intake.provide(f"{new}item", self._items[index])
        if self._names_index:
            self._controls.intake.provide(f"{new}index", index)
        self._controls.run_nodes(self._entry, self._copies.copy_nodes(new), self._make_value, index)

    def _make_value(self, index: int, nodes: Sequence[Node], failure: str | None) -> None:
        """Make an item's value of those of its nodes."""
        if failure is not None:
            self._ended(index, None, failure)
            return
        if self._result_of is not None:
            self._ended(index, self._controls.entries[nodes[self._result_of].id].value, None)
            return
        value_of = partial(self._copies.look_up, self._controls.value, f"{self._node.id}/{self._names[index]}/")
        self._controls.make_value(self._node.body, value_of, partial(self._ended, index))

    def _ended(self, index: int, value: JSON, failure: str | None) -> None:
        self._at_work -= 1
        if failure is None:
            self._results[index] = value
        else:
            self._failures[index] = failure
            if self._node.on_error == "stop":
                self._controls.finish(self._entry, None, self._describe(index))
                for child in list(self._entry.more.children):
                    self._controls.settler.cancel(child, f"item {self._names[index]} failed")
                return
        if not self._at_work or self._next < len(self._items):
            self._start_more()

    def _describe(self, index: int) -> str:
        more = f" (and {len(self._failures) - 1} more)" if len(self._failures) > 1 else ""
        return f"item {self._names[index]}{more}: {self._failures[index]}"

    def _finish(self) -> None:
        if self._failures and self._node.on_error == "fail":
            self._controls.finish(self._entry, None, self._describe(min(self._failures)))
            return
        if self._node.on_error == "null":
            self._controls.finish(self._entry, [self._results.get(index) for index in range(len(self._items))])
        else:
            self._controls.finish(self._entry, [self._results[index] for index in sorted(self._results)])
