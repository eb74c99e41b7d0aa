"""What a request cost."""

import sys
import threading
from dataclasses import dataclass

import pytest

from flowkit import Agent
from flowkit.messages import Usage
from flowkit.models import pricing
from flowkit.models.pricing import Price, find_unpriced, get_cost
from flowkit.models.routing import FallbackModel, Router
from flowkit.models.scripted import ScriptedModel
from flowkit.testing import run_virtual

USAGE = Usage(1_000_000, 100_000, cached_tokens=400_000, thinking_tokens=60_000)


@dataclass
class Addressed(ScriptedModel):
    """A scripted model behind an address."""

    def __init__(self, name: str, base_url: str) -> None:
        super().__init__([], name=name)
        self.base_url = base_url


def test_cached_tokens_cost_their_own_price() -> None:
    assert Price(input=2, output=8, cached=0.5).cost(USAGE) == pytest.approx(1.2 + 0.2 + 0.8)
    assert Price(input=2, output=8).cost(USAGE) == pytest.approx(2.8)


def test_thinking_is_counted_once_as_output() -> None:
    thinks, says = Usage(0, 100, thinking_tokens=90), Usage(0, 100)
    assert Price(input=1, output=1).cost(thinks) == Price(input=1, output=1).cost(says)


def test_an_own_price_comes_before_all() -> None:
    model = ScriptedModel([], name="gpt-4.1", price=Price(input=1, output=0))
    assert get_cost(model, Usage(1_000_000, 5, cost_usd=9.0)) == 1.0


def test_what_the_server_charged_comes_before_the_table() -> None:
    assert get_cost(ScriptedModel([], name="gpt-4.1"), Usage(1_000_000, 0, cost_usd=0.25)) == 0.25


def test_the_table_knows_models_by_name_and_address() -> None:
    expected = 0.6 * 2.0 + 0.4 * 0.5 + 0.1 * 8.0
    assert get_cost(ScriptedModel([], name="gpt-4.1"), USAGE) == pytest.approx(expected)
    assert get_cost(Addressed("gpt-4.1", "https://api.openai.com/v1"), USAGE) == pytest.approx(expected)
    assert get_cost(Addressed("openai/gpt-4.1", "https://openrouter.ai/api/v1"), USAGE) == pytest.approx(expected)


def test_unknown_is_none_and_never_zero() -> None:
    unknown = ScriptedModel([], name="house-model")
    assert get_cost(unknown, USAGE) is None
    assert find_unpriced(unknown) is unknown


def test_a_known_model_behind_an_unknown_gateway_is_unknown() -> None:
    """The gateway sets its own prices."""
    assert get_cost(Addressed("gpt-4.1", "http://gateway.example/v1"), USAGE) is None


def test_several_models_are_priced_when_each_is() -> None:
    known, unknown = ScriptedModel([], price=Price(input=1, output=1)), ScriptedModel([], name="house-model")
    assert find_unpriced(FallbackModel(known, known)) is None
    assert find_unpriced(FallbackModel(known, unknown)) is unknown
    assert find_unpriced(Router(lambda messages, data: known, known)) is None
    assert find_unpriced(Router(lambda messages, data: known, FallbackModel(known, unknown), known)) is unknown
    assert find_unpriced(router := Router(lambda messages, data: known)) is router, "nobody knows what it may pick"
    assert get_cost(FallbackModel(known), Usage(5, 5)) is None
    assert get_cost(FallbackModel(known), Usage(5, 5, cost_usd=0.5)) == 0.5


def test_without_the_table_only_own_prices_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    assert get_cost(ScriptedModel([], name="gpt-4o-mini-2024-07-18"), USAGE) is None
    assert find_unpriced(ScriptedModel([], price=Price(input=1, output=1))) is None


def test_prices_are_loaded_beside_the_loop() -> None:
    """The table takes half a second: in a thread, so that other runs go on meanwhile."""
    threads: list[int] = []
    original = pricing._is_in_table  # pyright: ignore[reportPrivateUsage]

    def look(name: str, base_url: str | None) -> bool:
        threads.append(threading.get_ident())
        return original(name, base_url)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pricing, "_is_in_table", look)
        model = ScriptedModel(["Hi"], name="a model that nobody asked for yet")
        run_virtual(Agent(model, cache=False).run("hi"))
    assert threads[0] != threading.get_ident()
