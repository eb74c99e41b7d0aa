"""The answer of the Responses API, bytes to deltas.

Everything is keyed by `output_index`, since some servers change the id in every event. Without an index, the item's
id is used. What is told again when it is done gives only the rest that no delta has told. Calls in the snapshot of
the terminal event count only if none was streamed, since some servers send it empty.
Events of unknown kinds are ignored.
"""

import logging
from collections.abc import Mapping
from typing import Literal

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

logger = logging.getLogger("flowkit.models")

_CALLS = ("function_call", "custom_tool_call")
_ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled", "response.done")
_TEXT_ENDS = ("response.output_text.done", "response.refusal.done", "response.content_part.done")
_INCOMPLETE: Mapping[str, FinishReason] = {
    "max_output_tokens": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}

_BAD_ENDS = ("failed", "incomplete", "cancelled")

_ENDINGS: Mapping[str, Literal["completed", "arguments", "cut"]] = {
    "completed": "completed",
    # Not every server names a status, and one ends cut calls with this.
    "": "arguments",
    "in_progress": "arguments",
}
"""What the status of an item that is done says of its call; any other says that it was cut off."""


class ResponsesReader(WireReader):
    """Reads the body of `POST /responses` with `stream: true`."""

    _INTERFACE = "responses"

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[int | None, str], dict[int | None, list[str]]] = {}
        """What the parts of the items said, by item and kind; None stands for a part that wasn't named."""
        self._event: Mapping[str, JSON] = {}
        self._count = 0  # of events, this one among them
        self._speaking: int | None = None
        """The item that spoke last and isn't done."""
        self._thinking_part: tuple[JSON, JSON] | None = None
        self._slots: dict[str, int] = {}  # where an item stands, by its ids
        self._words: list[str] = []
        self._has_items = False
        self._kept: set[tuple[int | str, str]] = set()  # items that were told whole, by place and by id
        self._open_calls: set[int | None] = set()
        self._early: dict[int, list[Delta]] = {}  # arguments of calls whose item comes later
        self._says_losses = True
        self._thoughts: dict[str, list[str]] = {}  # by place and field, as text: a place may be any JSON

    def read_event(self, event: Mapping[str, JSON], event_type: bytes, deltas: list[Delta]) -> None:
        self._event = event
        self._count += 1
        kind = event.get("type") or event_type.decode(errors="replace")
        index = event.get("output_index")
        slot = index if isinstance(index, int) else as_place(index)
        if slot is None:
            slot = self._find_slot(str(kind), event)
        match kind:
            case "response.output_text.delta":
                if (slot, "text") not in self._said:
                    self._note(slot, event.get("item_id"))
                self._say(TextDelta, slot, "text", event.get("delta"), deltas, event.get("content_index"))
            case "response.refusal.delta":
                self._note(slot, event.get("item_id"))
                self._say(RefusalDelta, slot, "refusal", event.get("delta"), deltas, event.get("content_index"))
            case "response.function_call_arguments.delta":
                self._call(CallDelta(slot=slot, arguments=as_arguments(event.get("delta"))), deltas)
            case "response.reasoning_summary_text.delta":
                self._think((index, event.get("summary_index")), "reasoning_summary", event.get("delta"), deltas)
            case "response.reasoning_text.delta":
                self._think((index, event.get("content_index")), "reasoning_text", event.get("delta"), deltas)
            case "response.output_item.added":
                self._open_item(slot, event.get("item"), deltas)
            case "response.output_item.done":
                self._end_item(slot, event.get("item"), deltas)
            case "response.function_call_arguments.done":
                if slot is not None:
                    arguments, name = as_arguments(event.get("arguments")), as_text(event.get("name"))
                    self._call(CallDone(slot, arguments, name), deltas)
            case "response.custom_tool_call_input.delta":
                self._call(CallDelta(slot=slot, arguments=as_text(event.get("delta")), custom=True), deltas)
            case "response.custom_tool_call_input.done":
                if slot is not None:
                    self._call(CallDone(slot, as_text(event.get("input"))), deltas)
            case "response.reasoning_summary_text.done":
                self._think_if_silent((index, event.get("summary_index")), "reasoning_summary", event, deltas)
            case "response.reasoning_text.done":
                self._think_if_silent((index, event.get("content_index")), "reasoning_text", event, deltas)
            case "response.output_text.done":
                self._say_if_silent(TextDelta, slot, "text", event.get("text"), deltas, event.get("content_index"))
            case "response.content_part.done":
                part, place = event.get("part"), event.get("content_index")
                if isinstance(part, dict) and part.get("type") in ("output_text", "refusal"):
                    self._say_if_silent(TextDelta, slot, "text", part.get("text"), deltas, place)
                    self._say_if_silent(RefusalDelta, slot, "refusal", part.get("refusal"), deltas, place)
            case "response.refusal.done":
                self._say_if_silent(
                    RefusalDelta, slot, "refusal", event.get("refusal"), deltas, event.get("content_index")
                )
            case _ if kind in _ENDS:
                self._end(str(kind), event.get("response"), deltas)
            case "error" | "response.error":
                deltas.append(ErrorDelta(read_error_event(event)))
            case _:
                if event.get("object") == "response" and self.read_whole(event, deltas):
                    return
                if event_type in FAULT_TYPES or (not str(kind).startswith("response.") and says_error(event)):
                    deltas.append(ErrorDelta(read_error_event(event)))
                elif not (self._said or self._has_items):
                    self.refuse_foreign(event, deltas)

    def read_whole(self, answer: Mapping[str, JSON], deltas: list[Delta]) -> bool:
        if not isinstance(answer.get("output"), list) or answer.get("status") in ("in_progress", "queued"):
            return False
        self._end("response.completed", dict(answer), deltas)
        return True

    def _end(self, kind: str, response: JSON, deltas: list[Delta]) -> None:
        for early in self._early.values():
            deltas += early  # whose item never came
        self._early.clear()
        if isinstance(response, dict):
            self._read_snapshot(response, deltas)
        _end_response(kind, response, deltas)

    def _call(self, told: CallDelta | CallDone, deltas: list[Delta]) -> None:
        """Process an event of a call; events that arrive before the call's item wait for it."""
        self._has_items = True
        if self._open_calls or told.slot is None or (isinstance(told, CallDone) and told.name):
            deltas.append(told)
        else:
            self._early.setdefault(told.slot, []).append(told)

    def _note(self, slot: int | None, *ids: JSON) -> None:
        """Record the index of the item with these ids, for events without an index."""
        if slot is not None:
            self._slots |= {id: slot for id in ids if isinstance(id, str) and id}

    def _find_slot(self, kind: str, event: Mapping[str, JSON]) -> int | None:
        """Find the slot of an event without an index by the ids of its item; a new item gets a slot of its own."""
        item = event.get("item")
        ids = (event.get("item_id"), *_ids(item))
        known = next((self._slots[id] for id in ids if isinstance(id, str) and id in self._slots), None)
        if known is not None:
            return known
        if self._speaking is not None and self._ends_what_speaks(kind, event):
            return self._speaking
        slot = -1 - len(self._slots)
        named = [id for id in ids if isinstance(id, str) and id]
        self._slots |= dict.fromkeys(named, slot)
        return slot if named else None

    def _ends_what_speaks(self, kind: str, event: Mapping[str, JSON]) -> bool:
        """Return True if an event with unknown ids ends the current item."""
        if kind == "response.output_item.done":
            item = event.get("item")
            return isinstance(item, dict) and item.get("type") == "message"
        if kind not in _TEXT_ENDS:
            return False
        # Another item may end here without deltas, so the words have to be those that were said.
        part = event.get("part")
        told = part if isinstance(part, dict) else event
        text = as_text(told.get("text")) or as_text(told.get("refusal"))
        said = "".join(self._words)
        return text is not None and (said.endswith(text) or text.startswith(said))

    def _read_snapshot(self, response: Mapping[str, JSON], deltas: list[Delta]) -> None:
        """Read what only the last event contains: all of the output, or calls and the rest of a streamed text."""
        found, has_spoken, has_items = response.get("output"), bool(self._said), self._has_items
        output = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
        for position, item in enumerate(() if has_items else output):
            if not has_spoken or item.get("type") in _CALLS:
                self._open_item(position, item, deltas)
                self._end_item(position, item, deltas)
        if has_spoken or has_items:
            for delta, kind in ((TextDelta, "text"), (RefusalDelta, "refusal")):
                told = "".join(_read_parts(item, kind) for item in output if item.get("type") == "message")
                said = "".join(
                    piece
                    for key, parts in self._said.items()
                    if key[1] == kind
                    for one in parts.values()
                    for piece in one
                )
                if told.startswith(said) and not self._is_shortened():
                    self._say(delta, None, kind, told[len(said) :], deltas)
        if not (self._said or self._has_items):
            self._say(TextDelta, None, "text", response.get("output_text"), deltas)

    def _say(
        self,
        delta: type[TextDelta] | type[RefusalDelta],
        slot: int | None,
        kind: str,
        text: JSON,
        deltas: list[Delta],
        part: JSON = None,
    ) -> None:
        if isinstance(text, str) and text:
            named = part if isinstance(part, int) else None
            parts = self._said.get((slot, kind))
            if parts is not None and named in parts:  # nearly always
                parts[named].append(text)
            else:
                self._said.setdefault((slot, kind), {})[named] = [text]
            self._words.append(text)
            self._speaking = slot
            deltas.append(delta(text))

    def _open_item(self, slot: int | None, item: JSON, deltas: list[Delta]) -> None:
        if isinstance(item, dict):
            self._note(slot, *_ids(item))
            if item.get("type") in _CALLS:
                self._has_items = True
                deltas.append(
                    CallDelta(
                        slot=slot,
                        id=as_text(item.get("call_id")) or as_text(item.get("id")),
                        name=as_text(item.get("name")),
                        custom=item.get("type") == "custom_tool_call",
                    )
                )
                self._open_calls.add(slot)
                if slot is not None:
                    deltas += self._early.pop(slot, ())

    def _say_if_silent(
        self,
        delta: type[TextDelta] | type[RefusalDelta],
        slot: int | None,
        kind: str,
        text: JSON,
        deltas: list[Delta],
        part: JSON = None,
    ) -> None:
        """Read what no delta has told of an item, or of a part of it, that is done: all of it, or the rest."""
        if not isinstance(text, str):
            return
        said = self._said.get((slot, kind))
        if said is not None and (not isinstance(part, int) or part in said or None in said):
            pieces = said.get(part if part in said else None) if isinstance(part, int) else None
            own = "".join(pieces if pieces is not None else (piece for one in said.values() for piece in one))
            words = "".join(self._words)
            # A rest behind which others have spoken has no place any more.
            fitting = (known for known in (own, words) if text.startswith(known) and words.endswith(known))
            if (known := next(fitting, None)) is not None and not self._is_shortened():
                self._say(delta, slot, kind, text[len(known) :], deltas, part)
            elif known is None:
                self._note_loss(text, own, words)
            return
        # Whose events lead to no item, neither by index nor by id, is known by its words alone; so is a part whose
        # deltas named another place.
        is_placed = said is None and slot is not None and (slot >= 0 or (None, kind) not in self._said)
        if is_placed or not "".join(self._words).endswith(text):
            self._say(delta, slot, kind, text, deltas, part)

    def _note_loss(self, text: str, *said: str) -> None:
        """Log that a part ended with other words than its deltas had: the pieces that were shown can't be taken back."""
        whole = "".join(text.split())
        if self._says_losses and not any(whole in "".join(words.split()) for words in said):
            self._says_losses = False  # the same words end their part and their item
            logger.warning(
                "an answer lost some of its text on the way: a part of %d characters arrived as %d",
                len(text),
                len(said[0]),
            )

    def _is_shortened(self) -> bool:
        """Return True if events are missing, by their numbers: somebody has shortened a recording.

        Its deltas are what it is meant to say. A server that loses deltas numbers those that it sends.
        """
        number = self._event.get("sequence_number")
        return isinstance(number, int) and number > self._count

    def _think(self, part: tuple[JSON, JSON], field: str, text: JSON, deltas: list[Delta]) -> None:
        """Read thinking, which is sent in parts; an empty line separates them."""
        if isinstance(text, str) and text:
            self._thoughts.setdefault(f"{part} {field}", []).append(text)
            if self._thinking_part not in (None, part):
                text = f"\n\n{text}"
            self._thinking_part = part
            deltas.append(ThinkingDelta(text, field))

    def _think_if_silent(
        self, part: tuple[JSON, JSON], field: str, told: Mapping[str, JSON], deltas: list[Delta]
    ) -> None:
        """Read what no delta has told of a part of the thinking that is done."""
        text = told.get("text")
        if not isinstance(text, str):
            return
        own = "".join(self._thoughts.get(f"{part} {field}", ()))
        if own and self._thinking_part == part and text.startswith(own) and not self._is_shortened():
            self._think(part, field, text[len(own) :], deltas)
        elif not own and text not in "".join(piece for pieces in self._thoughts.values() for piece in pieces):
            self._think(part, field, text, deltas)

    def _end_item(self, slot: int | None, item: JSON, deltas: list[Delta]) -> None:
        if not isinstance(item, dict):
            return
        kind = as_text(item.get("type")) or ""
        match kind:
            case "function_call" | "custom_tool_call":
                self._has_items = True
                if slot is not None:
                    if slot in self._early:
                        self._open_item(slot, item, deltas)
                    self._open_calls.discard(slot)
                    text = item.get("arguments" if kind == "function_call" else "input")
                    name, id = as_text(item.get("name")), as_text(item.get("call_id"))
                    deltas.append(
                        CallDone(slot, as_arguments(text), name, id, _ENDINGS.get(str(item.get("status") or ""), "cut"))
                    )
                self._keep(slot, ProviderDelta(kind, {"id": item.get("id"), "call_id": item.get("call_id")}), deltas)
            case "message":
                text, refusal = _read_parts(item, "text"), _read_parts(item, "refusal")
                self._say_if_silent(TextDelta, slot, "text", text, deltas)
                self._say_if_silent(RefusalDelta, slot, "refusal", refusal, deltas)
                self._speaking = None
                data = {"id": item.get("id"), "phase": item.get("phase"), "text": text}
                self._keep(slot, ProviderDelta(kind, data), deltas)
            case _:
                if kind == "reasoning":
                    for field, name in (("summary", "reasoning_summary"), ("content", "reasoning_text")):
                        parts = item.get(field)
                        for number, part in enumerate(parts if isinstance(parts, list) else ()):
                            if isinstance(part, dict):
                                self._think_if_silent((slot, number), name, part, deltas)
                if kind == "reasoning" or item.get("encrypted_content"):
                    self._keep(slot, ProviderDelta(kind, item), deltas)

    def _keep(self, slot: int | None, told: ProviderDelta, deltas: list[Delta]) -> None:
        """Record an item to send back, once: the server refuses a repeated item."""
        id = told.data.get("id") if isinstance(told.data, dict) else None
        names = {(name, told.kind) for name in (slot, id) if isinstance(name, int | str)}
        if self._kept.isdisjoint(names):
            deltas.append(told)
        self._kept |= names


def _read_parts(item: Mapping[str, JSON], kind: str) -> str:
    """Return the text, or the refusal, of a message."""
    found = item.get("content")
    parts = [part for part in found if isinstance(part, dict)] if isinstance(found, list) else []
    return "".join(as_text(part.get(kind)) or "" for part in parts)


def _ids(item: JSON) -> tuple[JSON, ...]:
    return (item.get("id"), item.get("call_id")) if isinstance(item, dict) else ()


def _end_response(kind: str, response: JSON, deltas: list[Delta]) -> None:
    body: Mapping[str, JSON] = response if isinstance(response, dict) else {}
    usage = body.get("usage")
    if isinstance(usage, dict):
        deltas.append(UsageDelta(read_usage(usage)))
    status = body.get("status")
    # A gateway that names every end alike still says how it was.
    end = "completed" if kind == "response.done" else kind.removeprefix("response.")
    wire = status if isinstance(status, str) and status in _BAD_ENDS else end
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
