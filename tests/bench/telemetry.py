"""What telemetry costs, as CPU of the same 1,000 calls: `python -m tests.bench.telemetry [--json]`.

Off is a process in which `instrument()` was called and ended; unsampled has a provider whose sampler drops all. On is
set against the same calls of a tool that makes the same span by hand, with `start_as_current_span`: the SDK's own cost.
"""

import asyncio
import gc
import sys
import time
from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from flowkit import Executor, Tool, ToolCall, tool
from flowkit.telemetry import instrument, names
from tests.bench.report import Report, wants_json

CALLS = 1000
ROUNDS = 20


@tool
async def noop(x: int) -> int:
    """Give back what came in."""
    return x


def _make_by_hand(provider: TracerProvider) -> Tool[Any, Any]:
    """Make the same tool as who knows nothing of telemetry would trace it: the same span with the same attributes."""
    tracer = provider.get_tracer("by hand")

    @tool(name="noop")
    async def by_hand(x: int) -> int:
        """Give back what came in."""
        attributes: dict[str, str | float] = {
            names.RUN_ID: "0123456789abcdef",
            names.OPERATION: names.EXECUTE_TOOL,
            names.TOOL_NAME: "noop",
            names.TOOL_TYPE: "function",
            names.EFFECT: "read",
            names.CALL_ID: f"c{x}",
            names.WAITED["slot"]: 0.25,
        }
        with tracer.start_as_current_span("execute_tool noop", attributes=attributes) as span:
            span.set_attribute(names.STATE, "finished")
            return x

    return by_hand


async def _call_all(noop: Tool[Any, Any]) -> None:
    async with Executor([noop]) as graph:
        for number in range(CALLS):
            graph.add(ToolCall(f"c{number}", "noop", {"x": number}))
        await graph.wait(*(f"c{number}" for number in range(CALLS)))


def _measure(provider: TracerProvider | None, called: Tool[Any, Any] = noop) -> float:
    stop = None if provider is None else instrument(tracer_provider=provider)
    try:
        gc.collect()
        began = time.process_time()
        asyncio.run(_call_all(called))
        return time.process_time() - began
    finally:
        if stop is not None:
            stop()


def main() -> int:
    """Measure, and print what came of it."""
    report = Report("telemetry", wants_json(sys.argv[1:]))
    exporter = InMemorySpanExporter()
    recording = TracerProvider()
    recording.add_span_processor(SimpleSpanProcessor(exporter))
    dropping = TracerProvider(sampler=ALWAYS_OFF)
    by_hand = _make_by_hand(recording)
    kinds: dict[str, Callable[[], float]] = {
        "off": lambda: _measure(None),
        "unsampled": lambda: _measure(dropping),
        "on": lambda: _measure(recording),
        "by hand": lambda: _measure(None, by_hand),
    }
    found: dict[str, list[float]] = {name: [] for name in kinds}
    order = list(kinds)
    for _ in range(ROUNDS):
        order.append(order.pop(0))  # each comes after another one each time, so that none has the warmer memory
        for name in order:
            found[name].append(kinds[name]())
            exporter.clear()
    best = {name: min(values) for name, values in found.items()}
    spans, own = best["by hand"] - best["off"], best["on"] - best["off"]
    report.row("unsampled / off", best["unsampled"] / best["off"], 1.02)
    report.row(
        "on, beyond off / the same spans by hand",
        own / spans,
        1.3,
        us_a_call=round(own / CALLS * 1e6, 1),
        us_by_hand=round(spans / CALLS * 1e6, 1),
    )
    report.print()
    return 0 if report.is_met else 1


if __name__ == "__main__":
    sys.exit(main())
