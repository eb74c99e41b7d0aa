"""The words with which servers end a turn, and what each of them means.

Gateways pass on the words of the interface behind them: those of Anthropic, Gemini, Cohere, Bedrock, Mistral, Zhipu and
of local servers, in whatever case, also in that of the camel.
"""

import re
from collections.abc import Mapping

from flowkit.messages import FinishReason

_WORDS: Mapping[FinishReason, tuple[str, ...]] = {
    "stop": (
        *("stop", "end_turn", "stop_sequence", "completed", "complete", "done", "finished", "success", "normal"),
        *("eos", "eos_token", "end", "end_of_turn", "stop_token", "endoftext", "finish"),
    ),
    "tool_calls": (
        *("tool_calls", "tool_call", "tool_use", "function_call", "function_calls", "tools", "tool_use_requested"),
    ),
    "length": (
        *("length", "max_tokens", "max_output_tokens", "max_completion_tokens", "max_length", "model_length"),
        *("error_limit", "model_context_window_exceeded", "context_length_exceeded", "token_limit", "incomplete"),
        *("max_new_tokens", "length_limit", "truncated"),
    ),
    "content_filter": (
        *("content_filter", "content_filtered", "safety", "recitation", "blocklist", "prohibited_content", "spii"),
        *("refusal", "sensitive", "error_toxic", "guardrail_intervened", "moderation", "image_safety", "blocked"),
        *("content_policy_violation", "policy_violation", "language"),
    ),
    "error": (
        *("error", "failed", "failure", "cancelled", "canceled", "abort", "aborted", "network_error", "timeout"),
        *("malformed_function_call", "malformed_response", "unexpected_tool_call", "too_many_tool_calls"),
        *("insufficient_system_resource", "server_error", "internal_error", "user_cancel", "interrupted"),
        *("malformed_model_output", "malformed_tool_use", "error_unknown"),
    ),
}
_REASONS: Mapping[str, FinishReason] = {word: reason for reason, words in _WORDS.items() for word in words}

_NEXT_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def read_finish(word: str) -> FinishReason:
    """Read a server's word for why it finished; `unknown` for a word of no interface.

    >>> read_finish("toolUse"), read_finish("FinishReason.MAX_TOKENS"), read_finish("bored")
    ('tool_calls', 'length', 'unknown')
    """
    short = _NEXT_WORD.sub("_", word.strip().rpartition(".")[2]).lower().replace("-", "_").replace(" ", "_")
    for prefix in ("finish_reason_", "stop_reason_"):
        short = short.removeprefix(prefix)
    return _REASONS.get(short, "unknown")
