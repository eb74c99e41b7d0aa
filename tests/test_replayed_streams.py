"""Recorded bodies, served by a real HTTP server in pieces, come out as they do when they are read from memory."""

import asyncio
import random

import pytest

from flowkit.assemble import Assembler, Turn
from flowkit.errors import ModelError
from flowkit.messages import UserMessage
from flowkit.models.base import ModelRequest
from flowkit.models.openai import OpenAIModel
from flowkit.testing import read_turn
from tests.data_folder import RecordedBody, handmade_bodies, recorded_bodies
from tests.server import Reply, ScriptedServer, replay

BODIES = (*recorded_bodies("gold", "reviewed"), *handmade_bodies())
AT_ONCE = 8
"""How many streams are open at the same time."""


async def read(model: OpenAIModel, gate: asyncio.Semaphore) -> Turn:
    """The answer as a turn reads it."""
    assembler = Assembler()
    error: ModelError | None = None
    async with gate:
        try:
            async with model.stream(ModelRequest((UserMessage("go"),))) as deltas:
                async for delta in deltas:
                    assembler.feed(delta)
        except ModelError as broken:
            error = broken
    assembler.end(error)
    return assembler.turn


def serve(bodies: tuple[RecordedBody, ...], replies: dict[str, list[Reply]]) -> dict[str, Turn]:
    """What came of each body, by its name; the name travels as the model's."""
    with ScriptedServer(replies) as server:

        async def read_all() -> list[Turn]:
            gate = asyncio.Semaphore(AT_ONCE)
            models = [
                OpenAIModel(body.name, base_url=server.base_url, api="chat" if body.api == "chat" else "responses")
                for body in bodies
            ]
            return await asyncio.gather(*(read(model, gate) for model in models))

        turns = asyncio.run(read_all())
    return {body.name: turn for body, turn in zip(bodies, turns, strict=True)}


def said(turn: Turn) -> tuple[object, ...]:
    """Everything but the error's identity."""
    return (
        turn.text,
        turn.thinking,
        turn.refusal,
        turn.calls,
        turn.finish_reason,
        turn.usage,
        turn.complete,
        str(turn.error),
    )


@pytest.mark.skipif(not BODIES, reason="no test data: set FLOWKIT_TEST_DATA")
def test_every_body_says_over_http_what_it_says_in_memory() -> None:
    """In pieces of chance, so that letters, lines and events are cut."""
    chance = random.Random(7)
    replies = {
        body.name: [replay(body.body, cuts=sorted(chance.sample(range(len(body.body)), min(12, len(body.body)))))]
        for body in BODIES
    }
    turns = serve(BODIES, replies)
    expected = {body.name: read_turn(body.body, api=body.api) for body in BODIES}
    assert {name: said(turn) for name, turn in turns.items()} == {name: said(turn) for name, turn in expected.items()}


@pytest.mark.skipif(not BODIES, reason="no test data: set FLOWKIT_TEST_DATA")
def test_pauses_change_nothing() -> None:
    bodies = tuple(body for body in BODIES if body.body.count(b"\n\n") < 40)[:40]
    turns = serve(bodies, {body.name: [replay(body.body, pause=0.004)] for body in bodies})
    for body in bodies:
        assert said(turns[body.name]) == said(read_turn(body.body, api=body.api)), body.name
