"""Budgets that hold across runs and processes.

The spent amount is in a store, under a key for its owner and its period. A run checks it before each turn and adds the
turn's cost after it. So parallel runs, in any process, exceed a shared budget by at most one turn each.
"""

import asyncio
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flowkit import events
from flowkit.clock import Clock, SystemClock
from flowkit.codec import dumps
from flowkit.context import Context
from flowkit.errors import ConfigurationError
from flowkit.events import EventLog
from flowkit.option_checks import TEXT, Expected, find_misfit, has_methods, is_number
from flowkit.runs.costs import BudgetState
from flowkit.runs.limits import LimitReached, Meter

Every = Literal["hour", "day", "week", "month"]


class SpendingStore(Protocol):
    """Stores the amount spent under a key; a `Journal` is one."""

    async def add_spent(self, key: str, usd: float) -> float:
        """Add, so that nothing that another process adds is lost; return the sum."""
        ...

    async def read_spent(self, key: str) -> float:
        """Read the sum spent so far."""
        ...


class BudgetSpent(LimitReached):
    """A budget is spent; `.budget` is its name, `.state` its current state, `.notice` the text for the user."""

    def __init__(self, budget: str, who: str, state: BudgetState, when: str) -> None:
        super().__init__(
            f"the budget {budget!r} of ${state.usd:g}{who} is spent (${state.spent_usd:.4g} by now); it {when}"
        )
        self.budget = budget
        self.state = state
        self.notice = f"Your budget is spent. It {when}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit on the cost of all runs together, kept in a `store`, such as a journal.

    - `per` is who shares it: each `user`, each `session` of a user, `all`, or a function of the run's context, which
      returns a key. `day` is a budget for all that resets each day.
    - `every` is when it resets: each hour, day, week or month of the `timezone`, or after each `timedelta`; by default
      never.
    - Budgets with the same `name` in the same store are one.

    Costs are known after an answer, so the turn that uses up the budget may exceed it.
    """

    usd: float
    store: SpendingStore
    per: Literal["user", "session", "all", "day"] | Callable[[Context[Any]], str] = "user"
    every: Every | timedelta | None = None
    name: str = "budget"
    timezone: str = "UTC"
    clock: Clock = field(default_factory=SystemClock, repr=False)

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("usd", "store", "per", "every", "name", "timezone")}
        misfit = find_misfit(given, _EXPECTED)
        if misfit is None and self.per == "day" and self.every is not None:
            misfit = "per='day' begins anew each day; leave every= out, or say per='all'"
        if misfit is None and not _is_zone(self.timezone):
            misfit = f"timezone is {self.timezone!r}, expected a name such as 'Asia/Seoul'"
        if misfit is None and inspect.iscoroutinefunction(self.per):
            misfit = "per is an async function, expected a plain one"
        if misfit is not None:
            raise ConfigurationError(f"Budget: {misfit}")

    def open(self, context: Context[Any]) -> "Account":
        """Open the account for a run of this context; raises `ConfigurationError` if the context has no owner for it."""
        if callable(self.per):
            who = self._find_sharers(self.per, context)
            return Account(self, ["by", who], f" for {who}")
        if self.per in ("all", "day"):
            return Account(self, ["all"], "")
        if context.user is None and self.per == "user":
            raise ConfigurationError(f"the budget {self.name!r} is for each user: start the run with user=…")
        if context.session is None and self.per == "session":
            raise ConfigurationError(f"the budget {self.name!r} is for each session: start the run with session=…")
        if self.per == "user":
            return Account(self, ["user", context.user], f" for user {context.user!r}")
        return Account(self, ["session", context.user, context.session], f" for session {context.session!r}")

    def _find_sharers(self, per: Callable[[Context[Any]], object], context: Context[Any]) -> str:
        """Call the user's function; a result that isn't a text would be one account for everybody."""
        try:
            who = per(context)
        except Exception as error:  # the user's function
            raise ConfigurationError(
                f"the budget {self.name!r}: per= raised {type(error).__name__}: {error}"
            ) from error
        if not isinstance(who, str) or not who:
            raise ConfigurationError(f"the budget {self.name!r}: per= returned {who!r}, expected a text")
        return who

    async def look(self, *, user: str | None = None, session: str | None = None, data: object = None) -> BudgetState:
        """Return its state for a run of this user and session."""
        return await self.open(Context(data, user=user, session=session)).look()

    def find_period(self) -> tuple[str, float | None]:
        """Find the current period: its name as a text, and when it ends."""
        every: Every | timedelta | None = "day" if self.per == "day" else self.every
        wall = self.clock.wall()
        if every is None:
            return "", None
        if isinstance(every, timedelta):
            length = every.total_seconds()
            begins = math.floor(wall / length) * length
            return f"{begins:.0f}", begins + length
        now = datetime.fromtimestamp(wall, ZoneInfo(self.timezone))
        if every == "hour":
            # Counted on the clock of the world: an hour that a zone repeats in autumn is another one.
            begins = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
            return begins.isoformat(), (begins + timedelta(hours=1)).timestamp()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        if every == "day":
            first, after = midnight, midnight + timedelta(days=1)
        elif every == "week":
            first = midnight - timedelta(days=midnight.weekday())
            after = first + timedelta(days=7)
        else:
            first = midnight.replace(day=1)
            after = (first + timedelta(days=32)).replace(day=1)
        return f"{every} {first.date().isoformat()}", after.timestamp()

    def say_reset(self, resets_at: float | None) -> str:
        """Return when the budget resets, as the end of a sentence."""
        if resets_at is None:
            return "doesn't reset"
        at = datetime.fromtimestamp(resets_at, ZoneInfo(self.timezone))
        return f"resets at {at:%Y-%m-%d %H:%M} {at.tzname()}"


@dataclass(frozen=True, slots=True)
class Account:
    """The account of one owner, such as a user or a session, in a budget."""

    budget: Budget
    key: list[str | None]
    who: str

    @property
    def name(self) -> str:
        """The budget's name."""
        return self.budget.name

    @property
    def place(self) -> tuple[int, str, str]:
        """The account's identity among those of this process."""
        return id(self.budget.store), self.budget.name, dumps(self.key).decode()

    async def look(self) -> BudgetState:
        """Return its current state."""
        period, resets_at = self.budget.find_period()
        return BudgetState(self.budget.usd, await self.budget.store.read_spent(self._name(period)), resets_at)

    async def pay(self, usd: float) -> None:
        """Add an amount."""
        if usd:
            await self.budget.store.add_spent(self._name(self.budget.find_period()[0]), usd)

    def explain(self, state: BudgetState) -> BudgetSpent:
        """Make the error for a spent budget."""
        return BudgetSpent(self.budget.name, self.who, state, self.budget.say_reset(state.resets_at))

    def _name(self, period: str) -> str:
        return dumps([self.budget.name, *self.key, period]).decode()


