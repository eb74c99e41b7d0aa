"""What a run may spend, and how it says that it has spent it."""

from dataclasses import dataclass, field

from flowkit.errors import ConfigurationError, FlowkitError
from flowkit.messages import Usage
from flowkit.models.base import Model
from flowkit.pricing import get_cost, is_priced


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one run; None is no bound.

    `turns` counts requests that were answered, `calls` what the model asked for, `tokens` input and output together,
    `cost_usd` what the model's prices make of them, `seconds` the time from start to end.
    """

    turns: int | None = 12
    calls: int | None = 64
    tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None


class LimitReached(FlowkitError):
    """A run's limit is reached; its text says which."""


@dataclass(slots=True)
class Meter:
    """What a run has spent so far; `cost_usd` is None when a part of it has no known price."""

    limits: Limits
    turns: int = 0
    calls: int = 0
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = 0.0

    def check_priced(self, model: Model) -> None:
        """Refuse, before anything is spent, a limit on cost that can't be kept."""
        if self.limits.cost_usd is not None and not is_priced(model):
            raise ConfigurationError(
                f"the limit cost_usd={self.limits.cost_usd} can't be kept: the price of model {model.name!r} isn't "
                "known; give the model a price, or use a limit on tokens"
            )

    def add(self, model: Model, usage: Usage) -> float | None:
        """Count one answer; gives what it cost."""
        self.usage += usage
        cost = get_cost(model, usage)
        self.cost_usd = None if cost is None or self.cost_usd is None else self.cost_usd + cost
        return cost

    def check(self) -> None:
        """Raise `LimitReached` when another request would go beyond a limit."""
        limits = self.limits
        if limits.turns is not None and self.turns >= limits.turns:
            raise LimitReached(f"the limit of {limits.turns} turns is reached")
        if limits.calls is not None and self.calls > limits.calls:
            raise LimitReached(f"the limit of {limits.calls} calls is reached")
        if limits.tokens is not None and self.usage.total_tokens >= limits.tokens:
            raise LimitReached(f"the limit of {limits.tokens} tokens is reached")
        if limits.cost_usd is not None and self.cost_usd is not None and self.cost_usd >= limits.cost_usd:
            raise LimitReached(f"the limit of {limits.cost_usd} US dollars is reached")

    @property
    def calls_left(self) -> int | None:
        """How many more calls may run."""
        return None if self.limits.calls is None else max(0, self.limits.calls - self.calls)

    @property
    def tokens_left(self) -> int | None:
        """The most that the next answer may take; None without a limit on tokens."""
        return None if self.limits.tokens is None else max(1, self.limits.tokens - self.usage.total_tokens)
