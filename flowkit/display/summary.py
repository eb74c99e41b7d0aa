"""The figures of a run, from its events alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from flowkit.display.words import say_arguments, say_count
from flowkit.events import (
    CallArguments,
    CallNew,
    CallSealed,
    Event,
    RunFinished,
    TextDelta,
    ThinkingDelta,
    UsageReported,
)
from flowkit.graph.pictures.timeline import fold, format_seconds
from flowkit.messages import Usage

WORTH_SAYING_S = 0.01
"""What is saved is said from here on; less is within the error of measuring it."""

_TOKENS = (TextDelta, ThinkingDelta, CallArguments)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run took.

    `tools_s` adds up the time of every call that ran, and only of the innermost where one calls another. `saved_s` is
    the time that the same calls and turns would have taken longer in sequence, without the prefetched reads that nobody
    used: computed, not measured.
    """

    wall_s: float
    first_token_s: float | None
    tools_s: float
    saved_s: float
    turns: int
    calls: int
    from_cache: int
    usage: Usage
    cost_usd: float | None
    tips: tuple[str, ...]
    is_parallel: bool = False
    """Whether calls ran in parallel; otherwise time is saved by a call that ran while the model was streaming."""
    unused: tuple[str, ...] = ()
    """The prefetched reads that the model did not ask for, as one would write the calls."""


def summarise(events: Sequence[Event]) -> Summary:
    """Summarise these events, also of a run in progress."""
    timeline = fold(events)
    spans = [(turn.started_s, timeline.wall_s if turn.ended_s is None else turn.ended_s) for turn in timeline.turns]
    unused = _find_unused(events)
    used = [call for call in timeline.leaves if call.id not in unused]
    calls = [(call.started_s or 0.0, call.ended_s) for call in used if call.ended_s is not None]
    spans += calls
    holders = {call.parent for call in timeline.calls.values()}
    usages = [event for event in events if isinstance(event, UsageReported)]
    costs = [usage.cost_usd for usage in usages if usage.cost_usd is not None]
    return Summary(
        wall_s=timeline.wall_s,
        first_token_s=next((event.t for event in events if isinstance(event, _TOKENS)), None),
        tools_s=sum(call.duration_s for call in timeline.leaves),
        saved_s=_shared_s(spans),
        turns=len({turn.turn for turn in timeline.turns}),
        calls=len(timeline.calls.keys() - holders),
        from_cache=sum(call.source == "cache" for call in timeline.calls.values()),
        usage=sum((usage.usage for usage in usages), Usage()),
        cost_usd=sum(costs) if costs else None,
        tips=next((event.tips for event in events if isinstance(event, RunFinished)), ()),
        is_parallel=_shared_s(calls) >= WORTH_SAYING_S,
        unused=tuple(unused.values()),
    )


def say_summary(summary: Summary) -> list[str]:
    """Format the summary as lines: the times, the counts if there are any, then the tips."""
    times: list[str] = []
    if summary.first_token_s is not None:
        times.append(f"first token {format_seconds(summary.first_token_s)}")
    times.append(f"wall {format_seconds(summary.wall_s)}")
    if summary.calls:
        times.append(f"in tools {format_seconds(summary.tools_s)}")
    if summary.saved_s >= WORTH_SAYING_S:
        by = "parallelism" if summary.is_parallel else "starting early"
        times.append(f"{format_seconds(summary.saved_s)} saved by {by}")
    counts: list[str] = []
    if summary.turns:
        counts.append(say_count(summary.turns, "turn"))
    if summary.calls:
        cached = f" ({summary.from_cache} from the cache)" if summary.from_cache else ""
        counts.append(say_count(summary.calls, "call") + cached)
    if summary.usage.total_tokens:
        counts.append(f"tokens {summary.usage.input_tokens} in, {summary.usage.output_tokens} out")
    if summary.cost_usd or (summary.cost_usd is not None and summary.usage.total_tokens):
        counts.append(f"${summary.cost_usd:.4f}")
    lines = [" · ".join(times)]
    if counts:
        lines.append(" · ".join(counts))
    lines += [f"prefetched and not used: {', '.join(summary.unused)}"] if summary.unused else []
    return [*lines, *(f"tip: {tip}" for tip in summary.tips)]


def _find_unused(events: Sequence[Event]) -> dict[str, str]:
    """Find the prefetched calls that no other call equals, once the run is done; until then one may come.

    Returns them by id, as one would write the calls.
    """
    if not any(isinstance(event, RunFinished) and event.status == "done" for event in events):
        return {}
    names = {event.call: event.name for event in events if isinstance(event, CallNew)}
    calls = {
        event.call: f"{names.get(event.call, '')}({say_arguments(event.arguments)})"
        for event in events
        if isinstance(event, CallSealed)
    }
    asked = {said for call, said in calls.items() if not call.startswith("prefetch/")}
    return {call: said for call, said in calls.items() if call.startswith("prefetch/") and said not in asked}


def _shared_s(spans: list[tuple[float, float]]) -> float:
    """Return how much longer these spans would take in sequence."""
    covered_s = 0.0
    reached = float("-inf")
    for start, end in sorted(spans):
        if end > reached:
            covered_s += end - max(start, reached)
            reached = end
    return max(0.0, sum(end - start for start, end in spans) - covered_s)
