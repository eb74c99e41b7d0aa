"""A measurement as one self-contained HTML file: no script, no font, no network.

It follows the reader's choice of light or dark, and prints.

Pictures of a measurement as SVG: what is right against what it costs, how long each model takes, and case by case.

Colours come from classes, so that a page shows them light or dark.
"""

import html
from collections.abc import Iterator, Sequence
from math import ceil, floor, log10

from rich.cells import cell_len

from flowkit.display.words import say_count
from flowkit.measure.comparing import Comparison
from flowkit.measure.figures import ModelFigures, Spread, make_figures
from flowkit.measure.records import CaseRun, Measured
from flowkit.measure.router_rule import Proposal, write_proposal
from flowkit.measure.words import (
    say_cost,
    say_median,
    say_number,
    say_range,
    say_seconds,
    say_share,
    say_share_range,
    shorten,
)

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
        width = cell_len(name) * _CHARACTER
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
    left = 16 + max(map(cell_len, names)) * _CHARACTER
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
    left = 12 + max(map(cell_len, names)) * _CHARACTER
    cell, height = 26, 20
    top = 14 + max(cell_len(shorten(model, 22)) for model in measured.models) * 5.2
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


_LIGHT = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#9a6700", "#0b7285", "#57606a")
_DARK = ("#58a6ff", "#f0883e", "#3fb950", "#a371f7", "#f778ba", "#d29922", "#3bc9db", "#9198a1")

_STYLE = """
:root{--paper:#fff;--ink:#1f2328;--dim:#656d76;--line:#d8dee4;--good:#dafbe1;--bad:#ffebe9;--half:#fff8c5;--code:#f6f8fa;
--good-ink:#116329;--bad-ink:#a40e26;--half-ink:#7d4e00}
@media screen and (prefers-color-scheme:dark){:root{--paper:#0d1117;--ink:#e6edf3;--dim:#9198a1;--line:#30363d;
--good:#12361f;--bad:#481a1d;--half:#3d3000;--code:#161b22;--good-ink:#7ee787;--bad-ink:#ffa198;--half-ink:#e3b341}}
body{margin:0 auto;padding:24px;max-width:980px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Noto Sans KR","Malgun Gothic",sans-serif}
h1{font-size:22px;margin:0}h2{font-size:17px;margin:32px 0 8px}p{margin:6px 0}.dim{color:var(--dim)}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:5px 12px 5px 0;text-align:right;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--dim)}th:first-child,td:first-child{text-align:left}td small{display:block;color:var(--dim)}
th.text,td.text{text-align:left}td.text{max-width:34em;overflow-wrap:anywhere}
.dot{display:inline-block;width:10px;height:10px;border-radius:5px;margin-right:8px}
pre{background:var(--code);padding:12px;overflow-x:auto;font-size:13px;border-radius:6px}
svg{max-width:100%;height:auto;font-size:12px}svg text{fill:var(--ink)}svg .dim{fill:var(--dim)}svg .head{font-weight:600}
svg .grid{stroke:var(--line)}svg .whisker{stroke:var(--ink);fill:none;stroke-width:1.3}
svg .good rect{fill:var(--good)}svg .bad rect{fill:var(--bad)}svg .half rect{fill:var(--half)}svg .none rect{fill:none}
svg .mark{font-size:11px}svg .good .mark{fill:var(--good-ink)}svg .bad .mark{fill:var(--bad-ink)}
svg .half .mark{fill:var(--half-ink)}details{margin:4px 0}summary{cursor:pointer}
"""


def write_page(
    measured: Measured, *, proposal: Proposal | str | None = None, comparison: Comparison | None = None
) -> str:
    """Write the whole page."""
    return "\n".join(_write(measured, proposal, comparison)) + "\n"


