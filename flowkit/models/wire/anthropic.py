"""The answer of Anthropic's Messages API, bytes to deltas.

An answer is a row of blocks: text, thinking, calls, and what the vendor's own tools did. Blocks that must be sent
back are emitted whole, in the order in which they began. A `content_block_stop` comes for a block that was cut, too, so it ends
a call's arguments, and the next block says that the call is complete.
Events, blocks and deltas of unknown kinds are ignored.
https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import orjson

from flowkit.codec import JSON, loads
from flowkit.errors import StreamError
from flowkit.messages import FinishReason
from flowkit.models.base import (
    CallDelta,
    CallDone,
    Delta,
    EndDelta,
    ErrorDelta,
    FinishDelta,
    ProviderDelta,
    TextDelta,
    ThinkingDelta,
    UsageDelta,
)
from flowkit.models.wire.anthropic_words import PAUSES, read_anthropic_error, read_anthropic_usage
from flowkit.models.wire.chat import read_finish
from flowkit.models.wire.reading import FAULT_TYPES, WireReader, as_arguments, as_text
from flowkit.models.wire.reasons import says_error

_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    # Whoever reads on has to ask on; what was said until then is whole.
    **dict.fromkeys(PAUSES, cast(FinishReason, "stop")),
    # Gateways that translate from Chat Completions.
    "stop": "stop",
    "tool_calls": "tool_calls",
    "length": "length",
    "content_filter": "content_filter",
}

_MARKED = frozenset(("type", "id", "name", "input"))
"""The fields of a call that `RequestedCall` holds; others, such as who called it, go back as they came."""

_KINDS = {
    "text": "text_delta",
    "partial_json": "input_json_delta",
    "thinking": "thinking_delta",
    "signature": "signature_delta",
}
"""The kinds of deltas by what they hold, for gateways that leave the type out."""

_HOLDERS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "thinking"}
"""The kind of block that holds these deltas."""

_SPOKEN = ("text", "thinking")
_MIXED_UP = (*_SPOKEN, "tool_use")
"""Blocks whose index gateways that translate also give to words; those of other kinds may have words of their own."""

_FAULTS = ("error", "exception")
"""How the kinds of events end that report a fault, such as AWS's `throttlingException`."""

BlockIndex = int | float | str | None
"""Where a block stands; None where its events don't say."""


@dataclass(slots=True)
class _Block:
    """A block while it is streamed; `slot` is a call's position among the calls."""

    kind: str
    start: Mapping[str, JSON]
    slot: int | None = None
    pieces: list[str] = field(default_factory=list[str])
    signature: list[str] = field(default_factory=list[str])
    citations: list[JSON] = field(default_factory=list[JSON])
    more: dict[str, JSON] = field(default_factory=dict[str, JSON])
    is_strange: bool = False
    is_done: bool = False

    @property
    def text(self) -> str:
        return _join(self.pieces)


