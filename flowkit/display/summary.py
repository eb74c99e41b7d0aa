"""The figures of a run, from its events alone."""

from collections.abc import Iterable
from dataclasses import dataclass

from flowkit.display.words import say_seconds
from flowkit.events import (
    CallArguments,
    CallFinished,
    CallNew,
    CallStarted,
    Event,
    RunFinished,
    TextDelta,
    ThinkingDelta,
    TurnFinished,
    TurnStarted,
    UsageReported,
)
from flowkit.messages import Usage

_ENDS = frozenset(
    ("call.finished", "call.failed", "call.skipped", "call.denied", "call.cancelled", "call.void", "call.in_doubt")
)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run took.

    `tools_s` adds up the time of every call that ran, and only of the innermost where one calls another. `saved_s` is
    what the same calls and turns would have taken longer one after another: computed, not measured.
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


def summarise(events: Iterable[Event]) -> Summary:
    """The figures of these events, which may be those of a run that hasn't ended."""
    wall_s = 0.0
    first_token_s: float | None = None
    turn_starts: dict[int, float] = {}
    turn_spans: list[tuple[float, float]] = []
    call_starts: dict[str, float] = {}
    call_spans: dict[str, tuple[float, float]] = {}
    calls: set[str] = set()
    parents: set[str] = set()
    from_cache = 0
    usages: dict[int, UsageReported] = {}
    tips: tuple[str, ...] = ()
    for event in events:
        wall_s = max(wall_s, event.t)
        match event:
            case TurnStarted():
                turn_starts[event.turn] = event.t
            case TurnFinished() if event.turn in turn_starts:
                turn_spans.append((turn_starts.pop(event.turn), event.t))
            case TextDelta() | ThinkingDelta() | CallArguments() if first_token_s is None:
                first_token_s = event.t
            case CallNew():
                calls.add(event.call)
                if event.parent is not None:
                    parents.add(event.parent)
            case CallStarted():
                call_starts.setdefault(event.call, event.t)
            case UsageReported():
                usages[event.turn] = event
            case RunFinished():
                tips = event.tips
            case _:
                pass
        if event.type in _ENDS:
            call = _call_of(event)
            if call in call_starts:
                call_spans[call] = (call_starts.pop(call), event.t)
        if isinstance(event, CallFinished) and event.source == "cache":
            from_cache += 1
    leaves = [span for call, span in call_spans.items() if call not in parents]
    spans = [*turn_spans, *leaves]
    costs = [usage.cost_usd for usage in usages.values() if usage.cost_usd is not None]
    return Summary(
        wall_s=wall_s,
        first_token_s=first_token_s,
        tools_s=sum(end - start for start, end in leaves),
        saved_s=max(0.0, sum(end - start for start, end in spans) - _covered_s(spans)),
        turns=len(turn_spans) + len(turn_starts),
        calls=len(calls - parents),
        from_cache=from_cache,
        usage=sum((usage.usage for usage in usages.values()), Usage()),
        cost_usd=sum(costs) if costs else None,
        tips=tips,
    )


def say_summary(summary: Summary) -> list[str]:
    """The summary as lines of text: one of times, one of counts where there is something to count, then the tips."""
    times: list[str] = []
    if summary.first_token_s is not None:
        times.append(f"first token {say_seconds(summary.first_token_s)}")
    times.append(f"wall {say_seconds(summary.wall_s)}")
    if summary.calls:
        times.append(f"in tools {say_seconds(summary.tools_s)}")
        times.append(f"saved by running at the same time {say_seconds(summary.saved_s)}")
    counts: list[str] = []
    if summary.turns:
        counts.append(_count(summary.turns, "turn"))
    if summary.calls:
        cached = f" ({summary.from_cache} from the cache)" if summary.from_cache else ""
        counts.append(_count(summary.calls, "call") + cached)
    if summary.usage.total_tokens:
        counts.append(f"tokens {summary.usage.input_tokens} in, {summary.usage.output_tokens} out")
    if summary.cost_usd is not None:
        counts.append(f"${summary.cost_usd:.4f}")
    lines = [" · ".join(times)]
    if counts:
        lines.append(" · ".join(counts))
    return [*lines, *(f"tip: {tip}" for tip in summary.tips)]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _call_of(event: Event) -> str:
    return str(getattr(event, "call", ""))


def _covered_s(spans: list[tuple[float, float]]) -> float:
    """The length of the union of these spans."""
    covered_s = 0.0
    reached = float("-inf")
    for start, end in sorted(spans):
        if end > reached:
            covered_s += end - max(start, reached)
            reached = end
    return covered_s
