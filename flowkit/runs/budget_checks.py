"""Keeping budgets in a run: looked at before each turn, paid after each answer."""

from flowkit import events
from flowkit.events import EventLog
from flowkit.runs.limits import LimitReached, Meter


async def check_budgets(meter: Meter, log: EventLog, turn: int) -> None:
    """Report how each budget stands, and bound the next answer by it; raises `LimitReached` for one that is spent."""
    left: list[float] = []
    for account in meter.payers:
        state = await account.look()
        log.emit(events.BudgetChecked, account.name, turn, state.usd, state.left_usd, state.resets_at)
        if state.left_usd <= 0:
            raise account.explain(state)
        left.append(state.left_usd)
    meter.budget_left_usd = min(left, default=None)


async def pay_budgets(meter: Meter, cost_usd: float | None) -> None:
    """Add what an answer has cost; raises `LimitReached` where nobody knows what that is."""
    payers = meter.payers
    if payers and cost_usd is None:
        raise LimitReached(f"the budget {payers[0].name!r} can't be kept any longer: an answer didn't say what it took")
    for account in payers:
        # A run that is stopped meanwhile has paid: what is given to the store is written.
        await account.pay(cost_usd or 0.0)
