#!/usr/bin/env bash
# OpenTelemetry 1.45.2 and an asynchronous generator that opens a span, as a streamed answer does.
# Expected by most: a span that is current inside of the generator is current there only, as a local variable would be.
# Seen: while it streams, the span is current for the one who reads it, whose own spans hang below it; and whoever stops
# reading early stays below it for good, though the span of its own is open. An asynchronous generator shares the context
# of its reader, and what it set is taken back only when it ends.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check opentelemetry-sdk==1.45.2
"$work/venv/bin/python" - <<'PYTHON'
import asyncio
import logging

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

logging.disable()
tracer = TracerProvider().get_tracer("finding")


async def stream():
    with tracer.start_as_current_span("model"):
        yield "Hel"
        yield "lo"


def current() -> str:
    return trace.get_current_span().name


async def main() -> None:
    seen = []
    with tracer.start_as_current_span("request"):
        async for _ in stream():
            seen.append(current())
        seen.append(current())
    with tracer.start_as_current_span("request"):
        pieces = stream()
        async for _ in pieces:
            break
        seen.append(current())
    print(seen)
    assert seen == ["model", "model", "request", "model"], seen


asyncio.run(main())
PYTHON
echo "as stated"
