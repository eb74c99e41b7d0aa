"""The figures of each model, from its runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from flowkit.measure.records import CaseRun, Measured


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, and the quarters between which the middle half of them lies."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """Compute the spread of the values that there are; None when there is none.

        >>> Spread.of([1.0, 2.0, None, 3.0, 10.0])
        Spread(median=2.5, low=1.75, high=4.75)
        """
        known = sorted(value for value in values if value is not None)
        if not known:
            return None
        low, _, high = quantiles(known, n=4, method="inclusive") if len(known) > 1 else (known[0],) * 3
        return cls(median(known), low, high)


@dataclass(frozen=True, slots=True)
class Share:
    """How many were right, of how many; `low` and `high` are the worst and the best round, each between 0 and 1."""

    right: int
    count: int
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.right / self.count

    @classmethod
    def of(cls, verdicts: Sequence[tuple[int, bool | None]]) -> "Share | None":
        """Compute the share of the verdicts that there are, each with the number of its round."""
        judged = [(repeat, verdict) for repeat, verdict in verdicts if verdict is not None]
        if not judged:
            return None
        rounds: dict[int, list[bool]] = {}
        for repeat, verdict in judged:
            rounds.setdefault(repeat, []).append(verdict)
        shares = [sum(found) / len(found) for found in rounds.values()]
        return cls(sum(verdict for _, verdict in judged), len(judged), min(shares), max(shares))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFigures:
    """One model's figures: times in seconds, tokens and cost per run; `right` counts runs in which all that is judged is right.

    Times, turns and tokens are of the runs that ended well; `cost_usd` is of all that
    used tokens, None where a price isn't known.
    """

    model: str
    runs: int
    failed: int
    first_token: Spread | None
    arguments: Spread | None
    seconds: Spread | None
    calls_right: Share | None
    answers_right: Share | None
    right: Share
    turns: Spread | None
    input_tokens: Spread | None
    output_tokens: Spread | None
    cost_usd: float | None
    total_cost_usd: float | None


def make_figures(measured: Measured) -> tuple[ModelFigures, ...]:
    """Make the figures of every model, in the order in which they were named."""
    return tuple(summarise(model, measured.runs_of(model)) for model in measured.models)


def summarise(model: str, runs: Sequence[CaseRun]) -> ModelFigures:
    """Sum up the figures of one model."""
    done = [run for run in runs if run.status == "done"]
    costs = [run.cost_usd for run in runs if run.status == "done" or run.input_tokens]  # a refusal costs nothing
    known = [cost for cost in costs if cost is not None]
    total = sum(known) if costs and len(known) == len(costs) else None
    right = Share.of([(run.repeat, run.is_right) for run in runs])
    return ModelFigures(
        model=model,
        runs=len(runs),
        failed=len(runs) - len(done),
        first_token=Spread.of(run.first_token_s for run in done),
        arguments=Spread.of(call.arguments_s for run in done for call in run.calls),
        seconds=Spread.of(run.seconds for run in done),
        calls_right=Share.of([(run.repeat, run.calls_right) for run in runs]),
        answers_right=Share.of([(run.repeat, run.answer_right) for run in runs]),
        right=right or Share(0, 1, 0.0, 0.0),
        turns=Spread.of(float(run.turns) for run in done),
        input_tokens=Spread.of(float(run.input_tokens) for run in done),
        output_tokens=Spread.of(float(run.output_tokens) for run in done),
        cost_usd=None if total is None else total / len(costs),
        total_cost_usd=total,
    )
