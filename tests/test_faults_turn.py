"""Row 17: a process that dies in the middle of a model's turn."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from forking import Forks, say
from test_faults import World, look, pay, read_effects

from flowkit.agent import Agent
from flowkit.events import Event
from flowkit.journal import Done, Retry
from flowkit.messages import AssistantMessage
from flowkit.models.base import Delta, ModelRequest
from flowkit.models.scripted import Script, ScriptedModel, call
from tests.stores import fast_folder, opened_journal

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks, and kills")


class DyingModel:
    """Says the turn that comes after the messages it is sent, with a moment to die before and after each delta."""

    name = "dying"
    source = "dying"

    def __init__(self, world: World) -> None:
        self._world = world
        self._model = ScriptedModel(self._next_turn)

    def _next_turn(self, request: ModelRequest) -> Script:
        turns = sum(isinstance(message, AssistantMessage) for message in request.messages)
        script: list[Script] = [
            ["I look. ", call("look", number=1), call("look", number=2), call("pay", number=3), " And pay."],
            [call("look", number=4)],
            "Done.",
        ]
        return script[turns]

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        return self._open(request)

    @asynccontextmanager
    async def _open(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[Delta]]:
        async with self._model.stream(request) as deltas:
            yield self._between_points(deltas)

    async def _between_points(self, deltas: AsyncIterator[Delta]) -> AsyncIterator[Delta]:
        async for delta in deltas:
            self._world.point()
            yield delta
            await asyncio.sleep(0.0005)  # early reads run beside the stream
        self._world.point()


def talk(folder: str, die_at: int | None) -> None:
    """Start the run or go on with it; every event's number goes to a file at once, as to a watcher."""
    path = Path(folder)
    world = World(str(path / "effects"), die_at)
    seen = os.open(path / "seen", os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def see(event: Event) -> None:
        os.write(seen, f"{os.getpid()} {event.seq}\n".encode())

    async def main() -> None:
        with opened_journal(path / "j") as journal:
            agent = Agent(DyingModel(world), tools=[look, pay], cache=False, journal=journal)
            run = agent.start("Pay for it.", data=world, run_id="r")
            run.log.listen(see)
            result = await run.wait()
        say(json.dumps({"status": result.status, "text": result.text, "points": world.points}))

    asyncio.run(main())


@pytest.fixture
def place() -> Generator[Path]:
    with fast_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def forks() -> Generator[Forks]:
    with Forks(["test_faults_turn"]) as forks:
        yield forks


@pytest.mark.slow
def test_row_17_no_write_of_a_broken_turn_was_started_and_no_event_number_is_used_twice(
    place: Path, forks: Forks
) -> None:
    (place / "0").mkdir()
    whole = forks.start("test_faults_turn:talk", place / "0", None)
    points = json.loads(whole.hear())["points"]
    whole.wait()
    assert points > 20
    broken_turns = 0
    for die_at in range(1, points + 1):
        folder = place / str(die_at)
        folder.mkdir()
        child = forks.start("test_faults_turn:talk", folder, die_at)
        assert child.hear() == ""
        child.wait()
        with opened_journal(folder / "j") as journal:
            shown = journal.show("r")
            assert shown is not None
            writes = [effect for effect in read_effects(folder / "effects") if effect["kind"] == "write"]
            if not shown.turns:
                broken_turns += 1
                assert not writes, "a write was started before its turn was recorded"
            for node, found in shown.nodes.items():
                if found.state == "in_doubt":
                    journal.resolve("r", node, Done(writes[0]["value"]) if writes else Retry(), by="ada")
        again = forks.start("test_faults_turn:talk", folder, None)
        ended = json.loads(again.hear())
        again.wait()
        assert (ended["status"], ended["text"]) == ("done", "Done.")
        writes = [effect for effect in read_effects(folder / "effects") if effect["kind"] == "write"]
        assert len(writes) == 1
        seen = [line.split() for line in (folder / "seen").read_text().splitlines()]
        assert max(Counter(seq for _, seq in seen).values()) == 1, "a number was used twice"
        with opened_journal(folder / "j") as journal:
            kept = [event["seq"] for event in journal.events("r") if isinstance(event, dict)]
            assert kept == sorted(kept, key=lambda seq: int(str(seq)))
    assert broken_turns > 5
