"""The JSON in an answer, with whatever words, fences and thinking stand around it."""

import json
import re
from collections.abc import Iterator
from typing import cast

from flowkit.codec import JSON

MAX_TRIES = 64
"""At how many brackets of one text JSON is looked for; each try may read to the text's end."""

_OPENING = re.compile(r"\s*<(think|thinking|thought|reasoning)>", re.IGNORECASE)
_CLOSING = re.compile(r"</(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n(.*?)\n?\s*```", re.DOTALL)
_BEGINNING = re.compile(r"[{\[]")
_DECODER = json.JSONDecoder()


def drop_thinking(text: str) -> str:
    """Return the text after tagged thinking; some chat templates write the opening tag, so only the closing one comes.

    >>> drop_thinking('<think>one or two?</think>{"count": 1}')
    '{"count": 1}'
    """
    pieces = _CLOSING.split(text)
    if len(pieces) > 1:
        return pieces[-1]
    return "" if _OPENING.match(text) else text


def find_json(text: str) -> Iterator[str]:
    """Find the JSON objects and lists in a text: the outermost ones, and what stands alone in a code fence."""
    place, tries = 0, 0
    while tries < MAX_TRIES and (found := _BEGINNING.search(text, place)):
        tries += 1
        try:
            _, end = cast("tuple[JSON, int]", _DECODER.raw_decode(text, found.start()))
        except (ValueError, RecursionError):
            place = found.end()
            continue
        yield text[found.start() : end]
        place = end
    for fenced in _FENCE.finditer(text):
        yield fenced[1]
