"""How the stream of a run ends, and what it says of a call that waits for a person."""

import asyncio
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowkit import Agent, InDoubt, Journal, Limits, ModelError, ScriptedModel, sse, tool
from flowkit.codec import loads
from flowkit.executor import Approve
from flowkit.runs.run import Run
from flowkit.testing import call


@tool(effect="write", approval=True)
async def refund(order: str) -> str:
    """Give money back."""
    return "refunded"


@tool(effect="write")
async def pay() -> str:
    """Pay."""
    raise InDoubt("the bank didn't answer")


@tool(effect="read")
async def wait() -> None:
    """Wait for ever."""
    await asyncio.Event().wait()


async def read(run: Run[Any], after: int | None = None) -> list[dict[str, Any]]:
    """Read the events out of the bytes that a browser gets."""
    body = b"".join([chunk async for chunk in sse(run, after=after)]).decode()
    told = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    return [event for text in told if isinstance(event := loads(text), dict)]


@pytest.mark.parametrize(
    ("status", "turns"),
    [
        ("done", ["Hello."]),
        ("waiting", [[call("refund", order="ORD-1")]]),
        ("limit", [[call("pay")], "Hello."]),
        ("cancelled", [[call("wait")]]),
        ("in_doubt", [[call("pay")]]),
        ("failed", [[ModelError("no")]]),
    ],
)
def test_every_status_that_a_run_ends_with_is_told_by_its_last_event(status: str, turns: list[Any]) -> None:
    async def go() -> dict[str, Any]:
        limits = Limits(calls=0) if status == "limit" else None
        agent = Agent(ScriptedModel(turns), tools=[refund, pay, wait], cache=False, limits=limits)
        run = agent.start("Go.")
        if status == "cancelled":
            async for event in run:
                if event.type == "call.started":
                    run.cancel()
        *others, last = await read(run)
        assert "run.finished" not in [event["type"] for event in others]
        return last

    last = asyncio.run(go())
    assert (last["type"], last["status"]) == ("run.finished", status)


def test_call_that_waits_is_cancelled_for_now_and_comes_again_under_its_name(tmp_path: Path) -> None:
    async def go() -> None:
        with closing(Journal(tmp_path / "j")) as journal:
            model = ScriptedModel([[call("refund", order="ORD-1")], "Done."])
            agent = Agent(model, tools=[refund], cache=False, journal=journal)
            first = await read(agent.start("Go.", run_id="r"))
            (stopped,) = [event for event in first if event["type"] == "call.cancelled"]
            assert stopped["waits"] is True
            resumed = agent.start(run_id="r", decisions={stopped["call"]: Approve()})
            again = await read(resumed, after=first[-1]["seq"])
            assert [event["call"] for event in again if event["type"] == "call.finished"] == [stopped["call"]]
            assert again[0]["seq"] > first[-1]["seq"]

    asyncio.run(go())
