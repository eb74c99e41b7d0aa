"""The answer of the Responses API, bytes to deltas.

Everything is keyed by `output_index`: some servers give another id in every event. The snapshot in the terminal event
is never used, for some send it empty. Events of a kind that isn't known are passed over.
"""

from collections.abc import Mapping

from flowkit.codec import JSON
from flowkit.messages import FinishReason
from flowkit.models.base import (
    CallDelta,
    CallDone,
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
from flowkit.models.wire.reading import Reader, as_arguments, as_text, read_error, read_usage

_INCOMPLETE: Mapping[str, FinishReason] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}


class ResponsesReader(Reader):
    """Reads the body of `POST /responses` with `stream: true`."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[tuple[int | None, str]] = set()  # which items have spoken in deltas, and in which kind
        self._thinking_part: tuple[JSON, JSON] | None = None

    def read_event(self, event: Mapping[str, JSON], event_type: bytes, deltas: list[Delta]) -> None:
        kind = event.get("type") or event_type.decode(errors="replace")
        index = event.get("output_index")
        slot = index if isinstance(index, int) else None
        match kind:
            case "response.output_text.delta":
                self._say(TextDelta, slot, "text", event.get("delta"), deltas)
            case "response.refusal.delta":
                self._say(RefusalDelta, slot, "refusal", event.get("delta"), deltas)
            case "response.function_call_arguments.delta":
                deltas.append(CallDelta(slot=slot, arguments=as_text(event.get("delta"))))
            case "response.reasoning_summary_text.delta":
                self._think((index, event.get("summary_index")), "reasoning_summary", event.get("delta"), deltas)
            case "response.reasoning_text.delta":
                self._think((index, event.get("content_index")), "reasoning_text", event.get("delta"), deltas)
            case "response.output_item.added":
                _open_call(slot, event.get("item"), deltas)
            case "response.output_item.done":
                self._end_item(slot, event.get("item"), deltas)
            case "response.function_call_arguments.done":
                if slot is not None:
                    deltas.append(CallDone(slot, as_arguments(event.get("arguments")), as_text(event.get("name"))))
            case "response.custom_tool_call_input.delta":
                deltas.append(CallDelta(slot=slot, arguments=as_text(event.get("delta")), custom=True))
            case "response.custom_tool_call_input.done":
                if slot is not None:
                    deltas.append(CallDone(slot, as_text(event.get("input"))))
            case "response.output_text.done":
                self._say_if_silent(TextDelta, slot, "text", event.get("text"), deltas)
            case "response.refusal.done":
                self._say_if_silent(RefusalDelta, slot, "refusal", event.get("refusal"), deltas)
            case "response.completed" | "response.incomplete" | "response.failed" | "response.cancelled":
                _end_response(str(kind), event.get("response"), deltas)
            case "error":
                deltas.append(ErrorDelta(read_error(event.get("error") or dict(event))))
            case _:
                if event.get("error") and not isinstance(event.get("type"), str):
                    deltas.append(ErrorDelta(read_error(event["error"])))

    def _say(
        self,
        delta: type[TextDelta] | type[RefusalDelta],
        slot: int | None,
        kind: str,
        text: JSON,
        deltas: list[Delta],
    ) -> None:
        if isinstance(text, str) and text:
            self._said.add((slot, kind))
            deltas.append(delta(text))

    def _say_if_silent(
        self,
        delta: type[TextDelta] | type[RefusalDelta],
        slot: int | None,
        kind: str,
        text: JSON,
        deltas: list[Delta],
    ) -> None:
        """What a server says only when it is done, without deltas before."""
        if (slot, kind) not in self._said:
            self._say(delta, slot, kind, text, deltas)

    def _think(self, part: tuple[JSON, JSON], field: str, text: JSON, deltas: list[Delta]) -> None:
        """Thinking comes in parts; an empty line stands between them."""
        if isinstance(text, str) and text:
            if self._thinking_part not in (None, part):
                text = f"\n\n{text}"
            self._thinking_part = part
            deltas.append(ThinkingDelta(text, field))

    def _end_item(self, slot: int | None, item: JSON, deltas: list[Delta]) -> None:
        if not isinstance(item, dict):
            return
        kind = as_text(item.get("type")) or ""
        match kind:
            case "function_call" | "custom_tool_call":
                if slot is not None:
                    text = item.get("arguments" if kind == "function_call" else "input")
                    deltas.append(
                        CallDone(slot, as_arguments(text), as_text(item.get("name")), as_text(item.get("call_id")))
                    )
                deltas.append(ProviderDelta(kind, {"id": item.get("id"), "call_id": item.get("call_id")}))
            case "message":
                texts: list[str] = []
                parts = item.get("content")
                for part in parts if isinstance(parts, list) else ():
                    if isinstance(part, dict):
                        self._say_if_silent(TextDelta, slot, "text", part.get("text"), deltas)
                        self._say_if_silent(RefusalDelta, slot, "refusal", part.get("refusal"), deltas)
                        texts.append(as_text(part.get("text")) or "")
                deltas.append(
                    ProviderDelta(kind, {"id": item.get("id"), "phase": item.get("phase"), "text": "".join(texts)})
                )
            case _:
                if kind == "reasoning" or item.get("encrypted_content"):
                    deltas.append(ProviderDelta(kind, item))


def _open_call(slot: int | None, item: JSON, deltas: list[Delta]) -> None:
    if isinstance(item, dict) and item.get("type") in ("function_call", "custom_tool_call"):
        deltas.append(
            CallDelta(
                slot=slot,
                id=as_text(item.get("call_id")) or as_text(item.get("id")),
                name=as_text(item.get("name")),
                custom=item.get("type") == "custom_tool_call",
            )
        )


def _end_response(kind: str, response: JSON, deltas: list[Delta]) -> None:
    body: Mapping[str, JSON] = response if isinstance(response, dict) else {}
    usage = body.get("usage")
    if isinstance(usage, dict):
        deltas.append(UsageDelta(read_usage(usage)))
    wire = kind.removeprefix("response.")
    reason: FinishReason = "stop"
    if wire == "incomplete":
        details = body.get("incomplete_details")
        cause = details.get("reason") if isinstance(details, dict) else None
        reason = _INCOMPLETE.get(str(cause), "unknown")
    elif wire != "completed":
        reason = "error"
        deltas.append(ErrorDelta(read_error(body.get("error") or f"the response was {wire}")))
    deltas.append(FinishDelta(reason, wire=wire))
    deltas.append(EndDelta())