class AnthropicReader(WireReader):
    """Reads the body of `POST /messages` with `stream: true`.

    `first_slot` and `has_thought` let it read on where an answer paused.
    """

    _INTERFACE = "anthropic"
    _MARK_ENDS = False  # the answer's own end is `message_stop`; gateways put the mark behind a cut one, too

    def __init__(self, *, first_slot: int = 0, has_thought: bool = False) -> None:
        super().__init__()
        self.slots = first_slot
        self.has_thought = has_thought
        self._begun = False
        self._has_reason = False
        self._id: str | None = None
        self._usage: dict[str, JSON] = {}
        self._blocks: dict[BlockIndex, _Block] = {}
        self._last: _Block | None = None
        self._untold: list[_Block] = []  # in the order in which they began
        self._waiting: list[int] = []  # calls whose block has ended, but may have been cut
        self._whole: set[str] = set()  # ids of calls that stood in the message's start

    def read_event(self, event: Mapping[str, JSON], event_type: bytes, deltas: list[Delta]) -> None:
        kind = event.get("type") or event_type.decode(errors="replace")
        if kind == "content_block_delta":
            delta = event.get("delta")
            if isinstance(delta, dict) and not self._read_more(event.get("index"), delta, deltas):
                self._read_delta(_place(event), delta, deltas)
            return
        match kind:
            case "content_block_start":
                block = event.get("content_block")
                if isinstance(block, dict):
                    self._start(_place(event), block, deltas)
            case "content_block_stop":
                block = self._blocks.get(_place(event), self._last)
                if block is not None:
                    self._stop(block, deltas)
            case "message_delta":
                delta = event.get("delta")
                if event.get("stop_reason"):  # some gateways put it beside the delta
                    delta = {**(delta if isinstance(delta, dict) else {}), "stop_reason": event["stop_reason"]}
                self._read_message(delta, event.get("usage"), deltas)
            case "message_start":
                self._begin(event.get("message"), deltas)
            case "message_stop":
                if event.get("usage") or event.get("stop_reason"):  # a gateway that leaves `message_delta` out
                    self._read_message({"stop_reason": event.get("stop_reason")}, event.get("usage"), deltas)
                self._tell_inputs(deltas)
                self._tell_blocks(deltas, all_of_them=True)
                if self._has_reason or not _may_be_cut(self._last):
                    deltas.append(EndDelta())
            case "message" if self.read_whole(event, deltas):
                self._ended = True
            case "ping":
                return
            case _:
                is_foreign = not event.get("type") and says_error(event)  # a gateway's own words
                is_named = event_type in FAULT_TYPES or str(kind).lower().endswith(_FAULTS)
                if is_named or event.get("error") or is_foreign:
                    deltas.append(ErrorDelta(read_anthropic_error(event)))
                    self._ended = True
                else:
                    self.refuse_foreign(event, deltas)

    def explain_error(self, value: Mapping[str, JSON]) -> StreamError:
        return read_anthropic_error(value)

    def read_whole(self, answer: Mapping[str, JSON], deltas: list[Delta]) -> bool:
        content = answer.get("content")
        if isinstance(content, str) and answer.get("role") == "assistant":
            answer = {**answer, "content": [{"type": "text", "text": content}]}
        elif not isinstance(content, list):
            return False
        if self._begun:
            return False
        self._begin(dict(answer), deltas)
        deltas.append(EndDelta())
        return True

    def _begin(self, message: JSON, deltas: list[Delta]) -> None:
        if not isinstance(message, dict):
            return
        id = as_text(message.get("id"))
        if self._begun:
            if id is not None and self._id is not None and id != self._id:
                # A gateway that asked anew. The two answers have nothing to do with each other.
                deltas.append(ErrorDelta(StreamError("another message began inside the answer", retryable=True)))
                self._ended = True
            return
        self._begun, self._id = True, id
        content = message.get("content")
        if isinstance(content, list):
            is_cut = _REASONS.get(str(message.get("stop_reason"))) == "length"
            for position, block in enumerate(content):
                if isinstance(block, dict):
                    self._start(position, block, deltas)
                    if not is_cut or position < len(content) - 1:
                        self._stop(self._blocks[position], deltas)
                    if isinstance(call_id := block.get("id"), str):
                        self._whole.add(call_id)
        self._read_message(message, message.get("usage"), deltas)

    def _read_message(self, message: JSON, usage: JSON, deltas: list[Delta]) -> None:
        """Read the message's other fields: tokens, stop reason, and the container that code ran in."""
        if isinstance(usage, dict):
            # The tokens so far. The last word on each counts, unless it is null; they aren't added up.
            self._usage |= {name: value for name, value in usage.items() if value is not None}
            deltas.append(UsageDelta(read_anthropic_usage(self._usage)))
        if not isinstance(message, dict):
            return
        reason = as_text(message.get("stop_reason"))
        if reason is not None:
            self._tell_inputs(deltas)
            self._tell_blocks(deltas, all_of_them=True)
        for name in ("container", "stop_details"):
            if isinstance(value := message.get(name), dict):
                self._tell(name, value, deltas)
        if reason is not None:
            self._has_reason = True
            deltas.append(FinishDelta(_REASONS.get(reason) or read_finish(reason), wire=reason))

    def _start(self, index: BlockIndex, start: Mapping[str, JSON], deltas: list[Delta]) -> None:
        # Only the last block of an answer can have been cut.
        deltas.extend(CallDone(slot, ending="completed") for slot in self._waiting)
        self._waiting.clear()
        known = self._blocks.get(index)
        if known is not None and not known.is_done and (id := start.get("id")) and id == known.start.get("id"):
            known.start = start if start.get("input") else known.start
            return  # told twice
        block = _Block(as_text(start.get("type")) or "", start)
        self._blocks[index] = self._last = block
        match block.kind:
            case "text" | "thinking":
                self._untold.append(block)
                if block.kind == "thinking" and isinstance(signature := start.get("signature"), str):
                    block.signature.append(signature)
                if isinstance(citations := start.get("citations"), list):
                    block.citations += citations
                self._say(block, start.get(block.kind), deltas)
            case "tool_use":
                id = as_text(start.get("id"))
                if id is not None and id in self._whole:
                    return
                block.slot = self.slots
                self.slots += 1
                self._untold.append(block)
                deltas.append(CallDelta(slot=block.slot, id=id, name=as_text(start.get("name"))))
            case _:
                self._untold.append(block)

    def _say(self, block: _Block, text: JSON, deltas: list[Delta]) -> None:
        if not isinstance(text, str) or not text:
            return
        if block.kind == "thinking":
            shown = f"\n\n{text}" if self.has_thought and not block.pieces else text
            self.has_thought = True
            deltas.append(ThinkingDelta(shown, "thinking"))
        else:
            deltas.append(TextDelta(text))
        block.pieces.append(text)

    def _read_more(self, index: JSON, delta: Mapping[str, JSON], deltas: list[Delta]) -> bool:
        """Read more of a call's arguments, or of a text: nearly every event, so it is the short way; False for others."""
        block = self._blocks.get(index) if isinstance(index, int) else None
        if block is None:
            return False
        if block.slot is not None:
            piece = delta.get("partial_json")
            if not piece or not isinstance(piece, str) or delta.get("type") != "input_json_delta":
                return False
            deltas.append(CallDelta(block.slot, None, None, piece))
        else:
            piece = delta.get("text")
            if not piece or not isinstance(piece, str) or block.kind != "text" or delta.get("type") != "text_delta":
                return False
            deltas.append(TextDelta(piece))
        block.pieces.append(piece)
        return True

    def _read_delta(self, index: BlockIndex, delta: Mapping[str, JSON], deltas: list[Delta]) -> None:
        block = self._blocks.get(index) or self._find_block(index, delta, deltas)
        kind = delta.get("type") or next((_KINDS[name] for name in _KINDS if name in delta), None)
        if block is None:
            self._break_off(deltas)
            return
        if kind == "input_json_delta":
            piece = delta.get("partial_json")
            piece = piece if isinstance(piece, str) else as_arguments(piece)
            if not piece:
                return
            if block.slot is None and block.kind in _SPOKEN:
                # Its index is wrong. Without it, a call would run with no arguments.
                block = self._last
                if block is None or block.slot is None or block.is_done:
                    self._break_off(deltas)
                    return
            block.pieces.append(piece)
            if block.slot is not None:
                deltas.append(CallDelta(block.slot, None, None, piece))
            return
        match kind:
            case "text_delta" | "thinking_delta" if block.kind == _HOLDERS[str(kind)]:
                self._say(block, delta.get(block.kind), deltas)
            case "text_delta" | "thinking_delta" if block.kind in _MIXED_UP:
                words = _HOLDERS[str(kind)]
                self._say(self._open_beside(index, block, words, deltas), delta.get(words), deltas)
            case "signature_delta":
                thoughts = (one for one in reversed(self._untold) if one.kind == "thinking")
                signed = block if block.kind == "thinking" else next(thoughts, block)
                signature = delta.get("signature")
                # Some gateways repeat at the end what stood in the start.
                if isinstance(signature, str) and signed.signature != [signature]:
                    signed.signature.append(signature)
            case "citations_delta":
                block.citations.append(delta.get("citation"))
            case "compaction_delta":
                for name, value in delta.items():
                    said = block.more.get(name)
                    both = isinstance(said, str) and isinstance(value, str) and name != "type"
                    block.more[name] = cast(str, said) + cast(str, value) if both else value
            case _:
                block.is_strange = True

    def _find_block(self, index: BlockIndex, delta: Mapping[str, JSON], deltas: list[Delta]) -> _Block | None:
        """Find the block of a delta without an index or a block start; None if the delta belongs to no call."""
        last, kind = self._last, delta.get("type")
        if last is not None and (index is None or (kind == "input_json_delta" and self._blocks.get(None) is last)):
            return last
        if kind == "input_json_delta":
            return None
        self._start(index, {"type": _HOLDERS.get(str(kind), "")}, deltas)
        return self._blocks[index]

    def _open_beside(self, index: BlockIndex, block: _Block, kind: str, deltas: list[Delta]) -> _Block:
        """Open a block for words that came for one of another kind; gateways that translate mix them up."""
        last = self._last
        if block.kind not in _SPOKEN:  # its own deltas may still come
            index = f"{kind} beside {index}"
        if index not in self._blocks or block.kind in _SPOKEN:
            self._start(index, {"type": kind}, deltas)
            self._last = last if block.kind not in _SPOKEN else self._last
        return self._blocks[index]

    def _break_off(self, deltas: list[Delta]) -> None:
        deltas.append(ErrorDelta(StreamError("arguments came for a call that never began", retryable=True)))
        self._ended = True

    def _stop(self, block: _Block, deltas: list[Delta]) -> None:
        if block.is_done:
            return
        block.is_done = True
        if block.slot is not None:
            deltas.append(CallDone(block.slot, _read_start(block)))
            self._waiting.append(block.slot)
        self._tell_blocks(deltas)

    def _tell_inputs(self, deltas: list[Delta]) -> None:
        """Emit the arguments in the start events of calls that had no stop event."""
        for block in self._blocks.values():
            if block.slot is not None and not block.is_done and (arguments := _read_start(block)):
                deltas.append(CallDelta(block.slot, arguments=arguments))
                block.pieces.append(arguments)

    def _tell_blocks(self, deltas: list[Delta], all_of_them: bool = False) -> None:
        """Emit the completed blocks; an earlier block that isn't complete doesn't delay the others."""
        while self._untold and (all_of_them or self._untold[0].is_done):
            block = self._untold.pop(0)
            data = _write(block)
            if data is not None:
                self._tell(block.kind, data, deltas)

    def _tell(self, kind: str, data: dict[str, JSON], deltas: list[Delta]) -> None:
        """Emit data that is sent back unchanged; half a character in it can't be sent."""
        told = ProviderDelta(kind, data)
        deltas.extend((told,) if _is_whole(data) else self._halves.mend(told))


