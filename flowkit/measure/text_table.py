"""A measurement as plain text that fits a terminal of 80 columns."""

import textwrap
from collections.abc import Iterator, Sequence

from rich.cells import cell_len

from flowkit.display.words import say_count
from flowkit.measure.figures import ModelFigures, make_figures
from flowkit.measure.records import CaseRun, Measured
from flowkit.measure.words import (
    pad,
    say_cost,
    say_median,
    say_number,
    say_range,
    say_share,
    say_share_range,
    shorten,
)

WIDTH = 80
LONGEST_NAME = 16
MOST_WRONG = 20
"""How many wrong runs are told, each in a line or two."""

_SPREAD_HEADS = ("spread", "first", "args", "total", "calls", "answers")
_HEADS = ("model", "first", "args", "total", "calls", "answers", "turns", "tokens", "$/case")


def write_table(measured: Measured) -> str:
    """Write the table of all models, what was wrong, and what has to be known beside it."""
    return "\n".join(_write(measured)) + "\n"


def _write(measured: Measured) -> Iterator[str]:
    figures = make_figures(measured)
    times = f", {measured.repeats} times" if measured.repeats > 1 else ""
    cases, models = say_count(len(measured.cases), "case"), say_count(len(figures), "model")
    yield f"{measured.app}: {cases}{times}, {models}{' in turn' if len(figures) > 1 else ''}"
    yield ""
    yield from _align([_HEADS, *map(_make_row, figures)])
    if measured.repeats > 1:
        yield ""
        yield from _align([_SPREAD_HEADS, *map(_make_spread, figures)])
    yield ""
    yield "first: to the first token. args: from a call's first byte to its last argument."
    yield "total: of a whole run. Medians, and means of the cost."
    if measured.repeats > 1:
        yield "Spread: the middle half of the times, the worst and the best round of the rest."
    yield from _write_wrong(measured)
    if measured.judge is not None:
        yield ""
        yield f"answers judged by {measured.judge}, for {say_cost(measured.judge_cost_usd)}"
    for note in measured.notes:
        yield ""
        yield from _wrap(note)


def _make_row(one: ModelFigures) -> tuple[str, ...]:
    is_counted = one.input_tokens is not None and one.input_tokens.median > 0  # some servers count none
    tokens = f"{say_number(one.input_tokens)}+{say_number(one.output_tokens)}" if is_counted else "–"
    return (
        shorten(one.model, LONGEST_NAME),
        say_median(one.first_token),
        say_median(one.arguments),
        say_median(one.seconds),
        say_share(one.calls_right),
        say_share(one.answers_right),
        say_number(one.turns),
        tokens,
        say_cost(one.cost_usd),
    )


def _make_spread(one: ModelFigures) -> tuple[str, ...]:
    return (
        shorten(one.model, LONGEST_NAME),
        *(say_range(spread) for spread in (one.first_token, one.arguments, one.seconds)),
        say_share_range(one.calls_right),
        say_share_range(one.answers_right),
    )


def _align(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(cell_len(row[column]) for row in rows) for column in range(len(rows[0]))]
    gap = 2 if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else 1
    for row in rows:
        cells = [
            pad(cell, width, right=column > 0) for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield (" " * gap).join(cells).rstrip()


def _write_wrong(measured: Measured) -> Iterator[str]:
    groups: dict[tuple[str, str, tuple[str, ...]], int] = {}
    for run in measured.runs:
        if run.wrong:
            key = (run.case, run.model, run.wrong)
            groups[key] = groups.get(key, 0) + 1
    if not groups:
        return
    yield ""
    yield "wrong:"
    last = ""
    for (case, model, wrong), count in list(groups.items())[:MOST_WRONG]:
        if case != last:
            yield f"  {shorten(case, WIDTH - 2)}"
            last = case
        times = f" ({count} times)" if count > 1 else ""
        yield "    " + shorten(f"{model}{times}: {'; '.join(wrong)}", WIDTH - 4)
    if len(groups) > MOST_WRONG:
        yield f"  … and {len(groups) - MOST_WRONG} more; --json FILE has all"


def say_run(run: CaseRun) -> str:
    """Write one line about a run that has just ended."""
    mark = "ok" if run.is_right else "failed" if run.status != "done" else "wrong"
    return f"{mark:6}  {pad(shorten(run.model, LONGEST_NAME), LONGEST_NAME)}  {shorten(run.case, WIDTH - 28)}"


def _wrap(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, WIDTH, subsequent_indent="  ")
