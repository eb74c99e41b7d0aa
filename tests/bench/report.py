"""What every benchmark prints: a table of cases with ratios and goals, or one JSON object a line with `--json`.

A row against another framework has no goal.
"""

import gc
import json
import statistics
import time
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

ROUNDS = 5


class Report:
    """Rows of one benchmark; `ratio` is ours by the other's, and is met when it is at most `goal`."""

    def __init__(self, bench: str, json: bool = False) -> None:
        self.bench = bench
        self.json = json
        self.rows: list[tuple[str, float | None, float | None, dict[str, object]]] = []
        self.notes: list[str] = []

    def row(self, case: str, ratio: float | None, goal: float | None = None, **shown: object) -> None:
        """Add a case; `shown` are further figures, printed as they are."""
        self.rows.append((case, ratio, goal, shown))

    def note(self, text: str) -> None:
        """Say something below the table, once; not with `--json`."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def is_met(self) -> bool:
        """Whether every goal is reached."""
        return all(ratio is None or goal is None or ratio <= goal for _, ratio, goal, _ in self.rows)

    def print(self) -> None:
        """Write everything to the standard output."""
        if self.json:
            for case, ratio, goal, _ in self.rows:
                print(json.dumps({"bench": self.bench, "case": case, "ratio": ratio, "goal": goal}))
            return
        table = Table(title=self.bench, title_justify="left")
        for heading in ("case", "ratio", "goal", "", "figures"):
            table.add_column(heading, justify="left" if heading in ("case", "figures") else "right")
        for case, ratio, goal, shown in self.rows:
            verdict = "" if ratio is None or goal is None else "met" if ratio <= goal else "MISSED"
            figures = ", ".join(f"{name} {value}" for name, value in shown.items())
            table.add_row(case, _number(ratio), _number(goal), verdict, figures)
        # A pipe has no width; a table cut in the middle of a figure is of no use.
        console = Console(width=None if Console().is_terminal else 160)
        console.print(table)
        for note in self.notes:
            console.print(note, markup=False, highlight=False)


def compare(
    *runs: Callable[[], object],
    rounds: int = ROUNDS,
    clock: Callable[[], float] = time.process_time,
) -> list[float]:
    """The median time of each, in seconds, by turns so that a busy machine is busy for all."""
    times = [[measure(run, clock) for run in runs] for _ in range(rounds)]
    return [statistics.median(taken) for taken in zip(*times, strict=True)]


def measure(run: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """One run, in seconds of `clock`; garbage of others is taken away before."""
    gc.collect()
    began = clock()
    run()
    return clock() - began


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether `--json` stands in the command line."""
    return "--json" in arguments


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