def _write(block: _Block) -> dict[str, JSON] | None:
    """Write the block in the form in which it is sent back; None if it is empty or incomplete."""
    match block.kind:
        case "text":
            data: dict[str, JSON] = {"type": "text", "text": block.text}
            return {**data, "citations": block.citations} if block.citations else data
        case "thinking":
            return {"type": "thinking", "thinking": block.text, "signature": "".join(block.signature)}
        case "tool_use":
            more = {name: value for name, value in block.start.items() if name not in _MARKED}
            return {"id": block.start.get("id"), **more}
        case _ if block.is_strange or not block.kind:
            return None
        case _:
            more = {name: value for name, value in block.more.items() if name != "type"}
            data = {**block.start, **more}
            if block.pieces and "input" in data:
                data["input"] = _read_object(block.text) or {}
            return data


def _read_start(block: _Block) -> str | None:
    """Return the arguments in the start of a call's block; they count where no piece of them came."""
    start = block.start.get("input")
    return as_arguments(start) if start and not block.text.strip() else None


def _place(event: Mapping[str, JSON]) -> BlockIndex:
    index = event.get("index")
    if isinstance(index, str) and index.isdecimal() and len(index) < 10:
        return int(index)
    return index if isinstance(index, (int, float, str)) else None


def _may_be_cut(block: _Block | None) -> bool:
    """Return True for a call without readable arguments: only the stop reason can show that it is complete."""
    return (
        block is not None and block.slot is not None and not block.start.get("input") and not _read_object(block.text)
    )


def _is_whole(data: dict[str, JSON]) -> bool:
    try:
        orjson.dumps(data)
    except TypeError:
        return False
    return True


def _read_object(text: str) -> dict[str, JSON] | None:
    try:
        value = loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _join(pieces: list[str]) -> str:
    """Join the pieces; a character cut in half spans two of them."""
    text = "".join(pieces)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
