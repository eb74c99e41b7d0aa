"""A customer asks three things about an order: with needs and prefetch, without them, and one call after another.

    python -m tests.bench.service [--json]

The model and the tools take fixed times (a first token after 0.6 s, 0.15 s for each call it writes, tools of 0.3 to
0.5 s), so the figures are the same on every machine: virtual time, the real agent. Tokens are counted as four
characters of the messages and schemas that each request carries.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flowkit import Agent, Needs, ScriptedModel, tool
from flowkit.events import TextDelta
from flowkit.messages import Usage
from flowkit.models.base import ModelRequest
from flowkit.models.scripted import Piece, Script, call
from flowkit.references import ToolCall
from flowkit.testing import run_virtual
from tests.bench.report import Report

FIRST_TOKEN_S = 0.6
CALL_S = 0.15


@tool(effect="read")
async def get_order(order_id: str | None = None) -> dict[str, Any]:
    """Find an order; the latest when none is named."""
    await asyncio.sleep(0.4)
    return {"id": order_id or "ORD-1002", "city": "Busan", "weight_kg": 1.1, "items": ["mouse", "tea"]}


@tool(effect="read")
async def quote_shipping(order: dict[str, Any] = Needs(get_order)) -> str:
    """Say what sending an order costs."""
    await asyncio.sleep(0.3)
    return f"4000 won to {order['city']}"


@tool(effect="read")
async def track_parcel(order: dict[str, Any] = Needs(get_order)) -> str:
    """Say where an order's parcel is."""
    await asyncio.sleep(0.5)
    return f"{order['id']} is in Daejeon"


@tool(effect="read", name="quote_shipping")
async def quote_by_hand(city: str, weight_kg: float) -> str:
    """Say what sending a parcel costs."""
    await asyncio.sleep(0.3)
    return f"4000 won to {city}"


@tool(effect="read", name="track_parcel")
async def track_by_hand(order_id: str) -> str:
    """Say where an order's parcel is."""
    await asyncio.sleep(0.5)
    return f"{order_id} is in Daejeon"


@tool(effect="read")
async def recommend(about: str) -> list[str]:
    """Find products that go with something."""
    await asyncio.sleep(0.3)
    return ["mouse pad", "tea pot"]


LOOK = call("get_order")
QUOTE = call("quote_shipping", city="Busan", weight_kg=1.1)
TRACK = call("track_parcel", order_id="ORD-1002")
OFFER = call("recommend", about="mouse")
ANSWER = "Your order is in Daejeon, sending it costs 4,000 won, and a mouse pad goes with it."


@dataclass(frozen=True)
class Way:
    """How the tools are declared, and what a model does with them: the calls of each turn."""

    name: str
    tools: Sequence[Any]
    turns: Sequence[Sequence[Any]]
    prefetch: Sequence[ToolCall] = ()


WAYS = (
    Way(
        "needs and prefetch",
        (get_order, quote_shipping, track_parcel, recommend),
        [[call("quote_shipping"), call("track_parcel"), OFFER]],
        (get_order.call(),),
    ),
    Way(
        "needs alone",
        (get_order, quote_shipping, track_parcel, recommend),
        [[call("quote_shipping"), call("track_parcel"), OFFER]],
    ),
    Way(
        "neither, calls in parallel",
        (get_order, quote_by_hand, track_by_hand, recommend),
        [[LOOK, OFFER], [QUOTE, TRACK]],
    ),
    Way(
        "one call after another",
        (get_order, quote_by_hand, track_by_hand, recommend),
        [[LOOK], [OFFER], [QUOTE], [TRACK]],
    ),
)


@dataclass(frozen=True)
class Figures:
    """What one conversation took."""

    first_text_s: float
    answer_s: float
    turns: int
    tokens: int


def measure(way: Way) -> Figures:
    """Run it in virtual time."""

    def answer(request: ModelRequest) -> Script:
        size = sum(len(json.dumps(message.to_json())) for message in request.messages)
        size += sum(len(json.dumps(dict(spec.parameters))) + len(spec.description) for spec in request.tools)
        pieces: list[Piece] = [FIRST_TOKEN_S]
        if request.turn <= len(way.turns):
            for made in way.turns[request.turn - 1]:
                pieces += [CALL_S, made]
        else:
            pieces.append(ANSWER)
        return [*pieces, Usage(size // 4, 30)]

    async def go() -> Figures:
        model = ScriptedModel(answer)
        agent = Agent(model, tools=way.tools, prefetch=way.prefetch, cache=False)
        run = agent.start("Where is my order, what does sending it cost, and what goes with it?")
        first = [event.t async for event in run if isinstance(event, TextDelta)]
        result = await run.wait()
        assert result.output == ANSWER
        return Figures(round(first[0], 2), round(run.log.now(), 2), len(model.requests), result.usage.total_tokens)

    return run_virtual(go())


def main() -> None:
    """Print the table; each ratio is the first way's time by this one's."""
    report = Report("service", json="--json" in sys.argv)
    figures = [measure(way) for way in WAYS]
    for way, one in zip(WAYS, figures, strict=True):
        report.row(way.name, figures[0].answer_s / one.answer_s, None, **asdict(one))
    report.print()


if __name__ == "__main__":
    main()
