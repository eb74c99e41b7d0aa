"""What a user writes with tools; a strict checker accepts every line."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, assert_type

from pydantic import BaseModel

from flowkit import CONTEXT, Context, Needs, Tool, ToolCall, tool


class Order(BaseModel):
    id: str
    total: float


class Quote(BaseModel):
    price: float


@dataclass(frozen=True)
class Shop:
    customer_id: str


@tool(ttl=300, scope="user", resource="order:{order_id}")
async def get_order(order_id: str | None = None, ctx: Context[Shop] = CONTEXT) -> Order:
    return Order(id=order_id or ctx.data.customer_id, total=1.0)


@tool(effect="read")
async def quote_shipping(express: bool = False, order: Order = Needs(get_order)) -> Quote:
    return Quote(price=order.total * (2 if express else 1))


@tool
def add(a: int, b: int = 1) -> int:
    return a + b


@tool(effect="read")
def double(a: int, summed: int = Needs(add, a="first", b="second")) -> int:
    return a + 2 * summed


@tool
async def plan(ctx: Context[Shop], order_id: str) -> float:
    order = await ctx.call(get_order, order_id)
    assert_type(order, Order)
    three = await ctx.call(add, 1, b=2)
    assert_type(three, int)
    ctx.progress(1, 2, "half way")
    return order.total


class Desk:
    @tool(effect="read")
    def find(self, word: str) -> list[str]:
        return [word]

    @tool
    async def close(self, ctx: Context[Shop], ticket: int) -> None: ...


async def use() -> None:
    assert_type(add(1, b=2), int)
    assert_type(await get_order("1"), Order)
    assert_type(get_order.call("1"), ToolCall)
    assert_type(await get_order.run({"order_id": "1"}), Order)
    assert_type(await add.run('{"a": 1}'), int)
    desk = Desk()
    assert_type(desk.find("x"), list[str])
    assert_type(await desk.find.run({"word": "x"}), list[str])
    await desk.close(Context(Shop("c")), 1)


def look() -> None:
    assert_type(add.parameters["properties"]["a"]["type"], Any)
    assert_type(add.for_target("openai")["function"]["name"], Any)
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    Tool.from_openai({"type": "function", "function": {"name": "f", "parameters": schema}}, print)
    Tool.from_schema("f", "", schema, print)


anything: Tool[..., object] = add
wider: Tool[[int, int], object] = Tool.from_schema("f", "", {}, print)
function: Callable[[int], int] = add
waiting: Callable[[str], Coroutine[Any, Any, Order]] = get_order


@tool(effect="read", pool="process")
def count_primes(below: int) -> int:
    return below


@tool(effect="read", pool="dask", timeout=60)
async def count_far(below: int) -> int:
    return below


primes: int = count_primes(10)
