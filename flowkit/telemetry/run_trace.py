"""One run as spans, made from its log, with the log's times.

Parents are passed explicitly instead of using the current span, since a stream of events crosses tasks.
"""

from collections.abc import Callable

from opentelemetry.context import Context
from opentelemetry.trace import Span, Tracer, set_span_in_context

from flowkit import events
from flowkit.codec import JSON
from flowkit.events import Event, EventLog
from flowkit.telemetry import content, names
from flowkit.telemetry.call_traces import CallTraces
from flowkit.telemetry.guarded import end_span, start_span
from flowkit.telemetry.instruments import Metrics
from flowkit.telemetry.turn_traces import TurnTraces, mark

FAILED = ("failed", "in_doubt", "limit")
"""The statuses of a run that are an error."""


class RunTrace:
    """Listen to one run. Its span starts with `run.started`; all spans end with the run."""

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
        self.calls = CallTraces(log.run_id, tracer, metrics, self._ns, around, content=content)
        self._turns = TurnTraces(log.run_id, tracer, metrics, self._ns, self.calls.describe, content=content)
        self._log = log
        self._tracer = tracer
        self._metrics = metrics
        self._content = content
        self._user = user
        self._on_end = on_end
        self._labels: dict[str, str] = {}
        self._is_agent = False
        self._is_open = True
        # The others come when it has begun, if anybody records.
        self._takers: dict[type[Event], Callable[..., None]] = {events.RunStarted: self._begin}
        self._stop = log.take_notes(self._takers)
        log.on_close.append(self._close)

    def list_takers(self) -> dict[type[Event], Callable[..., None]]:
        """Map each kind of event to its method, which takes the event's `t` and its fields, with the same defaults."""
        calls, turns = self.calls, self._turns
        return {
            events.RunFinished: self._finish,
            events.TurnStarted: turns.take_started,
            events.TurnFinished: turns.take_finished,
            events.TextDelta: turns.take_text,
            events.ThinkingDelta: turns.take_thinking,
            events.UsageReported: turns.take_usage,
            events.CallNew: self._take_new,
            events.CallSealed: calls.take_sealed,
            events.CallWaiting: calls.take_waiting,
            events.CallStarted: calls.take_started,
            events.CallRetried: calls.take_retried,
            events.CallFinished: calls.take_finished,
            events.CallFailed: calls.take_failed,
            events.CallSkipped: calls.take_skipped,
            events.CallDenied: calls.take_denied,
            events.CallCancelled: calls.take_cancelled,
            events.CallVoid: calls.take_void,
            events.CallInDoubt: calls.take_in_doubt,
        }

    def _take_new(self, t: float, call: str, name: str, parent: str | None = None) -> None:
        self.calls.take_new(t, call, name, parent, self._turns)

    def _begin(
        self,
        t: float,
        name: str,
        model: str | None = None,
        user: str | None = None,
        session: str | None = None,
        inputs: JSON = None,
        message: str | None = None,
        at_wall: float | None = None,
    ) -> None:
        self._is_agent = model is not None
        operation = names.INVOKE_AGENT if self._is_agent else names.INVOKE_WORKFLOW
        self._labels = {names.AGENT_NAME if self._is_agent else names.WORKFLOW_NAME: name}
        attributes = {names.OPERATION: operation, **self._labels, names.RUN_ID: self._log.run_id}
        if model is not None:
            attributes[names.REQUEST_MODEL] = model
        if session is not None:
            attributes[names.CONVERSATION_ID] = session
        if self._user and user is not None:
            attributes[names.USER] = user
        if self._content and message is not None:  # not the inputs of a recipe: nobody masks those
            attributes[names.INPUT_MESSAGES] = content.write_said("user", message)
        self.span = start_span(
            self._tracer, f"{operation} {name}", self.around, attributes=attributes, start_time=self.origin_ns
        )
        is_recording = self.span.is_recording()
        self.calls.context = self._turns.around = set_span_in_context(self.span, self.around)
        if self._metrics is None and not is_recording:
            self._stop()  # nobody records, so nobody listens
            return
        self._turns.agent = name
        self._takers.update(self.list_takers())
        if self._metrics is not None:
            self._metrics.active.add(1, self._labels)
        if is_recording:
            self._log.surround(self.calls.enter)
            self._log.listen_to_requests(self._turns.take_request)

    def _finish(
        self,
        t: float,
        status: str,
        output: JSON = None,
        error: str | None = None,
        tips: tuple[str, ...] = (),
        notice: str | None = None,
    ) -> None:
        self._end_open(t)
        assert self.span is not None
        self.span.set_attribute(names.STATE, status)
        if status in FAILED:
            mark(self.span, status, error if self._content else None)
        if self._content and output is not None:
            self.span.set_attribute(names.OUTPUT_MESSAGES, content.write_said("assistant", output))
        end_span(self.span, self._ns(t))
        metrics = self._metrics
        if metrics is not None:
            labels = self._labels | ({names.ERROR_TYPE: status} if status == "failed" else {})
            (metrics.agent_duration if self._is_agent else metrics.workflow_duration).record(t, labels)
            if self._is_agent:
                metrics.inference_calls.record(self._turns.count, self._labels)
                metrics.tool_calls.record(self.calls.count, self._labels)
        self._leave()

    def _close(self) -> None:
        """End open spans of a run without a last event, such as one that was stopped from outside."""
        if self.span is not None and self._is_open:
            now = self._log.now()
            self._end_open(now)
            end_span(self.span, self._ns(now))
            self._leave()
        self._on_end()

    def _leave(self) -> None:
        self._is_open = False
        self._stop()
        if self._metrics is not None:
            self._metrics.active.add(-1, self._labels)

    def _end_open(self, t: float) -> None:
        self._turns.end(t)
        self.calls.end_open(t)

    def _ns(self, t: float) -> int:
        return self.origin_ns + int(t * 1e9)
