"""Where a request marks what the server may keep: prompt-cache breakpoints of the Messages API.

The cache matches from the front, in the order tools, instructions, messages, so a mark at the end of the instructions
holds the tools, too, and one at the end of the last message holds all of the conversation for the next turn. A mark
finds what was kept up to 20 blocks before it: a turn with more blocks gets further marks.
https://platform.claude.com/docs/en/build-with-claude/prompt-caching
"""

from typing import Literal, cast

from flowkit.codec import JSON

MOST_BREAKPOINTS = 4
"""More are refused."""

STEP_BLOCKS = 15
"""How far marks stand apart: with room to spare within the 20 blocks that a mark looks back."""

_UNMARKED = ("thinking", "redacted_thinking")
"""Blocks that take no mark; text that says nothing doesn't, either."""

Block = dict[str, JSON]


def place_breakpoints(body: dict[str, JSON], ttl: Literal["5m", "1h"]) -> dict[str, JSON]:
    """Place cache marks in the body; a user's own marks count, and no more are added than fit."""
    mark: Block = {"type": "ephemeral"} if ttl == "5m" else {"type": "ephemeral", "ttl": ttl}
    left = MOST_BREAKPOINTS - _count_marks(body)
    body = dict(body)
    for place in ("system", "tools"):
        blocks = body.get(place)
        if isinstance(blocks, list) and blocks and left > 0:
            if not any(_is_marked(block) for block in blocks):
                body[place] = [*blocks[:-1], {**cast(Block, blocks[-1]), "cache_control": mark}]
                left -= 1
            break
    messages = body.get("messages")
    if left > 0 and isinstance(messages, list):
        body["messages"] = _mark_messages(cast(list[Block], messages), mark, left)
    return body


def _mark_messages(messages: list[Block], mark: Block, left: int) -> JSON:
    """Mark the last block, and back from there one in every `STEP_BLOCKS` of what this turn added."""
    flat = [
        (number, position)
        for number, message in enumerate(messages)
        for position in range(len(cast(list[Block], message["content"])))
    ]
    added = len(flat) - _count_kept(messages)
    marked: set[tuple[int, int]] = set()
    distance = 0
    while distance < max(added, 1) and left > 0:
        # The block itself, or the nearest before it that takes a mark.
        place = next((place for place in reversed(flat[: len(flat) - distance]) if _takes_mark(messages, place)), None)
        if place is None:
            break
        if place not in marked:
            marked.add(place)
            left -= 1
        distance += STEP_BLOCKS
    return [
        {
            **message,
            "content": [
                {**block, "cache_control": mark} if (number, position) in marked else block
                for position, block in enumerate(cast(list[Block], message["content"]))
            ],
        }
        for number, message in enumerate(messages)
    ]


def _count_kept(messages: list[Block]) -> int:
    """Count the blocks of the request before this one: those up to the user's message before the last."""
    users = [number for number, message in enumerate(messages) if message["role"] == "user"]
    if len(users) < 2:
        return 0
    return sum(len(cast(list[Block], message["content"])) for message in messages[: users[-2] + 1])


def _takes_mark(messages: list[Block], place: tuple[int, int]) -> bool:
    number, position = place
    block = cast(list[Block], messages[number]["content"])[position]
    return block["type"] not in _UNMARKED and not (block["type"] == "text" and not str(block["text"]).strip())


def _count_marks(body: Block) -> int:
    """Count the marks in the body; a schema or an argument of that name is none."""
    messages = body.get("messages")
    rows = [body.get("system"), body.get("tools")]
    rows += [message["content"] for message in cast(list[Block], messages)] if isinstance(messages, list) else []
    return sum(_is_marked(block) for row in rows if isinstance(row, list) for block in row)


def _is_marked(block: JSON) -> bool:
    return isinstance(block, dict) and "cache_control" in block
