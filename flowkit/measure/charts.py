"""Pictures of a measurement as SVG: what is right against what it costs, how long each model takes, and case by case.

Colours come from classes, so that a page shows them light or dark.
"""

import html
from collections.abc import Iterator, Sequence
from math import ceil, floor, log10

from flowkit.measure.figures import ModelFigures, Spread
from flowkit.measure.records import Measured
from flowkit.measure.words import say_cost, say_seconds, shorten

SHORTEST_S = 0.01
"""The time that fills the picture where all are shorter."""

COLOURS = 8
"""The page has so many; further models take them again from the first."""

_WIDTH = 680
_CHARACTER = 6.9
"""The width of a character of 12 px in the widest of the usual sans-serif fonts."""


def draw_costs(figures: Sequence[ModelFigures]) -> str:
    """Draw each model as a point: cheaper to the left, better further up. Empty where fewer than two have a price."""
    points = [(one, index) for index, one in enumerate(figures) if one.cost_usd is not None]
    if len(points) < 2:
        return ""
    left, right, top, bottom = 52, _WIDTH - 24, 18, 232
    most = max(one.cost_usd or 0.0 for one, _ in points) or 1.0
    out = [_open(_WIDTH, 282, "what is right, against the cost of a case")]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = bottom - share * (bottom - top)
        out.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        out.append(_text(left - 8, y + 4, f"{share:.0%}", "dim", "end"))
    for value in _ticks(most * 1.08):
        x = left + value / (most * 1.08) * (right - left)
        out.append(f'<line class="grid" x1="{x:.1f}" y1="{bottom}" x2="{x:.1f}" y2="{bottom + 5}"/>')
        out.append(_text(x, bottom + 20, say_cost(value), "dim", "middle"))
    out.append(_text((left + right) / 2, bottom + 42, "cost of a case", "dim", "middle"))
    taken: list[tuple[float, float, float]] = []
    for one, index in sorted(points, key=lambda point: point[0].cost_usd or 0.0):
        x = left + (one.cost_usd or 0.0) / (most * 1.08) * (right - left)
        y = bottom - one.right.value * (bottom - top)
        out.append(f'<circle class="c{index % COLOURS}" cx="{x:.1f}" cy="{y:.1f}" r="6">')
        out.append(f"<title>{html.escape(_tell(one))}</title></circle>")
        name = shorten(one.model, 32)
        width = len(name) * _CHARACTER
        is_right = x + 12 + width <= _WIDTH
        start = x + 12 if is_right else x - 12 - width
        line = y + 4
        while any(abs(line - other) < 14 and start < end and begin < start + width for begin, end, other in taken):
            line += 14  # two labels in one place can't be read
        taken.append((start, start + width, line))
        out.append(_text(start if is_right else x - 12, line, name, "", "start" if is_right else "end"))
    return "".join([*out, "</svg>"])


def draw_times(figures: Sequence[ModelFigures]) -> str:
    """Draw the median of the first token, the arguments and the whole run as bars, the middle half as a line."""
    rows: list[tuple[str, list[Spread | None]]] = [
        ("to the first token", [one.first_token for one in figures]),
        ("a call's arguments", [one.arguments for one in figures]),
        ("the whole run", [one.seconds for one in figures]),
    ]
    names = [shorten(one.model, 22) for one in figures]
    left = 16 + max(len(name) for name in names) * _CHARACTER
    right, step = _WIDTH - 84, 22
    height = sum(30 + step * len(names) for _ in rows) + 8
    out = [_open(_WIDTH, height, "how long each model takes")]
    y = 4.0
    for title, spreads in rows:
        # Times of no length are no difference: a bar that fills the picture would say that they are.
        most = max([SHORTEST_S, *(spread.high for spread in spreads if spread is not None)])
        y += 18
        out.append(_text(0, y - 2, title, "head"))
        for index, (name, spread) in enumerate(zip(names, spreads, strict=True)):
            middle = y + 6 + step * index + 7
            out.append(_text(left - 8, middle + 4, name, "", "end"))
            if spread is None:
                out.append(_text(left, middle + 4, "–", "dim"))
                continue
            scale = (right - left) / most
            width = max(1.0, spread.median * scale)
            out.append(
                f'<rect class="c{index % COLOURS}" x="{left:.1f}" y="{middle - 7:.1f}" width="{width:.1f}" height="14" rx="2"/>'
            )
            low, high = left + spread.low * scale, left + spread.high * scale
            if high - low > 1:
                out.append(f'<path class="whisker" d="M{low:.1f},{middle:.1f}H{high:.1f}M{low:.1f},{middle - 4:.1f}v8')
                out.append(f'M{high:.1f},{middle - 4:.1f}v8"/>')
            out.append(_text(max(left + width, high) + 8, middle + 4, say_seconds(spread.median), "dim"))
        y += 12 + step * len(names)
    return "".join([*out, "</svg>"])


def draw_cases(measured: Measured) -> str:
    """Draw a row for each case and a column for each model: how much of its runs was right."""
    names = [shorten(name, 46) for name in measured.cases]
    left = 12 + max(len(name) for name in names) * _CHARACTER
    cell, height = 26, 20
    top = 14 + max(len(shorten(model, 22)) for model in measured.models) * 5.2
    width = left + cell * len(measured.models) + 90
    out = [_open(max(width, 320), top + height * len(names) + 10, "case by case")]
    for column, model in enumerate(measured.models):
        x = left + cell * column + cell / 2
        label = html.escape(shorten(model, 22))
        out.append(f'<text transform="translate({x + 4:.1f},{top - 8:.1f}) rotate(-45)">{label}</text>')
    for row, case in enumerate(measured.cases):
        y = top + height * row
        out.append(_text(left - 8, y + 14, names[row], "", "end"))
        for column, model in enumerate(measured.models):
            runs = [run for run in measured.runs if run.case == case and run.model == model]
            good = sum(run.is_right for run in runs)
            kind = "none" if not runs else "good" if good == len(runs) else "bad" if not good else "half"
            x = left + cell * column
            mark = {"none": "", "good": "✓", "bad": "✗"}.get(kind, f"{good}/{len(runs)}")
            wrong = "; ".join(dict.fromkeys(text for run in runs for text in run.wrong))
            title = f"{model}: {good} of {len(runs)} right{': ' + wrong if wrong else ''}"
            out.append(
                f'<g class="{kind}"><rect x="{x + 1:.1f}" y="{y:.1f}" width="{cell - 2}" height="{height - 2}" rx="3"/>'
            )
            out.append(f"{_text(x + cell / 2, y + 13, mark, 'mark', 'middle')}<title>{html.escape(title)}</title></g>")
    return "".join([*out, "</svg>"])


def _open(width: float, height: float, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
        f' role="img" aria-label="{html.escape(title)}">'
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    classes = f' class="{kind}"' if kind else ""
    return f'<text{classes} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'


def _tell(one: ModelFigures) -> str:
    return f"{one.model}: {one.right.right} of {one.right.count} right, {say_cost(one.cost_usd)} a case"


def _ticks(most: float) -> Iterator[float]:
    """Yield round values from 0 to `most`, about four of them."""
    rough = most / 4
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    for number in range(ceil(most / step)):
        yield number * step
