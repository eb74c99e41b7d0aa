"""Describe one user's runs of the journal as JSON, each and in a list."""

import secrets
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import cast

from flowkit import codec
from flowkit.codec import JSON
from flowkit.journal import Approval, Journal, RunDetails, RunSummary
from flowkit.long_values import cut_value
from flowkit.runs.costs import read_costs
from flowkit.web.endpoints import RequestRefused

OVER = ("done", "failed", "cancelled", "limit")
OPEN = ("queued", "running", "cancelling")
"""States of runs that somebody drives, or will."""
WORDS = 80
"""How much of a run's first message, or of its inputs, its line in a list shows."""


def find_run(journal: Journal, user: str | None, run_id: str) -> RunSummary | None:
    """Find this user's run; None also for another user's run, so its existence isn't revealed."""
    return journal.find(run_id, user=user)


def get_run(journal: Journal, user: str | None, run_id: str) -> RunDetails:
    """Return this user's run in full; raises `RequestRefused` with 404."""
    if find_run(journal, user, run_id) is None or (details := journal.show(run_id, user=user)) is None:
        raise no_run()
    return details


def no_run() -> RequestRefused:
    """Create the 404 for a run that doesn't exist or belongs to another user."""
    return RequestRefused(404, "there is no such run")


def say_status(run: RunSummary) -> str:
    """Return the run's status; `stopped` if its process died before it finished."""
    return "stopped" if run.status == "running" and not run.is_held else run.status


def summary_to_json(run: RunSummary) -> dict[str, JSON]:
    """Describe a run for a list."""
    return {
        "run": run.run_id,
        "name": run.name,
        "status": say_status(run),
        "user": run.user,
        "session": run.session,
        "began_at": run.began_at,
        "changed_at": run.changed_at,
        "error": run.error,
    }


def details_to_json(run: RunDetails) -> dict[str, JSON]:
    """Describe one run: its input, pending approvals, writes in doubt, and output."""
    inputs, _ = cut_value(run.inputs)
    output, size = cut_value(run.output)
    told: dict[str, JSON] = {
        **summary_to_json(run.summary),
        "title": say_inputs(run.inputs),
        "inputs": inputs,
        "output": output,
        # Once the run is over, nobody is asked any more.
        "waiting": [
            approval_to_json(approval)
            for approval in run.approvals.values()
            if approval.decision is None and run.summary.status not in OVER
        ],
        "decided": [approval_to_json(approval) for approval in run.approvals.values() if approval.decision is not None],
        "in_doubt": [
            {"call": node.node, "name": node.tool, "arguments": node.arguments}
            for node in run.nodes.values()
            if node.state == "in_doubt"
        ],
    }
    return told if size is None else {**told, "truncated": size}


def approval_to_json(approval: Approval) -> dict[str, JSON]:
    """Describe an approval request and its decision."""
    told: dict[str, JSON] = {
        "call": approval.node,
        "name": approval.name,
        "arguments": approval.arguments,
        "asked_at": approval.asked_at,
    }
    decision = approval.decision
    if decision is None:
        return told
    return {**told, "approved": decision.approved, "by": decision.by, "reason": decision.reason, "at": decision.at}


def call_to_json(run: RunDetails, name: str) -> dict[str, JSON]:
    """Describe one call with its whole result; raises `RequestRefused` with 404."""
    node = run.nodes.get(name)
    if node is None:
        raise RequestRefused(404, "there is no such call")
    return {
        "call": node.node,
        "name": node.tool,
        "state": node.state,
        "attempt": node.attempt,
        "effect": node.effect,
        "arguments": node.arguments,
        "value": node.value,
        "error": node.error,
    }


def make_run_id() -> str:
    """Create a unique run id in the format that clients use."""
    return f"run-{secrets.token_hex(16)}"


def as_json(values: Mapping[str, object]) -> dict[str, JSON]:
    """Type the values of a parsed JSON body as JSON."""
    return cast(dict[str, JSON], dict(values))


def say_inputs(inputs: JSON) -> str:
    """Describe a run's inputs, or its user's message, in a line."""
    match inputs:
        case {"message": {"content": str(text)}}:
            return _shorten(text)
        case {"message": {"content": [*parts]}}:
            texts = (cast(Mapping[str, JSON], part).get("text", "") for part in parts if isinstance(part, dict))
            return _shorten(" ".join(str(text) for text in texts))
        case {"message": None, "history": [*_, {"role": "user"} as last]}:
            return say_inputs({"message": last})  # of a fork that begins with the question
        case {"message": None, "history": [*earlier, {"role": str()}]}:
            return say_inputs({"message": None, "history": earlier})
        case dict():
            return _shorten(", ".join(f"{name}={_say_value(value)}" for name, value in inputs.items()))
        case _:
            return ""


def _say_value(value: JSON) -> str:
    return value if isinstance(value, str) else codec.dumps(value).decode()


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= WORDS else line[: WORDS - 1] + "…"


LISTED = 50
KEPT = 1000
"""For how many runs the answer is kept."""


class RunList:
    """List the runs of a journal; thread-safe.

    A page polls it every few seconds, and the message and the cost of a run require a journal query, so each run's entry
    is cached until the run changes.
    """

    def __init__(self, journal: Journal, names: Collection[str]) -> None:
        self._journal = journal
        self._names = names
        self._known: OrderedDict[tuple[object, ...], dict[str, JSON]] = OrderedDict()

    def read(self, user: str | None, *, status: str | None, session: str | None, before: str | None) -> dict[str, JSON]:
        """List the user's latest runs, newest first, and the start of the next page; raises `ValueError` for an invalid page."""
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
