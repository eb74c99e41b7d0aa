"""The limits of a run, and the meter of its usage.

The usage of agents that a tool calls counts, too: such a run finds the meter of the enclosing run in a context
variable, adds to it, and obeys its limits on tokens and cost besides its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from threading import Lock
from typing import Protocol

from flowkit.errors import ConfigurationError, FlowkitError
from flowkit.messages import Usage
from flowkit.models.base import Model
from flowkit.models.pricing import find_unpriced, get_cost
from flowkit.option_checks import COUNT, Expected, find_misfit, is_number
from flowkit.runs.costs import BudgetState, Cost, add_costs

LONG_ANSWER_TOKENS = 16_384
"""From this many tokens on, a request sets no limit on the answer: servers refuse one above the model's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one run; None is no limit.

    - `turns` counts answered requests.
    - `calls` counts the model's tool calls.
    - `tokens` counts input and output together.
    - `cost_usd` is the cost at the model's prices.
    - `seconds` is the time from start to end.

    Tokens and cost are known after an answer, so the last one may exceed its limit; no other request follows. Usage of
    agents that the run's tools call is included.
    """

    turns: int | None = 12
    calls: int | None = 64
    tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        misfit = find_misfit({field.name: getattr(self, field.name) for field in fields(self)}, _EXPECTED)
        if misfit is not None:
            raise ConfigurationError(f"Limits: {misfit}")


_EXPECTED: Mapping[str, Expected] = {
    "turns": COUNT,
    "calls": COUNT,
    "tokens": COUNT,
    "cost_usd": Expected("US dollars as a number", is_number),
    "seconds": Expected("a number of seconds; timeout= takes a timedelta, too", is_number),
}


class Spending(Protocol):
    """A budget's part that a run spends."""

    @property
    def name(self) -> str:
        """The budget's name."""
        ...

    @property
    def place(self) -> tuple[int, str, str]:
        """The account's identity among those of this process."""
        ...

    async def look(self) -> BudgetState:
        """Return its current state."""
        ...

    def explain(self, state: BudgetState) -> "LimitReached":
        """Make the error for a spent budget."""
        ...

    async def pay(self, usd: float) -> None:
        """Add an amount."""
        ...


class LimitReached(FlowkitError):
    """A run's limit is reached; the text names it."""


_NOTHING_USED = Usage()


