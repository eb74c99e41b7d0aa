"""The list of a user's runs: the first message, status and cost of each.

A page polls it every few seconds, and the message and the cost require a journal query. So each run's entry is cached
until the run changes.
"""

from collections import OrderedDict
from collections.abc import Collection

from flowkit.codec import JSON
from flowkit.journal import Journal, RunSummary
from flowkit.runs.recorded_costs import read_costs
from flowkit.web.records import say_inputs, say_status, summary_to_json

LISTED = 50
KEPT = 1000
"""For how many runs the answer is kept."""


class RunList:
    """Lists the runs of a journal; may be asked from several threads."""

    def __init__(self, journal: Journal, names: Collection[str]) -> None:
        self._journal = journal
        self._names = names
        self._known: OrderedDict[tuple[object, ...], dict[str, JSON]] = OrderedDict()

    def read(self, user: str | None, *, status: str | None, session: str | None, before: str | None) -> dict[str, JSON]:
        """List the user's latest runs, newest first, and where the next page begins; raises `ValueError`."""
        asked = "running" if status == "stopped" else status
        page = self._journal.runs(status=asked, session=session, user=user, limit=LISTED, cursor=before)
        shown = [run for run in page if run.name in self._names and status in (None, say_status(run))]
        runs: list[JSON] = [{**summary_to_json(run), **self._look_into(run)} for run in shown]
        return {"runs": runs, "next": page[-1].cursor if len(page) == LISTED else None}

    def _look_into(self, run: RunSummary) -> dict[str, JSON]:
        key = (run.user, run.session, run.run_id, run.status, run.changed_at)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._read(run)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        return known

    def _read(self, run: RunSummary) -> dict[str, JSON]:
        details = self._journal.show(run.run_id, user=run.user, session=run.session)
        if details is None:  # it was deleted meanwhile
            return {"title": "", "cost_usd": 0.0, "cost_at_least": False}
        prices = [cost.cost_usd for cost in read_costs(self._journal, details)]
        return {
            "title": say_inputs(details.inputs),
            "cost_usd": sum(price or 0.0 for price in prices),
            "cost_at_least": None in prices,
        }
