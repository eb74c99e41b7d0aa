"""Choose the tools for a request, since the demo model is too small to choose.

A request is split into parts with one task each. For each part, sentence embeddings compare the tools' descriptions
and the requests quoted in them. A tool with a required argument that the request lacks is less likely; one that can
use the request's numbers and codes is likelier. A part that is similar to no tool, or much more similar to a general
request to an assistant, is beyond the tools.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from flowkit.messages import ToolSpec
from flowkit.models.offline.declining import leave_declined_out, only_asks_about
from flowkit.models.offline.embeddings import SentenceEmbedder
from flowkit.models.offline.grounding import Grounded, Rank, ground
from flowkit.models.offline.korean import count_called_for, find_pairs, is_korean, split_korean
from flowkit.models.offline.korean_times import normalise
from flowkit.models.offline.moods import is_reading, wants_a_deed, wants_to_know
from flowkit.models.offline.request_phrases import VERBS

LACKING = 0.12
"""How much likelier a tool must be that lacks something that the request doesn't say."""
VALUE = 0.08
"""How much a tool gains that has a use for a number, a code or a date of the request, for each up to two."""
CODE = 0.06
"""How much more a tool gains that takes a code of the request, as "HC-2040": other tools leave it unused."""
MOOD = 0.1
"""How much a tool loses that only reads where something is to be done, or does something where it is only asked."""
SHARED = 0.05
"""How much a tool gains for each pair of syllables that a Korean request has from its description, up to three.

A pair that more tools have counts less.
"""
CALLED_FOR = 0.12
"""How much a tool gains for each word of its name that a Korean request calls for, up to three."""
LEAST_SCORE = 0.22
"""What the best tool must reach; a part whose best tool stays below is beyond the tools."""
LEAST_SCORE_WITH_VALUES = 0.15
"""What suffices for a tool that has a use for a number, a code or a date of the part."""
SURE_SCORE = 0.35
"""From here on a tool is meant, whatever else the part is like."""
BEYOND_MARGIN = 0.15
"""How much more a part must be like a request of `_ELSEWHERE` than like its best tool to be beyond the tools."""
SURELY_ELSEWHERE = 0.5
"""How much a part must be like a request of `_ELSEWHERE` for a tool to be given up that quotes no requests."""
_ELSEWHERE = (
    "How is the weather?",
    "Play some music",
    "Set an alarm",
    "Translate this sentence",
    "Tell me a joke",
    "Book a flight or a hotel",
    "Order some food",
    "Call somebody",
    "What is the capital of a country?",
    "Turn off the lights",
    "What time is it?",
    "What is in the news?",
    "Where is my order?",
    "How much is this product?",
    "Write a poem",
    "Call a taxi",
    "Who was that person?",
    "What is the exchange rate or the share price?",
    "Recommend a restaurant",
    "Make an appointment",
    "Is there parking?",
    "When are you open?",
    "When is the last train?",
    "What are the rules?",
    "How long does it take?",
)
"""What assistants are asked for in general; a tool that does one of these is as like the request as the line is."""
_SPLIT = re.compile(
    r"\s*(?:[,;.?!]\s+|\s)(?:and then|and also|and|then|also)\s+|\s*[;.?!,]+(?:\s+|\Z)|\n+", re.IGNORECASE
)
_WANTS = re.compile(
    r"(?:please\s+|can you\s+|could you\s+|i (?:want|would like|need) (?:you )?to\s+|i'd like to\s+)?"
    r"(?:what|where|when|how|who|why|which|is|am|are|can|could|does|do|will|should|get|give|cancel|"
    + "|".join(sorted(VERBS))
    + r")\b",
    re.IGNORECASE,
)
_SMALL_TALK = re.compile(
    r"\W*(?:hi|hello|hey|good (?:morning|afternoon|evening)|thanks|thank you|bye|goodbye|ok|okay|help|안녕|안녕하세요|"
    r"감사합니다|고마워요?|how are you|who are you|what are you|what is this|what can (?:you do|i ask)(?: you)?|"
    r"what do you do|how does this work)(?: there| a lot| very much| so much| for me)?\W*",
    re.IGNORECASE,
)
_QUOTED = re.compile(r'"([^"]{3,120})"')
_CODE = re.compile(r"\b[A-Z]{1,6}-?\d+\b|(?<!\w)\d[\d.,]*(?!\w)")


