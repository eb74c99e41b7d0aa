"""An app for tests in a browser: the shop's tools and recipe, with a model that says what its message asks for.

flowkit serve tests/web_app.py
"""

import asyncio
from collections.abc import Sequence

from flowkit import CONTEXT, Agent, Context, Usage, tool
from flowkit.messages import AssistantMessage, UserMessage
from flowkit.models.base import ModelRequest
from flowkit.models.pricing import Price
from flowkit.models.scripted import Piece
from flowkit.testing import ScriptedModel, call, thinking
from shop import agent as shop_agent
from shop import get_order_status, open_data, order_support

__all__ = ["agent", "open_data", "order_support"]


@tool(effect="read")
async def count_slowly(to: int, ctx: Context[object] = CONTEXT) -> int:
    """Count, a tenth of a second for each number."""
    for number in range(1, to + 1):
        await asyncio.sleep(0.1)
        ctx.progress(number, to, f"counted to {number}")
    return to


@tool(effect="read")
async def echo(text: str) -> str:
    """Say it again."""
    return text


@tool(effect="read")
async def echo_often(times: int, ctx: Context[object] = CONTEXT) -> int:
    """Say many things again."""
    said = await asyncio.gather(*(ctx.call(echo, text=f"number {number}") for number in range(times)))
    return len(said)


@tool(effect="read")
async def list_products(count: int) -> list[dict[str, str | int]]:
    """List made-up products; the names try to be markup."""
    return [
        {"id": number, "name": f"<b onclick=alert(1)>tea {number}</b> ", "note": "배송 " * 40}
        for number in range(count)
    ]


@tool(approval=True, secret=("pin",))
async def charge(amount_won: int, pin: str, express: bool = False) -> str:
    """Charge a card."""
    return f"charged {amount_won} with a pin of {len(pin)}"


def answer(request: ModelRequest) -> Sequence[Piece]:
    """The next turn of the conversation."""
    said = [(index, message) for index, message in enumerate(request.messages) if isinstance(message, UserMessage)]
    position, asked = said[-1][0], str(said[-1][1].content)
    turn = sum(isinstance(message, AssistantMessage) for message in request.messages[position + 1 :]) + 1
    usage = Usage(input_tokens=1200, output_tokens=90)
    match asked.split()[0].lower().strip("?.,"), turn:
        case "where", 1:
            return [
                thinking("The customer asks for an order and names none, "), 0.2,
                thinking("so I take the latest, and look at what goes with it."), 0.3,
                "I look at your latest order ", 0.15, "and at what would go with it.",
                call("track_parcel").slowly(0.4), call("search_products", query="tea", category="food").slowly(0.5),
                call("recommend_products", limit=3).slowly(0.2), call("calculate_shipping", destination="부산", weight_kg=2), usage,
            ]  # fmt: skip
        case "where", _:
            return [
                "Your order ORD-1066 is on its way: the parcel has left the warehouse. ", 0.3,
                "Sending 2 kg more to Busan would cost 4,000 won.\n\n", 0.2, "Green tea would go well with it.", usage,
            ]  # fmt: skip
        case "refund", 1:
            return [
                "I prepare the refund.",
                call("refund_order", order_id="ORD-1066", amount_won=60_000, reason="late").slowly(0.3),
            ]
        case "charge", 1:
            return [call("charge", amount_won=5000, pin="4321"), call("echo", text="beside it")]
        case "two", 1:
            return [call("charge", amount_won=1, pin="1111"), call("charge", amount_won=2, pin="2222")]
        case "count", 1:
            return ["I count. ", call("count_slowly", to=1000 if "thousand" in asked else 100)]
        case "many", 1:
            return [call("echo_often", times=500)]
        case "huge", 1:
            return [call("list_products", count=12_000)]
        case "huge", _:
            return ["There are many."]
        case "pieces", 1:
            return [
                piece
                for number in range(20_000)
                for piece in ([f"w{number} "] if number % 100 else [f"w{number} ", 0.005])
            ]
        case "fail", 1:
            return [call("calculate_shipping", destination="<img src=x onerror=alert(1)>", weight_kg=1)]
        case "break", 1:
            raise RuntimeError("the model is broken")
        case "long", 1:
            return [piece for number in range(400) for piece in (f"line {number}\n", 0.01)]
        case _:
            return [f"You said: {asked}", 0.05, ". That is all."]


agent = Agent(
    ScriptedModel(answer, name="scripted-1", price=Price(input=2.0, output=8.0)),
    name="shop",
    tools=[shop_agent.tools, count_slowly, echo, echo_often, list_products, charge],
    prefetch=[get_order_status.call()],
)
