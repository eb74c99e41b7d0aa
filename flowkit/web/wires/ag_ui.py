"""Encode a run as AG-UI 1.0, as `HttpAgent` of `@ag-ui/client` reads it.

https://docs.ag-ui.com/concepts/events. Calls that wait for approval end the run with an interrupt each. The text of a
model inside a call belongs to a subagent. States without an AG-UI event are sent as CUSTOM `flowkit.call.…`.
"""

from collections.abc import Mapping, Sequence

from flowkit.codec import JSON, dumps
from flowkit.web.wires.calls import ENDINGS, Calls, Frame, Pieces, Spent, Told, ToldCall, is_own, strip, text

PROTOCOL = "1.0"
RESPONSE_SCHEMA: dict[str, JSON] = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}},
    "required": ["approved"],
}
TOKENS = {
    "input_tokens": "inputTokens",
    "output_tokens": "outputTokens",
    "cached_tokens": "cachedInputTokens",
    "thinking_tokens": "reasoningTokens",
}


class AGUIEncoder:
    """The events of one run in a thread. `run_id` is the client's name for it, by default the run's own id.

    `messages` are those that the client has: if a turn is discarded, the client is sent the list of the remaining messages.
    """

    def __init__(self, thread: str = "", run_id: str = "", messages: Sequence[Mapping[str, JSON]] = ()) -> None:
        self._thread = thread
        self._run_id = run_id
        self._calls = Calls()
        self._pieces = Pieces()
        self._spent = Spent()
        self._messages: list[Frame] = [dict(message) for message in messages]
        self._functions: dict[str, dict[str, JSON]] = {}
        """Of the agent's own calls, as they stand in their messages."""
        self._before_turn = len(self._messages)
        self._turn: tuple[JSON, int] = (0, 1)
        self._turn_message: str | None = None
        self._open: dict[str, tuple[str, str]] = {}
        """For the agent (the empty text) and each subagent: what is being said, text or reasoning, and its id."""
        self._subagents: dict[str, bool] = {}
        """By their calls; whether they still go on."""
        self._count = 0
        self._is_running = False

    def feed(self, event: Told) -> list[Frame]:
        """Convert the next event to AG-UI events."""
        match event.get("type"):
            case "run.started":
                return self._start(event)
            case "turn.started":
                return self._start_turn(event)
            case "turn.finished":
                return self._close_said("")
            case "text.delta" | "thinking.delta":
                return self._say(event)
            case "call.new":
                return self._open_call(event)
            case "call.finished":
                return self._finish_call(event)
            case "approval.asked":
                return self._ask(event)
            case "usage":
                self._spent.add(event)
                return []
            case "run.finished":
                return self._finish(event)
            case str(kind) if kind in ENDINGS:
                return self._end_call(event, ENDINGS[kind])
            case _:
                return self._tell_call(event)

    def close(self, reason: str) -> list[Frame]:
        """End the stream of an unfinished run with RUN_ERROR, since this client treats a silent end as success."""
        if not self._is_running:
            return []
        self._is_running = False
        return [{"type": "RUN_ERROR", "message": reason, "code": "stopped"}]

    def _start(self, event: Told) -> list[Frame]:
        run = text(event, "run")
        self._run_id = self._run_id or run
        self._thread = self._thread or text(event, "session") or run
        if self._is_running:
            return []  # its process was killed, so this client has seen no end: it goes on with the same run
        self._is_running = True
        self._subagents.clear()
        return [{"type": "RUN_STARTED", "threadId": self._thread, "runId": self._run_id, "protocolVersion": PROTOCOL}]

    def _start_turn(self, event: Told) -> list[Frame]:
        turn = event.get("turn")
        frames = self._close_said("")
        if turn != self._turn[0]:
            self._turn, self._turn_message = (turn, 1), None
            self._before_turn = len(self._messages)
            return frames
        self._turn, self._turn_message = (turn, self._turn[1] + 1), None
        self._pieces.restart(turn)
        for call in self._calls.list_shown(f"turn/{turn}/"):
            frames += self._seal(call, event, {}) if not call.has_arguments else []
            call.is_gone = True
        del self._messages[self._before_turn :]
        return [*frames, {"type": "MESSAGES_SNAPSHOT", "messages": [dict(message) for message in self._messages]}]

    def _say(self, event: Told) -> list[Frame]:
        piece = self._pieces.take(event)
        if not piece:
            return []
        owner = text(event, "call")
        frames = self._start_subagent(event, owner) if owner else []
        kind = "text" if event.get("type") == "text.delta" else "reasoning"
        said = self._open.get(owner)
        if said is None or said[0] != kind:
            frames += self._close_said(owner)
            said = self._open[owner] = (kind, self._name_message(event, kind, owner))
            frames += self._start_said(said, owner)
        prefix = "TEXT_MESSAGE" if kind == "text" else "REASONING_MESSAGE"
        frames.append(_own({"type": f"{prefix}_CONTENT", "messageId": said[1], "delta": piece}, owner))
        if not owner:
            message = self._messages[-1]
            message["content"] = f"{message.get('content', '')}{piece}"
        return frames

    def _start_said(self, said: tuple[str, str], owner: str) -> list[Frame]:
        kind, name = said
        role = "assistant" if kind == "text" else "reasoning"
        if not owner:
            self._messages.append({"id": name, "role": role, "content": ""})
        if kind == "text":
            return [_own({"type": "TEXT_MESSAGE_START", "messageId": name, "role": role}, owner)]
        return [
            _own({"type": "REASONING_START", "messageId": name}, owner),
            _own({"type": "REASONING_MESSAGE_START", "messageId": name, "role": role}, owner),
        ]

    def _close_said(self, owner: str) -> list[Frame]:
        said = self._open.pop(owner, None)
        if said is None:
            return []
        kind, name = said
        if kind == "text":
            return [_own({"type": "TEXT_MESSAGE_END", "messageId": name}, owner)]
        return [
            _own({"type": "REASONING_MESSAGE_END", "messageId": name}, owner),
            _own({"type": "REASONING_END", "messageId": name}, owner),
        ]

    def _name_message(self, event: Told, kind: str, owner: str) -> str:
        """Name the message: a turn's first text has the turn's id, which its calls refer to."""
        if kind == "text" and not owner and self._turn_message is None:
            self._turn_message = self._name_turn(event)
            return self._turn_message
        self._count += 1
        return f"{self._name_turn(event)}:{owner or kind}:{self._count}"

    def _name_turn(self, event: Told) -> str:
        return f"{text(event, 'run')}:turn/{self._turn[0]}/{self._turn[1]}"

    def _open_call(self, event: Told) -> list[Frame]:
        call, is_new = self._calls.add(event)
        if not is_new:
            return []
        owner = _find_owner(call)
        if not is_own(call) and owner is None:
            return [_custom(event)]
        frames = self._close_said(owner or "")
        if owner is not None:
            frames += self._start_subagent(event, owner)
        return [*frames, *self._show(call, event)]

    def _show(self, call: ToldCall, event: Told) -> list[Frame]:
        call.is_shown = True
        owner = _find_owner(call) or ""
        frame: Frame = {"type": "TOOL_CALL_START", "toolCallId": _name(call, event), "toolCallName": call.name}
        if is_own(call):
            if self._turn_message is None:
                self._turn_message = self._name_turn(event)
            frame["parentMessageId"] = self._turn_message
            self._keep_call(call, event, self._turn_message)
        return [_own(frame, owner)]

    def _keep_call(self, call: ToldCall, event: Told, message_id: str) -> None:
        """Record the call in its message, for the list of remaining messages."""
        last = self._messages[-1] if self._messages else None
        kept = last if last is not None and last["id"] == message_id else self._find_message(message_id)
        function = self._functions[call.id] = dict[str, JSON](name=call.name, arguments="")
        made: JSON = {"id": _name(call, event), "type": "function", "function": function}
        calls = kept.setdefault("toolCalls", list[JSON]())
        assert isinstance(calls, list), "only calls are put there"
        calls.append(made)

    def _find_message(self, message_id: str) -> Frame:
        """Find the message of this turn; create one if there was no text before its first call."""
        for message in reversed(self._messages[self._before_turn :]):
            if message["id"] == message_id:
                return message
        made = dict[str, JSON](id=message_id, role="assistant")
        self._messages.append(made)
        return made

    def _start_subagent(self, event: Told, owner: str) -> list[Frame]:
        if owner in self._subagents:
            return []
        self._subagents[owner] = True
        call = self._calls.find(owner)
        frame: Frame = {
            "type": "SUBAGENT_STARTED",
            "subagentRunId": owner,
            "name": owner if call is None else call.name,
        }
        if call is not None and call.is_shown and not call.is_gone:
            frame["parentToolCallId"] = _name(call, event)
        above = None if call is None else _find_owner(call)
        if above is not None and above in self._subagents:
            frame["parentSubagentRunId"] = above
        return [frame]

    def _end_subagents(self, owner: str | None = None) -> list[Frame]:
        """End the subagent of a call, or all subagents, innermost first."""
        frames: list[Frame] = []
        for name, goes_on in reversed(list(self._subagents.items())):
            if goes_on and (owner is None or name == owner or name.startswith(f"{owner}/")):
                frames += self._close_said(name)
                frames.append({"type": "SUBAGENT_FINISHED", "subagentRunId": name})
                self._subagents[name] = False
        return frames

    def _tell_call(self, event: Told) -> list[Frame]:
        call = self._calls.get(event)
        if call is None or not call.is_shown:
            return [_custom(event)]
        if call.is_gone:
            return []
        match event.get("type"):
            case "call.arguments" if not call.has_arguments and (piece := text(event, "fragment")):
                call.fragments.append(piece)
                frame: Frame = {"type": "TOOL_CALL_ARGS", "toolCallId": _name(call, event), "delta": piece}
                return [_own(frame, _find_owner(call) or "")]
            case "call.arguments":
                return []
            case "call.sealed":
                frames = self._seal(call, event, event.get("arguments"))
                return [*frames, _custom(event)] if event.get("repaired") else frames
            case "approval.decided":
                call.is_asked = False
                return [_custom(event)]
            case _:
                return [_custom(event)]

    def _seal(self, call: ToldCall, event: Told, arguments: JSON) -> list[Frame]:
        if call.has_arguments:
            return []  # told again, by a run that goes on
        call.has_arguments, call.arguments = True, arguments
        name, owner = _name(call, event), _find_owner(call) or ""
        frames: list[Frame] = []
        if not call.fragments:
            whole = dumps(arguments).decode()
            frames.append(_own({"type": "TOOL_CALL_ARGS", "toolCallId": name, "delta": whole}, owner))
            call.fragments.append(whole)
        if call.id in self._functions:
            self._functions[call.id]["arguments"] = "".join(call.fragments)
        return [*frames, _own({"type": "TOOL_CALL_END", "toolCallId": name}, owner)]

    def _ask(self, event: Told) -> list[Frame]:
        call = self._calls.get(event)
        if call is not None:
            call.is_asked, call.arguments = True, event.get("arguments")
        return []

    def _finish_call(self, event: Told) -> list[Frame]:
        call = self._calls.get(event)
        if call is None or not call.is_shown:
            return [_custom(event)]
        if call.is_gone or (call.has_ended and event.get("source") == "journal"):
            return []
        value = event.get("value")
        content = value if isinstance(value, str) else dumps(value).decode()
        return self._result(call, event, content, strip({n: event.get(n) for n in ("source", "age_s", "truncated")}))

    def _end_call(self, event: Told, ending: str) -> list[Frame]:
        call = self._calls.get(event)
        if call is None or not call.is_shown:
            return [_custom(event)]
        if call.is_gone or call.has_ended or (ending == "cancelled" and call.is_asked):
            return []  # of a call that still waits for a person, this says nothing
        reason = text(event, "error") or text(event, "because") or text(event, "reason") or ending
        state = ending.replace(" ", "_")
        return self._result(call, event, dumps({"error": reason, "state": state}).decode(), {"state": state})

    def _result(self, call: ToldCall, event: Told, content: str, told: Frame) -> list[Frame]:
        frames = [*self._end_subagents(call.id), *self._seal(call, event, {})]
        call.has_ended = True
        self._count += 1
        name = _name(call, event)
        message_id = f"{name}:result:{self._count}"
        if is_own(call):
            self._messages.append({"id": message_id, "role": "tool", "toolCallId": name, "content": content})
        frame: Frame = {
            "type": "TOOL_CALL_RESULT",
            "messageId": message_id,
            "toolCallId": name,
            "content": content,
            "role": "tool",
            "metadata": {"flowkit": told},
        }
        return [*frames, _own(frame, _find_owner(call) or "")]

    def _finish(self, event: Told) -> list[Frame]:
        frames = [*self._end_subagents(), *self._close_said("")]
        for call in self._calls.list_open():
            frames += self._seal(call, event, {})
        status, error, output = text(event, "status"), text(event, "error"), event.get("output")
        self._is_running = False
        if status == "failed":
            return [*frames, {"type": "RUN_ERROR", "message": error or "the run failed", "code": "failed"}]
        metadata: dict[str, JSON] = {"run": text(event, "run"), "status": status}
        if error:
            metadata["error"] = error
        if self._spent.cost_usd is not None and self._spent.tokens:
            metadata["cost_usd"] = self._spent.cost_usd
        frame: Frame = {
            "type": "RUN_FINISHED",
            "threadId": self._thread,
            "runId": self._run_id,
            "metadata": {"flowkit": metadata},
        }
        if output is not None:
            frame["result"] = output
        if self._spent.tokens:
            frame["usage"] = [{TOKENS[name]: n for name, n in self._spent.tokens.items() if name in TOKENS}]
        asked = self._calls.list_asked()
        if status == "waiting" and asked:
            frame["outcome"] = {"type": "interrupt", "interrupts": [_interrupt(call, event) for call in asked]}
        elif status == "cancelled":
            frame["outcome"] = {"type": "cancelled"}
        elif status == "done":
            frame["outcome"] = {"type": "success"}
        return [*frames, frame]


def _interrupt(call: ToldCall, event: Told) -> JSON:
    name = _name(call, event)
    told: dict[str, JSON] = {
        "id": name,
        "reason": "tool_call",
        "message": f"{call.name} waits for approval",
        "responseSchema": RESPONSE_SCHEMA,
        "metadata": {"name": call.name, "arguments": call.arguments},
    }
    return {**told, "toolCallId": name} if call.is_shown else told


def _find_owner(call: ToldCall) -> str | None:
    """Find the nested agent's call in which this call was made."""
    parent = call.parent
    return parent if parent is not None and call.id.startswith(f"{parent}/turn/") else None


def _name(call: ToldCall, event: Told) -> str:
    return f"{text(event, 'run')}:{call.id}"


def _own(frame: Frame, owner: str) -> Frame:
    return {**frame, "subagentRunId": owner} if owner else frame


def _custom(event: Told) -> Frame:
    return {"type": "CUSTOM", "name": f"flowkit.{text(event, 'type')}", "value": strip(event, "type")}