@dataclass(frozen=True, slots=True)
class ChosenTool:
    """A tool for one part of a request, with the arguments that the part allows."""

    part: str
    tool: ToolSpec
    grounded: Grounded
    score: float = 1.0
    """How likely the tool is: its likeness to the part, with what its values and words add."""


@dataclass(frozen=True, slots=True)
class Choices:
    """The result for a request: calls, tools that lack an argument, and the parts that no tool serves, verbatim.

    `declined` are the parts that forbid something.
    """

    calls: list[ChosenTool]
    missing: list[ChosenTool]
    beyond: list[str]
    declined: list[str]


def choose_calls(embedder: SentenceEmbedder, request: str, tools: Sequence[ToolSpec], now: datetime) -> Choices:
    """Choose a tool for each part of the request, or report a missing argument or that no tool serves the part.

    Relative days and hours in a Korean request are counted from `now`.
    """
    request, declined = leave_declined_out(request)
    if not request.strip():
        return Choices([], [], [], declined)
    said = split(request)
    if is_korean(request):
        request = normalise(request, now)
    told = [describe(spec) for spec in tools]
    chosen: dict[tuple[str, str], ChosenTool] = {}
    missing: dict[str, ChosenTool] = {}
    beyond: list[str] = []

    def rank(description: str, texts: Sequence[str]) -> Sequence[str]:
        (likeness,) = _compare(embedder, description, [texts])
        return [text for _, text in sorted(zip(likeness, texts, strict=True), key=lambda pair: -pair[0])]

    parts = split(request)
    if len(said) != len(parts):
        said = parts  # figures in place of words moved a seam
    for part, in_their_words in zip(parts, said, strict=True):
        *likeness, elsewhere = (max(row) for row in _compare(embedder, leave_codes_out(part), [*told, _ELSEWHERE]))
        choice = choose_tool(part, request, tools, likeness, rank)
        if is_beyond(choice, elsewhere) or only_asks_about(part, choice.tool):
            beyond.append(in_their_words)
        elif choice.grounded.missing:
            missing.setdefault(choice.tool.name, choice)
        else:
            chosen.setdefault((choice.tool.name, str(choice.grounded.schema)), choice)
    names = {name for name, _ in chosen}
    return Choices(
        list(chosen.values()), [choice for name, choice in missing.items() if name not in names], beyond, declined
    )


def is_beyond(choice: ChosenTool, elsewhere: float) -> bool:
    """Return whether not even the best tool serves its part; `elsewhere` is the part's likeness to other requests."""
    if len(describe(choice.tool)) == 1:
        # A request is little like a bare description, also of the tool that it means: README's get_stock has 0.20.
        return choice.score < LEAST_SCORE and elsewhere > SURELY_ELSEWHERE
    if choice.grounded.values:
        return choice.score < LEAST_SCORE_WITH_VALUES
    return choice.score < LEAST_SCORE or choice.score < min(SURE_SCORE, elsewhere - BEYOND_MARGIN)


def split(request: str) -> list[str]:
    """Split the request into parts with one task each; a piece without a task joins the previous part.

    >>> split("Where is my order ORD-1002, and what does it cost to send 2 kg to Busan?")
    ['Where is my order ORD-1002', 'what does it cost to send 2 kg to Busan']
    """
    if is_korean(request):
        return split_korean(request)
    parts: list[str] = []
    position = 0
    for match in _SPLIT.finditer(request + "\n"):
        piece = request[position : match.start()]
        if parts and not _WANTS.match(piece.strip()):
            parts[-1] = request[request.rindex(parts[-1]) : match.start()]
        elif piece.strip():
            parts.append(piece.strip())
        position = match.end()
    return parts or [request]


