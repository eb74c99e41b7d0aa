"""A recorded body that is written in another way, and says the same, reads the same.

The other ways are those of gateways and vendors: line ends, comments, fields in another order, unknown or missing fields,
nulls, events that come twice, pieces of another size.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby
from typing import Any, cast

import pytest

from flowkit.assemble import Turn
from flowkit.testing.streams import read_turn
from tests.data_folder import RecordedBody, anthropic_bodies, handmade_bodies, recorded_bodies
from tests.example_counts import share

Event = tuple[str, dict[str, Any]]
"""The name on its `event:` line, and what its data say; nothing stands for `[DONE]`."""
Change = Callable[[Sequence[Event]], bytes | None]

LARGEST_BYTES = 40_000
UNKNOWN = {"x_new": {"a": [1, None, {"type": "text_delta", "text": "no"}]}, "obfuscation": "tool_use"}


def read_events(body: bytes) -> list[Event] | None:
    """Read the events in the plainest way; None if one of them isn't an object."""
    text = body.decode(errors="surrogateescape").removeprefix("\ufeff")
    found: list[Event] = []
    name, data = "", list[str]()
    for line in [*re.split(r"\r\n|\n|\r", text), ""]:
        if line.startswith("error:"):
            return None
        if line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            said = "\n".join(data)
            name, data, before = "", [], name
            if said.strip() == "[DONE]":
                found.append((before, {}))
                continue
            try:
                value: Any = json.loads(said)
            except ValueError:
                return None
            if not isinstance(value, dict):
                return None
            found.append((before, cast(dict[str, Any], value)))
    return found


def write(
    events: Sequence[Event],
    end: str = "\n",
    space: str = " ",
    *,
    named: bool = True,
    escaped: bool = False,
    indent: int | None = None,
) -> bytes:
    lines: list[str] = []
    for name, value in events:
        data = json.dumps(value, ensure_ascii=escaped, indent=indent) if value else "[DONE]"
        lines += [f"event:{space}{name}"] if name and named else []
        lines += [*(f"data:{space}{line}" for line in data.split("\n")), ""]
    return "".join(line + end for line in lines).encode()


def without_numbers(events: Sequence[Event]) -> bytes | None:
    """Write the events without their numbers; those of a shortened recording say that its texts are longer."""
    numbers = [value["sequence_number"] for _, value in events if "sequence_number" in value]
    is_shortened = bool(numbers) and numbers[-1] - numbers[0] >= len(numbers)
    return None if is_shortened else each(without("sequence_number"))(events)


