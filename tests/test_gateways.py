"""What gateways make of the three interfaces: the same words in other places, no sooner and no later than others."""

import json
from typing import Any

import pytest

from flowkit.assemble import Turn
from flowkit.testing.streams import read_turn
from tests.bodies import DONE, anthropic, call, calls, chat, event, read_chat, responses, shown

ONE = [("f", {"x": 1}, "sealed")]
ARGUMENTS = '{"x": 1}'

CALLS: dict[str, Any] = {
    "without a list": call(ARGUMENTS, id="a", name="f"),
    "function as text": [{"id": "a", "type": "function", "function": '{"name": "f", "arguments": {"x": 1}}'}],
    "without the box": [{"id": "a", "type": "function", "name": "f", "arguments": ARGUMENTS}],
    "as a block of Messages": [{"id": "a", "type": "tool_use", "name": "f", "input": {"x": 1}}],
    "as LangChain writes it": [{"id": "a", "type": "tool_call", "name": "f", "args": {"x": 1}}],
    "parameters": [{"index": 0, "id": "a", "function": {"name": "f", "parameters": {"x": 1}}}],
}


@pytest.mark.parametrize("said", CALLS.values(), ids=list(CALLS))
def test_a_call_is_read_wherever_its_name_and_arguments_stand(said: Any) -> None:
    turn = read_chat({"tool_calls": said})
    assert shown(turn) == ONE
    assert turn.calls[0].wire_id == "a"


CHOICES: dict[str, bytes] = {
    "calls beside the delta": event(
        {"choices": [{"index": 0, "delta": {"content": ""}, "tool_calls": [call(ARGUMENTS, id="a", name="f")]}]}
    )
    + chat(),
    "a choice without a list": event({"choices": {"delta": calls(call(ARGUMENTS, id="a", name="f"))}}) + chat(),
    "a wrapped chunk": event(
        {"result": {"choices": [{"delta": calls(call(ARGUMENTS, name="f")), "finish_reason": "stop"}]}}
    ),
    "the reason in the delta": event(
        {"choices": [{"delta": {**calls(call(ARGUMENTS, name="f")), "finish_reason": "tool_calls"}}]}
    ),
    "the reason beside the choices": event(
        {"choices": [{"delta": calls(call(ARGUMENTS, name="f"))}], "finish_reason": "tool_calls"}
    ),
    "the reason under another name": event(
        {"choices": [{"delta": calls(call(ARGUMENTS, name="f")), "stop_reason": "tool_use"}]}
    ),
}


@pytest.mark.parametrize("body", CHOICES.values(), ids=list(CHOICES))
def test_a_choice_is_read_wherever_its_parts_stand(body: bytes) -> None:
    turn = read_turn(body, api="chat")
    assert (shown(turn), turn.complete, turn.error) == (ONE, True, None)


def test_the_text_of_a_server_that_knows_no_chat_is_read() -> None:
    turn = read_turn(event({"choices": [{"text": "Hi", "finish_reason": "stop"}]}) + DONE, api="chat")
    assert (turn.text, turn.reason) == ("Hi", "stop")


@pytest.mark.parametrize("content", ["Hi", ["Hi"], {"text": "Hi"}, [{"type": "output_text", "text": "Hi"}]])
def test_content_is_read_in_any_form(content: Any) -> None:
    assert read_chat({"content": content}, finish="stop").text == "Hi"


def test_tokens_are_read_within_a_choice() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    turn = read_turn(
        event({"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop", "usage": usage}]}), api="chat"
    )
    assert turn.usage is not None
    assert (turn.usage.input_tokens, turn.usage.output_tokens) == (3, 4)


@pytest.mark.parametrize("spell", [str, float])
def test_fragments_side_by_side_are_told_apart_by_an_index_that_is_no_integer(spell: Any) -> None:
    turn = read_chat(
        calls(call('{"x"', index=spell(0) if spell is float else "0", name="f")),
        calls(call('{"y"', index=spell(1) if spell is float else "1", name="g")),
        calls(call(": 1}", index=spell(0) if spell is float else "0")),
        calls(call(": 2}", index=spell(1) if spell is float else "1")),
    )
    assert shown(turn) == [*ONE, ("g", {"y": 2}, "sealed")]


