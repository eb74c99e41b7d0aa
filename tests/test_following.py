"""A run's events from any point: from its journal, live, from both, or as another process writes them."""

import asyncio
import multiprocessing
from collections.abc import Mapping, Sequence
from multiprocessing.synchronize import Event as Flag
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit import Agent, Journal, ScriptedModel, tool
from flowkit.codec import JSON, loads
from flowkit.events import EventLog, RunFinished, RunStarted, TextDelta, TurnStarted
from flowkit.testing import call, thinking
from flowkit.web.following import Followed, follow, read_events
from flowkit.web.sse_response import sse

Event = Mapping[str, JSON]


@tool(effect="read")
async def look_up(word: str) -> str:
    """Look a word up."""
    return word.upper()


@tool(approval=True)
async def pay(won: int) -> str:
    """Pay."""
    return f"paid {won}"


@tool(effect="read")
async def read_book() -> list[str]:
    """A long result."""
    return ["배송 " * 200] * 400


def fold(log: Sequence[Event]) -> dict[object, object]:
    """What a reader has in the end: texts by their offsets, the state of each call, the status."""
    seen: dict[object, object] = {}
    for event in log:
        match event:
            case {"type": "text.delta" | "thinking.delta" as kind, "turn": turn, "at": int(at), "text": str(text)}:
                before = str(seen.get((kind, turn), ""))
                seen[kind, turn] = before[:at] + text
            case {"type": str(kind), "call": str(name)} if kind.startswith("call."):
                seen[name] = kind, event.get("value")
            case {"type": "run.finished", "status": status, "output": output}:
                seen["status"] = status, output
            case _:
                pass
    return seen


async def read_all(source: Followed, journal: Journal, after: int = -1) -> list[Event]:
    return [event async for event in read_events(source, journal=journal, after=after)]


def make_agent(journal: Journal) -> Agent[str]:
    first = [thinking("Two "), thinking("things. "), "I ", "look. ", call("look_up", word="tea"), call("pay", won=5)]
    return Agent(ScriptedModel([first, ["Paid, ", "안녕 ", "🙂."]]), tools=[look_up, pay], journal=journal, cache=False)


def test_log_read_live_from_the_journal_and_from_both_folds_the_same_for_every_cut(tmp_path: Path) -> None:
    async def go() -> None:
        journal = Journal(tmp_path / "j.sqlite3")
        agent = make_agent(journal)
        run = agent.start("Hi", run_id="run-1")
        first = [event.to_json() async for event in run.watch()]
        assert (await run.wait()).status == "waiting"
        journal.decide("run-1", "turn/1/call/1", approved=True, by="me")
        again = agent.start(run_id="run-1")
        both = await read_all(again, journal)
        assert (await again.wait()).status == "done"
        recorded = await read_all("run-1", journal)

        whole = fold(recorded)
        assert fold(both) == whole
        assert whole["status"] == ("done", "Paid, 안녕 🙂.")
        assert whole["text.delta", 1] == "I look. "
        assert fold([*first, *(event.to_json() for event in again.log.events)]) == whole
        seqs = [int(str(event["seq"])) for event in first] + [event.seq for event in again.log.events]
        live = [*first, *(event.to_json() for event in again.log.events)]
        for after in seqs:
            prefix = [event for event in live if int(str(event["seq"])) <= after]
            assert fold([*prefix, *await read_all("run-1", journal, after)]) == whole, f"cut after {after}"
            assert fold([*prefix, *await read_all(again, journal, after)]) == whole, f"cut after {after}"
        journal.close()

    asyncio.run(go())


@given(st.lists(st.text(max_size=4), min_size=1, max_size=8), st.data())
def test_a_piece_of_text_applied_again_changes_nothing(pieces: list[str], data: st.DataObject) -> None:
    log = EventLog("run-1", lambda: 0.0)
    length = 0
    for piece in pieces:
        log.emit(TextDelta, piece, 1, None, length)
        length += len(piece)
    told = [event.to_json() for event in log.events]
    cut = data.draw(st.integers(min_value=0, max_value=len(told)))
    back = data.draw(st.integers(min_value=0, max_value=cut))

    assert fold([*told[:cut], *told[back:]]) == fold(told)


