"""Every recorded body of the Messages API, and every one made by hand, reads as what it says, however it is cut."""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.assemble import Assembler, SealedCall, Turn
from flowkit.errors import StreamTruncated
from flowkit.messages import Usage
from flowkit.models.wire.anthropic import AnthropicReader
from flowkit.testing.streams import read_turn
from tests.bodies import read_deltas
from tests.data_folder import RecordedBody, anthropic_bodies
from tests.example_counts import examples, share

ALL = anthropic_bodies()
SMALL_BYTES = 3_000
EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
UNKNOWN = ("holo",)
"""A kind of block that is passed over, with deltas that nobody knows."""


def parametrize(bodies: tuple[RecordedBody, ...]) -> pytest.MarkDecorator:
    none = pytest.param(None, marks=pytest.mark.skip("no test data: set FLOWKIT_TEST_DATA to a folder with streams/"))
    return pytest.mark.parametrize("body", bodies or [none], ids=repr)


def read(body: RecordedBody, cuts: Sequence[int] = ()) -> Turn:
    return read_turn(body.body, api="anthropic", cuts=cuts)


def data_of(turn: Turn, *kinds: str) -> list[dict[str, Any]]:
    return [cast(dict[str, Any], delta.data) for delta in turn.provider if delta.kind in kinds]


def count(usage: Usage | None) -> tuple[int, ...]:
    usage = usage or Usage()
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
        usage.thinking_tokens,
    )


def describe(turn: Turn) -> dict[str, Any]:
    """The turn in the words of `expected`."""
    details = data_of(turn, "stop_details")
    return {
        "text": turn.text,
        "reasoning": turn.thinking,
        "calls": [(call.wire_id, call.name, call.arguments, call.state) for call in turn.calls],
        "finish_reason": turn.finish_reason,
        "reason": turn.reason,
        "usage": count(turn.usage),
        "billed": turn.usage and turn.usage.billed and count(turn.usage.billed)[:4],
        "error": turn.error is not None,
        "complete": turn.complete,
        "signatures": [signed for block in data_of(turn, "thinking") if (signed := block["signature"])],
        "redacted": [block["data"] for block in data_of(turn, "redacted_thinking")],
        "server_calls": [
            (block["type"], block["id"], block["name"], block["input"])
            for block in data_of(turn, "server_tool_use", "mcp_tool_use")
        ],
        "blocks": [delta.kind for delta in turn.provider if delta.kind not in ("container", "stop_details")],
        "stop_details": details[0] if details else None,
    }


def expect(body: RecordedBody) -> dict[str, Any]:
    expected = body.expected
    total: dict[str, int] = expected["usage_total"] or {}
    billed: dict[str, int] | None = expected.get("billed")
    names = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "thinking_tokens")
    return {
        "text": expected["text"],
        "reasoning": expected["reasoning"],
        "calls": [
            (
                call["id"],
                call["name"],
                call["arguments"] if isinstance(call["arguments"], dict) else None,
                "void" if call.get("void") else "invalid" if call.get("invalid") else "sealed",
            )
            for call in expected["tool_calls"]
        ],
        "finish_reason": expected["finish_reason"],
        "reason": "error" if expected["error"] else expected["reason"],
        "usage": tuple(total.get(name, 0) for name in names),
        "billed": billed
        and (
            billed["input_tokens"] + billed["cache_read_input_tokens"] + billed["cache_creation_input_tokens"],
            billed["output_tokens"],
            billed["cache_read_input_tokens"],
            billed["cache_creation_input_tokens"],
        ),
        "error": expected["error"] is not None,
        "complete": expected["complete"],
        "signatures": expected["signatures"],
        "redacted": expected["redacted"],
        "server_calls": [
            (call["type"], call["id"], call["name"], call["arguments"]) for call in expected["server_calls"]
        ],
        "blocks": [kind for kind in expected["blocks"] if kind not in UNKNOWN],
        "stop_details": expected["stop_details"],
    }


@parametrize(ALL)
def test_body_reads_as_what_it_says(body: RecordedBody) -> None:
    told, expected = describe(read(body)), expect(body)
    if expected["error"]:  # the block that broke off isn't told
        del told["blocks"], expected["blocks"]
    assert told == expected


@parametrize(tuple(share(ALL, every=8)))
def test_body_reads_the_same_byte_by_byte(body: RecordedBody) -> None:
    assert read_deltas(AnthropicReader(), body.body, range(1, len(body.body))) == read_deltas(
        AnthropicReader(), body.body
    )


@parametrize(tuple(share([body for body in ALL if len(body.body) < SMALL_BYTES], every=8)))
def test_small_body_reads_the_same_cut_in_two_at_each_place(body: RecordedBody) -> None:
    whole = read(body)
    for cut in share(range(len(body.body) + 1), len(body.body)):
        turn = read(body, (cut,))
        assert replace(turn, error=None) == replace(whole, error=None), cut
        assert str(turn.error) == str(whole.error)


@pytest.mark.skipif(not ALL, reason="no test data: set FLOWKIT_TEST_DATA to a folder with streams/")
@settings(max_examples=examples(200), deadline=None)
@given(st.data())
def test_body_reads_the_same_cut_at_random(data: st.DataObject) -> None:
    body = data.draw(st.sampled_from(ALL))
    cuts = data.draw(st.lists(st.integers(0, len(body.body)), max_size=30))
    assert replace(read(body, cuts), error=None) == replace(read(body), error=None)
    assert read_deltas(AnthropicReader(), body.body, cuts) == read_deltas(AnthropicReader(), body.body)


@parametrize(tuple(share(ALL, 2, every=8)))
def test_body_that_ends_after_any_event_seals_nothing_more_and_says_that_it_was_cut(body: RecordedBody) -> None:
    reader, assembler = AnthropicReader(), Assembler()
    sealed: list[str] = []
    places = [0, *(match.end() for match in EVENT_END.finditer(body.body))]
    for number, (start, end) in enumerate(pairwise(places)):
        for delta in reader.feed(body.body[start:end]):
            sealed += [part.id for part in assembler.feed(delta) if isinstance(part, SealedCall)]
        turn = assembler.turn
        if turn.error is not None or turn.finish_reason is not None:
            return
        if 20 <= number < len(places) - 20 and number % 50:
            continue
        cut = read_turn(body.body[:end], api="anthropic")
        assert isinstance(cut.error, StreamTruncated)
        assert not cut.complete
        assert [call.id for call in cut.calls if call.state != "void"] == sealed
