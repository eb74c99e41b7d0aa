"""Encode a run as the AI SDK's UI message stream, version 1, as `useChat` of `ai` 5, 6 and 7 reads it.

https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol. States that the protocol lacks, such as waits, retries, progress,
and nested calls, are sent as `data-flow`, which a client receives in `onData` and doesn't store.

For this client three things are errors that end the stream: a null in an optional field, a delta without a start, and
a result of an unknown call.
"""

from typing import Literal

from flowkit.codec import JSON, dumps
from flowkit.web.wires.calls import ENDINGS, Calls, Frame, Pieces, Spent, Told, ToldCall, is_own, strip, text

Version = Literal[5, 6, 7]
Kind = Literal["text", "reasoning"]

FINISH: dict[str, str] = {"done": "stop", "waiting": "tool-calls", "limit": "length"}


class AISDKEncoder:
    """One assistant message: a step for each turn, a part for each text, reasoning text and call."""

    def __init__(self, version: Version = 7) -> None:
        self._version = version
        self._calls = Calls()
        self._pieces = Pieces()
        self._spent = Spent()
        self._turn: tuple[JSON, int] | None = None
        self._is_step_open = False
        self._part: tuple[Kind, str] | None = None
        self._count = 0
        self._has_said = False
        self._has_ended = False

    def feed(self, event: Told) -> list[Frame]:
        """Convert the next event to chunks."""
        match event.get("type"):
            case "run.started":
                return self._start(event)
            case "turn.started":
                return self._start_turn(event)
            case "text.delta" | "thinking.delta" as kind if event.get("call") is None:
                return self._say("text" if kind == "text.delta" else "reasoning", event)
            case "call.new":
                return self._open(event)
            case "call.finished":
                return self._finish_call(event)
            case "approval.asked":
                return self._ask(event)
            case "usage":
                self._spent.add(event)
                return []
            case "run.finished":
                return self._finish(event)
            case "turn.finished":
                return self._close_part()
            case str(kind) if kind in ENDINGS:
                return self._end_call(event, ENDINGS[kind])
            case _:
                return self._tell_call(event)

    def close(self, reason: str) -> list[Frame]:
        """End the stream of an unfinished run with `abort`, since this client treats a silent end as success."""
        return [] if self._has_ended else [*self._close_part(), {"type": "abort", "reason": reason}]

    def _start(self, event: Told) -> list[Frame]:
        self._has_ended = False
        run = text(event, "run")
        return [*self._close_part(), {"type": "start", "messageId": run, "messageMetadata": {"run": run}}]

    def _start_turn(self, event: Told) -> list[Frame]:
        turn = event.get("turn")
        frames = self._close_part()
        is_again = self._turn is not None and self._turn[0] == turn
        self._turn = (turn, self._turn[1] + 1 if self._turn is not None and is_again else 1)
        if not is_again:
            if self._is_step_open:
                frames.append({"type": "finish-step"})
            frames.append({"type": "start-step"})
            self._is_step_open = True
            return frames
        self._pieces.restart(turn)
        frames.append(_flow(strip(event)))
        if self._version == 7:
            frames.append({"type": "reset-step"})
            for call in self._calls.list_shown(f"turn/{turn}/"):
                call.is_gone = True
        return frames

    def _say(self, kind: Kind, event: Told) -> list[Frame]:
        piece = self._pieces.take(event)
        if not piece:
            return []
        self._has_said = True
        frames: list[Frame] = []
        if self._part is None or self._part[0] != kind:
            frames = self._close_part()
            self._part = (kind, self._name_part(kind))
            frames.append({"type": f"{kind}-start", "id": self._part[1]})
        frames.append({"type": f"{kind}-delta", "id": self._part[1], "delta": piece})
        return frames

    def _name_part(self, kind: Kind) -> str:
        # Never from an event's number: a merged piece has another one in a replay.
        self._count += 1
        turn, attempt = self._turn or (0, 1)
        return f"{kind}-{turn}-{attempt}-{self._count}"

    def _close_part(self) -> list[Frame]:
        part, self._part = self._part, None
        return [] if part is None else [{"type": f"{part[0]}-end", "id": part[1]}]

    def _open(self, event: Told) -> list[Frame]:
        call, is_new = self._calls.add(event)
        if not is_own(call):
            return [_flow(strip(event))]
        return self._show(call, event) if is_new else []

    def _show(self, call: ToldCall, event: Told) -> list[Frame]:
        call.is_shown = True
        return [
            *self._close_part(),
            {"type": "tool-input-start", "toolCallId": _name(call, event), "toolName": call.name, "dynamic": True},
        ]

    def _tell_call(self, event: Told) -> list[Frame]:
        """Report a call's progress before its result."""
        call = self._calls.get(event)
        if call is None or not call.is_shown:
            return [_flow(strip(event))]
        match event.get("type"):
            case "call.arguments" if not call.is_gone:
                call.fragments.append(text(event, "fragment"))
                return [self._delta(call, event)] if not call.has_arguments else []
            case "call.arguments":
                return []
            case "call.sealed" if not call.is_gone:
                return self._seal(call, event, event.get("arguments"))
            case "approval.decided" if not call.is_gone:
                call.is_asked = False
                changed = event.get("arguments")
                return [_flow(strip(event)), *(self._seal(call, event, changed) if changed is not None else ())]
            case _:
                return [_flow(strip(event))]

    def _delta(self, call: ToldCall, event: Told) -> Frame:
        return {
            "type": "tool-input-delta",
            "toolCallId": _name(call, event),
            "inputTextDelta": text(event, "fragment"),
        }

    def _seal(self, call: ToldCall, event: Told, arguments: JSON) -> list[Frame]:
        if call.has_arguments and call.arguments == arguments:
            return []  # told again, by a run that goes on
        call.has_arguments, call.arguments = True, arguments
        return [
            {
                "type": "tool-input-available",
                "toolCallId": _name(call, event),
                "toolName": call.name,
                "input": arguments,
                "dynamic": True,
            }
        ]

    def _ask(self, event: Told) -> list[Frame]:
        call = self._calls.get(event)
        if call is None or call.is_gone or self._version == 5:
            return [_flow(strip(event))]
        frames: list[Frame] = []
        if not call.is_shown:  # a call of a call: this client can only be asked about what it has seen
            frames += self._show(call, event)
        frames += self._seal(call, event, event.get("arguments"))
        if not call.was_requested:
            frames.append(_request(call, event))
        call.is_asked = True
        return frames

    def _ask_again(self, event: Told) -> list[Frame]:
        """Repeat the approval requests of a resumed run that are still pending at this point; the log may decide them next."""
        asked = [call for call in self._calls.list_asked() if call.is_shown and not call.is_gone and call.was_answered]
        return [_request(call, event) for call in asked]

    def _finish_call(self, event: Told) -> list[Frame]:
        call = self._calls.get(event)
        if call is None or not call.is_shown:
            return [_flow(strip(event))]
        if call.is_gone or (call.has_ended and event.get("source") == "journal"):
            return []
        frames: list[Frame] = []
        if event.get("source") in ("cache", "flight"):
            kept = strip(event, "value")
            frames.append({"type": "data-flow", "id": _name(call, event), "data": kept})
        frames += self._seal(call, event, call.arguments if call.has_arguments else {})
        call.has_ended = True
        frames.append({"type": "tool-output-available", "toolCallId": _name(call, event), "output": event.get("value")})
        return [{**frame, "dynamic": True} if frame["type"] == "tool-output-available" else frame for frame in frames]

    def _end_call(self, event: Told, ending: str) -> list[Frame]:
        call = self._calls.get(event)
        if call is None or not call.is_shown:
            return [_flow(strip(event))]
        if call.is_gone or (ending == "cancelled" and call.is_asked):
            return []  # it still waits for a person
        reason = text(event, "error") or text(event, "because") or text(event, "reason")
        error = f"{ending}: {reason}" if reason else ending
        name = _name(call, event)
        if call.has_ended and ending != "in doubt":
            return []
        call.has_ended = True
        if not call.has_arguments:
            return [
                {
                    "type": "tool-input-error",
                    "toolCallId": name,
                    "toolName": call.name,
                    "input": "".join(call.fragments),
                    "errorText": error,
                    "dynamic": True,
                }
            ]
        if ending == "denied" and self._version != 5:
            return [{"type": "tool-output-denied", "toolCallId": name}]
        return [{"type": "tool-output-error", "toolCallId": name, "errorText": error, "dynamic": True}]

    def _finish(self, event: Told) -> list[Frame]:
        status, output, error = text(event, "status"), event.get("output"), text(event, "error")
        frames = self._close_part()
        if status == "waiting" and self._version != 5:
            frames += self._ask_again(event)
        if status == "done" and not self._has_said and output is not None:
            frames += self._say_output(output)
        if self._is_step_open:
            frames.append({"type": "finish-step"})
            self._is_step_open = False
        self._has_ended = True
        metadata = self._make_metadata(event, status)
        match status:
            case "cancelled":
                frames.append({"type": "message-metadata", "messageMetadata": metadata})
                frames.append({"type": "abort", "reason": error or "the run was cancelled"})
            case "failed":
                frames.append({"type": "message-metadata", "messageMetadata": metadata})
                frames.append({"type": "error", "errorText": error or "the run failed"})
            case _:
                reason = FINISH.get(status, "other")
                frames.append({"type": "finish", "finishReason": reason, "messageMetadata": metadata})
        return frames

    def _say_output(self, output: JSON) -> list[Frame]:
        """Send a recipe's output as text, since this client shows only text and no model has sent any."""
        name = self._name_part("text")
        told = output if isinstance(output, str) else dumps(output).decode()
        frames: list[Frame] = [] if self._is_step_open else [{"type": "start-step"}]
        self._is_step_open = True
        frames.append({"type": "text-start", "id": name})
        frames.append({"type": "text-delta", "id": name, "delta": told})
        frames.append({"type": "text-end", "id": name})
        return frames

    def _make_metadata(self, event: Told, status: str) -> dict[str, JSON]:
        metadata: dict[str, JSON] = {"run": text(event, "run"), "status": status}
        if self._spent.tokens:
            metadata["usage"] = dict[str, JSON](self._spent.tokens)
            if self._spent.cost_usd is not None:
                metadata["cost_usd"] = self._spent.cost_usd
        if error := text(event, "error"):
            metadata["error"] = error
        return metadata


def _name(call: ToldCall, event: Told) -> str:
    """Return the call's id in the protocol, which includes the run's id: names repeat between runs."""
    return f"{text(event, 'run')}:{call.id}"


def _request(call: ToldCall, event: Told) -> Frame:
    call.was_requested, call.was_answered = True, False
    name = _name(call, event)
    return {"type": "tool-approval-request", "approvalId": name, "toolCallId": name}


def _flow(data: Frame) -> Frame:
    return {"type": "data-flow", "transient": True, "data": data}
