"""Every recorded body, and every one made by hand, reads as what it says, however its bytes are cut."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.assemble import Assembler, SealedCall, Turn
from flowkit.errors import StreamTruncated
from flowkit.models.wire.chat import ChatReader
from flowkit.models.wire.reading import WireReader
from flowkit.models.wire.responses import ResponsesReader
from flowkit.testing.streams import read_turn
from tests.bodies import read_deltas
from tests.data_folder import RecordedBody, handmade_bodies, recorded_bodies
from tests.example_counts import examples, share

MUST = recorded_bodies("gold", "reviewed")
SHOULD = recorded_bodies("silver")
HANDMADE = handmade_bodies()
ALL = (*MUST, *SHOULD, *HANDMADE)

SMALL_BYTES = 4_000
"""Bodies below are cut in two at each place."""

EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")


def parametrize(bodies: tuple[RecordedBody, ...]) -> pytest.MarkDecorator:
    """One test for each body; one that is skipped where there is no data."""
    none = pytest.param(None, marks=pytest.mark.skip("no test data: set FLOWKIT_TEST_DATA to a folder with streams/"))
    return pytest.mark.parametrize("body", bodies or [none], ids=repr)


def make_reader(body: RecordedBody) -> WireReader:
    return ChatReader() if body.api == "chat" else ResponsesReader()


def plain(turn: Turn) -> Turn:
    """The turn without its error, which doesn't compare; what it says is compared beside it."""
    return replace(turn, error=None)


def describe(turn: Turn) -> dict[str, Any]:
    """The turn in the words of `expected`."""
    usage = turn.usage
    return {
        "text": turn.text,
        "reasoning": turn.thinking,
        "refusal": turn.refusal or None,
        "calls": [(call.wire_id, call.name, call.arguments) for call in turn.calls],
        "finish_reason": turn.finish_reason,
        "usage": None if usage is None else (usage.input_tokens, usage.output_tokens, usage.thinking_tokens),
        "error": turn.error is not None,
        "complete": turn.complete,
    }


def expect(body: RecordedBody) -> dict[str, Any]:
    expected = body.expected
    usage = expected.get("usage")
    return {
        "text": expected["text"],
        "reasoning": expected["reasoning"],
        "refusal": expected.get("refusal"),
        "calls": [
            (call["id"], call["name"], call["arguments"] if isinstance(call["arguments"], dict) else None)
            for call in expected["tool_calls"]
        ],
        "finish_reason": expected["finish_reason"],
        "usage": None if usage is None else count_tokens(usage),
        "error": expected["error"] is not None,
        "complete": expected["complete"],
    }


def count_tokens(usage: dict[str, Any]) -> tuple[int, int, int]:
    """Input, output with thinking, and thinking alone; the total tells what a server counts beside its input and output."""
    details = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or usage
    sent = int(usage["prompt_tokens"] if "prompt_tokens" in usage else usage["input_tokens"])
    given = int(usage["completion_tokens"] if "completion_tokens" in usage else usage["output_tokens"])
    thought = int(details.get("reasoning_tokens") or 0)
    asked: dict[str, Any] = usage.get("prompt_tokens_details") or {}
    sound = int(asked.get("audio_tokens") or 0)
    if sound and usage["total_tokens"] == sent + given + sound:
        sent += sound
    return sent, given + thought if usage["total_tokens"] == sent + given + thought else given, thought


@parametrize(ALL)
def test_body_reads_as_what_it_says(body: RecordedBody) -> None:
    turn, expected = read_turn(body.body, api=body.api), expect(body)
    told = describe(turn)
    for field in {"refusal", "usage"} - body.expected.keys():
        del told[field], expected[field]
    assert told == expected
    for words in filter(None, (body.expected.get("error_says"),)):
        assert words in str(turn.error)
    if "reason" in body.expected:
        assert turn.reason == body.expected["reason"]
    assert body.expected.get("provider_says", "") in repr(turn.provider)


@parametrize(ALL)
def test_states_of_calls_follow_from_how_the_body_ends(body: RecordedBody) -> None:
    turn = read_turn(body.body, api=body.api)
    for call, expected in zip(turn.calls, body.expected["tool_calls"], strict=True):
        if turn.error is not None or turn.reason == "length" or expected.get("void"):
            assert call.state == "void"
        elif expected.get("invalid") or expected["arguments"] is None:
            assert call.state == "invalid"
        else:
            assert call.state == "sealed"
    assert len({call.id for call in turn.calls}) == len(turn.calls)


