"""A shop's run with all that a trace can show, and its spans as a tree in text.

In its first turn an order is looked up early with the user it needs, two equal calls are one, a payment fails, a recipe
looks at each of two items, and a nested agent is asked. In its second turn a result comes from the cache.
"""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, StatusCode
from pydantic import SecretStr

from flowkit import Agent, AgentResult, DiskCache, Needs, ScriptedModel, each, recipe, step, tool
from flowkit.messages import Usage
from flowkit.models.scripted import call
from flowkit.telemetry import names
from flowkit.testing.loop import VirtualLoop


@tool(effect="read")
async def get_user(uid: str) -> str:
    """Get a user."""
    await asyncio.sleep(0.1)
    return uid


@tool(effect="read")
async def get_order(order: str, user: str = Needs(get_user, uid="order")) -> str:
    """Get an order."""
    await asyncio.sleep(0.2)
    return order


@tool(effect="read", ttl=600)
async def get_stock(item: str) -> str:
    """Look in the stock."""
    await asyncio.sleep(0.3)
    return item


@tool(effect="write")
async def pay(card: SecretStr) -> str:
    """Pay."""
    raise RuntimeError(f"gateway down {card.get_secret_value()}")


@recipe
def look_all(items: list[str]) -> list[str]:
    """Look at all."""
    return each(items, lambda item: step(get_stock, item))


def make_shop(cache: DiskCache) -> Agent:
    """Make the shop's agent."""
    finder = Agent(
        ScriptedModel([[0.1, call("get_user", uid="h"), 0.1, Usage(30, 5)], ["found", Usage(40, 2)]], name="small"),
        tools=[get_user],
        name="finder",
        cache=cache,
    )
    turns = [
        [
            0.2,
            call("get_order", order="7"),
            0.6,
            call("get_stock", item="a"),
            call("get_stock", item="a"),
            call("pay", card="s3cret-card"),
            call("look_all", items=["b", "c"]),
            call("helper", task="find"),
            0.1,
            Usage(100, 20),
        ],
        [0.2, call("get_stock", item="a"), Usage(50, 5)],
        [0.2, "done", Usage(60, 1)],
    ]
    tools = [get_order, get_stock, pay, look_all.as_tool(), finder.as_tool(name="helper", description="Help.")]
    return Agent(ScriptedModel(turns, name="large"), tools=tools, name="shop", cache=cache)


def run_shop(folder: Path) -> AgentResult[str]:
    """Run it in virtual time; its cache is in this folder."""

    async def run() -> AgentResult[str]:
        cache = DiskCache(folder / "cache")
        try:
            return await make_shop(cache).run("go", user="ann", session="s-1")
        finally:
            await cache.close()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


def draw_tree(spans: Sequence[ReadableSpan]) -> str:
    """Draw spans as a tree: how each ended, and what it is linked to; siblings by name, since they run in parallel."""
    titles = {_context(span).span_id: _title(span) for span in spans}

    def draw(parent: int | None) -> Iterable[str]:
        below = [span for span in spans if (span.parent.span_id if span.parent else None) == parent]
        blocks = [[_describe(span, titles), *(f"  {line}" for line in draw(_context(span).span_id))] for span in below]
        return [line for block in sorted(blocks) for line in block]

    return "\n".join(draw(None)) + "\n"


def _context(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    assert context is not None
    return context


def _title(span: ReadableSpan) -> str:
    turn = (span.attributes or {}).get(names.TURN)
    return span.name if turn is None else f"{span.name} turn {turn}"


def _describe(span: ReadableSpan, titles: dict[int, str]) -> str:
    attributes = span.attributes or {}
    said = [str(attributes[name]) for name in (names.STATE, names.SOURCE, names.ERROR_TYPE) if name in attributes]
    if attributes.get(names.EARLY):
        said.append("early")
    if span.status.status_code is StatusCode.ERROR:
        said.append("ERROR")
    links = sorted(f"{(link.attributes or {})[names.EDGE]} {titles[link.context.span_id]}" for link in span.links)
    return " | ".join([_title(span), *([", ".join(said)] if said else []), *links])