def test_a_number_is_an_id() -> None:
    turn = read_chat(calls(call('{"x"', id=7, name="f", index=...)), calls(call(": 1}", id=7, index=...)))
    assert [(made.wire_id, made.arguments) for made in turn.calls] == [("7", {"x": 1})]


def test_two_tools_without_arguments_at_one_index_are_two_calls() -> None:
    turn = read_chat(calls(call("{}", name="f"), call("{}", name="g")))
    assert shown(turn) == [("f", {}, "sealed"), ("g", {}, "sealed")]


def test_a_call_that_is_said_in_both_ways_runs_once() -> None:
    turn = read_chat(
        {"function_call": {"name": "f", "arguments": ARGUMENTS}, **calls(call(ARGUMENTS, id="a", name="f"))}
    )
    assert shown(turn) == ONE


# Responses

CALL = {"type": "function_call", "id": "fc_1", "call_id": "a", "name": "f", "arguments": ""}
ADDED = ("output_item.added", {"output_index": 0, "item": CALL})
DONE_ARGUMENTS = ("function_call_arguments.done", {"output_index": 0, "item_id": "fc_1", "arguments": ARGUMENTS})
PIECES = [
    ("function_call_arguments.delta", {"output_index": 0, "item_id": "fc_1", "delta": piece})
    for piece in ('{"x"', ": 1}")
]
WHOLE_CALL = {**CALL, "arguments": ARGUMENTS, "status": "completed"}


def read_items(*events: tuple[str, dict[str, Any]], **response: Any) -> Turn:
    return read_turn(responses(*events, **response), api="responses")


@pytest.mark.parametrize(
    "events",
    [
        [DONE_ARGUMENTS, ADDED],
        [*PIECES, ADDED, DONE_ARGUMENTS],
        [*PIECES, DONE_ARGUMENTS, ADDED],
        [*PIECES, ("output_item.done", {"output_index": 0, "item": {**WHOLE_CALL, "arguments": ""}})],
        [
            ("output_item.added", {"output_index": 0, "item": {**CALL, "name": ""}}),
            *PIECES,
            DONE_ARGUMENTS,
            ("output_item.done", {"output_index": 0, "item": WHOLE_CALL}),
        ],
    ],
    ids=["the end first", "the item amid", "the item last", "the item done last", "the name last"],
)
def test_a_call_is_read_in_whatever_order_its_events_come(events: list[Any]) -> None:
    turn = read_items(*events)
    assert (shown(turn), turn.calls[0].wire_id) == (ONE, "a")


def test_arguments_whose_item_never_comes_are_no_call_that_can_run() -> None:
    assert [state for *_, state in shown(read_items(*PIECES, DONE_ARGUMENTS))] == ["invalid"]


def test_calls_that_only_the_last_event_names_are_read_beside_a_text_that_came_in_pieces() -> None:
    message = {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}
    turn = read_items(
        ("output_text.delta", {"output_index": 0, "delta": "Hi"}),
        output=[message, WHOLE_CALL],
    )
    assert (turn.text, shown(turn)) == ("Hi", ONE)


def test_a_call_is_read_once_though_the_last_event_places_it_elsewhere() -> None:
    turn = read_items(("output_item.done", {"output_index": 3, "item": WHOLE_CALL}), output=[WHOLE_CALL])
    assert shown(turn) == ONE


PARTS = [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]
REASONING = ("output_item.done", {"output_index": 0, "item": {"type": "reasoning", "id": "rs_1", "summary": PARTS}})
THOUGHTS = [
    ("reasoning_summary_text.delta", {"output_index": 0, "summary_index": number, "delta": text})
    for number, text in enumerate("ab")
]
THOUGHT_ENDS = [
    ("reasoning_summary_text.done", {"output_index": 0, "summary_index": number, "text": text})
    for number, text in enumerate("ab")
]


