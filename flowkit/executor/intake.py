"""The way of a new node until it waits for nothing: its edges, its entry, and the values of its references.

A node is added by `add`, or announced first through `Executor`: its edges are found, its entry is opened, and then it
is placed. It is due when its counter of dependencies is zero; then it is in the table's `moves`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn, cast

from flowkit import events
from flowkit.codec import JSON
from flowkit.errors import CycleError, GraphError, ToolArgumentsError, ToolError
from flowkit.events import EventLog
from flowkit.executor import phases
from flowkit.executor.circles import find_circle_of_edges
from flowkit.executor.entries import Entry
from flowkit.executor.made_names import find_attempt, name_made
from flowkit.executor.plan import AnyTool, Plan
from flowkit.executor.read_scope import READ_SCOPE, find_read_scope
from flowkit.executor.resources import Ticket
from flowkit.executor.settling import Settler, is_met
from flowkit.executor.table import Table
from flowkit.graph import Control, Group, Node, Step, check_node, find_own_references, get_after
from flowkit.identity import RunIdentity
from flowkit.references import (
    SCALARS,
    Path,
    Reference,
    ToolCall,
    find_open,
    find_references,
    format_pointer,
    substitute,
)
from flowkit.schema_paths import find_mismatch, find_subschemas

Edges = tuple[list[Entry], list[tuple[Reference, Entry]], tuple[str, ...]]
"""The entries that a node refers to, and after them those it must only come after; its references into a result, with
the entry that each points to; the arguments that hold references."""

NO_EDGES: Edges = ([], [], ())

NOT_ENTERED = "this executor has not begun: use it as `async with Executor(…) as graph`"
CLOSED = "this executor is closed"

LookAtReference = Callable[[ToolCall, Reference, JSON], None]


class Intake:
    """The intake of nodes: adds them, and starts those that wait for no other."""

    def __init__(
        self,
        table: Table,
        log: EventLog,
        settler: Settler,
        look: LookAtReference | None,
        identity: RunIdentity,
        *,
        is_entered_later: bool,
    ) -> None:
        self._table = table
        self._known = table.known.texts
        self._identity = identity
        self._is_read_from = READ_SCOPE.get() is not None
        self._entries = table.entries
        self._plans = table.plans
        self._moves = table.moves
        self._log = log
        self._settler = settler
        self._look = look
        self._count = 0
        self._closed = NOT_ENTERED if is_entered_later else ""
        """Why it takes no nodes; empty while it does."""
        self._mismatches: dict[tuple[AnyTool, Path, AnyTool, str], str | None] = {}

    def begin(self) -> None:
        """Take nodes from now on."""
        self._closed = ""

    @property
    def is_closed(self) -> bool:
        """Return whether it has been closed."""
        return self._closed == CLOSED

    def close(self) -> None:
        """Take no more nodes."""
        self._closed = CLOSED

    def add(self, node: Node, parent: Entry | None, early: bool = False, sealed: bool = True) -> Entry:
        """Add a node to the graph, after the calls that its tool needs.

        Raises `GraphError` for an id that is taken, and for a reference to a missing node.
        """
        edges = self.find_edges(node)
        if type(node) is ToolCall or isinstance(node, ToolCall):
            entry = self.open(node, parent, None, sealed)
            self.place(entry, node, edges, early, sealed)
        else:
            entry = self.open(node, parent)
            self._place_control(entry, node, edges)
        return entry

    def add_made(self, tool: AnyTool, made: ToolCall, caller: Entry) -> Entry:
        """Put in a call that a running tool makes, under the caller's name and the tool's."""
        name, lasting = name_made(caller, tool.name, self._entries, writes=tool.effect == "write")
        call = ToolCall(name, made.name, made.arguments)
        edges = self.find_edges(call)
        entry = self.open(call, caller, Plan(tool, remembers=self._table.remembers))
        if lasting is not None:
            entry.more.lasting_id = lasting
        self.place(entry, call, edges, False, True)
        return entry

    def add_opened(self, group: Group, caller: Entry) -> Entry:
        """Add a group that a running tool opens; in a further attempt its id isn't the one that lasts."""
        entry = self.add(group, caller)
        if find_attempt(caller) > 1:
            entry.more.lasting_id = f"{caller.lasting_id}/{group.name}"
        return entry

    def provide(self, node_id: str, value: JSON) -> None:
        """Let nodes refer to a value from outside, such as a recipe's inputs."""
        if self._closed:
            raise GraphError(f"{node_id!r}: {self._closed}")
        if node_id in self._entries:
            raise GraphError(f"{node_id!r} is taken: every node needs an id of its own")
        entry = Entry(node_id, _GIVEN, None, None, 0)
        entry.phase, entry.state, entry.value, entry.sealed_s = phases.ENDED, "finished", value, 0.0
        self._entries[node_id] = entry

    def skip_node(self, node: Node, because: str, parent: Entry) -> None:
        """Add a node of a branch that isn't taken: it is reported, and never runs."""
        entry = self.open(node, parent)
        entry.more.because = because
        entry.sealed_s = self._log.now()
        self._settler.end(entry, "skipped", error=f"not run: {because}")

    def find_edges(self, node: Node) -> Edges:
        """Find a node's dependencies, and the arguments that refer to them.

        Raises `GraphError` for a reference to a missing node.
        """
        entries = self._entries
        is_plain = type(node) is ToolCall
        if is_plain or isinstance(node, ToolCall):
            for value in node.arguments.values():
                if type(value) not in SCALARS:
                    references, open_names = find_open(node.arguments)
                    break
            else:
                references, open_names = [], ()
            if is_plain and not references:
                return NO_EDGES
        else:
            check_node(node)
            references, open_names = find_own_references(node), ()
        producers: list[Entry] = []
        inner: list[tuple[Reference, Entry]] = []
        for reference in references:
            try:
                producer = entries[reference.call_id]
            except KeyError:
                _refuse_reference(node, reference.call_id)
            producers.append(producer)
            if reference.path:
                inner.append((reference, producer))
        if not is_plain:
            for name in get_after(node):
                producer = entries.get(name)
                if producer is None:
                    _refuse_reference(node, name)
                producers.append(producer)
        # One that was announced is there already, so its own arguments may name it, and so may those that it names.
        if node.id in entries and producers:
            announced = entries[node.id]
            if announced in producers:
                _refuse_reference(node, node.id)
            circle = find_circle_of_edges(self._table, announced, producers)
            if circle:
                raise CycleError(circle)
        return producers, inner, open_names

    def open(self, node: Node, parent: Entry | None, plan: Plan | None = None, seals: bool = False) -> Entry:
        """Make a new entry and report it; with `seals`, report that its arguments are final."""
        node_id = node.id
        if self._closed or not node_id:
            raise GraphError(f"{node_id!r}: {self._closed}" if self._closed else "an empty id")
        before = self._entries.get(node_id)
        if before is not None and before.state != "void":
            raise GraphError(f"{node_id!r} is taken: every node needs an id of its own")
        name = node.name
        call = node if type(node) is ToolCall or isinstance(node, ToolCall) else None
        if plan is None and call is not None:
            # Looked up here: it is cached after the first call of a tool.
            plan = (None if self._table.brought else self._plans.get(name)) or self._table.plan(name, parent)
        self._count += 1
        entry = Entry(node_id, node, plan, parent, self._count)
        if plan is not None and (entry.is_within or self._is_read_from):
            reading = find_read_scope(parent)
            if reading is not None:
                reading.note(plan.tool.name, plan.tool.scope, self._identity)
        above = None
        if parent is not None:
            above = parent.id
            # Most have brothers already: to find the list by `more` and `add_child` would be two calls for each item.
            extra = parent.extra
            if extra is not None and isinstance(extra.children, list):
                extra.children.append(entry)
            else:
                parent.more.add_child(entry)
        self._entries[node_id] = entry
        if seals and call is not None and plan is not None and not plan.has_secrets and not self._known:
            entry.sealed_s = self._log.note_sealed(node_id, name, above, call)
        else:
            self._log.note(events.CallNew, node_id, name, above)
        return entry

    def open_again(self, call: ToolCall) -> Entry:
        """Return the entry that was announced for this call, or a new one; a call that was cancelled stays so."""
        entry = self._entries.get(call.id)
        if entry is None or entry.state != "void":
            return self.open(call, None) if entry is None else entry
        opened = self.open(call, None)
        if entry.is_withdrawn:
            opened.more.is_withdrawn, opened.more.error = True, entry.more.error
        return opened

    def start_anew(self, entry: Entry) -> Entry:
        """Replace a call by the same call, as if it were only announced; its early run, with its needs, is dropped.

        The calls that its tool made stay, and are cancelled with it.
        """
        fresh = Entry(entry.id, entry.node, entry.plan, entry.parent, entry.order)
        self._entries[entry.id] = fresh
        fresh.dependents, entry.dependents = entry.dependents, None
        for child in self._table.children(entry):
            # A void need was reported as ended, so the call opens and reports it again.
            if child.sealed_s is not None or child.state == "void":
                continue
            self._settler.drop(child)
            again = Entry(child.id, child.node, child.plan, fresh, child.order)
            fresh.more.add_child(again)
            self._entries[child.id] = again
        self._settler.drop(entry)
        return fresh

    def place(self, entry: Entry, call: ToolCall, edges: Edges, early: bool, sealed: bool) -> None:
        """Take the arguments, add the tool's needs, and count the call's dependencies."""
        entry.node = call
        entry.early = early
        plan = entry.plan
        if sealed and entry.sealed_s is None:
            self._settler.tell_sealed(entry, call)
        if plan is None:
            self._settler.end(entry, "failed", error=f"there is no tool {call.name!r}")
            return
        if type(call) is not ToolCall and isinstance(call, Step):
            _take_options(entry, call)
        producers, _, open_names = edges
        try:
            if plan.needs:
                self._bind(entry, call, plan, edges)
                producers = self._place_needs(entry, call, plan, early=early, sealed=sealed)
            elif open_names:
                self._bind(entry, call, plan, edges)
            else:
                read = plan.read  # a local first: calling an attribute directly looks it up each time
                entry.arguments = read(call.arguments)
        except ToolError as error:
            self._settler.end(entry, "failed", error=str(error))
            return
        if plan.touches:
            self._take_ticket(entry, plan)
        if producers:
            self._wait_for(entry, producers)
        else:
            entry.phase = phases.DUE
            self._moves.append(entry)

    def _place_control(self, entry: Entry, node: Control, edges: Edges) -> None:
        entry.sealed_s = self._log.note(events.CallSealed, entry.id, {})
        if node.after:
            entry.more.after = frozenset(node.after)
        producers, _, _ = edges
        self._wait_for(entry, producers)

    def _take_ticket(self, entry: Entry, plan: Plan) -> None:
        """Queue on the resources of the call, or on all that it may touch.

        This happens before its values are known: a later call with earlier values must not overtake it.
        """
        known = entry.bound if entry.arguments is None else entry.arguments
        top = entry
        while top.parent is not None:
            top = top.parent
        # The position of a root is after all calls that it made, and before the next root.
        position = (top.order, entry.order if entry is not top else float("inf"))
        ticket = entry.more.ticket = Ticket(entry.id, position, plan.accesses(known or {}))
        self._table.resources.enter(ticket)

    def _bind(self, entry: Entry, call: ToolCall, plan: Plan, edges: Edges) -> None:
        """Check the arguments as far as possible before the references have values."""
        _, inner, open_names = edges
        arguments = call.arguments
        is_plainly_right = plan.is_plainly_right
        if plan.needs or not is_plainly_right(arguments, open_names):
            plan.tool.check(arguments, open_names)
        entry.bound = arguments
        for reference, producer in inner:
            _check_path(reference, producer)
        for name in open_names:
            value = arguments[name]
            if type(value) is Reference:
                producer = self._entries[value.call_id].plan
                if producer is not None:
                    self._check_type(producer, value.path, plan, name)

    def _place_needs(self, entry: Entry, call: ToolCall, plan: Plan, *, early: bool, sealed: bool) -> list[Entry]:
        """Add the tool's needs; return all entries that the call then waits for."""
        *needed, bound = plan.tool.expand(call)
        for place, need in enumerate(needed, 1):
            child = self._open_need(entry, need, plan)
            # It counts as made just before the call that needs it.
            child.order = entry.order - 1 + place / (len(needed) + 1)
            self.place(child, need, self.find_edges(need), early, sealed)
        entry.bound = bound.arguments
        names = [reference.call_id for reference in find_references(bound.arguments)]
        return [self._entries[name] for name in (*names, *get_after(call))]

    def _open_need(self, entry: Entry, need: ToolCall, plan: Plan) -> Entry:
        """Open the entry of a call's need; an early run with other arguments may have opened it before."""
        child = self._entries.get(need.id)
        if child is not None and child.phase == phases.NEW and child.parent is entry:
            return child
        return self.open(need, entry, self._plan_need(plan, need.name))

    def _plan_need(self, plan: Plan, name: str) -> Plan | None:
        tool = plan.tool.needed_tools.get(name)
        known = self._table.plan(name)
        if tool is None or (known is not None and known.tool is tool):
            return known
        return Plan(tool, remembers=self._table.remembers)

    def _check_type(self, producer: Plan, path: Path, plan: Plan, parameter: str) -> None:
        """Check by both tools' schemas that the referenced part of the producer's result fits this parameter."""
        # Asked once for each pair of places: a thousand equal steps have equal schemas.
        key = (producer.tool, path, plan.tool, parameter)
        if key not in self._mismatches:
            result = producer.tool.result_schema
            self._mismatches[key] = (
                None if result is None else find_mismatch(result, path, plan.tool.parameters, parameter)
            )
        mismatch = self._mismatches[key]
        if mismatch is not None:
            what = f"{producer.tool.name!r} at {format_pointer(path)}" if path else repr(producer.tool.name)
            raise ToolArgumentsError(plan.tool.name, [f"{parameter!r}: {what} {mismatch}"])

    def _wait_for(self, entry: Entry, producers: Sequence[Entry]) -> None:
        """Count the calls that it waits for; it is due immediately if there are none."""
        if producers:
            unmet: list[str] = []
            for producer in producers if len(producers) == 1 else dict.fromkeys(producers):
                if producer.state is None or (producer.sealed_s is None and _is_held_back(entry, producer)):
                    unmet.append(producer.id)
                    # An entry skipped below stays in the list: ended entries aren't counted down.
                    dependents = producer.dependents
                    if dependents is None:
                        producer.dependents = [entry]
                    else:
                        dependents.append(entry)
                elif producer.state != "finished" and not is_met(entry, producer):
                    self._settler.skip(entry, producer)
                    return
            if unmet:
                entry.missing = len(unmet)
                entry.phase = phases.NEEDS
                self._log.note_waiting(entry.id, tuple(unmet))
                if self._table.pending:
                    self._settler.stuck.look()
                return
        entry.phase = phases.DUE
        self._moves.append(entry)

    def resolve(self, entry: Entry) -> bool:
        """Insert the values of its references, and validate them; if that fails, settle the call and return False."""
        bound, plan = entry.bound, entry.plan
        assert bound is not None
        assert plan is not None
        table = self._table
        replace = None if self._look is None else partial(self._show_reference, self._look, entry)
        try:
            values = dict(bound)
            for name, value in bound.items():
                if type(value) not in SCALARS:
                    values[name] = table.fill_in(value) if replace is None else substitute(value, replace)
            if plan.needs:
                needed = {name: value for name, value in values.items() if name in plan.needs}
                given = {name: value for name, value in values.items() if name not in plan.needs}
                entry.arguments = plan.tool.validate(given, needed)
            else:
                read = plan.read
                entry.arguments = read(values)
        except ToolError as error:
            self._settler.end(entry, "failed", error=f"not run: {error}")
            return False
        return True

    def _show_reference(self, look: LookAtReference, entry: Entry, reference: Reference) -> JSON:
        value = self._table.value(reference)
        look(cast(ToolCall, entry.node), reference, value)
        return value


_GIVEN = ToolCall("", "")
"""The producer of a value from outside."""


def _refuse_reference(node: Node, name: str) -> NoReturn:
    if name == node.id:
        raise GraphError(f"{node.id!r} refers to itself")
    raise GraphError(f"{node.id!r} refers to {name!r}, which isn't there before it")


def _take_options(entry: Entry, step: Step) -> None:
    if step.timeout_s is not None or step.retries is not None or step.optional or step.after:
        more = entry.more
        more.timeout_s, more.retries, more.optional = step.timeout_s, step.retries, step.optional
        more.after = frozenset(step.after)


def _check_path(reference: Reference, producer: Entry) -> None:
    """Check that the path can be in the declared result of the other call's tool."""
    schema = None if producer.plan is None else producer.plan.tool.result_schema
    if schema is not None:
        find_subschemas(schema, reference.path, producer.node.name)


def _is_held_back(entry: Entry, producer: Entry) -> bool:
    """Return whether a sealed call needs the result of an early run with arguments that may still change."""
    return producer.state != "void" and entry.sealed_s is not None
