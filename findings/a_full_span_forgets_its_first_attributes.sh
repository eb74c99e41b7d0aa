#!/usr/bin/env bash
# OpenTelemetry SDK for Python 1.45.2: a span that is given more attributes than its limit.
# Expected by most, and written in the specification: a new key that would exceed the limit is discarded.
# Seen: the oldest key is discarded instead. So the attributes that are given at the start, which say what the span is,
# are the first to go, and viewers that group by them no longer know it. A key that is set again counts as new.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check opentelemetry-sdk==1.45.2
"$work/venv/bin/python" - <<'PYTHON'
import logging

from opentelemetry.sdk.trace import SpanLimits, TracerProvider

logging.disable()
tracer = TracerProvider(span_limits=SpanLimits(max_span_attributes=3)).get_tracer("finding")
with tracer.start_as_current_span("chat", attributes={"gen_ai.operation.name": "chat"}) as span:
    for number in range(3):
        span.set_attribute(f"message.{number}", "text")
print(dict(span.attributes), span.dropped_attributes)
assert list(span.attributes) == ["message.0", "message.1", "message.2"]
assert span.dropped_attributes == 1

with tracer.start_as_current_span("chat", attributes={"first": 1, "second": 2, "third": 3}) as span:
    span.set_attribute("first", "again")
    span.set_attribute("fourth", 4)
print(dict(span.attributes))
assert list(span.attributes) == ["third", "first", "fourth"]
PYTHON
echo "as stated"