@pytest.mark.parametrize(
    "events",
    [[REASONING], THOUGHT_ENDS, [*THOUGHT_ENDS, REASONING], [*THOUGHTS, *THOUGHT_ENDS, REASONING]],
    ids=["in the item", "at the ends of its parts", "in both", "in pieces, too"],
)
def test_thinking_is_read_once_wherever_it_stands(events: list[Any]) -> None:
    assert read_items(*events).thinking == "a\n\nb"


def test_an_end_of_another_name_ends_the_answer() -> None:
    turn = read_items(("output_text.delta", {"output_index": 0, "delta": "Hi"}), end="done")
    assert (turn.text, turn.finish_reason, turn.complete) == ("Hi", "completed", True)


def test_a_response_in_progress_is_no_answer_at_one_go() -> None:
    begun = event({"object": "response", "status": "in_progress", "output": []})
    turn = read_turn(begun + responses(("output_text.delta", {"output_index": 0, "delta": "Hi"})), api="responses")
    assert (turn.text, turn.complete) == ("Hi", True)


# Messages

STARTED: dict[str, Any] = {
    "its input in the start and no end of the block": {"x": 1},
    "its input as text": ARGUMENTS,
}


@pytest.mark.parametrize("given", STARTED.values(), ids=list(STARTED))
@pytest.mark.parametrize("stops", [True, False])
@pytest.mark.parametrize("reason", ["tool_use", "max_tokens"])
def test_arguments_in_a_blocks_start_are_never_lost(given: Any, stops: bool, reason: str) -> None:
    body = anthropic(start={"type": "tool_use", "id": "a", "name": "f", "input": given}, stop=reason)
    if not stops:
        body = b"".join(part + b"\n\n" for part in body.split(b"\n\n") if part and b"content_block_stop" not in part)
    state = "void" if reason == "max_tokens" and not stops else "sealed"
    assert shown(read_turn(body, api="anthropic")) == [("f", {"x": 1}, state)]


@pytest.mark.parametrize(
    "piece",
    [{"type": "input_json_delta", "partial_json": {"x": 1}}, {"partial_json": ARGUMENTS}],
    ids=["an object", "without a type"],
)
def test_a_piece_of_arguments_is_read_in_any_form(piece: dict[str, Any]) -> None:
    start: dict[str, Any] = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    assert shown(read_turn(anthropic(piece, start=start, stop="tool_use"), api="anthropic")) == ONE


def test_a_delta_without_a_type_is_known_by_what_it_holds() -> None:
    assert read_turn(anthropic({"text": "Hi"}), api="anthropic").text == "Hi"


def test_citations_in_a_blocks_start_go_back_with_it() -> None:
    cited = {"type": "char_location", "cited_text": "Hi"}
    turn = read_turn(anthropic(start={"type": "text", "text": "Hi", "citations": [cited]}), api="anthropic")
    assert [delta.data for delta in turn.provider] == [{"type": "text", "text": "Hi", "citations": [cited]}]


def test_a_reason_beside_the_delta_ends_the_answer() -> None:
    body = anthropic({"type": "text_delta", "text": "Hi"}, stop=None)
    body += event({"type": "message_delta", "stop_reason": "end_turn", "delta": {"container": {"id": "c"}}})
    turn = read_turn(body, api="anthropic")
    assert (turn.reason, turn.complete, turn.error) == ("stop", True, None)
    assert turn.provider[-1].data == {"id": "c"}


@pytest.mark.parametrize(
    ("said", "status", "retryable", "told"),
    [
        ({"detail": "upstream died"}, None, True, "upstream died"),
        ({"message": "Rate exceeded", "code": "429"}, 429, True, "Rate exceeded"),
        ({"type": "error", "error": {"message": "gone", "status": 503}}, 503, True, "gone"),
        ({"type": "error", "error": {"message": "no", "code": 400}}, 400, False, "no"),
    ],
)
def test_an_error_in_a_gateways_own_words_ends_an_answer_of_messages(
    said: dict[str, Any], status: int | None, retryable: bool, told: str
) -> None:
    error = read_turn(anthropic(stop=None) + event(said), api="anthropic").error
    assert error is not None
    assert (error.status, error.retryable) == (status, retryable)
    assert told in str(error)


