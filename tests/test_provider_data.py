"""What a server gives for itself goes back to it in the next request of the same run, over real HTTP."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from flowkit import Agent, FallbackModel, OpenAIModel, Router, tool
from flowkit.models.base import Model
from tests.server import Reply, ScriptedServer, Thinking, call, chat, error, responses


@tool(effect="read")
def get_order(order_id: str) -> str:
    """An order's state."""
    return f"{order_id} is sent"


def event(**choice: Any) -> bytes:
    data = {"object": "chat.completion.chunk", "choices": [{"index": 0, "finish_reason": None, **choice}]}
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def call_delta(**more: Any) -> dict[str, Any]:
    function = {"name": "get_order", "arguments": '{"order_id": "ORD-1"}'}
    return {"tool_calls": [{"index": 0, "id": "call_a", "type": "function", "function": function, **more}]}


def stream(*deltas: dict[str, Any]) -> Reply:
    events = [event(delta=delta) for delta in deltas]
    return Reply((*events, event(delta={}, finish_reason="tool_calls"), b"data: [DONE]\n\n"))


def second_request(model: Model, server: ScriptedServer) -> dict[str, Any]:
    """The body that follows a call's result; the run answered."""
    result = Agent(model, tools=[get_order], cache=False).run_sync("Where is ORD-1?")
    assert (result.status, result.output) == ("done", "It is sent.")
    return server.requests[-1].body


def test_thinking_goes_back_with_the_call_it_led_to() -> None:
    """Case R06: without it the server answers 400."""
    script = [
        stream({"reasoning_content": "I look "}, {"reasoning_content": "it up."}, call_delta()),
        chat("It is sent."),
    ]
    with ScriptedServer(script) as server:
        body = second_request(OpenAIModel("kimi-k2-thinking", base_url=server.base_url), server)
    [_, asked, result] = body["messages"]
    assert asked["reasoning_content"] == "I look it up."
    assert asked["tool_calls"][0]["id"] == result["tool_call_id"] == "call_a"


def test_a_thought_signature_goes_back_with_its_call() -> None:
    """Case T32."""
    signed = {"google": {"thought_signature": "abc"}}
    with ScriptedServer([stream(call_delta(extra_content=signed)), chat("It is sent.")]) as server:
        body = second_request(OpenAIModel("gemini-3-pro", base_url=server.base_url), server)
    assert body["messages"][1]["tool_calls"][0]["extra_content"] == signed


def test_reasoning_details_go_back_merged() -> None:
    """Case R03."""
    pieces = [
        {"reasoning": "a", "reasoning_details": [{"type": "reasoning.text", "text": "a", "index": 0}]},
        {"reasoning": "b", "reasoning_details": [{"type": "reasoning.text", "text": "b", "index": 0}]},
        {"reasoning_details": [{"type": "reasoning.text", "signature": "s", "index": 0}]},
    ]
    with ScriptedServer([stream(*pieces, call_delta()), chat("It is sent.")]) as server:
        body = second_request(OpenAIModel("anthropic/claude-sonnet-4.5", base_url=server.base_url), server)
    [detail] = body["messages"][1]["reasoning_details"]
    assert (detail["text"], detail["signature"]) == ("ab", "s")


def route_to(model: Model) -> Model:
    return Router(lambda messages, data: model, model)


@pytest.mark.parametrize("wrap", [FallbackModel, route_to])
def test_a_fallback_or_a_router_between_changes_nothing(wrap: Callable[[Model], Model]) -> None:
    signed = {"google": {"thought_signature": "abc"}}
    script = [stream({"reasoning_content": "hm"}, call_delta(extra_content=signed)), chat("It is sent.")]
    with ScriptedServer(script) as server:
        body = second_request(wrap(OpenAIModel("gemini-3-pro", base_url=server.base_url)), server)
    asked = body["messages"][1]
    assert asked["tool_calls"][0]["extra_content"] == signed
    assert asked["reasoning_content"] == "hm"


def test_another_model_gets_none_of_it() -> None:
    """The first model asks for the call and is out of reach afterwards."""
    script = {
        "kimi-k2": [stream({"reasoning_content": "secret"}, call_delta()), error(503, "busy")],
        "house-model": [chat("It is sent.")],
    }
    with ScriptedServer(script) as server:
        first = OpenAIModel("kimi-k2", base_url=server.base_url, max_retries=0)
        spare = OpenAIModel("house-model", base_url=server.base_url)
        body = second_request(FallbackModel(first, spare), server)
    assert body["model"] == "house-model"
    assert body["messages"][1]["tool_calls"][0]["function"]["name"] == "get_order"
    assert "secret" not in json.dumps(body)


def test_reasoning_items_stand_before_their_call() -> None:
    """Case P14."""
    script = [responses(Thinking("hm"), call("get_order", order_id="ORD-1")), responses("It is sent.")]
    with ScriptedServer(script) as server:
        body = second_request(OpenAIModel("gpt-5", base_url=server.base_url, api="responses"), server)
    kinds = [item.get("type", item.get("role")) for item in body["input"]]
    assert kinds == ["user", "reasoning", "function_call", "function_call_output"]
    assert body["input"][1]["encrypted_content"] == "e"
    assert body["input"][2]["call_id"] == body["input"][3]["call_id"]
