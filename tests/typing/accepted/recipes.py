"""Recipes as users write them; strict checkers have nothing to say."""

from dataclasses import dataclass
from typing import Never, TypedDict, assert_type

from flowkit import (
    CONTEXT,
    Agent,
    Context,
    Needs,
    Recipe,
    RecipeResult,
    ScriptedModel,
    ask,
    build,
    each,
    recipe,
    step,
    tool,
    when,
)
from flowkit.recipes import finally_, is_in, is_none, not_


@dataclass(frozen=True)
class Item:
    name: str
    count: int


@dataclass(frozen=True)
class Order:
    id: str
    status: str
    items: list[Item]
    note: str | None = None


@dataclass(frozen=True)
class Quote:
    won: int


class Hits(TypedDict):
    names: list[str]


@dataclass(frozen=True)
class Support:
    order: Order
    quote: Quote
    offers: list[Hits]
    refund: str | None


@dataclass(frozen=True)
class Verdict:
    ok: bool


@tool(ttl=300, scope="user")
async def get_order(order_id: str | None = None, ctx: Context[str] = CONTEXT) -> Order:
    raise NotImplementedError


@tool(effect="read")
async def quote_shipping(express: bool = False, order: Order = Needs(get_order)) -> Quote:
    raise NotImplementedError


@tool(effect="read")
def search_products(query: str, limit: int = 3) -> Hits:
    raise NotImplementedError


@tool
def refund_order(order_id: str) -> str:
    raise NotImplementedError


class Shop:
    @tool(effect="read")
    async def find(self, order_id: str) -> Order:
        raise NotImplementedError


shop = Shop()
model = ScriptedModel([])
clerk = Agent(model, output_type=Verdict)


@recipe
def order_support(order_id: str, express: bool = False) -> Support:
    order = step(get_order, order_id)
    quote = step(quote_shipping, express, order=order)
    offers = each(order.items, lambda item: step(search_products, item.name), at_once=4)
    refund = when(order.status == "cancelled", lambda: step(refund_order, order.id), otherwise=None)
    assert_type(order, Order)
    assert_type(quote, Quote)
    assert_type(offers, list[Hits])
    assert_type(refund, str | None)
    return build(Support, order=order, quote=quote, offers=offers, refund=refund)


assert_type(order_support.run_sync("ORD-1", express=True), RecipeResult[Support])
same: Recipe[[str, bool], Support] = order_support.options(user="c-17", data="shop")


@recipe(name="more")
def more(order_id: str) -> int | str:
    order = step(shop.find, order_id)
    inner = step(order_support, order.id)
    assert_type(inner, Support)
    lenient = step.options(optional=True, timeout=5)(search_products, order.id)
    assert_type(lenient, Hits | None)
    quote = step.options(fallback=lambda: 0, retries=2)(quote_shipping, order=order)
    assert_type(quote, Quote | int)
    holes = each(order.items, lambda item: item.count, on_error="null", key=lambda item: item.name)
    assert_type(holes, list[int | None])
    summary = ask(model, "Summarise {note}.", note=order.note)
    assert_type(summary, str)
    verdict = ask(model, "Judge {note}.", output_type=Verdict, note=order.note)
    assert_type(verdict, Verdict)
    unsure: Verdict | None = ask(model, "Judge {note} if you can.", output_type=Verdict | None, note=order.note)
    assert_type(unsure, Verdict | None)
    decided = ask(clerk, "Handle {order}.", order=order)
    assert_type(decided, Verdict)
    perhaps = ask.options(optional=True)(model, "Judge {note}.", note=order.note)
    assert_type(perhaps, str | None)
    finally_(lambda: step(refund_order, order.id))
    return when(
        not_(is_none(order.note)) & is_in(order.status, ("paid", "sent")) | (order.items[0].count > 2),
        lambda: inner.quote.won,
        otherwise=lambda: step(refund_order, order.id),
    )


Agent(model, tools=[more.as_tool()])


def call_it() -> None:
    assert_type(order_support("ORD-1"), Never)