def test_long_result_is_told_by_its_beginning_and_kept_whole(tmp_path: Path) -> None:
    async def go() -> None:
        journal = Journal(tmp_path / "j.sqlite3")
        agent = Agent(ScriptedModel([[call("read_book")], "Long."]), tools=[read_book], journal=journal, cache=False)
        result = await agent.run("Read", run_id="run-1")
        (told,) = [event for event in await read_all("run-1", journal) if event["type"] == "call.finished"]
        chunks = b"".join([chunk async for chunk in sse("run-1", journal=journal)])
        details = journal.show("run-1")
        journal.close()

        assert result.calls[0].value == ["배송 " * 200] * 400
        assert told["truncated"] == 400 * (200 * 7 + 3) + 1
        value = told["value"]
        assert isinstance(value, list)
        assert value[0] == "배송 " * 200
        assert 10 < len(value) < 100
        assert len(chunks) < 80_000
        assert details is not None
        assert details.nodes["turn/1/call/0"].value == result.calls[0].value

    asyncio.run(go())


def test_reader_that_comes_before_the_first_event_of_a_run_that_goes_on_is_told_all() -> None:
    async def go() -> list[JSON]:
        log = EventLog("run-1", lambda: 0.0)
        follower = follow(log, after=7)
        reading = asyncio.create_task(follower.read())
        await asyncio.sleep(0)
        log.first_seq = 8
        log.emit(RunStarted, "shop")
        log.emit(RunFinished, "done")
        log.close()
        batch = await reading
        assert batch is not None
        assert await follower.read() is None
        return [event["seq"] for event in batch.read()]

    assert asyncio.run(go()) == [8, 9]


def drive_elsewhere(path: str, said: Flag) -> None:
    async def go() -> None:
        journal = Journal(path)

        @tool(effect="read")
        async def wait_for_reader() -> str:
            """End when the reader has seen it begin."""
            await asyncio.to_thread(said.wait, 60)
            return "seen"

        script = [["One. ", call("wait_for_reader")], "Two."]
        agent = Agent(ScriptedModel(script), tools=[wait_for_reader], journal=journal, cache=False)
        await agent.run("Hi", run_id="run-1")
        journal.close()

    asyncio.run(go())


@pytest.mark.slow
def test_run_of_another_process_is_followed_while_it_goes_on(tmp_path: Path) -> None:
    path = str(tmp_path / "j.sqlite3")
    context = multiprocessing.get_context("spawn")
    said = context.Event()
    process = context.Process(target=drive_elsewhere, args=(path, said))
    Journal(path).close()
    process.start()

    async def go() -> list[Event]:
        journal = Journal(path)
        async with asyncio.timeout(60):
            while journal.find("run-1") is None:
                await asyncio.to_thread(process.join, 0.05)
            log: list[Event] = []
            follower = follow("run-1", journal=journal, poll_s=0.02)
            while (batch := await follower.read()) is not None:
                log += batch.read()
                if any(event["type"] == "call.started" for event in log):
                    said.set()
        journal.close()
        return log

    log = asyncio.run(go())
    process.join(60)
    assert [event["seq"] for event in log] == sorted({int(str(event["seq"])) for event in log})
    assert log[-1]["type"] == "run.finished"
    assert fold(log)["status"] == ("done", "Two.")


def test_row_of_the_journal_travels_as_the_live_event_does(tmp_path: Path) -> None:
    async def go() -> tuple[list[bytes], list[bytes]]:
        journal = Journal(tmp_path / "j.sqlite3")
        agent = Agent(ScriptedModel([[call("look_up", word="tea")], "Tea."]), tools=[look_up], journal=journal)
        run = agent.start("Hi", run_id="run-1")
        await run.wait()
        live = b"".join([chunk async for chunk in sse(run)])
        recorded = b"".join([chunk async for chunk in sse("run-1", journal=journal)])
        journal.close()
        return live.split(b"\n\n"), recorded.split(b"\n\n")

    live, recorded = asyncio.run(go())

    def list_frames(frames: list[bytes]) -> list[tuple[bytes, object]]:
        """The frames but pieces of text and arguments, of which the journal may have joined others."""
        lines = [frame.split(b"\n") for frame in frames if frame]
        assert all(len(line) == 3 for line in lines)
        told = [line for line in lines if line[1] not in (b"event: text.delta", b"event: call.arguments")]
        return [(b"".join(line[:2]), loads(line[2].removeprefix(b"data: "))) for line in told]

    assert list_frames(live) == list_frames(recorded)


def test_restarted_turn_begins_its_text_anew() -> None:
    log = EventLog("run-1", lambda: 0.0)
    log.emit(TurnStarted, 1, "m")
    log.emit(TextDelta, "It was br", 1)
    log.emit(TurnStarted, 1, "m", 2)
    log.emit(TextDelta, "It is", 1)

    assert fold([event.to_json() for event in log.events])["text.delta", 1] == "It is"
