"""Turn a failed request into a `ModelError` with one sentence for the user."""

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2
import openai

from flowkit.codec import JSON
from flowkit.errors import ModelError, StreamError, StreamTruncated
from flowkit.models.wire.reasons import NO_REASON, find_reason
from flowkit.models.wire.sent_keys import find_keys, mask_body, mask_keys
from flowkit.models.wire.settings import PLACEHOLDER_KEY, ModelServer, plain_url
from flowkit.models.wire.vendors import host_of

_SHOWN = 300
"""How many characters of a server's own words are shown."""

_WAYS_OUT = (
    (r"/responses\b", "give the model api='responses'"),
    (r"stream_options|include_usage", "give the model include_usage=False"),
    (r"max_completion_tokens", "name the limit in extra_body=, where None takes a field out"),
    (
        r"response.?mime.?type",
        "give the model schema_with_tools=False, or json_schema=False and extra_body={'response_format': None}",
    ),
    (r"roles? must alternate", "give the model alternate_roles=True"),
    (r"response_format|json_schema|json_object", "give the model json_schema=False"),
    (r"\bstrict\b", "give the tools strict=False"),
    (
        r"reasoning_effort|enable_thinking|chat_template_kwargs|budget_tokens|thinking\.|['\"]thinking['\"]",
        "leave thinking= out, or choose its words by thinking_dialect=",
    ),
    (r"\btemperature\b", "leave temperature= out"),
    (r"tool_choice", "leave tool_choice= out"),
    (r"cache_control", "give the model cache=None"),
    (r"eager_input_streaming", "give the model eager_input=False"),
    (r"output_config|output_format", "give the model json_schema=False"),
    (r"context.?(length|size|window)|prompt is too long", "shorten what is sent by the agent's before_request="),
    (r"No connected db", "LiteLLM says so of a key that it doesn't know: check api_key="),
)
"""What servers say when they refuse a field of a request, and the setting that helps; the first that fits is told."""


def explain_refusal(error: openai.OpenAIError, server: ModelServer, model: str) -> ModelError:
    """Explain why no answer began."""
    host, retries = host_of(server.base_url), server.max_retries
    if isinstance(error, openai.APITimeoutError):
        said = f"{host} didn't answer within {server.timeout.first_byte:g} s"
        if isinstance(error.__cause__, httpx2.ConnectTimeout):
            said = f"{host} accepted no connection within {server.timeout.connect:g} s"
        return ModelError(said, retryable=True, max_retries=retries)
    if isinstance(error, openai.APIConnectionError):
        cause = str(error.__cause__ or error).rstrip(".")
        said = f"can't reach {host} ({cause}): check the network and the base URL"
        proxy = None if server.http_client is not None else find_proxy(server.base_url)
        if proxy is not None:
            said = f"can't reach {host} through {proxy} ({cause}): check the proxy, or leave it out by NO_PROXY={host}"
        return ModelError(said, retryable=True, max_retries=retries)
    if isinstance(error, openai.APIStatusError):
        return _explain_status(error, server, model)
    return ModelError(f"{host}: {_shorten(str(error))}")


def explain_break(error: httpx2.TransportError | httpx2.DecodingError, server: ModelServer) -> StreamError:
    """Explain why an answer broke off."""
    host = host_of(server.base_url)
    if isinstance(error, httpx2.TimeoutException):
        return explain_silence(server)
    if isinstance(error, httpx2.DecodingError):
        return StreamError(f"{host} sent a body that can't be decompressed: {error}", retryable=True)
    return StreamTruncated(f"the connection to {host} broke in the middle of the answer: {error}", retryable=True)


def explain_silence(server: ModelServer, *, is_first: bool = False) -> StreamError:
    """Explain why waiting for a silent answer, or one that hasn't begun, was stopped."""
    host = host_of(server.base_url)
    if is_first:
        return StreamError(f"{host} began no answer within {server.timeout.first_byte:g} s", retryable=True)
    return StreamError(
        f"{host} said nothing for {server.timeout.between:g} s in the middle of its answer", retryable=True
    )


def explain_body(content_type: str, text: str, server: ModelServer) -> StreamError:
    """Explain why a body that isn't a stream of events is no answer; its text is without the keys of the request."""
    what = "a web page" if "html" in content_type else f"{content_type or 'something'}: {_shorten(text)!r}"
    url = plain_url(server.base_url)
    return StreamError(f"{url} answered with {what} instead of a stream: check the base URL", body=text)


