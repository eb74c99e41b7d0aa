"""What went wrong with a request, in words and figures."""

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.models.failures import explain_break, explain_refusal, read_retry_after
from flowkit.models.settings import Server

SERVER = Server("https://me:secret@gateway.example/v1?key=1", "sk-secret", max_retries=0)


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
