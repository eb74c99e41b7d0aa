"""The calls of one run as spans, made from the events of the run's log.

A call has no span while it waits: one is begun when the call first runs, or when it ends without having run. What it
waited for, and whom it is linked to, is known by then. Only inside an attempt is a call's span current, so that what
the tool does hangs below it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, Tracer, set_span_in_context

from flowkit.codec import JSON
from flowkit.masking import show_arguments
from flowkit.references import SCALARS, ToolCall
from flowkit.telemetry import content, names
from flowkit.telemetry.guarded import end_span, start_span
from flowkit.telemetry.instruments import Metrics
from flowkit.telemetry.turn_traces import TurnTraces, mark

INSIDE_AGENT = ("turn/", "prefetch/")
"""How the ids of an agent's own calls begin; told again in the run around it, they follow the call's id."""

Attributes = dict[str, str | int | float | bool]


@dataclass(slots=True)
class CallTrace:
    """The state of a call, from its first event on."""

    id: str
    name: str
    parent: "CallTrace | None" = None
    asked_by: SpanContext | None = None
    sealed_s: float | None = None
    arguments: JSON = None
    repaired: int = 0
    started_s: float | None = None
    attempt: int = 1
    effect: str | None = None
    span: Span | None = None
    """While it runs."""
    where: SpanContext | None = None
    """Where its span is, from its beginning on; links lead there."""
    is_tool: bool = True
    around: Context | None = None
    """The context that its span stands in."""
    waiting: tuple[str, float] | None = None
    waited: dict[str, float] | None = None
    edges: dict[str, str] | None = None
    has_ended: bool = False


class CallTraces:
    """Make the span of each call; `context` is the parent of the run's own calls.

    A method that takes an event is given its `t`, and its values with the defaults of its kind.
    """

    def __init__(
        self,
        run_id: str,
        tracer: Tracer,
        metrics: Metrics | None,
        ns: Callable[[float], int],
        around: Context,
        *,
        content: bool,
    ) -> None:
        self.context = around
        self.count = 0
        """How many tools have run."""
        self.nested: set[str] = set()
        """The calls that are runs of their own: what is told again of them here belongs to those."""
        self._known: dict[str, CallTrace] = {}
        self._hidden: set[str] = set()
        self._run_id = run_id
        self._tracer = tracer
        self._metrics = metrics
        self._ns = ns
        self._content = content
        self._heads: dict[tuple[str, str | None], tuple[str, Attributes]] = {}

    def find_context(self, call: str) -> Context:
        """Return the context for children of a call, or of the run if the call has no span."""
        known = self._known.get(call)
        return self.context if known is None or known.span is None else set_span_in_context(known.span, known.around)

    def describe(self, call: str) -> JSON:
        """Show a call as a part of an answer."""
        known = self._known[call]
        # One that is held until its turn has ended isn't sealed yet: its own span has its arguments.
        return {"type": "tool_call", "id": call, "name": known.name, "arguments": known.arguments}

    def enter(self, call: str) -> Callable[[], None]:
        """Make a call's span the current one; return a function that undoes it."""
        known = self._known.get(call)
        if known is None or known.span is None:
            return _nothing
        inside = set_span_in_context(known.span, known.around)
        token = otel_context.attach(inside)

        def leave() -> None:
            # A task that is thrown away ends in a context of its own, where there is nothing to leave.
            if otel_context.get_current() is inside:
                otel_context.detach(token)

        return leave

    def end_open(self, t: float) -> None:
        """End the spans of calls that are still running."""
        for call in self._known.values():
            if call.span is not None:
                self._end_span(call, call.span, t, "cancelled", None)

    # Events before it runs

    def take_new(self, t: float, call: str, name: str, parent: str | None, turns: TurnTraces) -> None:
        """Note a call that begins to exist."""
        if parent is None:
            asked_by = turns.ask(call, t) if call.startswith("turn/") and call.count("/") == 3 else None
            self._known[call] = CallTrace(call, name, None, asked_by)
        elif parent in self._hidden or self._is_told_again(call, parent):
            self._hidden.add(call)
        else:
            self._known[call] = CallTrace(call, name, self._known.get(parent))

    def _is_told_again(self, call: str, parent: str) -> bool:
        """Return whether it is a call of a run inside `parent`, which has its own trace."""
        return parent in self.nested and call.startswith(tuple(f"{parent}/{head}" for head in INSIDE_AGENT))

    def _find(self, call: str) -> CallTrace | None:
        """Find a call that isn't known: one that another run's trace has, or one whose beginning wasn't noted."""
        if call in self._hidden:
            return None
        known = self._known[call] = CallTrace(call, call)
        return known

    def take_sealed(self, t: float, call: str, arguments: object, repaired: tuple[str, ...] = ()) -> None:
        """Record the arguments of a call, from a `ToolCall` or as an event shows them."""
        known = self._known.get(call) or self._find(call)
        if known is None:
            return
        known.sealed_s = t
        known.repaired = len(repaired)
        given = arguments.arguments if isinstance(arguments, ToolCall) else arguments
        if not self._content and isinstance(given, dict) and SCALARS.issuperset(map(type, given.values())):  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            return
        shown: JSON = show_arguments(arguments.arguments) if isinstance(arguments, ToolCall) else arguments  # pyright: ignore[reportAssignmentType]  # what else an event shows is JSON
        if self._content:
            known.arguments = shown
        for other in find_labels(shown):
            if other in self._known:
                self._add_edge(known, other, "reference")

    def take_waiting(self, t: float, call: str, waiting_for: str, on: tuple[str, ...] = ()) -> None:
        """Note that a call begins to wait."""
        known = self._known.get(call) or self._find(call)
        if known is None:
            return
        if known.waiting is not None:
            self._end_wait(known, t)
        known.waiting = waiting_for, t
        if waiting_for == "calls":
            for other in on:
                self._add_edge(known, other, "need")

    def _add_edge(self, call: CallTrace, other: str, kind: str) -> None:
        if call.edges is None:
            call.edges = {}
        if other not in call.edges:
            call.edges[other] = kind
            known = self._known.get(other)
            if call.span is not None and known is not None and known.where is not None:
                call.span.add_link(known.where, {names.EDGE: kind})

    def _end_wait(self, call: CallTrace, t: float) -> None:
        assert call.waiting is not None
        kind, since = call.waiting
        call.waiting = None
        if call.waited is None:
            call.waited = {}
        name = names.WAITED[kind]
        call.waited[name] = call.waited.get(name, 0.0) + t - since
        if kind == "approval" and self._metrics is not None:
            self._metrics.approvals_wait.record(t - since, {names.TOOL_NAME: call.name})

    # Events from when it runs

    def take_started(
        self, t: float, call: str, attempt: int = 1, early: bool = False, effect: str | None = None
    ) -> None:
        """Begin the span of a call that runs."""
        known = self._known.get(call) or self._find(call)
        if known is None:
            return
        if known.waiting is not None:
            self._end_wait(known, t)
        known.attempt = attempt
        if known.span is None:
            known.effect = effect
            known.started_s = t
            known.span = self._start_span(known, t, effect is not None, {names.EARLY: True} if early else None)

    def _start_span(self, call: CallTrace, t: float, is_tool: bool, more: Attributes | None = None) -> Span:
        call.is_tool = is_tool
        key = (call.name, call.effect if is_tool else "")
        head = self._heads.get(key)
        if head is None:
            head = self._heads[key] = self._make_head(call, is_tool)
        title, attributes = head
        attributes = {**attributes, names.CALL_ID if is_tool else names.NODE_ID: call.id}
        if call.waited is not None:
            attributes |= call.waited
            call.waited = None
        if more is not None:
            attributes |= more
        above = call.parent
        # What a call needs says who needs it, but isn't inside it: that one has no span yet.
        around = self.context if above is None or above.span is None else set_span_in_context(above.span, above.around)
        call.around = around
        span = start_span(
            self._tracer, title, around, attributes=attributes, links=self._make_links(call), start_time=self._ns(t)
        )
        call.where = span.get_span_context()
        return span

    def _make_head(self, call: CallTrace, is_tool: bool) -> tuple[str, Attributes]:
        """Make the attributes shared by the spans of all calls of a tool."""
        attributes: Attributes = {names.RUN_ID: self._run_id}
        if not is_tool:
            return call.name, attributes
        attributes |= {names.OPERATION: names.EXECUTE_TOOL, names.TOOL_NAME: call.name, names.TOOL_TYPE: "function"}
        if call.effect is not None:
            attributes[names.EFFECT] = call.effect
        return f"{names.EXECUTE_TOOL} {call.name}", attributes

    def _make_links(self, call: CallTrace) -> list[Link] | None:
        if call.asked_by is None and call.edges is None:
            return None
        links = [] if call.asked_by is None else [Link(call.asked_by, {names.EDGE: "asked"})]
        for other, kind in (call.edges or {}).items():
            known = self._known.get(other)
            if known is not None and known.where is not None:
                links.append(Link(known.where, {names.EDGE: kind}))
        return links

    def take_retried(self, t: float, call: str, error: str, delay_s: float, error_type: str | None = None) -> None:
        """Note that an attempt failed and another follows."""
        known = self._known.get(call) or self._find(call)
        if known is not None and known.span is not None:
            known.span.add_event("retry", {names.ERROR_TYPE: error_type or "error"}, self._ns(t))

    # How it ended

    def take_finished(
        self,
        t: float,
        call: str,
        value: JSON = None,
        source: str = "run",
        age_s: float | None = None,
        ended_s: float | None = None,
    ) -> None:
        """End the span of a call with a result, whatever its source."""
        known = self._known.get(call) or self._find(call)
        if known is None or known.has_ended:
            return
        if source == "flight" and known.edges is not None:
            known.edges = dict.fromkeys(known.edges, "flight")
        end_s = t if ended_s is None else ended_s
        span = self._find_span(known, end_s)
        if source != "run":
            span.set_attribute(names.SOURCE, source)
            if source != "journal" and self._metrics is not None:
                self._metrics.lookups.add(1, {names.LOOKUP_RESULT: "hit" if source == "cache" else "flight"})
        if age_s is not None:
            span.set_attribute(names.AGE_S, age_s)
        if self._content and known.is_tool:
            span.set_attribute(names.CALL_RESULT, content.write(value))
        self._end_span(known, span, end_s, "finished", None)

    def take_failed(
        self, t: float, call: str, error: str, ended_s: float | None = None, error_type: str | None = None
    ) -> None:
        """End the span of a call that failed."""
        self._end(call, t if ended_s is None else ended_s, "failed", error, error_type or "failed")

    def take_in_doubt(self, t: float, call: str, reason: str = "") -> None:
        """End the span of a write that may have happened."""
        self._end(call, t, "in_doubt", reason, "in_doubt")

    def take_skipped(self, t: float, call: str, because: str) -> None:
        """End the span of a call that was skipped because a dependency failed."""
        self._end(call, t, "skipped")

    def take_denied(self, t: float, call: str, reason: str = "") -> None:
        """End the span of a denied call."""
        self._end(call, t, "denied")

    def take_cancelled(self, t: float, call: str, reason: str = "", waits: bool = False) -> None:
        """End the span of a cancelled call."""
        self._end(call, t, "cancelled")

    def take_void(self, t: float, call: str, reason: str = "") -> None:
        """End a call that never was complete; one that hasn't run never was more than a piece of an answer."""
        known = self._known.get(call) or self._find(call)
        if known is not None and known.span is None:
            known.has_ended = True
        else:
            self._end(call, t, "void")

    def _end(self, call: str, t: float, state: str, error: str = "", error_type: str | None = None) -> None:
        known = self._known.get(call) or self._find(call)
        if known is None or known.has_ended:
            return
        span = self._find_span(known, t)
        if error_type is not None:
            mark(span, error_type, error if self._content else None)
        self._end_span(known, span, t, state, error_type)

    def _find_span(self, call: CallTrace, t: float) -> Span:
        """Find the span of a finished call; if the call never ran, make a short span that starts when it was sealed."""
        if call.waiting is not None:
            self._end_wait(call, t)
        if call.span is None:
            return self._start_span(call, t if call.sealed_s is None else min(call.sealed_s, t), is_tool=True)
        return call.span

    def _end_span(self, call: CallTrace, span: Span, t: float, state: str, error_type: str | None) -> None:
        call.has_ended = True
        call.span = call.around = None
        span.set_attribute(names.STATE, state)
        if call.attempt > 1:
            span.set_attribute(names.ATTEMPT, call.attempt)
        if call.repaired:
            span.set_attribute(names.REPAIRED, call.repaired)
        if call.waited is not None:
            span.set_attributes(call.waited)
        if self._content and call.is_tool and call.sealed_s is not None:
            span.set_attribute(names.CALL_ARGUMENTS, content.write(call.arguments))
        began = t if call.started_s is None else call.started_s
        end_span(span, self._ns(max(t, began)))
        if call.effect is not None:
            self.count += 1
            if self._metrics is not None:
                labels = {names.TOOL_NAME: call.name, names.STATE: state}
                if error_type is not None:
                    labels[names.ERROR_TYPE] = error_type
                self._metrics.tool_duration.record(max(0.0, t - began), labels)


def find_labels(arguments: JSON) -> list[str]:
    """Find the calls that arguments refer to, as events show them."""
    if isinstance(arguments, dict):
        label = arguments.get("from_call")
        if isinstance(label, str) and arguments.keys() == {"from_call", "path"}:
            return [label]
        return [found for value in arguments.values() if isinstance(value, dict | list) for found in find_labels(value)]
    if isinstance(arguments, list):
        return [found for value in arguments if isinstance(value, dict | list) for found in find_labels(value)]
    return []


def _nothing() -> None:
    pass
