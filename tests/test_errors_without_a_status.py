"""An error inside a 200 that names no status: its words decide whether the same request can help."""

import json

import pytest

from flowkit.codec import JSON
from flowkit.errors import ModelError
from flowkit.testing.streams import read_turn
from tests.bodies import event

COMES_BACK: dict[str, JSON] = {
    "MiniMax, no money": {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
    "SiliconFlow, no model": {
        "code": 20012,
        "message": "Model does not exist. Please check it carefully.",
        "data": None,
    },
    "SiliconFlow, no money": {"code": 30001, "message": "Sorry, your account balance is insufficient", "data": None},
    "a named model": {"error": {"message": "The model `gpt-9` does not exist or you do not have access to it."}},
    "a proxy": {"error": {"message": "model 'qwen9:8b' not found"}},
    "a key": {"error": {"message": "Incorrect API key provided: sk-x."}},
    "another key": {"error": "api_key is invalid"},
    "a quota": {"error": {"message": "You exceeded your current quota, please check your plan and billing details."}},
    "credits": {"error": {"message": "Your account is out of credits"}},
    "Chinese, no money": {"error": {"code": "1113", "message": "您的账户已欠费,请充值后重试"}},
    "Chinese, no model": {"error": {"code": "1211", "message": "模型不存在,请检查模型代码。"}},
}
PASSES: dict[str, JSON] = {
    "a rate": {"error": {"message": "Quota exhausted for requests per minute"}},
    "a wait": {"error": {"message": "You exceeded your current quota. Please retry in 27.3s."}},
    "a worker": {"error": {"message": "model server not found: pod-7"}},
    "a moment": {"error": {"message": "Insufficient balance of workers, try again later"}},
    "a load": {"error": {"message": "The model is overloaded"}},
    "no reason": {"base_resp": {"status_code": 1000, "status_msg": "unknown error"}},
    "a word of the user": {"error": {"message": "failed while it read 'my balance'"}},
    "a limit": {"base_resp": {"status_code": 1002, "status_msg": "rate limit, insufficient quota"}},
    "a status": {"error": {"code": 429, "message": "Insufficient balance"}},
    "a type": {"error": {"type": "overloaded_error", "message": "Insufficient quota"}},
}


def find_error(api: str, body: JSON, *, is_event: bool) -> ModelError:
    sent = event(body) if is_event else json.dumps(body, ensure_ascii=False).encode()
    turn = read_turn(sent, api=api)
    assert turn.error is not None
    return turn.error


@pytest.mark.parametrize("is_event", [True, False])
@pytest.mark.parametrize("api", ["chat", "responses", "anthropic"])
@pytest.mark.parametrize("body", COMES_BACK.values(), ids=COMES_BACK)
def test_what_comes_back_with_the_same_request_is_not_asked_again(body: JSON, api: str, is_event: bool) -> None:
    assert find_error(api, body, is_event=is_event).retryable is False


@pytest.mark.parametrize("is_event", [True, False])
@pytest.mark.parametrize("api", ["chat", "responses", "anthropic"])
@pytest.mark.parametrize("body", PASSES.values(), ids=PASSES)
def test_what_may_pass_is_asked_again(body: JSON, api: str, is_event: bool) -> None:
    assert find_error(api, body, is_event=is_event).retryable is True
