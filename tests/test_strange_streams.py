"""Whatever a server sends, a reader raises nothing, and what it says can be written as JSON."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.assemble import Assembler, CallFragment
from flowkit.messages import Usage
from flowkit.models.base import RefusalDelta, TextDelta, ThinkingDelta
from flowkit.models.wire.anthropic import AnthropicReader
from flowkit.models.wire.chat import ChatReader
from flowkit.models.wire.reading import WireReader
from flowkit.models.wire.responses import ResponsesReader
from tests.bodies import call, calls, chat, chunk, event, responses
from tests.example_counts import examples

CHAT = chat(
    {"role": "assistant", "content": "Hi 🎉", "reasoning_content": "hm"},
    {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "a"}]}, {"type": "text", "text": "b"}]},
    {"reasoning_details": [{"type": "reasoning.text", "text": "a", "index": 0}], "refusal": "no"},
    calls(call('{"x":', id="a", name="f", extra_content={"google": {}}), call({"y": 2}, index=1, id="b", name="g")),
    calls({"index": 2, "type": "custom", "custom": {"name": "h", "input": "x"}}),
    {"function_call": {"name": "f", "arguments": "{}"}},
    chunk({}, "stop", usage={"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1}, "cost": 0.5}),
    chunk({}, None, error={"message": "m", "code": 500}, x_groq={"usage": {}}),
)
RESPONSES = responses(
    ("output_item.added", {"output_index": 0, "item": {"type": "function_call", "call_id": "a", "name": "f"}}),
    ("function_call_arguments.delta", {"output_index": 0, "delta": '{"x":'}),
    ("function_call_arguments.done", {"output_index": 0, "arguments": '{"x":1}'}),
    ("reasoning_summary_text.delta", {"output_index": 1, "summary_index": 0, "delta": "hm"}),
    ("output_item.done", {"output_index": 1, "item": {"type": "reasoning", "encrypted_content": "E"}}),
    ("output_item.done", {"output_index": 2, "item": {"type": "message", "content": [{"text": "Hi 🎉"}]}}),
    ("custom_tool_call_input.done", {"output_index": 3, "input": "x"}),
    end="incomplete",
    incomplete_details={"reason": "max_output_tokens"},
    usage={"input_tokens": 1, "output_tokens_details": {"reasoning_tokens": 1}},
)
SAID: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"id": "m", "content": [], "usage": {"input_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "S"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": "Hi 🎉"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "b"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "citations_delta", "citation": {"url": "u"}}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "server_tool_use", "id": "s", "input": {}}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"q": 1}'}},
    {"type": "content_block_stop", "index": 2},
    {"type": "content_block_start", "index": 3, "content_block": {"type": "compaction", "content": "c"}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "compaction_delta", "content": "d"}},
    {"type": "content_block_stop", "index": 3},
    {
        "type": "content_block_start",
        "index": 4,
        "content_block": {"type": "tool_use", "id": "a", "name": "f", "input": {}},
    },
    {"type": "content_block_delta", "index": 4, "delta": {"type": "input_json_delta", "partial_json": '{"x": 1}'}},
    {"type": "content_block_stop", "index": 4},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "container": {"id": "c"}},
        "usage": {
            "output_tokens": 2,
            "cache_creation": {"ephemeral_1h_input_tokens": 1},
            "iterations": [{"input_tokens": 1}],
        },
    },
    {"type": "message_stop"},
]
ANTHROPIC = b"".join(map(event, SAID))
BODIES = {"chat": CHAT, "responses": RESPONSES, "anthropic": ANTHROPIC}
READERS: dict[str, Callable[[], WireReader]] = {
    "chat": ChatReader,
    "responses": ResponsesReader,
    "anthropic": AnthropicReader,
}

STRANGE: list[Any] = [
    None, True, 0, -1, 2.5, float("nan"), 10**30, "", "null", "{", "\ud83c", "x", [], [None], [[]], {}, {"": None}, {"text": 1},
    {"x": "\udf89"}, {"x": float("inf")},
]  # fmt: skip


def read(api: str, body: bytes) -> None:
    """Read it to its end; everything that a watcher is told must be JSON."""
    reader = READERS[api]()
    assembler = Assembler(("f", "g"), think_tags=True)
    parts = [
        part for piece in (body[:100], body[100:]) for delta in reader.feed(piece) for part in assembler.feed(delta)
    ]
    parts += [part for delta in reader.end() for part in assembler.feed(delta)]
    parts += assembler.end()
    for part in parts:
        match part:
            case TextDelta(text=text) | ThinkingDelta(text=text) | RefusalDelta(text=text):
                text.encode()
            case CallFragment(fragment=fragment):
                fragment.encode()
            case _:
                pass
    turn = assembler.turn
    json.dumps([item.data for item in turn.provider], ensure_ascii=False).encode()
    usage = turn.usage or Usage()
    assert min(usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.cache_write_tokens) >= 0
    assert {made.state for made in turn.calls} <= {"sealed", "invalid", "void"}
    for made in turn.calls:
        if made.state == "sealed" and not made.custom:
            json.dumps(made.arguments, allow_nan=False, ensure_ascii=False).encode()


def replace_value(value: Any, place: int, other: Any) -> tuple[Any, int]:
    """The JSON value with its value number `place` replaced; and how many values it has."""
    if place == 0:
        return other, 1
    count = 1
    if isinstance(value, dict):
        made: dict[str, Any] = {}
        for name, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            made[name], inside = replace_value(inner, place - count, other)
            count += inside
        return made, count
    if isinstance(value, list):
        items: list[Any] = []
        for inner in value:  # pyright: ignore[reportUnknownVariableType]
            item, inside = replace_value(inner, place - count, other)
            items.append(item)
            count += inside
        return items, count
    return value, 1


@pytest.mark.parametrize("api", list(BODIES))
@settings(max_examples=examples(400), deadline=None)
@given(data=st.data())
def test_any_value_in_any_field_is_read(api: str, data: st.DataObject) -> None:
    events = [event for event in BODIES[api].split(b"\n\n") if event.startswith(b"data: {")]
    chosen = data.draw(st.integers(0, len(events) - 1))
    value = json.loads(events[chosen][6:])
    _, count = replace_value(value, -1, None)
    changed, _ = replace_value(value, data.draw(st.integers(0, count - 1)), data.draw(st.sampled_from(STRANGE)))
    events[chosen] = b"data: " + json.dumps(changed).encode()
    read(api, b"\n\n".join([*events, b""]))


@pytest.mark.parametrize("api", list(BODIES))
@settings(max_examples=examples(300), deadline=None)
@given(data=st.data())
def test_any_bytes_anywhere_are_read(api: str, data: st.DataObject) -> None:
    body = BODIES[api]
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 20)))
    noise = data.draw(
        st.binary(max_size=6) | st.sampled_from([b"\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"\\ud83c", b'"', b"}"])
    )
    read(api, body[:start] + noise + body[end:])
