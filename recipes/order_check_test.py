"""Run with `python -m pytest`: the recipe file with its real tools, on a database of its own."""

from pathlib import Path

import shop
from flowkit import load_recipe

TOOLS = [shop.get_order_status, shop.track_parcel, shop.calculate_shipping, shop.search_products]


def test_an_order_is_checked(tmp_path: Path) -> None:
    check = load_recipe(Path(__file__).with_name("order_check.yaml"), tools=TOOLS)
    with shop.open_data(user="c-1", database=tmp_path / "shop.sqlite3", latency=0) as data:
        result = check.options(data=data, user="c-1", cache=False).run_sync(order_id="ORD-1002")

    assert isinstance(result.output, dict)
    assert result.output["status"] == "shipped"
