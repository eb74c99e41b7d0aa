"""`flowkit runs costs`: the cost of the runs in a journal, by agent, tool, model, user, day, run or a function."""

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from flowkit.cli.journals import open_journal
from flowkit.cli.options import AsJson, JournalAddress
from flowkit.cli.output import make_console, print_json
from flowkit.codec import JSON
from flowkit.display.words import clean
from flowkit.errors import ConfigurationError
from flowkit.journal import Journal, RunSummary
from flowkit.runs.costs import Cost, add_costs, read_costs, sum_costs

PAGE = 100


KEYS = ("agent", "tool", "model", "user", "day", "run")
"""What costs are added up by, besides a function."""


def costs(
    by: Annotated[
        str,
        typer.Option(
            metavar="KEY",
            help="What to add up by: agent, tool, model, user, day, run, or FILE.py:FUNCTION, called with each run.",
        ),
    ] = "agent",
    user: Annotated[str | None, typer.Option(help="Count only this user's runs.")] = None,
    since: Annotated[str | None, typer.Option(metavar="DATE", help="Count only runs begun from this day on.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The maximum number of runs to count, the latest first.")] = 1000,
    as_json: AsJson = False,
    journal: JournalAddress = None,
) -> None:
    """Show what runs cost: tokens, dollars and answers by agent, tool, model, user, day, run or a key of your own."""
    key_of = _find_key(by)
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
        return key_of(cost, places[id(cost)])

    head = by if by in KEYS else by.rpartition(":")[2]
    listed = [cost for cost, _ in spent]
    sums = sum_costs(listed, name)
    if as_json:
        print_json([_to_json(head, key, cost) for key, cost in sums.items()])
        return
    console = make_console()
    if not sums:
        console.print("no run asked a model")
        return
    right = [Column(head, justify="right") for head in ("answers", "input", "cached", "output", "cost")]
    table = Table(Column(head, no_wrap=True), *right, box=None, pad_edge=False)
    for key, cost in sums.items():
        table.add_row(clean(key or "-"), *_say(cost))
    if len(sums) > 1:
        table.add_row("all", *_say(add_costs(listed)))
    console.print(table)


def _find_key(by: str) -> Callable[[Cost, RunSummary], str]:
    """Find the function that returns the group of a run's cost."""
    if by == "run":
        return lambda cost, run: run.run_id
    if by == "day":
        return lambda cost, run: datetime.fromtimestamp(run.began_at).astimezone().date().isoformat()
    if by in KEYS:
        return lambda cost, run: str(getattr(cost, by) or "")
    if ":" not in by:
        raise typer.BadParameter(f"{by!r} is none of {', '.join(KEYS)}, and no FILE.py:FUNCTION", param_hint="--by")
    from flowkit.measure.cases import import_function

    function = import_function(by, Path())

    def ask(_: Cost, run: RunSummary) -> str:
        try:
            key = function(run)
        except Exception as error:  # the user's function
            raise ConfigurationError(f"--by {by} raised {type(error).__name__}: {error}") from error
        if not isinstance(key, str):
            raise ConfigurationError(f"--by {by} returned {key!r} for run {run.run_id!r}, expected a text")
        return key

    return ask


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
