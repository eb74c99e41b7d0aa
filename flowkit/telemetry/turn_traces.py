"""The requests of one run to its model, as spans: one for each attempt at a turn."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, Tracer

from flowkit import events
from flowkit.codec import JSON
from flowkit.models.base import Model, ModelRequest
from flowkit.telemetry import content, names
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
    """Makes the span of each request; `agent` and `around` are set when the run's own span begins."""

    def __init__(
        self,
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
        self._tracer = tracer
        self._metrics = metrics
        self._ns = ns
        self._describe = describe
        self._content = content
        self._chat: ChatTrace | None = None
        self._request: tuple[Model, ModelRequest] | None = None

    def take(self, event: object) -> None:
        """Take what was told of a turn."""
        match event:
            case events.TextDelta() | events.ThinkingDelta():
                self._said(event)
            case events.TurnStarted():
                self._turn_started(event)
            case events.TurnFinished():
                self._turn_finished(event)
            case events.UsageReported():
                self._used(event)
            case _:
                pass

    def ask(self, event: events.CallNew) -> SpanContext | None:
        """Note a call that the answer asks for; the span of who asks."""
        chat = self._chat
        if chat is None:
            return None
        if chat.first_s is None:
            chat.first_s = event.t
        chat.calls.append(event.call)
        return chat.span.get_span_context()

    def end(self, t: float) -> None:
        """End the request that still goes on."""
        if self._chat is not None:
            self._chat.span.end(self._ns(t))
            self._chat = None

    def take_request(self, model: object, request: object) -> None:
        """Keep the request that goes out with the next `turn.started`."""
        if isinstance(request, ModelRequest):
            self._request = model, request  # pyright: ignore[reportAttributeAccessIssue]  # the log doesn't know models

    def _turn_started(self, event: events.TurnStarted) -> None:
        if self._chat is not None:
            self._chat.span.end(self._ns(event.t))
        held, self._request = self._request, None
        provider = "unknown" if held is None else names.name_provider(held[0].source)
        attributes: dict[str, Any] = {
            names.OPERATION: names.CHAT,
            names.REQUEST_MODEL: event.model,
            names.PROVIDER: provider,
            names.RUN_ID: event.run,
            names.TURN: event.turn,
            names.ATTEMPT: event.attempt,
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
        span = self._tracer.start_span(
            f"{names.CHAT} {event.model}",
            self.around,
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=self._ns(event.t),
        )
        self.count += 1
        self._chat = ChatTrace(span, event.model, provider, event.t)

    def _said(self, event: events.TextDelta | events.ThinkingDelta) -> None:
        chat = self._chat
        if chat is None or event.call is not None:
            return
        if chat.first_s is None:
            chat.first_s = event.t
        if self._content and type(event) is events.TextDelta:
            chat.text.append(event.text)

    def _used(self, event: events.UsageReported) -> None:
        chat = self._chat
        if chat is None or event.call is not None:
            return
        usage, span = event.usage, chat.span
        span.set_attribute(names.INPUT_TOKENS, usage.input_tokens)
        span.set_attribute(names.OUTPUT_TOKENS, usage.output_tokens)
        if usage.cached_tokens:
            span.set_attribute(names.CACHED_TOKENS, usage.cached_tokens)
        if usage.cache_write_tokens:
            span.set_attribute(names.WRITTEN_TOKENS, usage.cache_write_tokens)
        if event.cost_usd is not None:
            span.set_attribute(names.COST_USD, event.cost_usd)
        if self._metrics is not None:
            labels = self._label_chat(chat)
            self._metrics.input_tokens.add(usage.input_tokens, labels)
            self._metrics.output_tokens.add(usage.output_tokens, labels)
            if event.cost_usd is not None:
                self._metrics.cost.add(event.cost_usd, labels)

    def _label_chat(self, chat: ChatTrace) -> dict[str, str]:
        return {names.REQUEST_MODEL: chat.model, names.PROVIDER: chat.provider, names.AGENT_NAME: self.agent}

    def _turn_finished(self, event: events.TurnFinished) -> None:
        chat, self._chat = self._chat, None
        if chat is None:
            return
        span = chat.span
        span.set_attribute(names.FINISH_REASONS, (event.reason,))
        if event.model is not None:
            span.set_attribute(names.RESPONSE_MODEL, event.model)
        if chat.first_s is not None:
            span.set_attribute(names.FIRST_CHUNK, chat.first_s - chat.began_s)
        if event.error is not None:
            mark(span, event.reason, event.error if self._content else None)
        if self._content:
            span.set_attribute(names.OUTPUT_MESSAGES, self._write_output(chat, event))
        span.end(self._ns(event.t))
        if self._metrics is not None:
            labels = self._label_chat(chat) | ({} if event.error is None else {names.ERROR_TYPE: event.reason})
            self._metrics.inference_duration.record(event.t - chat.began_s, labels)
            if chat.first_s is not None:
                self._metrics.first_chunk.record(chat.first_s - chat.began_s, labels)

    def _write_output(self, chat: ChatTrace, event: events.TurnFinished) -> str:
        parts: list[JSON] = [{"type": "text", "content": "".join(chat.text)}] if chat.text else []
        parts += map(self._describe, chat.calls)
        return content.write([{"role": "assistant", "parts": parts, "finish_reason": event.reason}])


def mark(span: Span, error_type: str, error: str | None) -> None:
    """Say that a span's work failed; `error` are its words, which may quote arguments: only where content is wanted."""
    span.set_attribute(names.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR, content.cut(error) if error else error_type))
