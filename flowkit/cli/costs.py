"""`flowkit runs costs`: the cost of the runs in a journal, by agent, tool, model, user, day or run."""

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Column, Table

from flowkit.cli.journals import open_journal
from flowkit.cli.options import AsJson, JournalAddress
from flowkit.cli.output import make_console, print_json
from flowkit.codec import JSON
from flowkit.display.words import clean
from flowkit.journal import Journal, RunSummary
from flowkit.runs.costs import Cost, add_costs, read_costs, sum_costs

PAGE = 100


class By(StrEnum):
    """What costs are added up by."""

    AGENT = "agent"
    TOOL = "tool"
    MODEL = "model"
    USER = "user"
    DAY = "day"
    RUN = "run"


def costs(
    by: Annotated[By, typer.Option(help="What to add up by.")] = By.AGENT,
    user: Annotated[str | None, typer.Option(help="Count only this user's runs.")] = None,
    since: Annotated[str | None, typer.Option(metavar="DATE", help="Count only runs begun from this day on.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The maximum number of runs to count, the latest first.")] = 1000,
    as_json: AsJson = False,
    journal: JournalAddress = None,
) -> None:
    """Show what runs cost: tokens, dollars and answers by agent, tool, model, user, day or run."""
    begins = None if since is None else _read_day(since)
    with open_journal(journal, must_exist=True) as opened:
        spent = [
            (cost, run)
            for run in _list_runs(opened, user, begins, limit)
            if (details := opened.show(run.run_id, user=run.user, session=run.session)) is not None
            for cost in read_costs(opened, details)
        ]
    places = {id(cost): run for cost, run in spent}

    def name(cost: Cost) -> str:
        run = places[id(cost)]
        if by is By.RUN:
            return run.run_id
        if by is By.DAY:
            return datetime.fromtimestamp(run.began_at).astimezone().date().isoformat()
        return str(getattr(cost, by.value) or "")

    listed = [cost for cost, _ in spent]
    sums = sum_costs(listed, name)
    if as_json:
        print_json([_to_json(by.value, key, cost) for key, cost in sums.items()])
        return
    console = make_console()
    if not sums:
        console.print("no run asked a model")
        return
    right = [Column(head, justify="right") for head in ("answers", "input", "cached", "output", "cost")]
    table = Table(Column(by.value, no_wrap=True), *right, box=None, pad_edge=False)
    for key, cost in sums.items():
        table.add_row(clean(key or "-"), *_say(cost))
    if len(sums) > 1:
        table.add_row("all", *_say(add_costs(listed)))
    console.print(table)


def _list_runs(journal: Journal, user: str | None, begins: float | None, limit: int) -> Iterator[RunSummary]:
    cursor: str | None = None
    while limit > 0:
        wanted = min(limit, PAGE)
        if user is None:
            found = journal.runs(limit=wanted, cursor=cursor)
        else:
            found = journal.runs(limit=wanted, cursor=cursor, user=user)
        for run in found:
            if begins is not None and run.began_at < begins:
                return
            yield run
        if len(found) < wanted:
            return
        limit -= len(found)
        cursor = found[-1].cursor


def _read_day(text: str) -> float:
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day such as 2026-11-30", param_hint="--since") from None


def _say(cost: Cost) -> list[str]:
    usage = cost.usage
    usd = "unknown" if cost.cost_usd is None else f"${cost.cost_usd:.4f}"
    return [str(n) for n in (cost.answers, usage.input_tokens, usage.cached_tokens, usage.output_tokens)] + [usd]


def _to_json(by: str, key: str, cost: Cost) -> dict[str, JSON]:
    return {by: key, "answers": cost.answers, "usage": cost.usage.to_json(), "cost_usd": cost.cost_usd}
