"""Compare a measurement with an earlier one, and report what got worse beyond a tolerance.

Only what both have is compared: the same models, by name, on the same cases, by name. Each model is held to its own
earlier figures. Three things count, each with a tolerance:

- `right`: the share of runs in which everything judged is right may fall by so many percentage points (5),
- `time`: the medians of the first token, of the arguments and of a whole run may grow by so many percent (25), and by
  20 milliseconds in any case, since a clock and a machine have their own noise,
- `cost`: the mean cost of a case may grow by so many percent (10).

A run that failed is one that isn't right.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from flowkit.errors import ConfigurationError
from flowkit.measure.figures import Spread, summarise
from flowkit.measure.records import Measured
from flowkit.measure.words import say_cost, say_seconds, shorten
from flowkit.suggestions import suggest

NOISE_S = 0.02


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The tolerances: `right` in percentage points, the others in percent."""

    right: float = 5.0
    time: float = 25.0
    cost: float = 10.0

    @classmethod
    def read(cls, pairs: Mapping[str, str]) -> "Tolerance":
        """Read `{"time": "50"}`; raises `ConfigurationError` for an unknown name or an invalid number."""
        values: dict[str, float] = {}
        for name, text in pairs.items():
            if name not in ("right", "time", "cost"):
                raise ConfigurationError(f"--allow {name!r}: {suggest(name, ('right', 'time', 'cost'))}")
            try:
                values[name] = float(text.removesuffix("%"))
            except ValueError:
                raise ConfigurationError(f"--allow {name} is {text!r}, expected a number of percent") from None
            if not values[name] >= 0:
                raise ConfigurationError(f"--allow {name} is {text!r}, expected 0 or more")
        return replace(cls(), **values)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The figures that got worse, a line each; `notes` list what couldn't be compared."""

    worse: tuple[str, ...]
    better: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_comparable(models: Sequence[str], cases: Sequence[str], before: Measured) -> None:
    """Raise `ConfigurationError` where a measurement of these would have nothing in common with an earlier one."""
    for what, named, known in (("model", models, before.models), ("case", cases, before.cases)):
        if set(named).isdisjoint(known):
            raise ConfigurationError(
                f"the two measurements have no {what} in common: {_list(named)} here, {_list(known)} there"
            )


def compare(now: Measured, before: Measured, tolerance: Tolerance) -> Comparison:
    """Compare two measurements; raises `ConfigurationError` where they have nothing in common."""
    check_comparable(now.models, now.cases, before)
    models = [model for model in now.models if model in before.models]
    worse: list[str] = []
    better: list[str] = []
    for model in models:
        # By model: one that was stopped has asked some models more than others.
        cases = {run.case for run in now.runs_of(model)} & {run.case for run in before.runs_of(model)}
        for text, is_worse in _compare_model(model, cases, now, before, tolerance) if cases else ():
            (worse if is_worse else better).append(f"{model}: {text}")
    return Comparison(tuple(worse), tuple(better), tuple(_note(now, before)))


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(repr(shorten(name, 40)) for name in names[:3])
    return f"{shown}, …" if len(names) > 3 else shown or "none"


def _compare_model(
    model: str, cases: set[str], now: Measured, before: Measured, tolerance: Tolerance
) -> Iterator[tuple[str, bool]]:
    new, old = (
        summarise(model, [run for run in measured.runs_of(model) if run.case in cases]) for measured in (now, before)
    )
    fallen = (old.right.value - new.right.value) * 100
    if abs(fallen) > tolerance.right:
        yield f"right {old.right.value:.0%}, now {new.right.value:.0%} ({_say_change(-fallen)} points)", fallen > 0
    times: tuple[tuple[str, Spread | None, Spread | None], ...] = (
        ("first token", old.first_token, new.first_token),
        ("arguments", old.arguments, new.arguments),
        ("whole run", old.seconds, new.seconds),
    )
    for name, old_time, new_time in times:
        if old_time is None or new_time is None:
            continue
        grown = new_time.median - old_time.median
        if abs(grown) > max(NOISE_S, old_time.median * tolerance.time / 100):
            said = f"{name} {say_seconds(old_time.median)}, now {say_seconds(new_time.median)}"
            yield f"{said}{_say_percent(grown, old_time.median)}", grown > 0
    if old.cost_usd is not None and new.cost_usd is not None:
        dearer = new.cost_usd - old.cost_usd
        if abs(dearer) > old.cost_usd * tolerance.cost / 100 + 1e-12:
            said = f"cost {say_cost(old.cost_usd)} a case, now {say_cost(new.cost_usd)}"
            yield f"{said}{_say_percent(dearer, old.cost_usd)}", dearer > 0


def _note(now: Measured, before: Measured) -> Iterator[str]:
    for what, mine, others in (("model", now.models, before.models), ("case", now.cases, before.cases)):
        new = [name for name in mine if name not in others]
        gone = [name for name in others if name not in mine]
        if new:
            yield f"{what}s only here, not compared: {', '.join(new)}"
        if gone:
            yield f"{what}s only in the earlier one, not compared: {', '.join(gone)}"


def _say_change(points: float) -> str:
    return f"{points:+.0f}"


def _say_percent(grown: float, before: float) -> str:
    return f" ({grown / before:+.0%})" if before else ""