def read_retry_after(headers: Mapping[str, str], now_s: float | None = None) -> float | None:
    """Read a server's `Retry-After` in seconds, from a number or a date; never negative.

    A date is compared with the server's own `Date`, since the two clocks may differ (RFC 9110, section 10.2.3).

    >>> read_retry_after({"retry-after": "1.5"})
    1.5
    >>> read_retry_after({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT", "date": "Fri, 31 Dec 1999 23:59:49 GMT"})
    10.0
    """
    for name, divisor in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            return max(0.0, float(headers.get(name, "")) / divisor)
        except ValueError:
            continue
    try:
        until = parsedate_to_datetime(headers.get("retry-after", "")).timestamp()
    except (ValueError, OverflowError):
        return None
    try:
        now = parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (ValueError, OverflowError):
        now = time.time() if now_s is None else now_s
    return max(0.0, until - now)


def _explain_status(error: openai.APIStatusError, server: ModelServer, model: str) -> ModelError:
    status, headers = error.status_code, error.response.headers
    secrets = find_keys(
        [error.request, error.response.request, *(past.request for past in error.response.history)], server
    )
    said = _message(error, secrets)
    host = host_of(server.base_url)
    told = error.response.headers.get("x-should-retry", "").lower()  # OpenAI's servers know better
    retryable = told == "true" or (told != "false" and (status in (408, 409, 429) or status >= 500))
    match status:
        case 401 if server.api_key == PLACEHOLDER_KEY:
            sentence = f"{host} needs a key (401): set {server.key_setting} or give api_key="
        case 401:
            sentence = f"{host} refused the key (401): check {server.key_setting} or api_key="
        case 403:
            sentence = f"{host} doesn't let this key use {model!r} (403): {said}"
        case 404 if "model" in said.lower() or error.code == "model_not_found":
            sentence = f"{host} has no model {model!r} (404): {said}"
        case 404:
            sentence = f"{plain_url(server.base_url)} isn't there (404): check the base URL, which often ends in /v1"
        case 429 if error.code == "insufficient_quota":
            sentence, retryable = f"the account at {host} has no credit left (429): {said}", False
        case 429:
            sentence = f"{host} got too many requests (429): {said}"
        case _ if status >= 500:
            sentence = f"{host} failed ({status}): {said}{_way_out(said)}"
        case _:
            sentence = f"{host} refused the request ({status}): {said}{_way_out(said)}"
            # The model wrote a call that Groq couldn't read; asked again, it often writes a better one.
            retryable = retryable or error.code == "tool_use_failed"
    return ModelError(
        sentence,
        status=status,
        retryable=retryable,
        retry_after_s=read_retry_after(headers),
        body=mask_body(error.body, secrets),
        max_retries=server.max_retries,
        request_id=headers.get("request-id") or headers.get("x-request-id"),
        limits={name: value for name, value in headers.items() if "ratelimit" in name},
    )


def _way_out(said: str) -> str:
    return next((f"; {advice}" for words, advice in _WAYS_OUT if re.search(words, said, re.IGNORECASE)), "")


def _message(error: openai.APIStatusError, secrets: Sequence[str]) -> str:
    """Return the server's own message, whichever field holds it."""
    content_type = error.response.headers.get("content-type", "")
    if "html" in content_type:
        return NO_REASON
    reason = find_reason(_whole_body(error))
    # The package keeps the inner object alone, and tests and other transports give no text.
    said = find_reason(cast(JSON, error.body)) if reason == NO_REASON else reason
    return _shorten(mask_keys(said, secrets))  # in this order: no half of a key is left at the cut


def _whole_body(error: openai.APIStatusError) -> JSON:
    try:
        text = error.response.text
    except httpx2.StreamError:  # it was never read
        return None
    try:
        return cast(JSON, json.loads(text, strict=False))
    except (ValueError, RecursionError):
        return text


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


def find_proxy(url: str) -> str | None:
    """Return the proxy for this URL and the variable that sets it; None without a proxy."""
    parts = urlsplit(url)
    proxies = getproxies()
    kind = parts.scheme if parts.scheme in proxies else "all"
    if kind not in proxies or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    name = f"{kind}_proxy"
    variable = next((one for one in (name, name.upper()) if os.environ.get(one)), None)
    where = "the system's settings" if variable is None else variable
    return f"the proxy {plain_url(proxies[kind])} of {where}"