def test_an_event_named_exception_is_an_error() -> None:
    body = anthropic(stop=None) + event({"message": "Too many requests"}, "exception")
    assert "Too many requests" in str(read_turn(body, api="anthropic").error)


def test_an_error_in_place_of_a_stream_keeps_its_number_and_its_request() -> None:
    fault = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"}
    error = read_turn(json.dumps(fault).encode(), api="anthropic").error
    assert error is not None
    assert (error.status, error.retryable, error.request_id) == (529, True, "req_1")


@pytest.mark.parametrize(("word", "reason"), [("END_TURN", "stop"), ("MAX_TOKENS", "length"), ("endTurn", "stop")])
def test_a_reason_to_stop_is_read_in_the_words_of_other_interfaces(word: str, reason: str) -> None:
    turn = read_turn(anthropic({"type": "text_delta", "text": "Hi"}, stop=word), api="anthropic")
    assert (turn.reason, turn.finish_reason, turn.error) == (reason, word, None)


AWS = {"type": "throttlingException", "message": "Too many tokens"}


@pytest.mark.parametrize(
    "fault", [event(AWS, "exception"), event(AWS), event({"message": "Too many tokens"}, "exception")]
)
@pytest.mark.parametrize(
    ("api", "begun"),
    [("chat", chat({"content": "Hi"}, finish=None, done=False)), ("responses", responses(("output_text.delta", {"output_index": 0, "delta": "Hi"}), end=None))],
)  # fmt: skip
def test_an_error_in_the_words_of_aws_is_told(api: str, begun: bytes, fault: bytes) -> None:
    turn = read_turn(begun + fault, api=api)
    assert (turn.text, str(turn.error)) == ("Hi", "Too many tokens")
    assert turn.error is not None
    assert turn.error.retryable


def test_an_index_that_is_text_in_some_events_makes_no_second_call() -> None:
    item = {"type": "function_call", "id": "fc_1", "call_id": "a", "name": "f"}
    turn = read_turn(
        responses(
            ("output_item.added", {"output_index": "0", "item": {**item, "status": "in_progress"}}),
            ("function_call_arguments.delta", {"output_index": "0", "item_id": "fc_1", "delta": ARGUMENTS}),
            ("output_item.done", {"output_index": 0, "item": {**item, "status": "completed", "arguments": ARGUMENTS}}),
        ),
        api="responses",
    )
    assert (shown(turn), turn.complete) == (ONE, True)


# Bodies of servers that speak a dialect of Chat Completions

