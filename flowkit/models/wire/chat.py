"""The answer of Chat Completions, bytes to deltas.

Compatible servers differ in nearly every field, so the reader is tolerant: null, missing and
empty are the same, unknown fields are ignored, and joining is left to `assemble`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, cast

from flowkit.codec import JSON, loads
from flowkit.messages import FinishReason
from flowkit.models.base import (
    CallDelta,
    Delta,
    EndDelta,
    ErrorDelta,
    FinishDelta,
    ProviderDelta,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    UsageDelta,
)
from flowkit.models.wire.reading import (
    FAULT_TYPES,
    WireReader,
    as_arguments,
    as_place,
    as_text,
    read_error,
    read_error_event,
    read_usage,
)
from flowkit.models.wire.reasons import says_error

FUNCTION_CALL_SLOT = -1
"""Where the one call of the old `function_call` field is kept; it has neither index nor id."""

_THINKING_FIELDS = frozenset(("reasoning_content", "reasoning", "thinking", "reasoning_details"))
_WRAPPERS = ("data", "result", "response", "output")
_NO_FINISH = ("null", "none")
"""Words of servers for a reason that isn't there yet."""
_ARGUMENTS = ("arguments", "parameters", "input", "args")
"""Where the arguments of a call stand; a server that means none of the others leaves them out."""
_THINKING_PARTS = frozenset(("thinking", "reasoning", "reasoning_text"))


