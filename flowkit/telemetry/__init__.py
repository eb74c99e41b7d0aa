"""OpenTelemetry: `instrument()` records spans and metrics of every run that starts afterwards.

It needs `opentelemetry-api` (the extra `otel`). The program brings the SDK and the exporter; without them, and for
runs that aren't sampled, nothing is recorded.
"""

import os
import time
from collections.abc import Callable
from importlib.util import find_spec

from flowkit.errors import ConfigurationError
from flowkit.events import EventLog
from flowkit.observers import observe

if find_spec("opentelemetry") is None:
    raise ConfigurationError("telemetry needs opentelemetry-api: pip install 'flowkit-agents[otel]'")

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace

from flowkit.telemetry.instruments import Metrics
from flowkit.telemetry.names import SCHEMA_URL
from flowkit.telemetry.run_trace import RunTrace

CONTENT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
SCOPE = "flowkit"

_stop: Callable[[], None] | None = None


def instrument(
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    content: bool | None = None,
    user: bool = False,
) -> Callable[[], None]:
    """Record every run that starts from now on; return a function that stops it. A second call replaces the first.

    The providers default to the program's global ones. With `content`, messages, arguments and
    results are recorded, with secrets masked; if omitted, the variable
    `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` decides. With `user` the run's user is named.
    """
    global _stop
    if content is None:
        content = os.environ.get(CONTENT_VARIABLE, "").lower() == "true"
    if _stop is not None:
        _stop()
    _stop = observe(_Instrumented(tracer_provider, meter_provider, content=content, user=user).begin)
    return _stop


class _Instrumented:
    """The arguments of `instrument`, and the live runs."""

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None,
        meter_provider: metrics.MeterProvider | None,
        *,
        content: bool,
        user: bool,
    ) -> None:
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider, schema_url=SCHEMA_URL)
        self._meter_provider = meter_provider
        self._metrics: Metrics | None = None
        self._content = content
        self._user = user
        self._traces: dict[EventLog, RunTrace] = {}

    def begin(self, log: EventLog, outer_log: EventLog | None) -> None:
        """Follow a run that begins."""
        around = otel_context.get_current()
        outer = None if outer_log is None else self._traces.get(outer_log)
        if outer is None or outer_log is None:
            origin_ns = time.time_ns() - int(log.now() * 1e9)
        else:
            # One clock for both, so that nothing begins before what it is in.
            origin_ns = outer.origin_ns + int((log.began - outer_log.began) * 1e9)
            call = log.run_id.removeprefix(f"{outer_log.run_id}/")
            outer.calls.nested.add(call)
            if trace.get_current_span(around) is trace.get_current_span(outer.around):
                around = outer.calls.find_context(call)
        self._traces[log] = RunTrace(
            log,
            self._tracer,
            self._find_metrics(),
            around,
            origin_ns,
            content=self._content,
            user=self._user,
            on_end=lambda: self._forget(log),
        )

    def _forget(self, log: EventLog) -> None:
        self._traces.pop(log, None)

    def _find_metrics(self) -> Metrics | None:
        """Find the instruments.

        None while nothing reads them, which may change until the program has set its provider.
        """
        if self._metrics is None:
            provider = self._meter_provider or metrics.get_meter_provider()
            if not _is_of_api(provider):
                meter = provider.get_meter(SCOPE, schema_url=SCHEMA_URL)
                self._metrics = None if _is_of_api(meter) else Metrics(meter)
        return self._metrics


def _is_of_api(found: object) -> bool:
    """Return whether it is one of the API's own, which do nothing."""
    return type(found).__module__.startswith("opentelemetry.metrics")
