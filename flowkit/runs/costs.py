"""What was spent, by who spent it: the agent, the model, the tool that asked, and the user."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from flowkit.codec import JSON
from flowkit.journal import Journal, RunDetails, RunSummary
from flowkit.messages import Usage

By = Literal["agent", "model", "tool", "user"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one model took for one agent; `tool` is the call's, where a tool of the run asked that agent, else empty.

    `cost_usd` is None where a part of it has no known price. `answers` counts requests that were answered.
    """

    agent: str
    model: str
    tool: str = ""
    user: str | None = None
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = 0.0
    answers: int = 0

    def to_json(self) -> dict[str, JSON]:
        """Convert to the journal's form, without the user, which the run already has."""
        return {
            "agent": self.agent,
            "model": self.model,
            "tool": self.tool,
            "usage": self.usage.to_json(),
            "cost_usd": self.cost_usd,
            "answers": self.answers,
        }


def cost_from_json(data: JSON, user: str | None) -> Cost:
    """Read what `to_json` wrote."""
    fields = cast("Mapping[str, JSON]", data)
    return Cost(
        str(fields["agent"]),
        str(fields["model"]),
        str(fields["tool"]),
        user,
        Usage.from_json(cast("Mapping[str, JSON]", fields["usage"])),
        cast("float | None", fields["cost_usd"]),
        cast(int, fields["answers"]),
    )


def sum_costs(costs: Iterable[Cost], by: By | Callable[[Cost], str]) -> dict[str, Cost]:
    """Sum the costs by one key, the highest first; those without a known price lead.

    >>> one, two = Cost("shop", "m", cost_usd=1.0), Cost("shop", "big", cost_usd=2.0)
    >>> {name: cost.cost_usd for name, cost in sum_costs([one, two], "model").items()}
    {'big': 2.0, 'm': 1.0}
    """
    sums: dict[str, Cost] = {}
    for cost in costs:
        name = str(getattr(cost, by) or "") if isinstance(by, str) else by(cost)
        sums[name] = cost if name not in sums else add_costs([sums[name], cost])
    return dict(sorted(sums.items(), key=lambda item: _rank(item[1]), reverse=True))


def add_costs(costs: Sequence[Cost]) -> Cost:
    """Add up the costs; fields that they don't share are empty in the sum."""
    first = costs[0]
    known = [cost.cost_usd for cost in costs if cost.cost_usd is not None]
    usage = Usage()
    for cost in costs:
        usage += cost.usage

    def share(name: str) -> str:
        values = {getattr(cost, name) for cost in costs}
        return getattr(first, name) if len(values) == 1 else ""

    return Cost(
        share("agent"),
        share("model"),
        share("tool"),
        first.user if len({cost.user for cost in costs}) == 1 else None,
        usage,
        sum(known) if len(known) == len(costs) else None,
        sum(cost.answers for cost in costs),
    )


def _rank(cost: Cost) -> float:
    return float("inf") if cost.cost_usd is None else cost.cost_usd


@dataclass(frozen=True, slots=True)
class BudgetState:
    """The state of a budget for one spender; `resets_at` is seconds since 1970, None if it never resets."""

    usd: float
    spent_usd: float
    resets_at: float | None

    @property
    def left_usd(self) -> float:
        """The rest of the budget; 0 when more was spent."""
        return max(0.0, self.usd - self.spent_usd)


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