class ChatReader(WireReader):
    """Reads the body of `POST /chat/completions` with `stream: true`."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[int, str] = {}
        """Of the choices that have spoken in whole messages, the text so far."""
        self._kinds: list[tuple[int, type[Delta]]] = []
        """The choices that have spoken in deltas, and in which kinds."""
        self._latest: type[Delta] | None = None

    def read_event(self, event: Mapping[str, JSON], event_type: bytes, deltas: list[Delta]) -> None:
        choices = event.get("choices")
        usage = event["usage"] if "usage" in event else None  # noqa: SIM401
        # Here and below, what few chunks have is first looked for by `in`: of `get`, a call, there would be six a chunk.
        has_error = "error" in event and event["error"]
        if (
            has_error
            or (event_type and event_type in FAULT_TYPES)
            or (not choices and usage is None and says_error(event))
        ):
            deltas.append(ErrorDelta(read_error(event.get("error")) if choices else read_error_event(event)))
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict):
                    self._read_choice(choice, event, deltas)
                    if usage is None and "usage" in choice:
                        usage = choice["usage"]
        elif isinstance(choices, dict):
            self._read_choice(choices, event, deltas)
        elif not choices:
            # Gateways wrap the chunk: Cloudflare in `result`, DashScope in `output`, others in `data`.
            for wrapper in _WRAPPERS:
                inner = event.get(wrapper)
                if isinstance(inner, dict) and ("choices" in inner or "response" in inner):
                    self.read_event({"usage": usage, **inner}, event_type, deltas)
                    return
            if "response" in event and not isinstance(event["response"], dict):
                # Workers AI of Cloudflare, and Ollama where it completes a text.
                finish: JSON = (event.get("done_reason") or "stop") if event.get("done") else None
                said = {"content": event["response"], "tool_calls": event.get("tool_calls")}
                self._read_choice({"delta": said, "finish_reason": finish}, event, deltas)
            elif isinstance(event.get("message"), dict) and "done" in event:
                self._read_choice(_as_choice(event), event, deltas)
                usage = {"prompt_tokens": event.get("prompt_eval_count"), "completion_tokens": event.get("eval_count")}
                usage = usage if event["done"] else None
            elif not self._kinds and self.refuse_foreign(event, deltas):
                return
        if usage is None and "x_groq" in event:
            groq = event["x_groq"]
            usage = groq.get("usage") if isinstance(groq, dict) else None
        if isinstance(usage, dict):
            deltas.append(UsageDelta(read_usage(usage)))

    def read_whole(self, answer: Mapping[str, JSON], deltas: list[Delta]) -> bool:
        choices, result = answer.get("choices"), answer.get("result")
        is_boxed = isinstance(result, dict) and isinstance(result.get("response"), str)  # Workers AI, without a stream
        is_whole = isinstance(choices, list) and any(isinstance(one, dict) and "message" in one for one in choices)
        if not is_whole and not is_boxed:
            return False
        self.read_event(answer, b"", deltas)
        deltas.append(EndDelta())
        return True

    def _read_choice(self, choice: Mapping[str, JSON], event: Mapping[str, JSON], deltas: list[Delta]) -> None:
        index = choice.get("index")
        number = index if isinstance(index, int) else as_place(index) or 0
        delta = choice.get("delta")
        count = len(deltas)
        if isinstance(delta, dict):
            if "tool_calls" in delta and len(delta) == 1:
                _read_calls(delta["tool_calls"], number, deltas)  # nearly every fragment of a call
            else:
                _read_delta(delta, number, deltas)
        found = len(deltas) - count
        if found and (found > 1 or number or type(deltas[-1]) is not self._latest):
            self._latest = type(deltas[-1])
            said = dict.fromkeys((number, type(spoken)) for spoken in deltas[count:])
            self._kinds += (kind for kind in said if kind not in self._kinds)
        if not found:
            if "message" in choice:
                self._read_message(choice["message"], number, deltas)
            else:  # beside the delta: calls of gateways, text of servers that know no chat
                _read_delta({"content": choice.get("text"), "tool_calls": choice.get("tool_calls")}, number, deltas)
        if "error" in choice and choice["error"]:  # noqa: RUF019
            deltas.append(ErrorDelta(read_error(choice["error"])))
        # Behind the delta: servers put the last fragment and the reason into one chunk.
        finish = choice.get("finish_reason")
        if finish is None and "finish_reason" not in choice:
            finish = _find_finish(choice, event)
        if finish and isinstance(finish, str) and finish.lower() not in _NO_FINISH:
            deltas.append(FinishDelta(read_finish(finish), number, finish))

    def _read_message(self, message: JSON, choice: int, deltas: list[Delta]) -> None:
        """Read a message in place of a delta: only what no delta has sent counts, since it may repeat all text so far."""
        said = self._said.get(choice, "")
        if not isinstance(message, dict):
            return
        text = message.get("content")
        if said and isinstance(text, str):
            text = text[len(said) :] if text.startswith(said) else text
            if text:
                deltas.append(TextDelta(text, choice))
        else:
            found: list[Delta] = []
            _read_delta(message, choice, found)
            deltas += (delta for delta in found if (choice, type(delta)) not in self._kinds)
        self._said[choice] = said + text if isinstance(text, str) else said


def _read_delta(delta: Mapping[str, JSON], choice: int, deltas: list[Delta]) -> None:
    if not _THINKING_FIELDS.isdisjoint(delta):
        _read_thinking(delta, choice, deltas)
    content = delta.get("content")
    if isinstance(content, str):
        if content:
            deltas.append(TextDelta(content, choice))
    elif content:
        _read_parts(content if isinstance(content, list) else [content], choice, deltas)
    if "refusal" in delta:
        refusal = delta["refusal"]
        if refusal and isinstance(refusal, str):
            deltas.append(RefusalDelta(refusal, choice))
    if "tool_calls" in delta:
        _read_calls(delta["tool_calls"], choice, deltas)
    if "function_call" in delta:
        call = delta["function_call"]
        if isinstance(call, dict) and not delta.get("tool_calls"):  # some say the same call both ways
            deltas.append(_read_call({"index": FUNCTION_CALL_SLOT, "function": call}, choice))
    if choice == 0 and "extra_content" in delta and delta["extra_content"]:
        deltas.append(ProviderDelta("extra_content", delta["extra_content"]))


def _read_calls(calls: JSON, choice: int, deltas: list[Delta]) -> None:
    for call in calls if isinstance(calls, list) else (calls,):
        if isinstance(call, dict):
            deltas.append(_read_call(call, choice))


def _read_thinking(delta: Mapping[str, JSON], choice: int, deltas: list[Delta]) -> None:
    """Read the first non-empty field among those that can hold the same thinking."""
    details = delta.get("reasoning_details")
    for field in ("reasoning_content", "reasoning", "thinking"):
        text = delta.get(field)
        if isinstance(text, str) and text:
            deltas.append(ThinkingDelta(text, field, choice))
            break
    else:
        if details and isinstance(details, list):
            for detail in details:
                if isinstance(detail, dict):
                    text = as_text(detail.get("text")) or as_text(detail.get("summary"))
                    if text is not None:
                        deltas.append(ThinkingDelta(text, "reasoning_details", choice))
    if details and choice == 0:
        deltas.append(ProviderDelta("reasoning_details", details))


def _read_parts(parts: list[JSON], choice: int, deltas: list[Delta]) -> None:
    """Read content as a list of parts, some of them thinking (Mistral)."""
    for part in parts:
        if isinstance(part, str) and part:
            deltas.append(TextDelta(part, choice))
        if not isinstance(part, dict):
            continue
        thinking = part.get("thinking")
        if isinstance(thinking, list):
            thinking = "".join(str(item.get("text") or "") for item in thinking if isinstance(item, dict))
        if isinstance(thinking, str) and thinking:
            deltas.append(ThinkingDelta(thinking, "content", choice))
        text = as_text(part.get("text"))
        if text is not None:
            is_thinking = as_text(part.get("type")) in _THINKING_PARTS
            deltas.append(ThinkingDelta(text, "content", choice) if is_thinking else TextDelta(text, choice))


def _as_choice(line: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """Convert a line of Ollama's own API, which proxies pass on, to a choice."""
    finish: JSON = (line.get("done_reason") or "stop") if line.get("done") else None
    return {"delta": line["message"], "finish_reason": finish}