def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _is_amount(value: object) -> bool:
    return is_number(value) and float(str(value)) >= 0


_EXPECTED: Mapping[str, Expected] = {
    "usd": Expected("US dollars as a number, 0 or more", _is_amount, takes_none=False),
    "store": Expected(
        "a journal, such as Journal('runs.sqlite3')", has_methods("add_spent", "read_spent"), takes_none=False
    ),
    "per": Expected(
        "'user', 'session', 'all', 'day', or a function of the context",
        lambda value: callable(value) or value in ("user", "session", "all", "day"),
        takes_none=False,
    ),
    "every": Expected(
        "'hour', 'day', 'week', 'month', or a timedelta",
        lambda value: (
            (isinstance(value, timedelta) and value.total_seconds() > 0) or value in ("hour", "day", "week", "month")
        ),
    ),
    "name": TEXT,
    "timezone": TEXT,
}


async def check_budgets(meter: Meter, log: EventLog, turn: int) -> None:
    """Report the state of each budget, and limit the next answer by it; raises `LimitReached` for one that is spent."""
    left: list[float] = []
    for account in meter.payers:
        state = await account.look()
        log.emit(events.BudgetChecked, account.name, turn, state.usd, state.left_usd, state.resets_at)
        if state.left_usd <= 0:
            raise account.explain(state)
        left.append(state.left_usd)
    meter.budget_left_usd = min(left, default=None)


async def pay_budgets(meter: Meter, cost_usd: float | None) -> None:
    """Add the cost of an answer; raises `LimitReached` if it is unknown."""
    payers = meter.payers
    if payers and cost_usd is None:
        raise LimitReached(f"the budget {payers[0].name!r} can't be kept any longer: an answer didn't say what it took")
    if not payers:
        return
    paying = [asyncio.create_task(account.pay(cost_usd or 0.0)) for account in payers]
    try:
        await asyncio.wait(paying)
    except asyncio.CancelledError:
        # A run that is stopped meanwhile has still incurred the cost, for each of its budgets.
        await asyncio.wait(paying)
        raise
    for paid in paying:
        paid.result()
