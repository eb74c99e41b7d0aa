"""The requests of one run to its model, as spans: one for each attempt at a turn."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, Tracer

from flowkit.codec import JSON
from flowkit.messages import Usage
from flowkit.models.base import Model, ModelRequest
from flowkit.telemetry import content, names
from flowkit.telemetry.guarded import end_span, start_span
from flowkit.telemetry.instruments import Metrics


@dataclass(slots=True)
class ChatTrace:
    """One request to a model."""

    span: Span
    model: str
    provider: str
    began_s: float
    first_s: float | None = None
    text: list[str] = field(default_factory=list[str])
    calls: list[str] = field(default_factory=list[str])


class TurnTraces:
    """Make the span of each request; `agent` and `around` are set when the run's own span starts.

    A method that takes an event is given its `t`, and its values with the defaults of its kind.
    """

    def __init__(
        self,
        run_id: str,
        tracer: Tracer,
        metrics: Metrics | None,
        ns: Callable[[float], int],
        describe: Callable[[str], JSON],
        *,
        content: bool,
    ) -> None:
        self.agent = ""
        self.around: Context | None = None
        self.count = 0
        self._run_id = run_id
        self._tracer = tracer
        self._metrics = metrics
        self._ns = ns
        self._describe = describe
        self._content = content
        self._chat: ChatTrace | None = None
        self._request: tuple[Model, ModelRequest] | None = None

    def ask(self, call: str, t: float) -> SpanContext | None:
        """Record a call of the answer; return the context of the requesting span."""
        chat = self._chat
        if chat is None:
            return None
        if chat.first_s is None:
            chat.first_s = t
        chat.calls.append(call)
        return chat.span.get_span_context()

    def end(self, t: float) -> None:
        """End the open request."""
        if self._chat is not None:
            end_span(self._chat.span, self._ns(t))
            self._chat = None

    def take_request(self, model: object, request: object) -> None:
        """Keep the request that goes out with the next `turn.started`."""
        if isinstance(request, ModelRequest):
            self._request = model, request  # pyright: ignore[reportAttributeAccessIssue]  # the log doesn't know models

    def take_started(self, t: float, turn: int, model: str, attempt: int = 1) -> None:
        """Begin the span of a request that goes out."""
        self.end(t)
        held, self._request = self._request, None
        provider = "unknown" if held is None else names.name_provider(held[0].source)
        attributes: dict[str, Any] = {
            names.OPERATION: names.CHAT,
            names.REQUEST_MODEL: model,
            names.PROVIDER: provider,
            names.RUN_ID: self._run_id,
            names.TURN: turn,
            names.ATTEMPT: attempt,
        }
        if held is not None:
            request = held[1]
            if request.max_tokens is not None:
                attributes[names.REQUEST_MAX_TOKENS] = request.max_tokens
            if self._content:
                attributes[names.INPUT_MESSAGES] = content.write_messages(request.messages)
                instructions = content.write_instructions(request.messages)
                if instructions is not None:
                    attributes[names.SYSTEM_INSTRUCTIONS] = instructions
                if request.tools:
                    attributes[names.TOOL_DEFINITIONS] = content.write_tools(request.tools)
        span = start_span(
            self._tracer,
            f"{names.CHAT} {model}",
            self.around,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=self._ns(t),
        )
        self.count += 1
        self._chat = ChatTrace(span, model, provider, t)

    def take_text(self, t: float, text: str, turn: int = 0, call: str | None = None, at: int = 0) -> None:
        """Note a piece of the answer."""
        chat = self._chat
        if chat is None or call is not None:
            return
        if chat.first_s is None:
            chat.first_s = t
        if self._content:
            chat.text.append(text)

    def take_thinking(self, t: float, text: str, turn: int = 0, call: str | None = None, at: int = 0) -> None:
        """Note that the model has begun to think."""
        chat = self._chat
        if chat is not None and call is None and chat.first_s is None:
            chat.first_s = t

    def take_usage(
        self, t: float, turn: int, usage: Usage, cost_usd: float | None = None, call: str | None = None
    ) -> None:
        """Record the tokens of an answer and their cost."""
        chat = self._chat
        if chat is None or call is not None:
            return
        span = chat.span
        span.set_attribute(names.INPUT_TOKENS, usage.input_tokens)
        span.set_attribute(names.OUTPUT_TOKENS, usage.output_tokens)
        if usage.cached_tokens:
            span.set_attribute(names.CACHED_TOKENS, usage.cached_tokens)
        if usage.cache_write_tokens:
            span.set_attribute(names.WRITTEN_TOKENS, usage.cache_write_tokens)
        if cost_usd is not None:
            span.set_attribute(names.COST_USD, cost_usd)
        if self._metrics is not None:
            labels = self._label_chat(chat)
            self._metrics.input_tokens.add(usage.input_tokens, labels)
            self._metrics.output_tokens.add(usage.output_tokens, labels)
            if cost_usd is not None:
                self._metrics.cost.add(cost_usd, labels)

    def _label_chat(self, chat: ChatTrace) -> dict[str, str]:
        return {names.REQUEST_MODEL: chat.model, names.PROVIDER: chat.provider, names.AGENT_NAME: self.agent}

    def take_finished(
        self, t: float, turn: int, reason: str, error: str | None = None, model: str | None = None
    ) -> None:
        """End the span of a request."""
        chat, self._chat = self._chat, None
        if chat is None:
            return
        span = chat.span
        span.set_attribute(names.FINISH_REASONS, (reason,))
        if model is not None:
            span.set_attribute(names.RESPONSE_MODEL, model)
        if chat.first_s is not None:
            span.set_attribute(names.FIRST_CHUNK, chat.first_s - chat.began_s)
        if error is not None:
            mark(span, reason, error if self._content else None)
        if self._content:
            span.set_attribute(names.OUTPUT_MESSAGES, self._write_output(chat, reason))
        end_span(span, self._ns(t))
        if self._metrics is not None:
            labels = self._label_chat(chat) | ({} if error is None else {names.ERROR_TYPE: reason})
            self._metrics.inference_duration.record(t - chat.began_s, labels)
            if chat.first_s is not None:
                self._metrics.first_chunk.record(chat.first_s - chat.began_s, labels)

    def _write_output(self, chat: ChatTrace, reason: str) -> str:
        parts: list[JSON] = [{"type": "text", "content": "".join(chat.text)}] if chat.text else []
        parts += map(self._describe, chat.calls)
        return content.write([{"role": "assistant", "parts": parts, "finish_reason": reason}])


def mark(span: Span, error_type: str, error: str | None) -> None:
    """Mark a span as failed; `error` may quote arguments, so it is recorded only if content is enabled."""
    span.set_attribute(names.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR, content.cut(error) if error else error_type))
