"""The differences between Claude models, in one table.

Read in November 2026: https://platform.claude.com/docs/en/about-claude/models/overview and
https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

from flowkit.models.wire.vendors import family_of, short_name, version_of

ThinkingKind = Literal["none", "budget", "both", "adaptive"]
"""Whether a model thinks: not at all, within a budget of tokens, by an effort, or by either."""

_FOUR = ("low", "medium", "high", "max")
_FIVE = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaudeRules:
    """What one model takes.

    `max_tokens` is sent where no limit is set, since the API asks for one. `off` is the word that stops it thinking,
    None where nothing does. `sampling` is about temperature, top_p and top_k, `prefill` about a conversation that ends
    with the assistant's words, `json_schema` about an answer held to a schema.
    """

    max_tokens: int = 64_000
    thinking: ThinkingKind = "adaptive"
    efforts: tuple[str, ...] = _FIVE
    off: Literal["disabled", "between_tools"] | None = "disabled"
    sampling: bool = False
    prefill: bool = False
    json_schema: bool = True


_NEWEST = ClaudeRules()
_BOTH = ClaudeRules(thinking="both", efforts=_FOUR, sampling=True)
_BUDGET = replace(_BOTH, thinking="budget", efforts=(), prefill=True)
_OLD = replace(_BUDGET, json_schema=False)

_TABLE: tuple[tuple[str, tuple[int, int], ClaudeRules], ...] = (
    ("fable|mythos", (0, 0), replace(_NEWEST, off=None)),
    ("opus", (5, 5), replace(_NEWEST, off=None)),
    ("sonnet", (5, 5), replace(_NEWEST, off="between_tools")),
    ("", (4, 7), _NEWEST),
    ("", (4, 6), _BOTH),
    ("", (4, 5), _BUDGET),
    ("opus", (4, 1), replace(_BUDGET, max_tokens=32_000)),
    ("opus", (4, 0), replace(_OLD, max_tokens=32_000)),
    ("", (3, 7), _OLD),
    ("", (3, 5), replace(_OLD, thinking="none", max_tokens=8_192)),
    ("", (1, 0), replace(_OLD, thinking="none", max_tokens=4_096)),
)
"""Words of the name, the first version, and the rules from there on; the first row that fits counts."""

_UNKNOWN = replace(_BOTH, efforts=_FIVE, prefill=True)
"""A name that tells no version, or another vendor's model behind this API: whatever is asked for is sent."""

_OTHER_MAX_TOKENS = 16_000


def claude_rules(model: str) -> ClaudeRules:
    """Return the rules of the model with this name, with or without a prefix of a cloud or gateway.

    >>> claude_rules("us.anthropic.claude-opus-4-7-v1:0").sampling, claude_rules("claude-3-haiku-20240307").max_tokens
    (False, 4096)
    """
    if family_of(model) != "claude":
        return replace(_UNKNOWN, max_tokens=_OTHER_MAX_TOKENS)
    name, version = short_name(model), version_of(model)
    for words, first, rules in _TABLE:
        if version >= first and re.search(words, name) and (version != (0, 0) or words == "fable|mythos"):
            return rules
    return _UNKNOWN


def interleaves_by_beta(model: str) -> bool:
    """Return whether thinking between calls needs a beta flag: Claude 4.0 to 4.5; later ones do it automatically."""
    return (4, 0) <= version_of(model) <= (4, 5) and family_of(model) == "claude"
