"""The text formats in which well-known models write calls: text in, calls out.

Each model family was trained on its own format: JSON after a marker, tags around names and values, or a name and JSON.
A format is recognised by the text and not by the model's name, which servers choose freely.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from flowkit.codec import JSON, dumps, loads
from flowkit.messages import ToolSpec

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
    """A call that stands in a text; `source` is the piece of the text that says it."""

    name: str
    arguments: dict[str, JSON]
    source: str


def read_calls(text: str, tools: Mapping[str, ToolSpec]) -> list[WrittenCall]:
    """Read the text as calls of these tools; none when anything else stands in it."""
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
    """Split the text into names and values; None when anything else stands in it."""
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
    """Read arguments that come as text: as JSON, except where the tool takes a text."""
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
