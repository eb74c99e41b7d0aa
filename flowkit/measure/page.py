"""A measurement as one HTML file that needs nothing else: no script, no font, no network.

It follows the reader's choice of light or dark, and prints.
"""

import html
from collections.abc import Iterator, Sequence

from flowkit.display.words import say_count
from flowkit.measure.charts import COLOURS, draw_cases, draw_costs, draw_times
from flowkit.measure.comparing import Comparison
from flowkit.measure.figures import ModelFigures, make_figures
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
)

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
