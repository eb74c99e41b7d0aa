"""Run with `python -m pytest`: a scripted model stands in for a real one, and the tools are the real ones."""

from pathlib import Path

import shop
from flowkit.testing import ScriptedModel, call


def test_the_agent_calculates_shipping(tmp_path: Path) -> None:
    model = ScriptedModel([[call("calculate_shipping", destination="Busan", weight_kg=2)], "It costs 4,500 won."])
    with (
        shop.open_data(database=tmp_path / "shop.sqlite3", latency=0) as data,
        shop.agent.override(model=model, cache=False),
    ):
        result = shop.agent.run_sync("What does it cost to send 2 kg to Busan?", data=data, user="c-1")

    assert result.output == "It costs 4,500 won."
    shipping = [outcome for outcome in result.calls if outcome.call.name == "calculate_shipping"]
    assert [outcome.load(shop.calculate_shipping).days > 0 for outcome in shipping] == [True]
