"""Deltas in, sealed calls out: the one place that decides when a call may run.

Hard signals seal a call: the wire's own word that it is whole, and an end of turn that is `stop` or `tool_calls`, in
the words of any interface. The end of a call's arguments seals it if they are an object that isn't empty. The body's end
mark seals the calls whose JSON is valid. After any other end (`length`, `content_filter`, an error, a body that just
ends) the calls that aren't sealed are void, whatever they parse to; a reason that isn't known is an error where a call is
open. `CallReady` is a soft signal and seals nothing.

Always true: a call that was opened is sealed or voided once, and nothing changes it afterwards; cutting the same body
elsewhere gives the same turn; time is linear in the body. Pure: no clock, no tasks, nothing waits.

Thinking that a server leaves in the text, between `<think>` and `</think>`.

Asked for, not guessed: an answer may well speak of these tags. The opening tag counts only where nothing but blanks
came before. Some chat templates put it into the prompt, so that only the closing tag arrives: then all that came
before was thinking, though it has already been shown as text.
"""

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple, assert_never

from flowkit.assemble.arguments_text import read_fragments, read_object
from flowkit.assemble.calls import MAY_CLOSE, TOO_MANY, CallBook, GrowingCall, MergedDetails
from flowkit.assemble.parts import CallFragment, CallReady, Part, Turn
from flowkit.assemble.sealing import Sealer, show
from flowkit.errors import ModelError, StreamError, StreamTruncated
from flowkit.messages import FinishReason, Usage
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
from flowkit.models.wire.call_formats import SIGNS

OPENING, CLOSING = "<think>", "</think>"


class Piece(NamedTuple):
    """A piece of text or thinking; with `retract`, all text before it was thinking."""

    kind: Literal["text", "thinking", "retract"]
    text: str


class TagSplitter:
    """Separate thinking from text as it arrives; tags can be cut anywhere."""

    __slots__ = ("_held", "_state")

    def __init__(self) -> None:
        self._held: str = ""  # might be the beginning of a tag
        self._state: Literal["start", "thinking", "behind", "text", "answer"] = "start"

    def feed(self, text: str) -> list[Piece]:
        """Return the pieces that are certain by now; the beginning of a tag is held back."""
        pieces: list[Piece] = []
        text = self._held + text
        self._held = ""
        if self._state == "start":
            begun = text.lstrip()
            if begun.startswith(OPENING):
                self._state = "thinking"
                text = begun[len(OPENING) :]
            elif OPENING.startswith(begun):
                self._held = text
                return pieces
            else:
                self._state = "text"
        if self._state in ("thinking", "text"):
            before, tag, after = text.partition(CLOSING)
            if not tag:
                held = _held_back(text)
                self._held = text[len(text) - held :]
                before = text[: len(text) - held]
            if before:
                pieces.append(Piece("thinking" if self._state == "thinking" else "text", before))
            if not tag:
                return pieces
            if self._state == "text":
                pieces.append(Piece("retract", ""))
            self._state = "behind"
            text = after
        if self._state == "behind":
            text = text.lstrip()
            if text:
                self._state = "answer"
        if text:
            pieces.append(Piece("text", text))
        return pieces

    def end(self) -> list[Piece]:
        """Return held-back text that turned out to be no tag."""
        held = self._held
        self._held = ""
        return [Piece("thinking" if self._state == "thinking" else "text", held)] if held else []


def _held_back(text: str) -> int:
    """Return how many characters at the end could begin a closing tag."""
    for length in range(min(len(CLOSING) - 1, len(text)), 0, -1):
        if CLOSING.startswith(text[-length:]):
            return length
    return 0


_GOOD: tuple[FinishReason, ...] = ("stop", "tool_calls")

_REPLAYED = ("reasoning_content", "reasoning")
"""Fields of thinking that some servers want back: DeepSeek and Kimi answer 400 to a history without theirs."""


