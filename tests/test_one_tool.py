"""One tool run as a run: its approval, cache, journal, resource and events are those of every step."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowkit import Approve, Deny, Journal, Needs, tool
from flowkit.cache import DiskCache
from flowkit.errors import ToolArgumentsError
from flowkit.recipes.single import make_single


@tool(effect="write", approval=True)
async def refund(order_id: str) -> str:
    """Refund an order."""
    return f"refunded {order_id}"


def test_a_call_that_needs_approval_waits_and_goes_on_by_a_decision(tmp_path: Path) -> None:
    async def go() -> list[Any]:
        with closing(Journal(tmp_path / "journal.sqlite3")) as journal:
            waiting = await make_single(refund, {"order_id": "O-1"}).start({}, journal=journal, run_id="r-1").wait()
            (asked,) = waiting.pending
            resumed = make_single(refund, {"order_id": "O-1"}).start({}, journal=journal, run_id="r-1")
            resumed.add_decisions({asked.id: Approve()})
            done = await resumed.wait()
            again = make_single(refund, {"order_id": "O-2"}).start({}, journal=journal, run_id="r-2")
            (other,) = (await again.wait()).pending
            denied = make_single(refund, {"order_id": "O-2"}).start({}, journal=journal, run_id="r-2")
            denied.add_decisions({other.id: Deny("not this one")})
            result = await denied.wait()
            shown = journal.show("r-1")
            assert shown is not None
            return [waiting.status, done.status, done.output, shown.summary.status, result.calls[0].state]

    assert asyncio.run(go()) == ["waiting", "done", "refunded O-1", "done", "denied"]


def test_a_call_is_cached_and_its_needs_and_events_are_there(tmp_path: Path) -> None:
    ran: list[str] = []

    @tool(ttl=60, scope="all")
    async def get_order(order_id: str) -> str:
        """Get an order."""
        ran.append(order_id)
        return f"order {order_id}"

    @tool(effect="read")
    async def quote(express: bool = False, order: str = Needs(get_order)) -> str:
        """Quote its shipping."""
        return f"{order}, express {express}"

    async def go() -> list[Any]:
        cache = DiskCache(tmp_path)
        found: list[Any] = []
        for _ in range(2):
            run = make_single(quote, {"order_id": "O-1", "express": True}).start({}, cache=cache)
            types = [event.type async for event in run]
            found += [(await run.wait()).output, types.count("call.finished")]
        await cache.close()
        return found

    assert asyncio.run(go()) == ["order O-1, express True", 2] * 2
    assert ran == ["O-1"]


def test_wrong_arguments_are_refused_before_a_run_begins() -> None:
    with pytest.raises(ToolArgumentsError, match="order_id"):
        make_single(refund, {"order": "O-1"})
