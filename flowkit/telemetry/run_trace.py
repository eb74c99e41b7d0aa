"""One run as spans, made from its events with their own times.

Parents are given, never what happens to be current: a stream of events crosses tasks. Only inside an attempt at a call
is that call's span current, so that what the tool does hangs below it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, Tracer, set_span_in_context

from flowkit import events
from flowkit.codec import JSON
from flowkit.events import Event, EventLog
from flowkit.telemetry import content, names
from flowkit.telemetry.instruments import Metrics
from flowkit.telemetry.turn_traces import TurnTraces, mark

INSIDE_AGENT = ("turn/", "prefetch/")
"""How the ids of an agent's own calls begin; told again in the run around it, they follow the call's id."""


@dataclass(slots=True)
class CallTrace:
    """What is known of a call, from its first event on."""

    id: str
    name: str
    parent: "CallTrace | None"
    asked_by: SpanContext | None
    new_s: float
    sealed_s: float | None = None
    arguments: JSON = None
    repaired: int = 0
    started_s: float | None = None
    effect: str | None = None
    span: Span | None = None
    context: Context | None = None
    waiting: tuple[str, float] | None = None
    waited: dict[str, float] = field(default_factory=dict[str, float])
    edges: dict[str, str] = field(default_factory=dict[str, str])
    has_ended: bool = False


class RunTrace:
    """Listens to the events of one run; its span begins with `run.started`, and all are ended with the run."""

    def __init__(
        self,
        log: EventLog,
        tracer: Tracer,
        metrics: Metrics | None,
        around: Context,
        origin_ns: int,
        *,
        content: bool,
        user: bool,
        on_end: Callable[[], None],
    ) -> None:
        self.origin_ns = origin_ns
        """The time of the wall's clock at which the run began."""
        self.span: Span | None = None
        self.around = around
        self.nested: set[str] = set()
        """The calls that are runs of their own: what is told again of them here belongs to those."""
        self.calls: dict[str, CallTrace] = {}
        self._hidden: set[str] = set()
        self._log = log
        self._tracer = tracer
        self._metrics = metrics
        self._content = content
        self._user = user
        self._on_end = on_end
        self._context = around
        self._name = ""
        self._is_agent = False
        self._began_s = 0.0
        self._turns = TurnTraces(tracer, metrics, self._ns, self._describe, content=content)
        self._tools = 0
        self._is_recording = False
        self._stop = log.listen(self._take)
        log.on_close.append(self._close)

    @property
    def is_recording(self) -> bool:
        """Whether anybody will see its spans."""
        return self._is_recording

    def find_context(self, call: str) -> Context:
        """Find what hangs below a call, or below the run where that has no span."""
        known = self.calls.get(call)
        return self._context if known is None or known.context is None else known.context

    # The run

    def _begin(self, event: events.RunStarted) -> None:
        self._name, self._is_agent = event.name, event.model is not None
        operation = names.INVOKE_AGENT if self._is_agent else names.INVOKE_WORKFLOW
        attributes: dict[str, Any] = {
            names.OPERATION: operation,
            names.AGENT_NAME if self._is_agent else names.WORKFLOW_NAME: event.name,
            names.RUN_ID: event.run,
        }
        if event.model is not None:
            attributes[names.REQUEST_MODEL] = event.model
        if event.session is not None:
            attributes[names.CONVERSATION_ID] = event.session
        if self._user and event.user is not None:
            attributes[names.USER] = event.user
        self.span = self._tracer.start_span(
            f"{operation} {event.name}", self.around, attributes=attributes, start_time=self.origin_ns
        )
        self._context = set_span_in_context(self.span, self.around)
        self._turns.agent, self._turns.around = event.name, self._context
        self._is_recording = self.span.is_recording()
        if self._metrics is not None:
            self._metrics.active.add(1, self._labels)
        elif not self._is_recording:
            self._stop()  # nobody records, so nobody listens
        if self._is_recording:
            self._log.surround(self._enter)
            self._log.listen_to_requests(self._turns.take_request)

    @property
    def _labels(self) -> dict[str, str]:
        return {names.AGENT_NAME if self._is_agent else names.WORKFLOW_NAME: self._name}

    def _finish(self, event: events.RunFinished) -> None:
        self._end_open(event.t)
        assert self.span is not None
        self.span.set_attribute(names.STATE, event.status)
        if event.status in ("failed", "in_doubt", "limit"):
            mark(self.span, event.status, event.error if self._content else None)
        if self._content and event.output is not None:
            self.span.set_attribute(names.OUTPUT_MESSAGES, content.write(event.output))
        self.span.end(self._ns(event.t))
        metrics = self._metrics
        if metrics is not None:
            labels = self._labels | ({names.ERROR_TYPE: event.status} if event.status == "failed" else {})
            (metrics.agent_duration if self._is_agent else metrics.workflow_duration).record(event.t, labels)
            if self._is_agent:
                metrics.inference_calls.record(self._turns.count, self._labels)
                metrics.tool_calls.record(self._tools, self._labels)
        self._leave()

    def _close(self) -> None:
        """End what is open where the run had no last event, as one that was stopped from outside."""
        if self.span is not None and self._is_open:
            now = self._log.now()
            self._end_open(now)
            self.span.end(self._ns(now))
            self._leave()
        self._on_end()

    _is_open = True

    def _leave(self) -> None:
        self._is_open = False
        self._stop()
        if self._metrics is not None:
            self._metrics.active.add(-1, self._labels)

    def _end_open(self, t: float) -> None:
        self._turns.end(t)
        for call in self.calls.values():
            if not call.has_ended and call.span is not None:
                self._end_call(call, "cancelled", t)

    # Events

    def _take(self, event: Event) -> None:
        handle = _HANDLERS.get(type(event))
        if handle is None or (self.span is None and type(event) is not events.RunStarted):
            return
        handle(self, event)

    def _find(self, call: str, event: Event) -> CallTrace | None:
        if call in self._hidden:
            return None
        known = self.calls.get(call)
        if known is None:
            known = self.calls[call] = CallTrace(call, call, None, None, event.t)
        return known

    def _new(self, event: events.CallNew) -> None:
        parent = event.parent
        if parent is not None and (parent in self._hidden or self._is_told_again(event.call, parent)):
            self._hidden.add(event.call)
            return
        asked_by = None
        if parent is None and event.call.startswith("turn/") and event.call.count("/") == 3:
            asked_by = self._turns.ask(event)
        above = None if parent is None else self.calls.get(parent)
        self.calls[event.call] = CallTrace(event.call, event.name, above, asked_by, event.t)

    def _is_told_again(self, call: str, parent: str) -> bool:
        """Whether it is a call of a run inside `parent`, which has its own trace."""
        return parent in self.nested and call.startswith(tuple(f"{parent}/{head}" for head in INSIDE_AGENT))

    def _sealed(self, event: events.CallSealed) -> None:
        call = self._find(event.call, event)
        if call is None:
            return
        call.sealed_s = event.t
        call.repaired = len(event.repaired)
        if self._content:
            call.arguments = event.arguments
        for other in find_labels(event.arguments):
            if other in self.calls:
                self._add_edge(call, other, "reference")

    def _waiting(self, event: events.CallWaiting) -> None:
        call = self._find(event.call, event)
        if call is None:
            return
        self._end_wait(call, event.t)
        call.waiting = event.waiting_for, event.t
        if event.waiting_for == "calls":
            for other in event.on:
                self._add_edge(call, other, "need")

    def _add_edge(self, call: CallTrace, other: str, kind: str) -> None:
        if other not in call.edges:
            call.edges[other] = kind
            known = self.calls.get(other)
            if call.span is not None and known is not None and known.span is not None:
                call.span.add_link(known.span.get_span_context(), {names.EDGE: kind})

    def _end_wait(self, call: CallTrace, t: float) -> None:
        if call.waiting is not None:
            kind, since = call.waiting
            call.waiting = None
            call.waited[kind] = call.waited.get(kind, 0.0) + t - since
            if kind == "approval" and self._metrics is not None:
                self._metrics.approvals_wait.record(t - since, {names.TOOL_NAME: call.name})

    def _started(self, event: events.CallStarted) -> None:
        call = self._find(event.call, event)
        if call is None:
            return
        self._end_wait(call, event.t)
        call.effect = event.effect
        if call.span is None:
            call.started_s = event.t
            self._open_call(call, event.t, is_tool=event.effect is not None)
        assert call.span is not None
        if event.early:
            call.span.set_attribute(names.EARLY, True)
        if event.attempt > 1:
            call.span.set_attribute(names.ATTEMPT, event.attempt)

    def _open_call(self, call: CallTrace, t: float, *, is_tool: bool) -> None:
        attributes: dict[str, Any] = {names.RUN_ID: self._log.run_id, names.CALL_ID: call.id}
        if is_tool:
            attributes |= {names.OPERATION: names.EXECUTE_TOOL, names.TOOL_NAME: call.name, names.TOOL_TYPE: "function"}
        if call.effect is not None:
            attributes[names.EFFECT] = call.effect
        links = [] if call.asked_by is None else [Link(call.asked_by, {names.EDGE: "asked"})]
        for other, kind in call.edges.items():
            known = self.calls.get(other)
            if known is not None and known.span is not None:
                links.append(Link(known.span.get_span_context(), {names.EDGE: kind}))
        above, around = call.parent, self._context
        # What a call needs says who needs it, but isn't inside it: that one has no span yet.
        if above is not None and above.context is not None and not above.has_ended:
            around = above.context
        call.span = self._tracer.start_span(
            f"{names.EXECUTE_TOOL} {call.name}" if is_tool else call.name,
            around,
            attributes=attributes,
            links=links,
            start_time=self._ns(t),
        )
        call.context = set_span_in_context(call.span, around)

    def _retried(self, event: events.CallRetried) -> None:
        call = self._find(event.call, event)
        if call is not None and call.span is not None:
            attributes = {names.ERROR_TYPE: event.error_type or "error"}
            call.span.add_event("retry", attributes, self._ns(event.t))

    def _ended(self, event: Any) -> None:
        call = self._find(event.call, event)
        if call is None or call.has_ended:
            return
        ended_s = getattr(event, "ended_s", None)
        t = event.t if ended_s is None else ended_s
        state = _STATES[type(event)]
        error: str | None = None
        error_type: str | None = None
        source = "run"
        if isinstance(event, events.CallFinished):
            source = event.source
        elif isinstance(event, events.CallFailed):
            error, error_type = event.error, event.error_type or "failed"
        elif isinstance(event, events.CallInDoubt):
            error, error_type = event.reason, "in_doubt"
        self._end_wait(call, t)
        if call.span is None:
            if state == "void":
                call.has_ended = True
                return  # it never was more than a piece of an answer
            if source == "flight":
                call.edges = dict.fromkeys(call.edges, "flight")
            self._open_call(call, t if call.sealed_s is None else min(call.sealed_s, t), is_tool=True)
        assert call.span is not None
        if isinstance(event, events.CallFinished):
            if source != "run":
                call.span.set_attribute(names.SOURCE, source)
            if event.age_s is not None:
                call.span.set_attribute(names.AGE_S, event.age_s)
            if self._content:
                call.span.set_attribute(names.CALL_RESULT, content.write(event.value))
            if source in ("cache", "flight") and self._metrics is not None:
                self._metrics.lookups.add(1, {"flowkit.result": "hit" if source == "cache" else "flight"})
        if error_type is not None:
            mark(call.span, error_type, error if self._content else None)
        self._end_call(call, state, t, error_type)

    def _end_call(self, call: CallTrace, state: str, t: float, error_type: str | None = None) -> None:
        assert call.span is not None
        call.has_ended = True
        span = call.span
        span.set_attribute(names.STATE, state)
        if call.repaired:
            span.set_attribute(names.REPAIRED, call.repaired)
        for kind, seconds in call.waited.items():
            span.set_attribute(f"{names.WAITED}{kind}_s", seconds)
        if self._content and call.sealed_s is not None:
            span.set_attribute(names.CALL_ARGUMENTS, content.write(call.arguments))
        began = t if call.started_s is None else call.started_s
        span.end(self._ns(max(t, began)))
        if call.effect is not None:
            self._tools += 1
            if self._metrics is not None:
                labels = {names.TOOL_NAME: call.name, names.STATE: state}
                if error_type is not None:
                    labels[names.ERROR_TYPE] = error_type
                self._metrics.tool_duration.record(max(0.0, t - began), labels)

    # Helpers

    def _enter(self, call: str) -> Callable[[], None]:
        known = self.calls.get(call)
        if known is None or known.context is None or known.has_ended:
            return _nothing
        inside = known.context
        token = otel_context.attach(inside)

        def leave() -> None:
            # A task that is thrown away ends in a context of its own, where there is nothing to leave.
            if otel_context.get_current() is inside:
                otel_context.detach(token)

        return leave

    def _describe(self, call: str) -> JSON:
        """Show a call as a part of an answer."""
        known = self.calls[call]
        # One that is held until its turn has ended isn't sealed yet: its own span has its arguments.
        return {"type": "tool_call", "id": call, "name": known.name, "arguments": known.arguments}

    def _turn(self, event: Any) -> None:
        self._turns.take(event)

    def _ns(self, t: float) -> int:
        return self.origin_ns + int(t * 1e9)


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


