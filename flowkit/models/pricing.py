"""The cost of a request, in US dollars.

A model's own `price` comes first, then the cost that the server reported, then the table of the `genai-prices`
package, by the model's name and its server's address. An unknown price is None, never zero; so is the price of a known
model behind an unknown gateway, which has its own prices.
"""

from dataclasses import dataclass
from functools import cache
from typing import Protocol, runtime_checkable

from flowkit.executor.threads import run_apart
from flowkit.messages import Usage
from flowkit.models.base import Model
from flowkit.models.wire.network_guard import is_local

MAX_LOOKED_UP = 10_000
"""Of how many models it is remembered that the table was asked; a process asks a few."""

_looked_up: set[tuple[str, str | None]] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars for a million tokens; cached input costs `cached`, or as much as other input.

    Input that is written into the server's cache costs `cache_write`, or 1.25 times as much as other input; for an
    hour `cache_write_1h`, or twice as much. Thinking is output: servers count it there.

    >>> Price(input=2.0, output=8.0, cached=0.5).cost(Usage(1_000_000, 100_000, cached_tokens=500_000))
    2.05
    """

    input: float
    output: float
    cached: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = None

    def cost(self, usage: Usage) -> float:
        """Return the cost of these tokens."""
        usage = usage.billed or usage
        cached = min(usage.cached_tokens, usage.input_tokens)
        cached_price = self.input if self.cached is None else self.cached
        hour = min(usage.cache_write_1h_tokens, usage.cache_write_tokens)
        hour_price = self.input * 2 if self.cache_write_1h is None else self.cache_write_1h
        written = min(usage.cache_write_tokens, usage.input_tokens - cached) - hour
        written_price = self.input * 1.25 if self.cache_write is None else self.cache_write
        fresh = usage.input_tokens - cached - written - hour
        sent = fresh * self.input + cached * cached_price + written * written_price + hour * hour_price
        return (sent + usage.output_tokens * self.output) / 1_000_000


@runtime_checkable
class Priced(Protocol):
    """A model with an optional price of its own, and an address for the table of prices."""

    @property
    def price(self) -> Price | None: ...

    @property
    def base_url(self) -> str | None: ...


@runtime_checkable
class ManyModels(Protocol):
    """A model that hands each request to one of several."""

    @property
    def models(self) -> tuple[Model, ...]: ...


def get_cost(model: Model, usage: Usage) -> float | None:
    """Return the cost of one request's tokens in US dollars; None if unknown.

    Routers and fallbacks write the cost into the usage, since only they know which model answered.
    """
    own = _own_price(model)
    if own is not None:
        return own.cost(usage)
    if usage.cost_usd is not None or hasattr(model, "models"):
        return usage.cost_usd
    return _table_cost(model.name, _own_address(model), usage)


# Each turn asks these; `isinstance` with a protocol takes as long as reading three chunks of an answer.


def _own_price(model: Model) -> Price | None:
    """Return `Priced.price`, where the model has one."""
    price: object = getattr(model, "price", None)
    return price if isinstance(price, Price) else None


def _own_address(model: Model) -> str | None:
    """Return `Priced.base_url`, where the model has one."""
    address: object = getattr(model, "base_url", None)
    return address if isinstance(address, str) else None


async def load_prices(model: Model) -> None:
    """Load the table of prices in a thread, if this model's cost needs it; that takes half a second."""
    members: tuple[Model, ...] = getattr(model, "models", ())
    for member in members:
        await load_prices(member)
    if not members and _own_price(model) is None:
        key = (model.name, _own_address(model))
        if key not in _looked_up:
            await run_apart(lambda: _is_in_table(*key))
            if len(_looked_up) < MAX_LOOKED_UP:
                _looked_up.add(key)


def find_unpriced(model: Model) -> Model | None:
    """Find the first model without a known price; a server may still report the cost."""
    if isinstance(model, ManyModels) and model.models:
        return next((found for member in model.models if (found := find_unpriced(member)) is not None), None)
    return model if get_cost(model, Usage(1, 1)) is None else None


def _table_cost(name: str, base_url: str | None, usage: Usage) -> float | None:
    # Unknown models are remembered as unknown: the table's search costs a millisecond, and each turn asks.
    if not _is_in_table(name, base_url):
        return None
    import genai_prices

    usage = usage.billed or usage
    cached = min(usage.cached_tokens, usage.input_tokens)
    written = min(usage.cache_write_tokens, usage.input_tokens - cached)
    writes = {} if not written else {"cache_write_tokens": written}
    if usage.cache_write_1h_tokens:
        writes["cache_write_1h_tokens"] = min(usage.cache_write_1h_tokens, written)
    counted = genai_prices.Usage(
        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cache_read_tokens=cached, **writes
    )
    if base_url is None:
        return float(genai_prices.calc_price(counted, name).total_price)
    return float(genai_prices.calc_price(counted, name, provider_api_url=base_url).total_price)


@cache
def _is_in_table(name: str, base_url: str | None) -> bool:
    if base_url is not None and is_local(base_url):
        return False  # known without the table, which takes 20 ms to load
    try:
        import genai_prices
    except ModuleNotFoundError:  # the extra `prices` isn't installed: only prices given by hand are known
        return False
    one = genai_prices.Usage(input_tokens=1, output_tokens=1)
    try:
        if base_url is None:
            genai_prices.calc_price(one, name)
        else:
            genai_prices.calc_price(one, name, provider_api_url=base_url)
    except LookupError:
        return False
    return True
