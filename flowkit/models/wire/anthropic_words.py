"""Words of the Messages API that its reader and its requests share: errors, tokens, pauses."""

import json
from collections.abc import Mapping

from flowkit.codec import JSON
from flowkit.errors import StreamError
from flowkit.messages import Usage
from flowkit.models.wire.reading import read_usage
from flowkit.models.wire.reasons import comes_back, find_reason, find_status

ANTHROPIC_URL = "https://api.anthropic.com/v1"
ANTHROPIC_VERSION = "2023-06-01"
FILES_BETA = "files-api-2025-04-14"
INTERLEAVED_BETA = "interleaved-thinking-2025-05-14"

PAUSES = ("pause_turn", "compaction")
"""Reasons to stop that want the answer back as it is, without a word of the user, to go on with it."""

_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
    # Bedrock's own words, as gateways pass them on.
    "validationException": 400,
    "throttlingException": 429,
    "internalServerException": 500,
    "serviceUnavailableException": 503,
}


def read_anthropic_error(event: Mapping[str, JSON]) -> StreamError:
    """Read an error from the middle of an answer, with the vendor's id of the request."""
    error = event.get("error")
    said: Mapping[str, JSON] = error if isinstance(error, dict) else {"message": error or find_reason(dict(event))}
    kind = str(said.get("type") or event.get("type") or "")
    kind = "" if kind in ("error", "exception") else kind
    message = str(said.get("message") or kind or json.dumps(dict(event)))
    status = _STATUS.get(kind) or find_status(dict(event))
    request_id = event.get("request_id")
    number = request_id if isinstance(request_id, str) and request_id else None
    where = f" (request {number})" if number else ""
    named = f"{kind}: {message}" if kind and kind not in message else message
    return StreamError(
        f"{named}{where}".encode(errors="replace").decode(),
        status=status,
        retryable=not comes_back(message) if status is None else status == 429 or status >= 500,
        body=dict(event),
        request_id=number,
    )


def read_anthropic_usage(said: Mapping[str, JSON]) -> Usage:
    """Read the tokens; the API's `input_tokens` are only those neither read from the cache nor written to it."""
    if "input_tokens" not in said and "prompt_tokens" in said:
        return read_usage(said)  # a gateway that counts in the words of Chat Completions
    usage = _read_tokens(said)
    iterations = said.get("iterations")
    if not isinstance(iterations, list):
        return usage
    billed = sum((_read_tokens(one) for one in iterations if isinstance(one, dict)), Usage())
    same = (billed.input_tokens, billed.output_tokens, billed.cached_tokens, billed.cache_write_tokens) == (
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_tokens,
        usage.cache_write_tokens,
    )
    if same or not billed.total_tokens:
        return usage
    return Usage(
        usage.input_tokens,
        usage.output_tokens,
        usage.cached_tokens,
        usage.thinking_tokens,
        usage.cost_usd,
        usage.cache_write_tokens,
        usage.cache_write_1h_tokens,
        billed,
    )


def _read_tokens(said: Mapping[str, JSON]) -> Usage:
    writes, details = said.get("cache_creation"), said.get("output_tokens_details")
    by_time = writes if isinstance(writes, dict) else {}
    read, total = _count(said.get("cache_read_input_tokens")), said.get("cache_creation_input_tokens")
    written = sum(map(_count, by_time.values())) if total is None else _count(total)
    thinking = details.get("thinking_tokens") if isinstance(details, dict) else None
    cost = said.get("cost")
    return Usage(
        input_tokens=_count(said.get("input_tokens")) + read + written,
        output_tokens=_count(said.get("output_tokens")),
        cached_tokens=read,
        thinking_tokens=_count(thinking),
        cost_usd=float(cost) if isinstance(cost, int | float) else None,
        cache_write_tokens=written,
        cache_write_1h_tokens=min(written, _count(by_time.get("ephemeral_1h_input_tokens"))),
    )


def _count(value: JSON) -> int:
    return int(value) if isinstance(value, int | float) and 0 <= value < 1e18 else 0