@dataclass(slots=True)
class Meter:
    """The usage of a run so far; `cost_usd` is None when a part of it has no known price.

    `outer` is the meter of the enclosing run; `turns` and `calls` count for each run alone.
    """

    limits: Limits
    outer: "Meter | None" = None
    name: str = ""
    """Who spends: the agent."""
    tool: str = ""
    """The tool of the run around it that asked this agent."""
    accounts: "Sequence[Spending]" = ()
    """The budgets that pay for it, besides the outer run's."""
    budget_left_usd: float | None = None
    """The smallest amount that the budgets had left before this turn."""
    costs: dict[tuple[str, str, str], Cost] = field(default_factory=dict[tuple[str, str, str], Cost])
    """The amounts spent, by agent, model and tool."""
    turns: int = 0
    calls: int = 0
    usage: Usage = _NOTHING_USED
    cost_usd: float | None = 0.0
    _lock: Lock = field(default_factory=Lock, repr=False)
    """A blocking tool asks its agent in a thread of its own."""

    def check_priced(self, model: Model) -> None:
        """Refuse, before anything is spent, a limit on cost that can't be kept."""
        if self.limits.cost_usd is not None and (unpriced := find_unpriced(model)) is not None:
            raise ConfigurationError(
                f"the limit cost_usd={self.limits.cost_usd} can't be kept: the price of model {unpriced.name!r} isn't "
                "known; give the model a price, or use a limit on tokens"
            )
        if (payers := self.payers) and (unpriced := find_unpriced(model)) is not None:
            raise ConfigurationError(
                f"the budget {payers[0].name!r} can't be kept: the price of model {unpriced.name!r} isn't known; give "
                "the model a price"
            )
        if self.outer is not None:
            self.outer.check_priced(model)

    def add(self, model: Model, usage: Usage, *, broke_off: bool = False, answerer: str = "") -> float | None:
        """Count one answer and return its cost; an answer that broke off before reporting usage costs nothing here.

        `answerer` is the model behind `model` that gave it.
        """
        cost_usd = 0.0 if broke_off and usage == Usage() else get_cost(model, usage)
        self._spend(Cost(self.name, answerer or model.name, "", None, usage, cost_usd, 1))
        return cost_usd

    def _spend(self, cost: Cost) -> None:
        key = (cost.agent, cost.model, cost.tool)
        with self._lock:
            self.usage += cost.usage
            both = None if cost.cost_usd is None or self.cost_usd is None else self.cost_usd + cost.cost_usd
            self.cost_usd = both
            before = self.costs.get(key)
            self.costs[key] = cost if before is None else add_costs([before, cost])
        if self.outer is not None:
            self.outer._spend(replace(cost, tool=self.tool))

    def list_costs(self, user: str | None) -> tuple[Cost, ...]:
        """List the amounts spent, attributed to this user."""
        with self._lock:
            return tuple(replace(cost, user=user) for cost in self.costs.values())

    def take_back(self, usage: Usage, cost_usd: float | None, costs: Sequence[Cost]) -> None:
        """Start with the usage of an earlier process of this run."""
        self.usage, self.cost_usd = usage, cost_usd
        self.costs = {(cost.agent, cost.model, cost.tool): replace(cost, user=None) for cost in costs}

    @property
    def payers(self) -> "list[Spending]":
        """The budgets that pay: its own, and those of the runs around it, each once."""
        found = {account.place: account for account in self.accounts}
        for account in () if self.outer is None else self.outer.payers:
            found.setdefault(account.place, account)
        return list(found.values())

    def check(self) -> None:
        """Raise `LimitReached` when another request would go beyond a limit."""
        limits = self.limits
        if limits.turns is not None and self.turns >= limits.turns:
            raise LimitReached(f"the limit of {limits.turns} turns is reached")
        if limits.calls is not None and self.calls > limits.calls:
            raise LimitReached(f"the limit of {limits.calls} calls is reached")
        if (reached := self.find_limit()) is not None:
            raise reached

    def find_limit(self) -> LimitReached | None:
        """Find the reached spending limit, its own or an outer one."""
        limits = self.limits
        if limits.tokens is not None and self.usage.total_tokens >= limits.tokens:
            return LimitReached(f"the limit of {limits.tokens} tokens is reached")
        if limits.cost_usd is not None and self.cost_usd is None:
            return LimitReached(
                f"the limit of {limits.cost_usd} US dollars can't be kept any longer: an answer didn't say what it took"
            )
        if limits.cost_usd is not None and self.cost_usd is not None and self.cost_usd >= limits.cost_usd:
            return LimitReached(f"the limit of {limits.cost_usd} US dollars is reached")
        return None if self.outer is None else self.outer.find_limit()

    @property
    def calls_left(self) -> int | None:
        """The number of calls that may still run."""
        return None if self.limits.calls is None else max(0, self.limits.calls - self.calls)

    def get_tokens_left(self, model: Model) -> int | None:
        """Return the most tokens that the next answer may take under token and cost limits; None if unbounded."""
        tokens = min(self._tokens_left(model), default=LONG_ANSWER_TOKENS)
        return max(1, int(tokens)) if tokens < LONG_ANSWER_TOKENS else None

    def _tokens_left(self, model: Model) -> Iterator[float]:
        """Yield the tokens left under each limit, own and outer."""
        limits = self.limits
        if limits.tokens is not None:
            yield limits.tokens - self.usage.total_tokens
        if limits.cost_usd is not None and self.cost_usd is not None:
            a_thousand = get_cost(model, Usage(0, 1000))
            if a_thousand:
                yield (limits.cost_usd - self.cost_usd) / a_thousand * 1000
        if self.budget_left_usd is not None:
            a_thousand = get_cost(model, Usage(0, 1000))
            if a_thousand:
                yield self.budget_left_usd / a_thousand * 1000
        if self.outer is not None:
            yield from self.outer._tokens_left(model)


METER: ContextVar[Meter | None] = ContextVar("the meter of the run around", default=None)