def _find_finish(choice: Mapping[str, JSON], event: Mapping[str, JSON]) -> JSON:
    """Find the finish reason where gateways put it: in the delta, beside the choices, or under another name."""
    delta = choice.get("delta")
    inner = delta.get("finish_reason") if isinstance(delta, dict) else None
    return inner or event.get("finish_reason") or choice.get("stop_reason")


_make_call: Callable[[type[CallDelta], tuple[object, ...]], CallDelta] = cast(Any, tuple).__new__
"""Makes a delta of all its values without a call between."""


def _read_call(call: Mapping[str, JSON], choice: int) -> CallDelta:
    index = call.get("index")
    body = call.get("function")
    if isinstance(index, int) and isinstance(body, dict) and len(call) == 2 and len(body) == 1:
        fragment = body.get("arguments")
        # Nothing but more of the arguments: nearly every fragment, so it is the short way.
        if isinstance(fragment, str):
            return _make_call(CallDelta, (index, None, None, fragment or None, choice, False, None))
    id, custom = call.get("id"), call.get("custom")
    if isinstance(id, int):
        id = str(id)
    if isinstance(custom, dict):
        body = custom
    elif isinstance(body, str):
        body = _read_object(body)
    elif body is None:
        body = call  # gateways leave the box around the name and the arguments out
    if not isinstance(body, dict):
        body = {}
    is_custom = isinstance(custom, dict) or call.get("type") == "custom"
    fields = ("input",) if is_custom else _ARGUMENTS
    return CallDelta(
        slot=as_place(index),
        id=None if id == "null" else as_text(id),
        name=as_text(body.get("name")),
        arguments=next((found for field in fields if (found := as_arguments(body.get(field))) is not None), None),
        choice=choice,
        custom=is_custom,
        provider=ProviderDelta("extra_content", call["extra_content"]) if call.get("extra_content") else None,
    )


def _read_object(text: str) -> JSON:
    try:
        return loads(text)
    except ValueError:
        return None


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
    """Map a server's finish reason to flowkit's; `unknown` for a word of no interface.

    Gateways pass on the words of the interface behind them: those of Anthropic, Gemini, Cohere, Bedrock, Mistral, Zhipu
    and of local servers, in whatever case, also in that of the camel.

    >>> read_finish("toolUse"), read_finish("FinishReason.MAX_TOKENS"), read_finish("bored")
    ('tool_calls', 'length', 'unknown')
    """
    short = _NEXT_WORD.sub("_", word.strip().rpartition(".")[2]).lower().replace("-", "_").replace(" ", "_")
    for prefix in ("finish_reason_", "stop_reason_"):
        short = short.removeprefix(prefix)
    # Gemini's own word stands behind the name of what stopped it: "function_call_filter: MALFORMED_FUNCTION_CALL".
    return _REASONS.get(short) or _REASONS.get(short.rpartition(":")[2].strip("_"), "unknown")
