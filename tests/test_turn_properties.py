"""For every script of a model and every fate of its tools: one result for each call, and no write twice."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st

from flowkit.agent import Agent, AgentResult
from flowkit.errors import ModelError, StreamTruncated, ToolError
from flowkit.events import CallFinished, CallNew, CallSealed, Event
from flowkit.history import mend
from flowkit.messages import AssistantMessage
from flowkit.models.scripted import CUT, Piece, ScriptedCall, ScriptedModel, call, finish
from flowkit.testing.loop import run_virtual
from flowkit.tools import tool

Fate = Literal["works", "fails", "breaks", "hangs"]
CLOSING = (
    "call.finished",
    "call.failed",
    "call.skipped",
    "call.denied",
    "call.cancelled",
    "call.void",
    "call.in_doubt",
)


@dataclass(frozen=True)
class Planned:
    """A call that the model makes: what kind of tool, what happens to it, how long it takes."""

    kind: Literal["look", "put", "nope"]
    number: int
    fate: Fate
    tenths: int

    def scripted(self) -> ScriptedCall:
        made = call(self.kind, number=self.number, fate=self.fate, tenths=self.tenths)
        return made.slowly(0.1) if self.number % 2 else made


planned = st.builds(
    Planned,
    st.sampled_from(["look", "look", "put", "nope"]),
    st.integers(0, 3),
    st.sampled_from(["works", "works", "fails", "breaks", "hangs"]),
    st.integers(0, 5),
)
endings = st.sampled_from([None, None, None, CUT, finish("length"), finish("stop"), ModelError("gone", retryable=True)])


@st.composite
def scripts(draw: st.DrawFn) -> list[list[Piece]]:
    """Turns of text, pauses and calls, some of which break off."""
    turns: list[list[Piece]] = []
    for _ in range(draw(st.integers(1, 3))):
        pieces: list[Piece] = []
        for one in draw(st.lists(planned, max_size=4)):
            pieces += ["…", one.scripted(), draw(st.sampled_from([0.0, 0.1, 0.4]))]
        ending = draw(endings)
        turns.append([*pieces, ending] if ending is not None else pieces)
    return turns


def run(
    turns: list[list[Piece]], cancel_at: float | None
) -> tuple[AgentResult[str] | None, list[Event], list[tuple[str, int, str, int]]]:
    """The result, the events, and every start of a tool with the arguments that it was given."""
    starts: list[tuple[str, int, str, int]] = []

    async def work(name: str, number: int, fate: str, tenths: int) -> str:
        starts.append((name, number, fate, tenths))
        await asyncio.sleep(1000 if fate == "hangs" else tenths / 10)
        if fate == "fails":
            raise ToolError("no")
        if fate == "breaks":
            raise RuntimeError("oh")
        return f"{name} {number}"

    @tool(effect="read", timeout=2, retries=1)
    async def look(number: int, fate: str, tenths: int) -> str:
        return await work("look", number, fate, tenths)

    @tool(timeout=2)
    async def put(number: int, fate: str, tenths: int) -> str:
        return await work("put", number, fate, tenths)

    async def go() -> tuple[AgentResult[str] | None, list[Event]]:
        agent = Agent(ScriptedModel([*turns, "Done.", "Done.", "Done."]), tools=[look, put], cache=False)
        started = agent.start("go")
        if cancel_at is not None:
            asyncio.get_running_loop().call_later(cancel_at, started.cancel)
        seen = [event async for event in started]
        return await started.wait(), seen

    result, seen = run_virtual(go())
    return result, seen, starts


@given(scripts(), st.none() | st.sampled_from([0.0, 0.05, 0.15, 0.3, 0.6, 1.2, 2.5]))
def test_every_call_is_closed_once_and_the_history_is_valid(turns: list[list[Piece]], cancel_at: float | None) -> None:
    result, events, _ = run(turns, cancel_at)
    opened = [event.call for event in events if isinstance(event, CallNew)]
    closed = Counter(str(event.to_json()["call"]) for event in events if event.type in CLOSING)
    assert sorted(opened) == sorted(closed)
    assert set(closed.values()) <= {1}
    assert result is not None
    assert mend(result.messages) == result.messages
    assert [event.seq for event in events] == sorted({event.seq for event in events})


@given(scripts(), st.none() | st.sampled_from([0.05, 0.15, 0.3, 0.6, 1.2]))
def test_no_write_starts_twice_and_none_before_its_turn_has_ended_well(
    turns: list[list[Piece]], cancel_at: float | None
) -> None:
    result, events, starts = run(turns, cancel_at)
    assert result is not None
    asked = Counter(
        (requested.name, requested.arguments)
        for message in result.messages
        if isinstance(message, AssistantMessage)
        for requested in message.calls
    )
    started = Counter(start for start in starts if start[0] == "put")
    for (name, number, fate, tenths), count in started.items():
        arguments = call(name, number=number, fate=fate, tenths=tenths).arguments
        # Each write that started stands in the history, as often as the model sealed it in a turn that ended well.
        assert count <= asked[name, arguments]
    sealed: list[Any] = [event.arguments for event in events if isinstance(event, CallSealed)]
    finished = [event for event in events if isinstance(event, CallFinished) and event.source == "run"]
    assert len(finished) <= len(sealed)
    for name, number, fate, tenths in starts:
        if name == "put":
            assert {"number": number, "fate": fate, "tenths": tenths} in sealed


@given(st.lists(planned, min_size=1, max_size=5), st.integers(0, 40))
def test_a_body_that_ends_after_any_event_starts_no_write_and_says_that_it_was_cut_off(
    calls: list[Planned], place: int
) -> None:
    pieces: list[Piece] = [piece for one in calls for piece in ("…", one.scripted(), 0.1)]
    cut = pieces[: place % len(pieces) + 1]
    result, events, starts = run([[*cut, CUT]] * 3, None)
    assert not [start for start in starts if start[0] == "put"]
    assert result is not None
    assert result.status == "failed"
    assert isinstance(result.error, StreamTruncated)
    assert not [event for event in events if isinstance(event, CallFinished)]