def _write(measured: Measured, proposal: Proposal | str | None, comparison: Comparison | None) -> Iterator[str]:
    figures = make_figures(measured)
    title = html.escape(
        f"{measured.app}: {say_count(len(measured.models), 'model')} on {say_count(len(measured.cases), 'case')}"
    )
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width,initial-scale=1">'
    yield f"<title>{title}</title>\n<style>{_STYLE}{_colours()}</style>\n</head>\n<body>"
    times = f", {measured.repeats} times each" if measured.repeats > 1 else ""
    yield f'<h1>{title}</h1>\n<p class="dim">{html.escape(measured.measured_at)}{times}, the models in turn</p>'
    yield from _write_table(figures, measured.repeats > 1)
    if costs := draw_costs(figures):
        yield f'<h2>Right, and what it costs</h2>\n<div class="wide">{costs}</div>'
    yield f'<h2>Times</h2>\n<p class="dim">Medians; the line over a bar is the middle half.</p>\n<div class="wide">{draw_times(figures)}</div>'
    yield f'<h2>Case by case</h2>\n<div class="wide">{draw_cases(measured)}</div>'
    if comparison is not None:
        yield from _write_comparison(comparison)
    if proposal is not None:
        told = proposal if isinstance(proposal, str) else "\n".join(write_proposal(proposal))
        yield f"<h2>Router</h2>\n<pre>{html.escape(told)}</pre>"
    yield from _write_wrong(measured.runs)
    if measured.judge is not None:
        cost = say_cost(measured.judge_cost_usd)
        yield f'<p class="dim">Answers judged by {html.escape(measured.judge)}, for {cost}.</p>'
    yield from (f'<p class="dim">{html.escape(note)}</p>' for note in measured.notes)
    yield "</body>\n</html>"


def _colours() -> str:
    def rules(colours: Sequence[str]) -> str:
        return "".join(f".c{index}{{fill:{colour};background:{colour}}}" for index, colour in enumerate(colours))

    return f"{rules(_LIGHT)}@media screen and (prefers-color-scheme:dark){{{rules(_DARK)}}}"


def _write_table(figures: Sequence[ModelFigures], with_spread: bool) -> Iterator[str]:
    heads = (
        "model",
        "first token",
        "arguments",
        "whole run",
        "calls",
        "answers",
        "turns",
        "tokens in",
        "out",
        "$ a case",
    )
    yield '<div class="wide"><table>\n<tr>' + "".join(f"<th>{head}</th>" for head in heads) + "</tr>"
    for index, one in enumerate(figures):
        cells = [
            f'<span class="dot c{index % COLOURS}"></span>{html.escape(one.model)}',
            *(_cell(say_median(spread), say_range(spread)) for spread in (one.first_token, one.arguments, one.seconds)),
            *(
                _cell(say_share(share), say_share_range(share) if with_spread else "")
                for share in (one.calls_right, one.answers_right)
            ),
            say_number(one.turns),
            say_number(one.input_tokens),
            say_number(one.output_tokens),
            _cell(say_cost(one.cost_usd), f"{one.failed} failed" if one.failed else ""),
        ]
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    yield "</table></div>"


def _cell(text: str, small: str) -> str:
    return html.escape(text) + (f"<small>{html.escape(small)}</small>" if small else "")


def _write_comparison(comparison: Comparison) -> Iterator[str]:
    yield "<h2>Against the earlier measurement</h2>"
    if not comparison.worse:
        yield "<p>Nothing got worse by more than is allowed.</p>"
    for word, lines in (("worse", comparison.worse), ("better", comparison.better), ("", comparison.notes)):
        yield from (f"<p>{f'<b>{word}</b> ' if word else ''}{html.escape(line)}</p>" for line in lines)


def _write_wrong(runs: Sequence[CaseRun]) -> Iterator[str]:
    wrong = [run for run in runs if run.wrong]
    if not wrong:
        return
    yield f"<h2>What was wrong</h2>\n<details{' open' if len(wrong) <= 30 else ''}><summary>{len(wrong)} runs</summary>"
    heads = "".join(f'<th class="text">{head}</th>' for head in ("case", "model", "why", "answer", "took"))
    yield f'<div class="wide"><table>\n<tr>{heads}</tr>'
    for run in wrong:
        cells = (run.case, run.model, "; ".join(run.wrong), run.answer[:400], say_seconds(run.seconds))
        yield "<tr>" + "".join(f'<td class="text">{html.escape(cell)}</td>' for cell in cells) + "</tr>"
    yield "</table></div></details>"
