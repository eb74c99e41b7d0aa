"""Calls that a server left in the text, for it doesn't know how its model writes them.

Local servers do that with models they know too little of. Asked for, not guessed: an answer may well speak of calls.
From the first sign of one the text is held until the answer has ended well. If all that was held is calls of tools that
the request named, it becomes these calls; if anything else stands in it, it stays the text that it was. What the user
or a tool has written doesn't become a call by being repeated, also where it stood within JSON or was indented otherwise.
"""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from flowkit.codec import JSON
from flowkit.messages import ToolMessage, UserMessage, text_of
from flowkit.models.base import CallDelta, Delta, EndDelta, FinishDelta, ModelRequest, TextDelta
from flowkit.models.wire.call_formats import SIGNS, WrittenCall, read_calls

_BARE = re.compile(r"\s*(?:```(?:json)?\s*)?([\[{])|\s*(?:`{1,2}|```(?:j|js|jso|json)?\s*)?\Z")
"""What an answer begins with that may be nothing but the JSON of a call."""
_WRITTEN_ANEW = re.compile(r"\\+(?:u([0-9a-fA-F]{4})|[nrt])?|\s+")
"""What differs where the same text stands within JSON, or within JSON in JSON, or is indented otherwise."""


async def read_text_calls(deltas: AsyncIterator[Delta], request: ModelRequest) -> AsyncGenerator[Delta, None]:
    """Yield the deltas, with calls of the request's tools in place of text that is nothing else."""
    calls = TextCalls(request)
    async for delta in deltas:
        for told in calls.feed(delta):
            yield told
    for told in calls.end():
        yield told


class TextCalls:
    """Holds text back that may be calls, and tells at the end of the answer what it was."""

    def __init__(self, request: ModelRequest) -> None:
        self._tools = {tool.name: tool for tool in request.tools}
        self._said = [text_of(message.content) for message in request.messages if isinstance(message, UserMessage)]
        self._said += [message.text for message in request.messages if isinstance(message, ToolMessage)]
        self._may_be_bare = request.output_schema is None
        self._held: list[str] = []
        self._is_holding = False
        self._is_over = False

    def feed(self, delta: Delta) -> list[Delta]:
        """Return the deltas that are certain by now."""
        match delta:
            case TextDelta(choice=0, text=text) if not self._is_over:
                return self._take(text)
            case CallDelta(choice=0):
                # The server knows its model's calls, so what stands in the text is text.
                return [*self.end(), delta]
            case FinishDelta(choice=0, reason="stop" | "tool_calls") | EndDelta():
                return [*self._read_held(), delta]
            case FinishDelta(choice=0):
                return [*self.end(), delta]
            case _:
                return [delta]

    def end(self) -> list[Delta]:
        """Return the rest as text, since the answer broke off."""
        held, self._held = "".join(self._held), []
        self._is_over = True
        return [TextDelta(held)] if held else []

    def _take(self, text: str) -> list[Delta]:
        self._held.append(text)
        if self._is_holding or (self._may_be_bare and text.isspace()):
            return []
        text = "".join(self._held)
        if self._may_be_bare and (bare := _BARE.match(text)):
            self._is_holding = bare[1] is not None
            return []
        self._may_be_bare = False
        start = min((place for sign in SIGNS if (place := text.find(sign)) >= 0), default=None)
        self._is_holding = start is not None
        if start is None:
            start = len(text) - _length_of_beginning(text)
        self._held = [text[start:]]
        return [TextDelta(text[:start])] if start else []

    def _read_held(self) -> list[Delta]:
        calls = read_calls("".join(self._held), self._tools)
        if not calls or self._is_repeated(calls):
            return self.end()
        try:
            deltas: list[Delta] = [
                CallDelta(slot=slot, name=call.name, arguments=_write(call.arguments))
                for slot, call in enumerate(calls)
            ]
        except ValueError:
            return self.end()
        self._held = []
        return deltas

    def _is_repeated(self, calls: Sequence[WrittenCall]) -> bool:
        """Return whether the user or a tool has written one of them."""
        sources = [_squeeze(call.source) for call in calls]
        return any(source in said for said in map(_squeeze, self._said) for source in sources)


def _write(arguments: dict[str, JSON]) -> str:
    """Write the JSON text; raises `ValueError` for NaN and for half a character, which must not become another."""
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    text.encode()
    return text


def _squeeze(text: str) -> str:
    """Normalize the text for comparison: without blanks and escapes."""
    return _WRITTEN_ANEW.sub(lambda found: chr(int(found[1], 16)) if found[1] else "", text)


def _length_of_beginning(text: str) -> int:
    """Return how many characters at the end may begin a sign."""
    longest = max(map(len, SIGNS)) - 1
    return next(
        (size for size in range(min(longest, len(text)), 0, -1) if any(s.startswith(text[-size:]) for s in SIGNS)), 0
    )
