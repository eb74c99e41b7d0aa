"""Parse calls that well-known models write as text.

Each model family was trained on its own format: JSON after a marker, tags around names and values, or a name and JSON.
A format is recognised by the text and not by the model's name, which servers choose freely.

Extract calls that a server left in the text because it doesn't know its model's format.

Local servers do that with models they know too little of. Asked for, not guessed: an answer may well speak of calls.
From the first sign of one the text is held until the answer has ended well. If all that was held is calls of tools that
the request named, it becomes these calls; if anything else stands in it, it stays the text that it was. What the user
or a tool has written doesn't become a call by being repeated, also where it stood within JSON or was indented otherwise.
"""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import NamedTuple, cast

from flowkit.codec import JSON, dumps, loads
from flowkit.messages import ToolMessage, ToolSpec, UserMessage, text_of
from flowkit.models.base import CallDelta, Delta, EndDelta, FinishDelta, ModelRequest, TextDelta

SIGNS = (
    "<tool_call",
    "<|tool_call",
    "<｜tool▁call",
    "<｜DSML｜",
    "[TOOL_CALLS]",
    "<function=",
    "<|python_tag|>",
    "functools[",
)
"""How the calls of well-known models begin."""
_AROUND = re.compile(
    r"\s+|[,;]|</?tool_calls?>|<\|tool_calls?(?:_[a-z_]+)?\|>|<\|/tool_call\|>|<｜tool▁[^｜]*｜>|</?｜DSML｜\w+>|"
    r"\[/?TOOL_CALLS\]|\[ARGS\]|<\|python_tag\|>|functools(?=\[)|```(?:json)?|<\|(?:eom_id|eot_id|im_end)\|>"
)
"""What stands around calls and between them."""
_NAME = re.compile(r"(?:functions\.)?([\w.-]+)(?::\d+)?(?=\s*[\[<{\n])")
# Atomic groups: where the end of a value is missing, the search for it isn't begun again at each end of a key.
_PAIR = re.compile(r"\s*<arg_key>(?>(.*?)</arg_key>)\s*<arg_value>(?>(.*?)</arg_value>)\s*", re.DOTALL)
_TAGGED = re.compile(
    r"<function=([^>\s]+)>(.*?)</function>|<｜DSML｜invoke name=\"([^\"]+)\">(.*?)</｜DSML｜invoke>", re.DOTALL
)
_PARAMETER = re.compile(
    r"\s*(?:<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>|"
    r"<｜DSML｜parameter name=\"([^\"]+)\"[^>]*>(.*?)</｜DSML｜parameter>)\s*",
    re.DOTALL,
)
_DECODER = json.JSONDecoder(strict=False)


class WrittenCall(NamedTuple):
    """A call written in a text; `source` is its piece of the text."""

    name: str
    arguments: dict[str, JSON]
    source: str


def read_calls(text: str, tools: Mapping[str, ToolSpec]) -> list[WrittenCall]:
    """Read the text as calls of these tools; an empty result if it contains anything else."""
    calls: list[WrittenCall] = []
    named: tuple[str, int] | None = None  # a name whose arguments follow, and where it stands
    place = 0
    while place < len(text):
        start = place
        if around := _AROUND.match(text, place):
            place = around.end()
            if named is not None and around[0] == "</tool_call>":
                # With its end: a name alone is what anybody says.
                calls.append(WrittenCall(named[0], {}, text[named[1] : place]))
                named = None
        elif tagged := _TAGGED.match(text, place):
            place = tagged.end()
            name, body = tagged[1] or tagged[3], tagged[2] or tagged[4] or ""
            pairs = _split_pairs(_PARAMETER, body)
            if pairs is None:
                return []
            calls.append(WrittenCall(name, _read_pairs(pairs, tools.get(name)), tagged[0]))
        elif named is not None and text.startswith("<arg_key>", place):
            end = text.find("</tool_call>", place)
            pairs = None if end < 0 else _split_pairs(_PAIR, text[place:end])
            if pairs is None:
                return []
            calls.append(WrittenCall(named[0], _read_pairs(pairs, tools.get(named[0])), text[named[1] : end]))
            place, named = end, None
        elif text[place] in "{[":
            try:
                value, place = _DECODER.raw_decode(text, place)
            except (ValueError, RecursionError):
                return []
            if named is not None:
                value, named, start = {"name": named[0], "arguments": value}, None, named[1]
            calls += _read_json(value, text[start:place])
        elif (named is None or named[0] == "function") and (word := _NAME.match(text, place)):
            # DeepSeek's older models put the kind of the call before its name.
            named, place = (word[1], start), word.end()
        else:
            return []
    return calls if named is None and all(call.name in tools for call in calls) else []


def _read_json(value: JSON, source: str) -> list[WrittenCall]:
    """Read the calls in a JSON object, or in a list of them."""
    if isinstance(value, list):
        # Each with a text of its own: one of them may have been written by others.
        return [_read_entry(item, json.dumps(item, ensure_ascii=False)) for item in value]
    return [_read_entry(value, source)]


def _read_entry(value: JSON, source: str) -> WrittenCall:
    """Read one call; anything else becomes a call of no tool."""
    entry = value if isinstance(value, dict) else {}
    arguments = entry.get("arguments", entry.get("parameters"))
    if isinstance(arguments, str):
        arguments = _read_value(arguments, None)
    is_call = entry.keys() <= {"name", "arguments", "parameters", "id", "type"} and isinstance(arguments, dict)
    return WrittenCall(str(entry.get("name")) if is_call else "", cast(dict[str, JSON], arguments), source)


def _split_pairs(pattern: re.Pattern[str], text: str) -> list[tuple[str, str]] | None:
    """Split the text into names and values; None if it contains anything else."""
    pairs: list[tuple[str, str]] = []
    place = 0
    while place < len(text):
        found = pattern.match(text, place)
        if found is None:
            # Also for blanks alone, which a call without arguments holds.
            return pairs if text[place:].isspace() else None
        name, value, *_ = (group for group in found.groups() if group is not None)
        pairs.append((name, value))
        place = found.end()
    return pairs


def _read_pairs(pairs: Sequence[tuple[str, str]], tool: ToolSpec | None) -> dict[str, JSON]:
    """Read arguments given as text: as JSON, except where the tool takes a string."""
    properties = None if tool is None else tool.parameters.get("properties")
    schemas = properties if isinstance(properties, dict) else {}
    return {name: _read_value(text, schemas.get(name)) for name, text in pairs}


def _read_value(text: str, schema: JSON) -> JSON:
    if b'"string"' in dumps(schema):
        return text
    try:
        return loads(text)
    except ValueError:
        return text


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
    """Return how many characters at the end could begin a marker."""
    longest = max(map(len, SIGNS)) - 1
    return next(
        (size for size in range(min(longest, len(text)), 0, -1) if any(s.startswith(text[-size:]) for s in SIGNS)), 0
    )
