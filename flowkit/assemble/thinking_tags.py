"""Thinking that a server leaves in the text, between `<think>` and `</think>`.

Asked for, not guessed: an answer may well speak of these tags. The opening tag counts only where nothing but blanks
came before. Some chat templates put it into the prompt, so that only the closing tag arrives: then all that came
before was thinking, though it has already been shown as text.
"""

from typing import Literal, NamedTuple

OPENING, CLOSING = "<think>", "</think>"


class Piece(NamedTuple):
    """A piece of text or thinking; `retract` says that all text before it was thinking."""

    kind: Literal["text", "thinking", "retract"]
    text: str


class TagSplitter:
    """Tells thinking from text while it comes, whatever cuts the tags."""

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
        """Return what was held back, and turned out to be no tag."""
        held = self._held
        self._held = ""
        return [Piece("thinking" if self._state == "thinking" else "text", held)] if held else []


def _held_back(text: str) -> int:
    """Return how many characters at the end might begin a closing tag."""
    for length in range(min(len(CLOSING) - 1, len(text)), 0, -1):
        if CLOSING.startswith(text[-length:]):
            return length
    return 0
