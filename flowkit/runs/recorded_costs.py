"""What a run in a journal cost, as its last turn records it, or as its events tell it."""

from collections.abc import Iterator, Mapping
from typing import cast

from flowkit.codec import JSON
from flowkit.journal import Journal, RunDetails, RunSummary
from flowkit.messages import Usage
from flowkit.runs.costs import Cost, cost_from_json


def read_costs(journal: Journal, run: RunDetails) -> list[Cost]:
    """Read a run's costs: as its last turn records them, or, as for a recipe, from its events."""
    user = run.summary.user
    if not run.turns:
        return list(_read_events(journal, run.summary))
    fields = cast("Mapping[str, JSON]", run.turns[-1].message)
    listed = fields.get("costs")
    if isinstance(listed, list) and listed:
        return [cost_from_json(cost, user) for cost in listed]
    spent = fields.get("spent")  # a journal of an earlier version has the sum alone
    if not isinstance(spent, dict):
        return []
    usd = cast("float | None", fields.get("cost_usd"))
    return [Cost(run.summary.name, "", "", user, Usage.from_json(spent), usd, len(run.turns))]


def _read_events(journal: Journal, run: RunSummary) -> Iterator[Cost]:
    for event in journal.events(run.run_id, user=run.user, session=run.session):
        if isinstance(event, dict) and event.get("type") == "usage":
            usage = Usage.from_json(cast("Mapping[str, JSON]", event["usage"]))
            usd, step = cast("float | None", event.get("cost_usd")), str(event.get("call") or "")
            yield Cost(run.name, "", step, run.user, usage, usd, 1)
