#!/usr/bin/env bash
# OpenTelemetry SDK for Python 1.45.2: a span around a call that is cancelled, by a time-out or by a sibling's failure.
# Expected by most: what leaves a span by an exception marks it as an error and is written down in it, as the options
# `record_exception` and `set_status_on_exception` say, which are on.
# Seen: nothing is: the status is unset and no event is there, so the call looks like one that ended.
# CancelledError is a BaseException, and only Exceptions are recorded. A rate of errors doesn't show the time-outs.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check opentelemetry-sdk==1.45.2
"$work/venv/bin/python" - <<'PYTHON'
import asyncio

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

tracer = TracerProvider().get_tracer("shop")
spans: list[ReadableSpan] = []


async def call(error: Exception | None = None) -> None:
    with tracer.start_as_current_span("call") as span:
        spans.append(span)
        if error:
            raise error
        await asyncio.Event().wait()


async def main() -> None:
    for error, expected in ((ValueError("no such order"), ValueError), (None, TimeoutError)):
        try:
            async with asyncio.timeout(0.01):
                await call(error)
        except expected:
            continue
        raise AssertionError("no error")


asyncio.run(main())
seen = [(span.status.status_code.name, [event.name for event in span.events]) for span in spans]
print(seen)
assert seen == [("ERROR", ["exception"]), ("UNSET", [])], seen
assert all(span.end_time for span in spans)
PYTHON
echo "as stated"