def each(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    return lambda events: write([(name, change(value) if value else value) for name, value in events])


def mix(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(name, mix(inner, chance)) for name, inner in cast(dict[str, Any], value).items()]
        chance.shuffle(items)
        return dict(items)
    return [mix(inner, chance) for inner in cast(list[Any], value)] if isinstance(value, list) else value


def without(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda value: {name: inner for name, inner in value.items() if name not in names}


def twice(*endings: str) -> Change:
    def change(events: Sequence[Event]) -> bytes:
        return write([
            again
            for one in events
            for again in ([one, one] if str(one[1].get("type")).endswith(endings) else [one])
        ])  # fmt: skip

    return change


def between(*more: Event) -> Change:
    return lambda events: write([shown for one in events for shown in (one, *more)])


def named_by_event(events: Sequence[Event]) -> bytes:
    return write([
        (value["type"], {"at": 1, **without("type")(value)}) if "type" in value else (name, value)
        for name, value in events
    ])  # fmt: skip


EVERYWHERE: dict[str, Change] = {
    "as it was": write,
    "CRLF": lambda events: write(events, "\r\n"),
    "CR": lambda events: write(events, "\r"),
    "no space behind the colon": lambda events: write(events, space=""),
    "letters as escapes": lambda events: write(events, escaped=True),
    "data of many lines": lambda events: write(events, indent=1),
    "no last empty line": lambda events: write(events)[:-1],
    "a mark of byte order": lambda events: b"\xef\xbb\xbf" + write(events),
    "comments": lambda events: b": on\n\n" + write(events).replace(b"\n\n", b'\n\n: data: {"x"\n\n:\n\nid: 3\nretry: 1\n\n'),
    "ids of events": lambda events: write(events).replace(b"\ndata:", b"\nid: 7\ndata:"),
    "fields in another order": each(lambda value: mix(value, random.Random(7))),
    "fields that nobody knows": each(lambda value: {**UNKNOWN, **value}),
    "nulls": each(lambda value: {"error": None, "usage": None, "name": None, "item_id": None, **value}),
}  # fmt: skip


def is_in_order(events: Sequence[Event]) -> bool:
    """Whether each block of the answer ends before the next one begins, so that nobody needs an index."""
    indexes = [value["index"] for _, value in events if isinstance(value.get("index"), int)]
    places = [index for index, _ in groupby(indexes)]
    return len(places) == len(set(places))


def in_order(change: Change) -> Change:
    return lambda events: change(events) if is_in_order(events) else None


def indexed(place: Callable[[int], Any]) -> Change:
    return each(
        lambda value: {**value, "index": place(value["index"])} if isinstance(value.get("index"), int) else value
    )


def in_letters(events: Sequence[Event]) -> bytes:
    """Each delta in pieces of one character."""
    cut: list[Event] = []
    for name, value in events:
        delta: dict[str, Any] = value.get("delta") or {}
        field = {"text_delta": "text", "input_json_delta": "partial_json", "thinking_delta": "thinking"}.get(
            delta.get("type", ""), "signature"
        )
        text = delta.get(field)
        pieces = text if isinstance(text, str) and text else [None]
        cut += [(name, value if piece is None else {**value, "delta": {**delta, field: piece}}) for piece in pieces]
    return write(cut)


ANTHROPIC: dict[str, Change] = {
    "no event lines": lambda events: write(events, named=False),
    "types on the event line only": named_by_event,
    "another type on the event line": lambda events: write([("message", value) for _, value in events]),
    "pings and new events": between(
        ("ping", {"type": "ping"}), ("new", {"type": "new", "index": 0, "delta": {"type": "text_delta", "text": "no"}})
    ),
    "ends twice": twice("content_block_stop", "message_stop"),
    "indexes from 3": indexed(lambda index: index + 3),
    "indexes as text": indexed(str),
    "no index": in_order(each(without("index"))),
    "null for the index": in_order(indexed(lambda _: None)),
    "0 for each index": in_order(indexed(lambda _: 0)),
    "a list for the index": in_order(indexed(lambda index: [index])),
    "letter by letter": in_letters,
    "a mark behind the end": lambda events: write([*events, ("", {})]),
}
CHAT: dict[str, Change] = {
    "chunks without choices": between(("", {"choices": []}), ("ping", {"type": "ping"})),
    "nothing but choices and tokens": each(without("object", "id", "model", "created", "system_fingerprint")),
}
RESPONSES: dict[str, Change] = {
    "types on the event line only": named_by_event,
    "no event lines": lambda events: write(events, named=False),
    "pings and new events": between(
        ("", {"type": "ping"}), ("", {"type": "response.new.delta", "output_index": 0, "delta": "no"})
    ),
    "ends twice": twice(".done", ".added", ".completed"),
    "indexes from 3": each(
        lambda value: (
            {**value, "output_index": value["output_index"] + 3}
            if isinstance(value.get("output_index"), int)
            else value
        )
    ),
    "no index": each(without("output_index")),
    "no ids of items": each(lambda value: without("item_id")(value) if "output_index" in value else value),
    "no numbers": without_numbers,
}


def describe(turn: Turn) -> dict[str, Any]:
    return {
        "text": turn.text,
        "thinking": turn.thinking,
        "refusal": turn.refusal,
        "calls": [(call.wire_id, call.name, call.arguments, call.state) for call in turn.calls],
        "end": (turn.finish_reason, turn.reason, turn.complete, type(turn.error)),
        "usage": turn.usage,
        "provider": turn.provider,
    }


@cache
def bodies_of(api: str) -> list[tuple[RecordedBody, list[Event]]]:
    bodies = (*recorded_bodies("gold", "reviewed", "silver"), *handmade_bodies(), *anthropic_bodies())
    chosen = [body for body in bodies if body.api == api and len(body.body) < LARGEST_BYTES and is_text(body.body)]
    read = [(body, events) for body in chosen if (events := read_events(body.body)) is not None]
    if not read:
        pytest.skip("no test data: set FLOWKIT_TEST_DATA to a folder with streams/")
    return read


@cache
def described_bodies(api: str) -> dict[str, dict[str, Any]]:
    """What each body says as it was recorded, by its name."""
    return {body.name: describe(read_turn(body.body, api=api)) for body, _ in bodies_of(api)}


def is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize(
    ("api", "change"),
    [
        *(("anthropic", name) for name in (*EVERYWHERE, *ANTHROPIC)),
        *(("chat", name) for name in (*EVERYWHERE, *CHAT)),
        *(("responses", name) for name in (*EVERYWHERE, *RESPONSES)),
    ],
)
def test_every_body_reads_the_same_when_it_is_written_with(api: str, change: str) -> None:
    rewrite = {**EVERYWHERE, **{"anthropic": ANTHROPIC, "chat": CHAT, "responses": RESPONSES}[api]}[change]
    wrong: dict[str, Any] = {}
    rewritten = 0
    for body, events in share(bodies_of(api), len(change)):
        changed = rewrite(events)
        if changed is not None:
            rewritten += 1
            before, after = described_bodies(api)[body.name], describe(read_turn(changed, api=api))
            wrong |= {body.name: {name: (before[name], after[name]) for name in before if before[name] != after[name]}}
    assert {name: fields for name, fields in wrong.items() if fields} == {}
    assert rewritten, "no body can be written in this way"


def test_blocks_of_the_messages_api_may_come_side_by_side() -> None:
    """Their events stay in order for each block, and are shuffled otherwise; the calls are those that they were."""
    chance = random.Random(3)
    shuffled = 0
    for body, events in bodies_of("anthropic"):
        blocks: dict[int, list[Event]] = {}
        for event in events:
            if isinstance(event[1].get("index"), int):
                blocks.setdefault(event[1]["index"], []).append(event)
        whole = read_turn(body.body, api="anthropic")
        kinds = [delta.kind for delta in whole.provider]
        if len(blocks) < 2 or not whole.complete or not is_in_order(events) or len(set(kinds)) != len(kinds):
            continue
        order = sorted(index for index, found in blocks.items() for _ in found[1:])
        chance.shuffle(order)
        rest = {index: iter(found[1:]) for index, found in blocks.items()}
        starts = [found[0] for _, found in sorted(blocks.items())]
        first = next(place for place, (_, value) in enumerate(events) if value.get("index") is not None)
        others = [event for event in events[first:] if event[1].get("index") is None]
        shuffled += 1
        mixed = [*events[:first], *starts, *(next(rest[index]) for index in order), *others]
        turn = read_turn(write(mixed), api="anthropic")
        assert [(call.name, call.arguments, call.state) for call in turn.calls] == [
            (call.name, call.arguments, call.state) for call in whole.calls
        ], body.name
        assert (turn.text, turn.usage, turn.complete) == (whole.text, whole.usage, True), body.name
        assert {delta.kind: delta.data for delta in turn.provider} == {
            delta.kind: delta.data for delta in whole.provider
        }, body.name
    assert shuffled, "no body has several blocks"
