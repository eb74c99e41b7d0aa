"""From a node that is put in to its start: what its tool needs, what it waits for, and the values that take their places.

A node comes in by `add` (or, announced first, by what `Executor` offers): its edges are found, then its entry is
opened, then it is placed. It goes on when its count of what it waits for is zero: recorded already, or resolved and
handed to `Admission`, or begun, where it is a control or a step that asks a model.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NoReturn, cast

from flowkit import events
from flowkit.codec import JSON
from flowkit.errors import GraphError, ToolArgumentsError, ToolError
from flowkit.executor.admission import Admission, read_decision
from flowkit.executor.controls import begin_control
from flowkit.executor.entries import Entry, Phase, Plan
from flowkit.executor.outcomes import Approve
from flowkit.executor.table import LookAtReference
from flowkit.graph import Control, ModelStep, Node, Step, find_own_references, get_after
from flowkit.references import SCALARS, Reference, ToolCall, find_open, find_references, format_pointer, substitute
from flowkit.schema_paths import find_mismatch, find_subschemas

Edges = tuple[list[Reference], list[Entry], tuple[str, ...]]
"""A node's references; the entry that each points to, and after them those it must only come after; the arguments that
hold references."""


class Placing(Admission):
    """Puts nodes in, and starts them on their way when everything they need is there."""

    def add(self, node: Node, *, parent: str | None = None, early: bool = False, sealed: bool = True) -> None:
        """Put a node into the graph; it starts when it can. What its tool needs is put in before it.

        Raises `GraphError` for an id that is taken, and for a reference to what isn't there.
        """
        edges = self._find_edges(node)
        entry = self._open(node, parent)
        if isinstance(node, ToolCall):
            self._place(entry, node, edges, early=early, sealed=sealed)
        else:
            self._place_control(entry, node, edges)

    def provide(self, node_id: str, value: JSON) -> None:
        """Let nodes refer to a value from outside, such as a recipe's inputs."""
        if node_id in self._entries:
            raise GraphError(f"{node_id!r} is taken: every node needs an id of its own")
        entry = Entry(node_id, ToolCall(node_id, ""), None, None, 0)
        entry.phase, entry.state, entry.value, entry.sealed_s = Phase.ENDED, "finished", value, 0.0
        self._entries[node_id] = entry

    def _find_edges(self, node: Node) -> Edges:
        """What a node waits for, and by which of its arguments.

        Raises `GraphError` for a reference to what isn't there.
        """
        if isinstance(node, ToolCall):
            references, open_names = find_open(node.arguments)
        else:
            references, open_names = find_own_references(node), ()
        entries = self._entries
        producers: list[Entry] = []
        for reference in references:
            producer = entries.get(reference.call_id)
            if producer is None:
                self._refuse_reference(node, reference.call_id)
            producers.append(producer)
        if type(node) is not ToolCall:
            for name in get_after(node):
                producer = entries.get(name)
                if producer is None:
                    self._refuse_reference(node, name)
                producers.append(producer)
        if node.id in entries and entries[node.id] in producers:
            self._refuse_reference(node, node.id)
        return references, producers, open_names

    def _refuse_reference(self, node: Node, name: str) -> NoReturn:
        if name == node.id:
            raise GraphError(f"{node.id!r} refers to itself")
        raise GraphError(f"{node.id!r} refers to {name!r}, which isn't there before it")

    def _open(self, node: Node, parent: str | None, plan: Plan | None = None) -> Entry:
        """A new entry, told of."""
        if self._is_closed:
            raise GraphError(f"{node.id!r}: this executor is closed")
        before = self._entries.get(node.id)
        if before is not None and before.state != "void":
            raise GraphError(f"{node.id!r} is taken: every node needs an id of its own")
        above = None if parent is None else self._entries[parent]
        if plan is None and isinstance(node, ToolCall):
            plan = self._find_plan(node.name, above) if self._brought else self._plan(node.name)
        self._count += 1
        entry = Entry(node.id, node, plan, above, self._count)
        if above is not None:
            above.more.add_child(entry)
        self._entries[node.id] = entry
        self._log.note(events.CallNew, node.id, node.name, parent)
        return entry

    def _open_again(self, call: ToolCall) -> Entry:
        """The entry that was announced for this call, or a new one."""
        entry = self._entries.get(call.id)
        return self._open(call, None) if entry is None or entry.state == "void" else entry

    def _start_anew(self, entry: Entry) -> Entry:
        """The same call as if it were only announced: its early run, and those it needed, are stopped and forgotten.

        The calls that its tool made stay, and end with it.
        """
        fresh = Entry(entry.id, entry.node, entry.plan, entry.parent, entry.order)
        self._entries[entry.id] = fresh
        fresh.dependents, entry.dependents = entry.dependents, None
        for child in self._children(entry):
            if child.sealed_s is not None:
                continue
            self._drop(child)
            again = Entry(child.id, child.node, child.plan, fresh, child.order)
            fresh.more.add_child(again)
            self._entries[child.id] = again
        self._drop(entry)
        return fresh

    def _drop(self, entry: Entry) -> None:
        if not entry.has_ended:
            self._runner.stop(entry, "its arguments changed")
            self._leave(entry)
            entry.phase = Phase.DROPPED
            self._let_follow(entry)

    def _place(
        self,
        entry: Entry,
        call: ToolCall,
        edges: Edges,
        *,
        early: bool,
        sealed: bool,
    ) -> None:
        """The arguments are there: put in what the tool needs, and count what the call waits for."""
        entry.node = call
        entry.early = early
        plan = entry.plan
        if sealed:
            self._tell_sealed(entry, call)
        if plan is None:
            self._end(entry, "failed", error=f"there is no tool {call.name!r}")
            return
        if isinstance(call, Step):
            self._take_options(entry, call)
        _, producers, open_names = edges
        try:
            if plan.needs:
                self._bind(entry, call, plan, edges)
                producers = self._place_needs(entry, call, plan, early=early, sealed=sealed)
            elif open_names:
                self._bind(entry, call, plan, edges)
            else:
                entry.arguments = plan.tool.validate(call.arguments)
        except ToolError as error:
            self._end(entry, "failed", error=str(error))
            return
        if plan.touches:
            self._take_ticket(entry, plan)
        self._wait_for(entry, producers)

    def _take_options(self, entry: Entry, step: Step) -> None:
        if step.timeout_s is not None or step.retries is not None or step.optional or step.after:
            more = entry.more
            more.timeout_s, more.retries, more.optional = step.timeout_s, step.retries, step.optional
            more.after = frozenset(step.after)

    def _bind(self, entry: Entry, call: ToolCall, plan: Plan, edges: Edges) -> None:
        """Check what can be checked before the values of the references are there."""
        references, producers, open_names = edges
        plan.tool.check(call.arguments, open_names)
        entry.bound = call.arguments
        for reference, producer in zip(references, producers, strict=False):
            if reference.path:
                self._check_path(reference, producer)
        for name in open_names:
            value = call.arguments[name]
            if type(value) is Reference:
                self._check_type(plan, name, value)

    def _place_needs(self, entry: Entry, call: ToolCall, plan: Plan, *, early: bool, sealed: bool) -> list[Entry]:
        """Put in what the tool needs; all the entries that the call waits for then."""
        *needed, bound = plan.tool.expand(call)
        for place, need in enumerate(needed, 1):
            child = self._open_need(entry, need, plan)
            # It counts as made just before the call that needs it.
            child.order = entry.order - 1 + place / (len(needed) + 1)
            self._place(child, need, self._find_edges(need), early=early, sealed=sealed)
        entry.bound = bound.arguments
        names = [reference.call_id for reference in find_references(bound.arguments)]
        return [self._entries[name] for name in (*names, *get_after(call))]

    def _open_need(self, entry: Entry, need: ToolCall, plan: Plan) -> Entry:
        """The entry of what a call needs; an early run with other arguments may have opened it before."""
        child = self._entries.get(need.id)
        if child is not None and child.phase == Phase.NEW and child.parent is entry:
            return child
        return self._open(need, entry.id, self._plan_need(plan, need.name))

    def _plan_need(self, plan: Plan, name: str) -> Plan | None:
        tool = plan.tool.needed_tools.get(name)
        known = self._plan(name)
        if tool is None or (known is not None and known.tool is tool):
            return known
        return Plan(tool, remembers=self._remembers)

    def _check_path(self, reference: Reference, producer: Entry) -> None:
        """Whether the path can be in what the other call's tool says it gives."""
        schema = None if producer.plan is None else producer.plan.tool.result_schema
        if schema is not None:
            find_subschemas(schema, reference.path, producer.node.name)

    def _check_type(self, plan: Plan, parameter: str, reference: Reference) -> None:
        """Whether what a reference points to can be this parameter, by the schemas of both tools."""
        producer = self._entries[reference.call_id].plan
        if producer is None:
            return
        # Asked once for each pair of places: a thousand equal steps have equal schemas.
        key = (producer.tool, reference.path, plan.tool, parameter)
        if key not in self._mismatches:
            result = producer.tool.result_schema
            self._mismatches[key] = (
                None if result is None else find_mismatch(result, reference.path, plan.tool.parameters, parameter)
            )
        mismatch = self._mismatches[key]
        if mismatch is not None:
            what = (
                f"{producer.tool.name!r} at {format_pointer(reference.path)}"
                if reference.path
                else repr(producer.tool.name)
            )
            raise ToolArgumentsError(plan.tool.name, [f"{parameter!r}: {what} {mismatch}"])

    def _place_control(self, entry: Entry, node: Control, edges: Edges) -> None:
        entry.sealed_s = self._log.note(events.CallSealed, entry.id, {})
        if node.after:
            entry.more.after = frozenset(node.after)
        _, producers, _ = edges
        self._wait_for(entry, producers)

    def _wait_for(self, entry: Entry, producers: Sequence[Entry]) -> None:
        """Count the calls that it waits for; it goes on at once when there are none."""
        if producers:
            unmet: list[str] = []
            for producer in producers if len(producers) == 1 else dict.fromkeys(producers):
                if producer.state is None or (producer.sealed_s is None and self._is_held_back(entry, producer)):
                    unmet.append(producer.id)
                    # One that is skipped below stays in the list: who has ended isn't counted down.
                    if producer.dependents is None:
                        producer.dependents = [entry]
                    else:
                        producer.dependents.append(entry)
                elif not self._is_met(entry, producer):
                    self._skip(entry, producer)
                    return
            if unmet:
                entry.missing = len(unmet)
                entry.phase = Phase.NEEDS
                self._log.note(events.CallWaiting, entry.id, "calls", tuple(unmet))
                if self._pending:
                    self._look_for_stuck()
                return
        self._go_on(entry)

    def _is_held_back(self, entry: Entry, producer: Entry) -> bool:
        """Whether a sealed call asks for the result of an early run whose arguments may still turn out otherwise."""
        return producer.state != "void" and entry.sealed_s is not None

    def _go_on(self, entry: Entry) -> None:
        """Everything it needs is there."""
        plan = entry.plan
        if self._remembers and self._take_recorded(entry):
            return
        if plan is None:
            self._begin(entry)
            return
        if entry.bound is not None and not self._resolve(entry, plan):
            return
        if plan.ungated:
            self._runner.start(entry)
        elif plan.approval:
            if callable(plan.approval):
                entry.phase = Phase.APPROVAL
                self._runner.start_alone(self._judge(entry, plan.approval))
            else:
                self._ask_person(entry)
        else:
            self._queue_on_resources(entry)

    def _take_recorded(self, entry: Entry) -> bool:
        """Whether it ended before: in the run that this one goes on with, or in an earlier process."""
        if entry.plan is None and not isinstance(entry.node, (ModelStep, ToolCall)):
            return False
        ended, decision = self._past.get(entry.id), None
        if ended is not None:
            decision = ended.decision
        elif self._journal is not None:
            ended = self._journal.lookup(entry.id)
            approval = self._journal.approvals.get(entry.id)
            if approval is not None and approval.decision is not None:
                decision = read_decision(approval.decision)
        if ended is None or ended.state not in ("finished", "failed"):
            return False
        entry.source, entry.attempt, entry.value = "journal", ended.attempt, ended.value
        if decision is not None:
            entry.more.decision = decision
            if isinstance(decision, Approve) and decision.arguments is not None:
                entry.node = ToolCall(entry.id, entry.node.name, decision.arguments)
        self._end(entry, ended.state, error=ended.error)
        return True

    def _resolve(self, entry: Entry, plan: Plan) -> bool:
        """Put the values in and validate them; False when that failed."""
        assert entry.bound is not None
        look = self._look_at_reference
        replace = self._value if look is None else partial(self._look_at, look, entry)
        try:
            values: dict[str, object] = {}
            for name, value in entry.bound.items():
                values[name] = value if type(value) in SCALARS else substitute(value, replace)
            if plan.needs:
                needed = {name: value for name, value in values.items() if name in plan.needs}
                given = {name: value for name, value in values.items() if name not in plan.needs}
                entry.arguments = plan.tool.validate(given, needed)
            else:
                entry.arguments = plan.tool.validate(values)
        except ToolError as error:
            self._end(entry, "failed", error=f"not run: {error}")
            return False
        return True

    def _look_at(self, look: LookAtReference, entry: Entry, reference: Reference) -> JSON:
        value = self._value(reference)
        assert isinstance(entry.node, ToolCall)
        look(entry.node, reference, value)
        return value

    def _begin(self, entry: Entry) -> None:
        """Start a step that asks a model, or open a control's body."""
        node = entry.node
        assert not isinstance(node, ToolCall)
        if isinstance(node, ModelStep):
            if node.timeout_s is not None:
                entry.more.timeout_s = node.timeout_s
            self._runner.start(entry)
            return
        entry.phase = Phase.RUNNING
        entry.attempt = 1
        entry.started_s = self._log.note(events.CallStarted, entry.id)
        begin_control(self, entry, node)

    async def _run_model_step(self, entry: Entry) -> JSON:
        node = entry.node
        assert isinstance(node, ModelStep)
        if self._run_model is None:
            raise ToolError("this run has no model to ask")
        values = substitute(node.arguments, self._value)
        return await self._run_model(node, cast("Mapping[str, JSON]", values))

    def finish_control(self, entry: Entry, value: JSON, failure: str | None = None) -> None:
        """A control's body has ended."""
        if entry.has_ended:
            return
        entry.value = value
        self._end(entry, "finished" if failure is None else "failed", error=failure)

    def resolve_value(self, value: object) -> object:
        """A control's value with its references replaced."""
        return substitute(value, self._value)

    def get_entry(self, node_id: str) -> Entry:
        """What is known of a node; for controls."""
        return self._entries[node_id]

    def skip_node(self, node: Node, because: str, parent: str) -> None:
        """A node of a branch that isn't taken: it is told of, and never runs."""
        entry = self._open(node, parent)
        entry.more.because = because
        entry.sealed_s = self._log.now()
        self._end(entry, "skipped", error=f"not run: {because}")