def describe(tool: ToolSpec) -> list[str]:
    """List the texts a tool is compared by: its name with its first sentence, and each request quoted in its description.

    Quoted requests in a second language are for people. The encoder compares across languages, and with the
    same request in two of them a tool that isn't meant comes over the thresholds more often.

    >>> describe(ToolSpec("get_order", 'Look an order up. As in "Where is my order?" or "주문이 어디 있나요?".'))
    ['get order: Look an order up', 'Where is my order?']
    """
    name = tool.own_name or tool.name
    sentence = tool.description.removeprefix(f"{name}: ").partition(".")[0]
    quoted = find_quoted_requests(tool)
    same = [request for request in quoted if is_korean(request) == is_korean(sentence)]
    return [f"{name.replace('_', ' ')}: {sentence}", *(same or quoted)]


def find_quoted_requests(tool: ToolSpec) -> list[str]:
    """Find the requests that a tool's description quotes, in any language."""
    return _QUOTED.findall(tool.description)


def is_small_talk(text: str) -> bool:
    """Return True for small talk: a greeting, thanks, or a question about what the assistant can do.

    This is a fixed list, since similarity to the tools doesn't separate small talk from requests.

    >>> is_small_talk("Hi!"), is_small_talk("Thank you, where is my order?")
    (True, False)
    """
    return _SMALL_TALK.fullmatch(text) is not None


def leave_codes_out(text: str) -> str:
    """Remove numbers and codes, which identify the object and not the action.

    >>> leave_codes_out("Where is ORD-1002?")
    'Where is ?'
    """
    return _CODE.sub("", text)


def choose_tool(
    part: str, request: str, tools: Sequence[ToolSpec], likeness: Sequence[float], rank: Rank | None = None
) -> ChosenTool:
    """Choose the likeliest tool; having all required arguments, and using the part's values, makes a tool likelier.

    A value that a part lacks may be elsewhere in the request: "order ORD-1002: where is it?"
    """
    choices = [_grounded(part, request, tool, rank) for tool in tools]
    korean = is_korean(part)
    pairs = find_pairs(part) if korean else set[str]()
    shared = [pairs & find_pairs(tool.description) for tool in tools]
    spread = Counter(pair for found in shared for pair in found)

    def score(place: int) -> float:
        called_for = count_called_for(part, tools[place].name) if korean else 0
        grounded = choices[place].grounded
        is_odd = korean and (wants_a_deed if is_reading(tools[place].name) else wants_to_know)(part)
        return (
            likeness[place]
            + CALLED_FOR * min(called_for, 3)
            + VALUE * min(grounded.values, 2)
            + CODE * (korean and bool(grounded.codes))
            + SHARED * min(sum((1 / spread[pair] for pair in shared[place]), 0.0), 3)
            - MOOD * is_odd
        )

    scores = [score(place) for place in range(len(tools))]
    best = max(range(len(tools)), key=lambda place: scores[place] - LACKING * bool(choices[place].grounded.missing))
    return replace(choices[best], score=scores[best])


def _grounded(part: str, request: str, tool: ToolSpec, rank: Rank | None) -> ChosenTool:
    known = re.findall(r"\w+", describe(tool)[0])
    quoted = [word for quote in find_quoted_requests(tool) for word in re.findall(r"\w+", quote)]
    grounded = ground(tool.parameters, part, rank, known, quoted)
    if grounded.missing:
        grounded = ground(tool.parameters, request, rank, known, quoted)
    return ChosenTool(part, tool, grounded)


def _compare(embedder: SentenceEmbedder, text: str, groups: Sequence[Sequence[str]]) -> list[list[float]]:
    """Compare the text with each text of each group, from -1 to 1."""
    (vector,) = embedder.embed([text])
    return [(_embed_lines(embedder, tuple(group)) @ vector).tolist() for group in groups]


@lru_cache(maxsize=256)
def _embed_lines(embedder: SentenceEmbedder, lines: tuple[str, ...]) -> Any:
    """Turn lines that come with each request, such as descriptions of tools, into vectors once."""
    return embedder.embed(lines)
