"""What telemetry costs, as CPU of the same 1,000 calls: `python -m tests.bench.telemetry [--json]`.

Off is a process in which `instrument()` was called and ended; unsampled has a provider whose sampler drops all. On is
set against the bare calls and the SDK's own cost for as many spans.
"""

import asyncio
import sys
import time

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from flowkit import Executor, ToolCall, tool
from flowkit.telemetry import instrument
from tests.bench.report import Report, wants_json

CALLS = 1000
ROUNDS = 15


@tool
async def noop(x: int) -> int:
    """Give back what came in."""
    return x


async def _call_all() -> None:
    async with Executor([noop]) as graph:
        for number in range(CALLS):
            graph.add(ToolCall(f"c{number}", "noop", {"x": number}))
        await graph.wait(*(f"c{number}" for number in range(CALLS)))


def _measure_calls(provider: TracerProvider | None) -> float:
    stop = None if provider is None else instrument(tracer_provider=provider)
    try:
        began = time.process_time()
        asyncio.run(_call_all())
        return time.process_time() - began
    finally:
        if stop is not None:
            stop()


def _measure_spans(provider: TracerProvider) -> float:
    tracer = provider.get_tracer("bare")
    began = time.process_time()
    for number in range(CALLS):
        attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "noop", "gen_ai.tool.call.id": "c"}
        tracer.start_span("execute_tool noop", attributes=attributes, start_time=number).end(number)
    return time.process_time() - began


def main() -> int:
    """Measure, and print what came of it."""
    report = Report("telemetry", wants_json(sys.argv[1:]))
    exporter = InMemorySpanExporter()
    recording = TracerProvider()
    recording.add_span_processor(SimpleSpanProcessor(exporter))
    dropping = TracerProvider(sampler=ALWAYS_OFF)
    found: dict[str, list[float]] = {"off": [], "unsampled": [], "on": [], "spans": []}
    for _ in range(ROUNDS):
        found["off"].append(_measure_calls(None))
        found["unsampled"].append(_measure_calls(dropping))
        found["on"].append(_measure_calls(recording))
        found["spans"].append(_measure_spans(recording))
        exporter.clear()
    best = {name: min(values) for name, values in found.items()}
    report.row("unsampled / off", best["unsampled"] / best["off"], 1.02)
    cost = (best["on"] - best["off"]) / best["spans"]
    report.row(
        "on, beyond off / the SDK's own spans", cost, 1.3, us_a_call=round((best["on"] - best["off"]) / CALLS * 1e6, 1)
    )
    report.print()
    return 0 if report.is_met else 1


if __name__ == "__main__":
    sys.exit(main())