NATIVE: dict[str, bytes] = {
    "Workers AI": event({"response": "Hel", "p": "ab"}) + event({"response": "lo"}) + DONE,
    "Workers AI without a stream": json.dumps(
        {"result": {"response": "Hello"}, "success": True, "errors": []}
    ).encode(),
    "DashScope": b"".join(
        event({"output": {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": word}]}})
        for text, word in (("Hel", "null"), ("Hello", "stop"))
    ),
    "Ollama's completion": event({"response": "Hello", "done": False})
    + event({"response": "", "done": True, "done_reason": "stop"}),
    "MiniMax": event({"choices": [{"delta": {"content": "Hel"}}]})
    + event({"choices": [{"delta": {"content": "lo"}}]})
    + event({"object": "chat.completion", "choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}),
    "Perplexity": event({"choices": [{"message": {"content": "Hello"}, "delta": {"content": "Hello"}}]})
    + event({"choices": [{"message": {"content": "Hello"}, "delta": {"content": ""}, "finish_reason": "stop"}]}),
    "Together": event({"choices": [{"text": "Hello", "delta": {"content": "Hello"}}]})
    + event({"choices": [{"text": "", "delta": {"content": ""}, "finish_reason": "eos"}]}),
    "Portkey": event({"hook_results": {"before_request_hooks": []}})
    + event({"choices": [{"delta": {"content": "Hello"}, "finish_reason": "stop"}]}),
    "Azure": event({"choices": [], "prompt_filter_results": [{"content_filter_results": {}}]})
    + event({"choices": [{"delta": {"content": "Hello"}}]})
    + event({"choices": [{"finish_reason": None, "content_filter_offsets": {"check_offset": 1}}]})
    + event({"choices": [{"delta": {}, "finish_reason": "stop"}]}),
    "a delta that is null": event({"choices": [{"delta": None}]})
    + event({"choices": [{"delta": {"content": "Hello"}, "finish_reason": ""}]})
    + event({"choices": [{"delta": None, "finish_reason": "stop"}]}),
}


@pytest.mark.parametrize("body", NATIVE.values(), ids=list(NATIVE))
def test_a_text_is_read_once_in_the_dialects_of_servers(body: bytes) -> None:
    turn = read_turn(body, api="chat")
    assert (turn.text, turn.error) == ("Hello", None)
    assert turn.reason in ("stop", "unknown")


FAULTS: dict[str, tuple[bytes, str, bool]] = {
    "LiteLLM": (
        event({"error": {"message": "MidStreamFallbackError: peer closed", "code": "500"}}),
        "peer closed",
        True,
    ),
    "vLLM": (event({"object": "error", "message": "context length is 4096", "code": 400}), "context length", False),
    "SambaNova": (event({"choices": None, "error": {"message": "Request timed out", "code": None}}), "timed out", True),
    "TGI": (event({"error": "CUDA out of memory", "error_type": "generation"}), "CUDA out of memory", True),
    "MiniMax": (event({"choices": None, "base_resp": {"status_code": 1, "status_msg": "no room"}}), "no room", True),
    "DashScope": (
        b"id:1\nevent:error\n:HTTP_STATUS/400\n" + event({"code": "InvalidParameter", "message": "bad parameter"}),
        "bad parameter",
        False,
    ),
    "Bedrock": (event({"message": "Too many tokens", "__type": "ThrottlingException"}), "Too many tokens", True),
    "llama.cpp": (b'error: {"code": 500, "message": "slot unavailable"}\n\n', "slot unavailable", True),
    "Zhipu": (event({"choices": [{"delta": {}, "finish_reason": "network_error"}]}), "network_error", True),
    "Gemini": (
        event({"choices": [{"delta": {}, "finish_reason": "function_call_filter: MALFORMED_FUNCTION_CALL"}]}),
        "MALFORMED_FUNCTION_CALL",
        True,
    ),
}


@pytest.mark.parametrize("begins", [True, False], ids=["behind a text", "alone"])
@pytest.mark.parametrize(("fault", "says", "passes"), FAULTS.values(), ids=list(FAULTS))
def test_a_fault_in_the_words_of_a_server_is_told_with_its_reason(
    fault: bytes, says: str, passes: bool, begins: bool
) -> None:
    body = event({"choices": [{"delta": {"content": "Hel"}}]}) if begins else b""
    turn = read_turn(body + fault, api="chat")
    assert turn.error is not None
    assert says in str(turn.error)
    assert turn.error.retryable is passes


@pytest.mark.parametrize(
    ("title", "status"), [("504 Gateway Time-out", 504), ("502 Bad Gateway", 502), ("Sign in", None)]
)
def test_a_page_in_place_of_an_answer_may_be_asked_for_again_if_it_tells_a_fault_that_passes(
    title: str, status: int | None
) -> None:
    page = f"<html>\r\n<head><title>{title}</title></head>\r\n<body></body></html>".encode()
    for api in ("chat", "responses"):
        error = read_turn(page, api=api).error
        assert error is not None
        assert (error.status, error.retryable) == (status, status is not None)
