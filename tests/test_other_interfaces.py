"""A server that answers in the form of another interface than the one that was asked."""

import json
from typing import Any, Literal

import pytest

from flowkit.messages import UserMessage
from flowkit.models.base import ModelRequest
from flowkit.models.wire.chat_request import build_chat_body
from flowkit.models.wire.responses_request import build_responses_body
from flowkit.models.wire.settings import Settings
from flowkit.testing.streams import read_turn
from tests.bodies import anthropic, chat, responses

STREAMED = {
    "chat": chat({"content": "Hi"}, finish="stop"),
    "responses": responses(("output_text.delta", {"output_index": 0, "delta": "Hi"})),
    "anthropic": anthropic({"type": "text_delta", "text": "Hi"}),
}
WHOLE: dict[str, Any] = {
    "chat": {"object": "chat.completion", "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]},
    "responses": {"object": "response", "status": "completed", "output": [{"type": "message", "content": []}]},
    "anthropic": {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hi"}]},
}
BODIES = {
    **{(api, "streamed"): body for api, body in STREAMED.items()},
    **{(api, "whole"): json.dumps(value).encode() for api, value in WHOLE.items()},
}
ADVICE = {
    "chat": r"in the form of Chat Completions: use OpenAIModel",
    "responses": r"in the form of the Responses API: use OpenAIModel with api='responses'",
    "anthropic": r"in the form of the Messages API: use AnthropicModel",
}


@pytest.mark.parametrize(("answered", "how"), BODIES)
@pytest.mark.parametrize("asked", ["chat", "responses", "anthropic"])
def test_the_form_of_another_interface_is_named(
    asked: Literal["chat", "responses", "anthropic"], answered: str, how: str
) -> None:
    turn = read_turn(BODIES[answered, how], api=asked)
    if asked == answered:
        assert turn.error is None
        return
    assert turn.error is not None
    assert str(turn.error).startswith(f"the server answered {ADVICE[answered]}")
    assert not turn.complete


def test_a_message_without_parts_is_sent_as_an_empty_text() -> None:
    request = ModelRequest(messages=(UserMessage(()),))
    chat_body = build_chat_body(request, Settings(model="m", api="chat"))
    body = build_responses_body(request, Settings(model="m", api="responses"))
    for sent in (chat_body["messages"], body["input"]):
        assert sent == [{"role": "user", "content": ""}]