@parametrize(tuple(share(ALL, every=8)))
def test_body_reads_the_same_byte_by_byte(body: RecordedBody) -> None:
    assert read_deltas(make_reader(body), body.body, range(1, len(body.body))) == read_deltas(
        make_reader(body), body.body
    )


@parametrize(tuple(share([body for body in ALL if len(body.body) < SMALL_BYTES], every=8)))
def test_small_body_reads_the_same_cut_in_two_at_each_place(body: RecordedBody) -> None:
    whole = read_turn(body.body, api=body.api)
    for cut in share(range(len(body.body) + 1), len(body.body)):
        turn = read_turn(body.body, api=body.api, cuts=(cut,))
        assert plain(turn) == plain(whole), cut
        assert str(turn.error) == str(whole.error)


@pytest.mark.skipif(not ALL, reason="no test data: set FLOWKIT_TEST_DATA to a folder with streams/")
@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_body_reads_the_same_cut_at_random(data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(ALL))
    cuts = data.draw(st.lists(st.integers(0, len(body.body)), max_size=30))
    turn, whole = read_turn(body.body, api=body.api, cuts=cuts), read_turn(body.body, api=body.api)
    assert plain(turn) == plain(whole)
    assert read_deltas(make_reader(body), body.body, cuts) == read_deltas(make_reader(body), body.body)


@parametrize(tuple(share(ALL, 2, every=8)))
def test_body_that_ends_after_any_event_seals_nothing_more_and_says_that_it_was_cut(body: RecordedBody) -> None:
    """After each of the first and last twenty events, and after every fiftieth in between."""
    reader, assembler = make_reader(body), Assembler()
    sealed: list[str] = []
    places = [0, *(match.end() for match in EVENT_END.finditer(body.body))]
    for number, (start, end) in enumerate(pairwise(places)):
        for delta in reader.feed(body.body[start:end]):
            sealed += [part.id for part in assembler.feed(delta) if isinstance(part, SealedCall)]
        turn = assembler.turn
        if turn.error is not None or turn.finish_reason is not None or b"[DONE]" in body.body[start:end]:
            return
        if 20 <= number < len(places) - 20 and number % 50:
            continue
        cut = read_turn(body.body[:end], api=body.api)
        assert isinstance(cut.error, StreamTruncated)
        assert not cut.complete
        assert [call.id for call in cut.calls if call.state != "void"] == sealed


def _read_events(body: RecordedBody) -> list[dict[str, Any]]:
    """The events of a body without their numbers; a server that loses deltas numbers only those that it sends."""
    lines = [line.removeprefix("data:") for line in body.body.decode().split("\n") if line.startswith("data:")]
    try:
        events: list[dict[str, Any]] = [json.loads(line) for line in lines if line.strip() != "[DONE]"]
    except ValueError:
        return []
    return [{name: value for name, value in event.items() if name != "sequence_number"} for event in events]


def _tells_all(events: list[dict[str, Any]]) -> bool:
    """Whether every text is told in deltas as it is when it is done; some recordings were shortened by hand."""
    told: dict[Any, str] = {}
    done: dict[Any, str] = {}
    for event in events:
        place = (event.get("output_index"), event.get("content_index"))
        if event["type"] == "response.output_text.delta":
            told[place] = told.get(place, "") + event["delta"]
        elif event["type"] == "response.output_text.done":
            done[place] = event["text"]
    return bool(told) and told == done


TOLD_TWICE = tuple(body for body in (*MUST, *SHOULD) if body.api == "responses" and _tells_all(_read_events(body)))


@parametrize(TOLD_TWICE)
def test_deltas_that_are_lost_at_the_end_of_a_text_are_made_up_for_once(body: RecordedBody) -> None:
    events = _read_events(body)
    whole = read_turn(_write_events(events), api="responses")
    places = [place for place, event in enumerate(events) if event["type"] == "response.output_text.delta"]
    for lost in {1, len(places) // 2, len(places)}:
        left = [event for place, event in enumerate(events) if place not in places[len(places) - lost :]]
        turn = read_turn(_write_events(left), api="responses")
        assert (turn.text, turn.complete) == (whole.text, whole.complete)


def _write_events(events: list[dict[str, Any]]) -> bytes:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
