"""A recipe of a file for tests in a browser, with each, when and ask: `flowkit serve tests/web_recipe.py`."""

from pathlib import Path

from flowkit import Usage, load_recipe, tool
from flowkit.models.pricing import Price
from flowkit.testing import ScriptedModel

__all__ = ["support"]

ASKED: set[str] = set()


@tool(effect="read")
async def get_order(order_id: str) -> dict[str, object]:
    """Read an order; the database is away at first."""
    if order_id not in ASKED:
        ASKED.add(order_id)
        raise ConnectionError("the database is away")
    return {
        "id": order_id,
        "status": "cancelled",
        "items": [{"sku": "S-1", "name": "tea"}, {"sku": "S-2", "name": "cup"}],
    }


@tool(effect="read")
async def search_products(query: str) -> list[dict[str, object]]:
    """Search for products."""
    return [{"id": number, "name": f"{query} {number}"} for number in range(2)]


@tool(approval=True)
async def refund_order(order_id: str, amount_won: int = 6000, notify: bool = True) -> str:
    """Pay an order back."""
    return f"{order_id}: {amount_won} won paid back{' and told' if notify else ''}"


small = ScriptedModel(
    lambda _: ["It was cancelled.", Usage(input_tokens=1200, output_tokens=90)],
    name="small-1",
    price=Price(input=2.0, output=8.0),
)
support = load_recipe(
    Path(__file__).with_suffix(".yaml"), tools=[get_order, search_products, refund_order], models={"small": small}
)
