"""The wires of other front ends: what their own clients make of real runs, and what is true of the frames alone."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.codec import JSON
from flowkit.events import EventLog
from flowkit.web.wires import encode
from flowkit.web.wires.ag_ui import AGUIEncoder
from flowkit.web.wires.ai_sdk import AISDKEncoder, Version
from flowkit.web.wires.calls import Encoder
from tests.example_counts import examples
from tests.node import run_client
from tests.web_runs import SCENARIOS

VERSIONS: tuple[Version, ...] = (5, 6, 7)
Log = Sequence[Mapping[str, JSON]]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Log]:
    """The log of each scenario, once."""
    return {name: asyncio.run(make(tmp_path_factory.mktemp(name))) for name, make in SCENARIOS.items()}


def make_encoders() -> dict[str, Encoder]:
    return {
        **{f"ai {version}": AISDKEncoder(version) for version in VERSIONS},
        "ag-ui": AGUIEncoder("thread-1", "client-run-1"),
    }


def write(frames: Sequence[Mapping[str, JSON]], path: Path, *, done: bool) -> str:
    lines = [f"data: {json.dumps(frame)}\n\n" for frame in frames]
    path.write_text("".join([*lines, "data: [DONE]\n\n" if done else ""]))
    return str(path)


def feed(encoder: Encoder, log: Log) -> list[dict[str, JSON]]:
    return [frame for event in log for frame in encoder.feed(event)]


def find_nulls(frame: Mapping[str, JSON]) -> list[str]:
    return [name for name, value in frame.items() if value is None and name not in ("output", "input")]


def list_states(message: Mapping[str, Any]) -> dict[str, str]:
    return {
        part["toolCallId"].partition(":")[2]: part["state"]
        for part in message["parts"]
        if part["type"] == "dynamic-tool"
    }


def join_texts(message: Mapping[str, Any], kind: str = "text") -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == kind)


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_frame_has_a_null_and_every_part_and_call_that_is_opened_is_closed(
    name: str, logs: Mapping[str, Log]
) -> None:
    for wire, encoder in make_encoders().items():
        frames = feed(encoder, logs[name])
        assert [frame for frame in frames if find_nulls(frame)] == [], wire
        assert encoder.close("over") == [], wire
        kinds = [str(frame["type"]) for frame in frames]
        for opening, closing in (
            ("text-start", "text-end"),
            ("reasoning-start", "reasoning-end"),
            ("start-step", "finish-step"),
            ("TEXT_MESSAGE_START", "TEXT_MESSAGE_END"),
            ("REASONING_START", "REASONING_END"),
            ("TOOL_CALL_START", "TOOL_CALL_END"),
            ("SUBAGENT_STARTED", "SUBAGENT_FINISHED"),
        ):
            assert kinds.count(opening) == kinds.count(closing), f"{wire}: {opening}"


@pytest.mark.parametrize("name", SCENARIOS)
def test_frames_after_any_event_are_the_end_of_all_frames(name: str, logs: Mapping[str, Log]) -> None:
    log = logs[name]

    async def read(wire: Any, after: int) -> bytes:
        replayed = EventLog("run", lambda: 0.0)
        replayed.close()
        stream = encode(_Recorded(log), wire, after=after)
        return b"".join([chunk async for chunk in stream])

    for wire in ("ai-sdk", "ag-ui"):
        whole = asyncio.run(read(wire, -1))
        for event in log:
            seq = event["seq"]
            assert isinstance(seq, int)
            rest = asyncio.run(read(wire, seq))
            assert whole.endswith(rest)
            expected = feed(
                make_encoders()["ai 7" if wire == "ai-sdk" else "ag-ui"], [e for e in log if _seq(e) <= seq]
            )
            assert whole[: len(whole) - len(rest)].count(b"data: ") == len(expected)


@pytest.mark.parametrize("name", SCENARIOS)
@settings(max_examples=examples(20), deadline=None, database=None)  # each name has another log
@given(data=st.data())
def test_pieces_of_text_may_be_cut_anywhere(name: str, logs: Mapping[str, Log], data: st.DataObject) -> None:
    log = logs[name]
    cut: list[Mapping[str, JSON]] = []
    for event in log:
        piece, at = event.get("text"), event.get("at")
        if isinstance(piece, str) and isinstance(at, int) and len(piece) > 1:
            place = data.draw(st.integers(min_value=1, max_value=len(piece) - 1))
            back = data.draw(st.integers(min_value=0, max_value=place))
            # The second piece begins before the first one's end, as from a journal that has joined them otherwise.
            cut += [{**event, "text": piece[:place]}, {**event, "text": piece[back:], "at": at + back}]
        else:
            cut.append(event)

    def join(frames: Sequence[Mapping[str, JSON]]) -> list[Mapping[str, JSON]]:
        """Neighbouring pieces of one part as one; without events as they are, which say `at` which place they begin."""
        joined: list[dict[str, JSON]] = []
        for frame in frames:
            if frame["type"] == "data-flow":
                continue
            last = joined[-1] if joined else {}
            same = all(last.get(key) == frame.get(key) for key in ("type", "id", "messageId"))
            if same and str(frame["type"]) in (
                "text-delta",
                "reasoning-delta",
                "TEXT_MESSAGE_CONTENT",
                "REASONING_MESSAGE_CONTENT",
            ):
                last["delta"] = f"{last['delta']}{frame['delta']}"
            else:
                joined.append(dict(frame))
        return list(joined)

    for wire, encoder in make_encoders().items():
        assert join(feed(encoder, cut)) == join(feed(make_encoders()[wire], log)), wire


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_client_of_the_ai_sdk_ends_with_what_the_run_said(
    name: str, version: Version, logs: Mapping[str, Log], tmp_path: Path
) -> None:
    log = logs[name]
    path = write(feed(AISDKEncoder(version), log), tmp_path / "answer.sse", done=True)

    seen = run_client("ai.mjs", str(version), url="http://localhost/", file=path, steps=[["send", "Hi"]])

    assert seen["errors"] == []
    assert seen["status"] == "ready"
    message = seen["messages"][-1]
    assert message["id"] == log[0]["run"]
    assert message["metadata"]["status"] == log[-1]["status"]
    assert list_states(message) == _expect_states(log, version)
    if version == 7:
        assert join_texts(message) == _expect_text(log)
    assert not any(part.get("state") == "streaming" for part in message["parts"])


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_client_of_ag_ui_ends_with_what_the_run_said(name: str, logs: Mapping[str, Log], tmp_path: Path) -> None:
    log = logs[name]
    said: list[Mapping[str, JSON]] = [{"id": "m1", "role": "user", "content": "Hi"}]
    frames = feed(AGUIEncoder("thread-1", "client-run-1", said), log)
    path = write(frames, tmp_path / "answer.sse", done=False)

    seen = run_client("agui.mjs", file=path, steps=[["send", "Hi"]])

    assert seen["errors"] == []
    assert seen["warnings"] == []
    texts = [m.get("content", "") for m in seen["messages"] if m["role"] == "assistant" and "subagentRunId" not in m]
    recipe_says_nothing = log[0].get("model") is None
    assert "".join(texts) == ("" if recipe_says_nothing else _expect_text(log))
    assert seen["messages"][0]["content"] == "Hi"
    results = [m["toolCallId"].partition(":")[2] for m in seen["messages"] if m["role"] == "tool"]
    own = {name for name in results if name.count("turn/") == 1}
    assert own == {call for call, state in _expect_states(log, 7).items() if state != "approval-requested"}
    outcome = {"done": "success", "waiting": "interrupt", "cancelled": "cancelled"}.get(str(log[-1]["status"]))
    assert seen["result"].get("outcome", {}).get("type") == outcome


@pytest.mark.parametrize("name", SCENARIOS)
def test_log_of_a_run_that_was_killed_anywhere_and_done_again_breaks_no_rule(
    name: str, logs: Mapping[str, Log]
) -> None:
    log = logs[name]
    for cut in range(1, len(log)):
        again = [*log[:cut], *log]
        for wire, encoder in make_encoders().items():
            frames = feed(encoder, again)
            broken = check_ag_ui(frames) if wire == "ag-ui" else check_ai_sdk(frames)
            assert broken is None, f"{wire}, killed after {log[cut - 1]['type']}: {broken}"


def check_ai_sdk(frames: Sequence[Mapping[str, Any]]) -> str | None:
    """What ends a stream of this client with an error."""
    parts: set[str] = set()
    calls: list[str] = []
    step = 0
    for frame in frames:
        kind = str(frame["type"])
        match kind.rpartition("-"):
            case (_, _, "start") if "id" in frame:
                parts.add(frame["id"])
            case (_, _, "delta") if "id" in frame and frame["id"] not in parts:
                return f"a piece of {frame['id']}, which isn't open"
            case (_, _, "end") if "id" in frame:
                if frame["id"] not in parts:
                    return f"the end of {frame['id']}, which isn't open"
                parts.remove(frame["id"])
            case _:
                pass
        if kind == "start-step":
            step = len(calls)
        if kind == "reset-step":
            del calls[step:]
            parts.clear()
        if kind == "tool-input-start" or (kind == "tool-input-available" and frame["toolCallId"] not in calls):
            if frame["toolCallId"] in calls:
                return f"{frame['toolCallId']} begins twice"
            calls.append(frame["toolCallId"])
        elif "toolCallId" in frame and frame["toolCallId"] not in calls:
            return f"{kind} of {frame['toolCallId']}, which it hasn't seen"
    return f"open at the end: {parts}" if parts else None


def check_ag_ui(frames: Sequence[Mapping[str, Any]]) -> str | None:
    """What this client refuses: it keeps what is open, by kind and name."""
    open_: set[tuple[str, str]] = set()
    for frame in frames:
        kind = str(frame["type"])
        thing, _, what = kind.rpartition("_")
        name = str(frame.get("toolCallId") or frame.get("messageId") or frame.get("subagentRunId") or "")
        if thing == "SUBAGENT":
            name = str(frame["subagentRunId"])
        if thing in ("TEXT_MESSAGE", "REASONING", "REASONING_MESSAGE", "TOOL_CALL", "RUN", "SUBAGENT"):
            key = (thing, "" if thing == "RUN" else name)
            if what in ("START", "STARTED"):
                if key in open_:
                    return f"{kind} of {name}, which is open"
                open_.add(key)
            elif what in ("END", "FINISHED", "ERROR"):
                if key not in open_:
                    return f"{kind} of {name}, which isn't open"
                open_.remove(key)
                if thing == "RUN" and what == "FINISHED" and open_:
                    return f"RUN_FINISHED while {open_} are open"
            elif what in ("CONTENT", "ARGS") and key not in open_:
                return f"{kind} of {name}, which isn't open"
    return None


def test_question_that_a_run_tells_again_is_asked_once(logs: Mapping[str, Log]) -> None:
    frames = feed(AISDKEncoder(7), logs["approval"])
    asked = [frame["approvalId"] for frame in frames if frame["type"] == "tool-approval-request"]
    results = [frame["toolCallId"] for frame in frames if frame["type"] == "tool-output-available"]
    assert len(asked) == len(set(map(str, asked))) == 2
    assert len(results) == len(set(map(str, results)))


def test_stream_that_ends_before_its_run_says_so(logs: Mapping[str, Log]) -> None:
    log = logs["plain"][:-1]
    endings = {wire: (feed(encoder, log), encoder.close("stopped"))[1] for wire, encoder in make_encoders().items()}
    assert endings["ai 7"][-1] == {"type": "abort", "reason": "stopped"}
    assert endings["ag-ui"] == [{"type": "RUN_ERROR", "message": "stopped", "code": "stopped"}]


class _Recorded:
    """A log that has ended, as a run has it, whose events are told one by one."""

    def __init__(self, events: Log) -> None:
        self.log = _ReplayedLog(events)


class _ReplayedLog(EventLog):
    def __init__(self, events: Log) -> None:
        super().__init__("run", lambda: 0.0)
        self._told = [_Replayed(event) for event in events]
        self.close()

    @property
    def events(self) -> Any:
        return self._told


class _Replayed:
    def __init__(self, data: Mapping[str, JSON]) -> None:
        self.data = data
        self.seq = data["seq"]

    def to_json(self) -> Mapping[str, JSON]:
        return self.data


def _seq(event: Mapping[str, JSON]) -> int:
    seq = event["seq"]
    assert isinstance(seq, int)
    return seq


def _expect_text(log: Log) -> str:
    """What the agent's model said, without what was taken back; a recipe's output where no model spoke."""
    turns: dict[object, str] = {}
    for event in log:
        match event:
            case {"type": "turn.started", "turn": turn}:
                turns[turn] = ""
            case {"type": "text.delta", "call": None, "turn": turn, "at": int(at), "text": str(text)}:
                turns[turn] = turns[turn][:at] + text
            case _:
                pass
    output = log[-1]["output"]
    if not turns and output is not None:
        return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False, separators=(",", ":"))
    return "".join(turns.values())


def _expect_states(log: Log, version: Version) -> dict[str, str]:
    """How each call of the agent's own ended, in the words of this client."""
    states: dict[str, str] = {}
    asked: set[str] = set()
    last: dict[str, str] = {}
    for event in log:
        name, kind = str(event.get("call")), str(event["type"])
        if kind == "turn.started" and version == 7 and event["attempt"] != 1:
            states = {call: state for call, state in states.items() if not call.startswith(f"turn/{event['turn']}/")}
        if kind == "approval.asked":
            asked.add(name)
        if kind == "approval.decided":
            asked.discard(name)
        last[name] = kind
        is_own = name.startswith("turn/") and name.count("turn/") == 1 and name.rpartition("call/")[2].isdigit()
        state = {"call.finished": "output-available", "call.denied": "output-denied"}.get(kind, "output-error")
        ends = ("finished", "failed", "skipped", "denied", "cancelled", "void", "in_doubt")
        if is_own and kind.removeprefix("call.") in ends:
            waits = kind == "call.cancelled" and name in asked
            if waits:
                state = "input-available" if version == 5 else "approval-requested"
            states[name] = "output-error" if state == "output-denied" and version == 5 else state
    return states
