"""Figures as people read them.

A measurement as plain text that fits a terminal of 80 columns.
"""

import textwrap
from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size

from flowkit.display.words import say_count
from flowkit.measure.figures import ModelFigures, Share, Spread, make_figures
from flowkit.measure.records import CaseRun, Measured


def say_seconds(seconds: float | None) -> str:
    """Write a time in as many digits as matter.

    >>> [say_seconds(value) for value in (0.0, 0.0042, 0.123, 1.234, 12.34, None)]
    ['0 ms', '4 ms', '123 ms', '1.23 s', '12.3 s', '–']
    """
    if seconds is None:
        return "–"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"


def say_median(spread: Spread | None) -> str:
    """Write the median of times."""
    return say_seconds(None if spread is None else spread.median)


def say_range(spread: Spread | None) -> str:
    """Write the middle half of times.

    >>> say_range(Spread(0.3, 0.25, 1.5))
    '250 ms–1.50 s'
    >>> say_range(Spread(0.3, 0.25, 0.35))
    '250–350 ms'
    """
    if spread is None:
        return ""
    low, high = say_seconds(spread.low), say_seconds(spread.high)
    return f"{low.split()[0]}–{high}" if low.split()[-1] == high.split()[-1] else f"{low}–{high}"


def say_share(share: Share | None) -> str:
    """Write a share as count of count."""
    return "–" if share is None else f"{share.right}/{share.count}"


def say_share_range(share: Share | None) -> str:
    """Write the worst and the best round."""
    return "" if share is None else f"{share.low * 100:.0f}–{share.high:.0%}"


def say_number(spread: Spread | None) -> str:
    """Write a median of counts.

    >>> say_number(Spread(812.0, 800.0, 900.0)), say_number(Spread(12345.0, 0.0, 0.0)), say_number(Spread(1.5, 1, 2))
    ('812', '12.3k', '1.5')
    """
    if spread is None:
        return "–"
    value = spread.median
    if value >= 9_999.5:
        return f"{value / 1000:.1f}k"
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def say_cost(cost_usd: float | None) -> str:
    """Write dollars, small ones in thousandths of a cent.

    >>> [say_cost(value) for value in (0.0, 0.0000031, 0.00042, 0.0312, 1.5, None)]
    ['$0', '$0.0000031', '$0.00042', '$0.031', '$1.50', '–']
    """
    if cost_usd is None:
        return "–"
    if cost_usd == 0:
        return "$0"
    if cost_usd >= 1:
        return f"${cost_usd:.2f}"
    text = f"{cost_usd:.2g}"
    return f"${cost_usd:.7f}".rstrip("0") if "e" in text else f"${text}"


def shorten(text: str, limit: int) -> str:
    """Shorten to one line of at most that many cells of a terminal, of which a Hangul syllable takes two.

    >>> shorten("one  two\\nthree", 9), shorten("주문은 어디에 있나요", 9)
    ('one two…', '주문은…')
    """
    line = " ".join(text.split())
    if cell_len(line) <= limit:
        return line
    return set_cell_size(line, limit - 1).rstrip() + "…"


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Fill up with spaces to so many cells of a terminal.

    >>> pad("주문", 6), pad("ab", 4, right=True)
    ('주문  ', '  ab')
    """
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


WIDTH = 80
LONGEST_NAME = 16
MOST_WRONG = 20
"""How many wrong runs are told, each in a line or two."""

_SPREAD_HEADS = ("spread", "first", "args", "total", "calls", "answers")
_HEADS = ("model", "first", "args", "total", "calls", "answers", "turns", "tokens", "$/case")


def write_table(measured: Measured) -> str:
    """Write the table of all models, the wrong results, and the notes."""
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
    """Write one line about a finished run."""
    mark = "ok" if run.is_right else "failed" if run.status != "done" else "wrong"
    return f"{mark:6}  {pad(shorten(run.model, LONGEST_NAME), LONGEST_NAME)}  {shorten(run.case, WIDTH - 28)}"


def _wrap(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, WIDTH, subsequent_indent="  ")