class Assembler:
    """Reads one answer; of several choices only the first counts.

    `known_names` are the names that were sent to the model: with them, names are cleaned and parallel wrappers opened.
    `taken` are ids of earlier turns, which a new call must not reuse.
    """

    def __init__(
        self, known_names: Collection[str] = (), think_tags: bool = False, *, taken: Collection[str] = ()
    ) -> None:
        self._tags = TagSplitter() if think_tags else None
        self._book = CallBook()
        self._sealer = Sealer(self._book, known_names, taken)
        self._text: list[str] = []
        self._thinking: list[str] = []
        self._thinking_field = ""
        self._refusal: list[str] = []
        self._details: MergedDetails | None = None
        self._provider: list[ProviderDelta] = []
        self._usage: Usage | None = None
        self._finish: FinishDelta | None = None
        self._error: ModelError | None = None
        self._has_end_mark = False
        self._last_choice = 0
        self._has_bare_error = False  # a reason may come behind the word `error`

    def feed(self, delta: Delta) -> list[Part]:
        """Read a delta; return the parts that it completes."""
        match delta:
            case TextDelta():
                if delta.choice:
                    return self._ignore(delta.choice)
                if self._tags is not None:
                    return self._take_pieces(self._tags.feed(delta.text))
                self._text.append(delta.text)
                return [delta]
            case CallDelta():
                return self._ignore(delta.choice) if delta.choice else self._take_call(delta)
            case ThinkingDelta():
                if delta.choice:
                    return self._ignore(delta.choice)
                self._thinking_field = self._thinking_field or delta.field
                self._thinking.append(delta.text)
                return [delta]
            case CallDone():
                return self._take_done(delta)
            case ProviderDelta():
                self._take_provider(delta)
                return []
            case UsageDelta():
                self._usage = delta.usage
                return [delta]
            case FinishDelta():
                return self._ignore(delta.choice) if delta.choice else self._take_finish(delta)
            case RefusalDelta():
                if delta.choice:
                    return self._ignore(delta.choice)
                self._refusal.append(delta.text)
                return [delta]
            case ErrorDelta():
                return self._break(delta.error)
            case EndDelta():
                return self._take_end_mark()
            case _:
                assert_never(delta)

    def end(self, error: ModelError | None = None) -> list[Part]:
        """End the body, or break it off with `error`; open calls can no longer be sealed, so they are void."""
        parts: list[Part] = []
        if self._tags is not None:
            parts += self._take_pieces(self._tags.end())
        if error is None and self._finish is None:
            if not self._has_end_mark:
                error = StreamTruncated("the answer ended with neither a finish reason nor an end mark", retryable=True)
            elif not (self._book.calls or self._refusal or "".join(self._text).strip()):
                error = StreamTruncated("the answer ended with neither a finish reason nor a word", retryable=True)
        if error is not None:
            parts += self._break(error)
        return parts + self._sealer.void_all(self._say_why())

    @property
    def turn(self) -> Turn:
        """The answer so far."""
        text, thinking = "".join(self._text), "".join(self._thinking)
        calls = tuple(map(show, self._book.calls))
        finish = self._finish
        leaked = None
        if not calls:
            leaked = next((sign for sign in SIGNS if sign in text or sign in thinking), None)
        return Turn(
            text=text,
            thinking=thinking,
            refusal="".join(self._refusal),
            calls=calls,
            finish_reason=None if finish is None else finish.wire or finish.reason,
            reason=self._reason,
            usage=self._usage,
            error=self._error,
            complete=self._is_complete,
            provider=self._list_provider(),
            thinking_field=self._thinking_field if self._thinking_field in _REPLAYED else None,
            leaked=leaked,
            ignored_choices=self._last_choice,
        )

    @property
    def _reason(self) -> FinishReason:
        finish = self._finish
        if self._error is not None and (finish is None or finish.reason != "unknown"):
            return "error"
        return "unknown" if finish is None else finish.reason

    @property
    def _is_complete(self) -> bool:
        calls = self._book.calls
        if self._error is not None or any(call.state in ("open", "void") for call in calls):
            return False
        if self._finish is not None:
            return True
        return self._has_end_mark and bool(calls) and all(call.arguments for call in calls)

    def _ignore(self, choice: int) -> list[Part]:
        """Ignore choices other than the first; the turn reports that there were some."""
        self._last_choice = max(self._last_choice, choice)
        return []

    def _take_call(self, delta: CallDelta) -> list[Part]:
        call = self._book.find(delta)
        fragment = delta.arguments
        # Nothing but more of the arguments: nearly every fragment, so it is the short way.
        if (
            call is not None
            and call.opened
            and call.state == "open"
            and fragment
            and delta.id is delta.name is delta.provider is None
            and not delta.custom
        ):
            call.grow(fragment)
            parts: list[Part] = [CallFragment(call.index, fragment)]
            if "}" in fragment and fragment[-1] in MAY_CLOSE:
                self._look_if_closed(call, parts)
            return parts
        parts = []
        if call is None:
            if not self._book.has_room():
                return self._break(StreamError(TOO_MANY))
            for other in self._book.calls[-1:]:
                self._sealer.open(other, parts)  # a call without arguments isn't opened by a fragment
            call = self._book.add(delta.slot)
        elif call.state != "open":
            return parts
        call.accept(delta)
        if delta.id is not None:
            self._book.note_id(call, delta.id)
        if delta.arguments and call.opened:
            parts.append(CallFragment(call.index, delta.arguments))
        elif call.fragments:
            self._sealer.open(call, parts)
        if call.opened and call.fragments:
            self._look_if_closed(call, parts)
        return parts

    def _look_if_closed(self, call: GrowingCall, parts: list[Part]) -> None:
        """Add that the call's arguments have just become a whole object, if they have."""
        arguments = call.read_if_just_closed()
        if arguments is not None:
            parts.append(CallReady(call.index, call.name, arguments))

    def _take_done(self, done: CallDone) -> list[Part]:
        parts: list[Part] = []
        call = self._book.at(done.slot)
        if call is None and done.name is not None:
            if not self._book.has_room():
                return self._break(StreamError(TOO_MANY))
            call = self._book.add(done.slot)
        if call is None or call.state != "open" or self._error is not None:
            return parts
        call.accept(CallDelta(id=done.id, name=done.name))
        if done.arguments is not None:
            if not call.fragments:
                call.accept(CallDelta(arguments=done.arguments))
                self._sealer.open(call, parts)
            elif call.custom or read_object(done.arguments) is not None:
                self._sealer.open(call, parts)
                call.fragments = [done.arguments]
        if done.ending == "cut":
            self._sealer.void(call, "the answer was cut off inside this call", parts)
        elif done.ending == "completed" or (
            call.name and not call.custom and read_object("".join(call.fragments))  # its name may come with the item
        ):
            self._sealer.seal(call, parts)
        return parts

    def _take_finish(self, finish: FinishDelta) -> list[Part]:
        """Take the first finish reason; a repeated one seals or voids calls that arrived since."""
        if self._finish is None:
            self._finish = finish
            word = finish.wire or finish.reason
            if finish.reason == "error" and self._error is None:
                self._has_bare_error = True
                return self._break(StreamError(f"the server ended the answer with {word!r}", retryable=True))
            if finish.reason == "unknown" and word != "incomplete" and self._book.open_calls():
                return self._break(StreamError(f"the answer ended inside a tool call, with a word not known: {word!r}"))
        is_good = self._error is None and finish.reason in _GOOD and self._finish.reason in _GOOD
        return self._sealer.seal_all() if is_good else self._sealer.void_all(self._say_why())

    def _take_end_mark(self) -> list[Part]:
        parts: list[Part] = []
        self._has_end_mark = True
        if self._error is not None or (self._finish is not None and self._finish.reason not in _GOOD):
            return parts
        for call in self._book.open_calls():
            if call.custom or read_fragments(call.fragments)[0].arguments is not None:
                self._sealer.seal(call, parts)
        if self._finish is None and self._book.open_calls():
            parts += self._break(StreamTruncated("the answer ended inside a tool call", retryable=True))
        return parts

    def _break(self, error: ModelError) -> list[Part]:
        """Break off the answer, unless it is already complete."""
        if (self._error is not None and not self._has_bare_error) or (
            self._finish is not None and self._finish.reason in _GOOD
        ):
            return []
        self._has_bare_error = self._has_bare_error and self._error is None
        self._error = error
        return self._sealer.void_all(str(error))

    def _say_why(self) -> str:
        if self._error is not None:
            return str(self._error)
        if self._finish is None:
            return "the answer had already ended"
        return f"the answer ended with {self._finish.wire or self._finish.reason!r} before this call did"

    def _take_provider(self, delta: ProviderDelta) -> None:
        if delta.kind == "reasoning_details" and isinstance(delta.data, list):
            if self._details is None:
                self._details = MergedDetails()
            self._details.add(delta.data)
        else:
            self._provider.append(delta)

    def _list_provider(self) -> tuple[ProviderDelta, ...]:
        if self._details is None:
            return tuple(self._provider)
        return (ProviderDelta("reasoning_details", self._details.to_json()), *self._provider)

    def _take_pieces(self, pieces: Sequence[Piece]) -> list[Part]:
        parts: list[Part] = []
        for kind, text in pieces:
            match kind:
                case "text":
                    self._text.append(text)
                    parts.append(TextDelta(text))
                case "thinking":
                    self._thinking.append(text)
                    parts.append(ThinkingDelta(text, "content"))
                case "retract":
                    self._thinking += self._text
                    self._text = []
                case _:
                    assert_never(kind)
        return parts
