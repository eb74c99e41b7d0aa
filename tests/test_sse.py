"""Server-sent events, by the standard and as servers send them."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.errors import StreamError
from flowkit.models.wire import sse
from flowkit.models.wire.sse import STRAY, EventDecoder, ServerSentEvent, looks_like_events
from tests.example_counts import examples


def decode(body: bytes, *cuts: int) -> list[ServerSentEvent]:
    decoder = EventDecoder()
    events: list[ServerSentEvent] = []
    places = [0, *sorted(cuts), len(body)]
    for start, end in pairwise(places):
        events += decoder.feed(body[start:end])
    last = decoder.end()
    return events if last is None else [*events, last]


def datas(body: bytes) -> list[bytes]:
    return [event.data for event in decode(body) if event.type != STRAY]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_end_with_lf_crlf_or_cr_case_s02(end: bytes) -> None:
    assert datas(end.join([b"data: a", b"", b"data: b", b"", b""])) == [b"a", b"b"]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_line_end_may_be_cut_anywhere_case_s02(end: bytes) -> None:
    body = end.join([b"data: a", b"data: b", b"", b"data: c", b"", b""])
    for cut in range(len(body) + 1):
        assert [event.data for event in decode(body, cut)] == [b"a\nb", b"c"]


def test_crlf_that_is_cut_is_one_line_end() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"data: a\r") == []
    assert decoder.feed(b"\ndata: b\r") == []
    assert decoder.feed(b"\n\r") == [ServerSentEvent(b"a\nb", b"")]
    assert decoder.feed(b"\ndata: c\n\n") == [ServerSentEvent(b"c", b"")]


def test_comments_are_skipped_case_s01() -> None:
    assert datas(b": PROCESSING\n\n:\n\ndata: a\n: in between\ndata: b\n\n") == [b"a\nb"]


def test_byte_order_mark_is_skipped_wherever_it_is_cut_case_s03() -> None:
    body = b"\xef\xbb\xbfdata: a\n\n"
    for cut in range(len(body) + 1):
        assert [event.data for event in decode(body, cut)] == [b"a"]


def test_byte_order_mark_counts_only_at_the_beginning() -> None:
    assert datas(b"data: a\n\n\xef\xbb\xbfdata: b\n\ndata: c\n\n") == [b"a", b"c"]


def test_data_lines_are_joined_by_a_line_feed() -> None:
    assert datas(b"data: a\ndata\ndata:  b\n\n") == [b"a\n\n b"]


def test_one_blank_behind_the_colon_is_dropped() -> None:
    assert datas(b"data:a\n\ndata: a\n\ndata:  a\n\n") == [b"a", b"a", b" a"]


def test_type_belongs_to_its_event_only() -> None:
    assert decode(b"event: error\ndata: a\n\ndata: b\n\n") == [
        ServerSentEvent(b"a", b"error"),
        ServerSentEvent(b"b", b""),
    ]


def test_type_without_data_is_no_event() -> None:
    assert decode(b"event: ping\n\ndata: b\n\n") == [ServerSentEvent(b"b", b"")]


def test_fields_that_are_not_known_are_skipped() -> None:
    assert datas(b"id: 7\nretry: 10\nfoo: bar\nfoo\ndata: a\n\n") == [b"a"]


def test_last_event_needs_no_empty_line_case_f08() -> None:
    assert datas(b"data: a\n\ndata: b") == [b"a", b"b"]
    assert datas(b"data: a\n\ndata: b\n") == [b"a", b"b"]


def test_nothing_is_made_of_nothing() -> None:
    assert datas(b"") == []
    assert datas(b"\xef\xbb\xbf") == []
    assert datas(b"\n\n\n") == []


def test_an_event_has_a_longest_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100)
    decoder = EventDecoder()
    for _ in range(10):
        assert decoder.feed(b"data: %s\n\n" % (b"a" * 80))
    decoder.feed(b"data: " + b"a" * 80)
    with pytest.raises(StreamError, match="longer than 100 bytes"):
        decoder.feed(b"a" * 80)


def test_an_event_has_a_most_number_of_values() -> None:
    """It is parsed at one go: an image of 20 MB takes less time than a list of 2 MB."""
    image = b"data: " + b"a" * (20 << 20) + b"\n\n"
    decoder = EventDecoder()
    pieces = [image[start : start + (1 << 20)] for start in range(0, len(image), 1 << 20)]
    assert sum(len(decoder.feed(piece)) for piece in pieces) == 1
    assert datas(b"data: [%s]\n\n" % (b"1," * sse.MAX_EVENT_COMMAS))
    with pytest.raises(StreamError, match="more than 250000 values"):
        EventDecoder().feed(b"data: [%s1]\n\n" % (b"1," * (sse.MAX_EVENT_COMMAS + 1)))


@pytest.mark.parametrize("head", [b"", b"data", b"da", b": hi", b"\xef\xbb\xbfevent: x", b"\n\nid: 4", b"retry:"])
def test_the_beginning_of_events_is_known(head: bytes) -> None:
    assert looks_like_events(head)


@pytest.mark.parametrize("head", [b"<html>", b'{"error": 1}', b"Bad Gateway", b"\x1f\x8b\x08"])
def test_other_bodies_are_told_from_events(head: bytes) -> None:
    assert not looks_like_events(head)


lines = st.sampled_from(
    [b"", b"", b"data: a", b"data:b", b"data", b": c", b"event: x", b"id: 1", b"data: \xc3\xbc", b"x", b"data: a: b"]
)
ends = st.sampled_from([b"\n", b"\r\n", b"\r"])


@settings(max_examples=examples(300))
@given(st.data())
def test_cutting_elsewhere_gives_the_same_events(data: st.DataObject) -> None:
    body = b"".join(line + end for line, end in data.draw(st.lists(st.tuples(lines, ends), max_size=12)))
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=6))
    assert decode(body, *cuts) == decode(body) == decode(body, *range(len(body)))