_STATES: Mapping[type[Event], str] = {
    events.CallFinished: "finished",
    events.CallFailed: "failed",
    events.CallSkipped: "skipped",
    events.CallDenied: "denied",
    events.CallCancelled: "cancelled",
    events.CallVoid: "void",
    events.CallInDoubt: "in_doubt",
}
_HANDLERS: Mapping[type[Event], Callable[[RunTrace, Any], None]] = {
    events.RunStarted: RunTrace._begin,  # pyright: ignore[reportPrivateUsage]
    events.RunFinished: RunTrace._finish,  # pyright: ignore[reportPrivateUsage]
    events.TurnStarted: RunTrace._turn,  # pyright: ignore[reportPrivateUsage]
    events.TurnFinished: RunTrace._turn,  # pyright: ignore[reportPrivateUsage]
    events.TextDelta: RunTrace._turn,  # pyright: ignore[reportPrivateUsage]
    events.ThinkingDelta: RunTrace._turn,  # pyright: ignore[reportPrivateUsage]
    events.UsageReported: RunTrace._turn,  # pyright: ignore[reportPrivateUsage]
    events.CallNew: RunTrace._new,  # pyright: ignore[reportPrivateUsage]
    events.CallSealed: RunTrace._sealed,  # pyright: ignore[reportPrivateUsage]
    events.CallWaiting: RunTrace._waiting,  # pyright: ignore[reportPrivateUsage]
    events.CallStarted: RunTrace._started,  # pyright: ignore[reportPrivateUsage]
    events.CallRetried: RunTrace._retried,  # pyright: ignore[reportPrivateUsage]
    **dict.fromkeys(_STATES, RunTrace._ended),  # pyright: ignore[reportPrivateUsage]
}
