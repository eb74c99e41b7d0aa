"""A recorded body, read as a model's answer."""

from collections.abc import Sequence
from itertools import pairwise

from flowkit.assemble import Assembler, Turn
from flowkit.models.wire.anthropic import AnthropicReader
from flowkit.models.wire.chat import ChatReader
from flowkit.models.wire.responses import ResponsesReader


def read_turn(body: bytes, *, api: str, cuts: Sequence[int] = ()) -> Turn:
    """Read the turn in this body, cut into pieces at these places.

    `api` is `"chat"`, `"responses"` or `"anthropic"`. Names and calls are unchanged, but each call has an id of its own.
    """
    match api:
        case "chat":
            reader = ChatReader()
        case "responses":
            reader = ResponsesReader()
        case "anthropic":
            reader = AnthropicReader()
        case _:
            raise ValueError(f"'api' is {api!r}, expected 'chat', 'responses' or 'anthropic'")
    assembler = Assembler()
    for start, end in pairwise((0, *sorted(cuts), len(body))):
        for delta in reader.feed(body[start:end]):
            assembler.feed(delta)
    for delta in reader.end():
        assembler.feed(delta)
    assembler.end()
    return assembler.turn
