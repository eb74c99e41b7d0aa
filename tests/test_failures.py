"""What went wrong with a request, in words and figures."""

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit import Agent, ModelError, OpenAIModel
from flowkit.models.wire.failures import explain_break, explain_refusal, read_retry_after
from flowkit.models.wire.settings import ModelServer
from tests.server import Reply, ScriptedServer

SERVER = ModelServer("https://me:secret@gateway.example/v1?key=1", "sk-secret", max_retries=0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "20"}, 20),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "-3"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT", "date": "Fri, 31 Dec 1999 23:59:49 GMT"}, 10),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0),
    ],
)
def test_the_time_that_a_server_asks_for_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert read_retry_after(headers, now_s=2_000_000_000) == seconds


def test_a_date_without_the_servers_own_counts_from_now() -> None:
    headers = {"retry-after": "Sat, 01 Jan 2000 00:00:10 GMT"}
    assert read_retry_after(headers, now_s=946_684_800) == 10


@given(st.text())
def test_for_every_header_the_wait_is_known_and_not_negative(value: str) -> None:
    seconds = read_retry_after({"retry-after": value}, now_s=0)
    assert seconds is None or seconds >= 0


def test_no_sentence_holds_a_secret() -> None:
    request = httpx2.Request("POST", SERVER.base_url)
    response = httpx2.Response(404, request=request)
    refused = explain_refusal(openai.NotFoundError("no", response=response, body=None), SERVER, "m")
    unreachable = explain_refusal(openai.APIConnectionError(request=request), SERVER, "m")
    broken = explain_break(httpx2.ReadError("reset"), SERVER)
    for error in (refused, unreachable, broken):
        assert "secret" not in str(error)
        assert "key=" not in str(error)
    assert (unreachable.retryable, broken.retryable) == (True, True)


def test_long_words_of_a_server_are_cut() -> None:
    response = httpx2.Response(400, request=httpx2.Request("POST", SERVER.base_url))
    body = {"message": "very\nlong " * 500}
    refused = explain_refusal(openai.BadRequestError("no", response=response, body=body), SERVER, "m")
    assert len(str(refused)) < 400
    assert "\n" not in str(refused)


def test_a_timeout_tells_how_long_it_waited() -> None:
    request = httpx2.Request("POST", SERVER.base_url)
    refused = explain_refusal(openai.APITimeoutError(request=request), SERVER, "m")
    assert str(refused) == "gateway.example didn't answer within 600 s"


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        (
            "Function tools with reasoning_effort are not supported for gpt-5.5 in /v1/chat/completions. "
            "Please use /v1/responses instead.",
            "give the model api='responses'",
        ),
        ("Extra inputs are not permitted, field: 'stream_options'", "include_usage=False"),
        (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            "name the limit in extra_body=, where None takes a field out",
        ),
        ("This response_format type is unavailable now", "json_schema=False"),
        ("Tools with strict=True are not supported by this model", "give the tools strict=False"),
        ("property 'reasoning_effort' is unsupported", "thinking_dialect="),
        (
            "litellm.UnsupportedParamsError: openai does not support parameters: ['thinking'], for model=m",
            "leave thinking= out",
        ),
        ('"thinking.type.disabled" is not supported for this model.', "leave thinking= out"),
        ("Unsupported value: 'temperature' does not support 0.2 with this model.", "leave temperature= out"),
        ("tool_choice: type 'any' is not supported with thinking", "leave tool_choice= out"),
        ("request (9026 tokens) exceeds the available context size (4096 tokens)", "before_request="),
        ("This model's maximum context length is 8192 tokens.", "before_request="),
        ("No connected db.", "check api_key="),
    ],
)
def test_a_refused_field_names_the_setting_that_helps(said: str, advice: str) -> None:
    response = httpx2.Response(400, request=httpx2.Request("POST", SERVER.base_url))
    refused = explain_refusal(openai.BadRequestError(said, response=response, body={"message": said}), SERVER, "m")
    sentence, _, way_out = str(refused).rpartition("; ")
    assert sentence.endswith(said)
    assert advice in way_out


def test_a_call_that_groq_could_not_read_is_asked_for_again() -> None:
    response = httpx2.Response(400, request=httpx2.Request("POST", SERVER.base_url))
    body = {"message": "Failed to call a function.", "code": "tool_use_failed"}
    assert explain_refusal(openai.BadRequestError("no", response=response, body=body), SERVER, "m").retryable


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"message": "too long"}}',
        b'[{"error": {"code": 400, "message": "too long", "status": "INVALID_ARGUMENT"}}]',
        b'{"detail": [{"loc": ["body"], "msg": "too long"}]}',
        b'{"error": {"message": "Provider returned error", "metadata": {"raw": "{\\"message\\": \\"too long\\"}"}}}',
        b'{"success": false, "errors": [{"code": 7, "message": "too long"}]}',
        b'{"Message": "too long"}',
        b'{"error": "Bad Request", "message": "too long"}',
        b'{"error": {"message": {"error": {"message": "too long"}}}}',
        b"too long",
    ],
)
def test_the_reason_of_a_refusal_is_found_in_any_body(body: bytes) -> None:
    with ScriptedServer([Reply((body,), 400, {"content-type": "application/json"})]) as server:
        model = OpenAIModel("m", base_url=server.base_url, api_key="any")
        with pytest.raises(ModelError, match="too long"):
            Agent(model).run_sync("hi")
