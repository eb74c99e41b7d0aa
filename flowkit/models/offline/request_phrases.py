"""Find the pieces of a request that could be a text argument: its words without other values and framing words.

"Remind me to water the plants at 2026-12-04T08:00" holds the piece "water the plants". Numbers, codes, dates and file
names are other arguments' values, and separate pieces as a comma does. At its edges, a piece loses words that no argument begins or
ends with, the verb of the request, and words of the tool's own description, which say what to do and not with what.
"""

import re
from collections.abc import Collection, Iterator, Sequence

from flowkit.models.offline.korean import find_message, find_nouns, find_order, is_korean, strip_particle
from flowkit.models.offline.korean_numbers import COUNTERS

VALUE = re.compile(
    r"\b\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2})?(?:Z|[+-]\d{2}:\d{2})?)?"
    r"|\b\d{1,2}:\d{2}(?::\d{2})?\b"
    r"|[\w.+-]+@[\w-]+\.[\w.]+"
    r"|[\w./-]*\w\.(?:md|txt|pdf|csv|json|html|docx?|xlsx?)\b"
    r"|\b[A-Z]{1,6}-?\d+\b|(?<!\d)\d{2,3}[가-힣]\d{4}(?!\d)"
    r"|(?<!\w)\d[\d.,]*\s*(?:kg|g|km|m|cm|lb|%|won|usd|krw|eur|dollars?|days?|weeks?|months?|nights?|hours?|minutes?|원|킬로|퍼센트|"
    rf"{'|'.join(COUNTERS)})?(?:\s*(?:이서|이요|이면|씩|짜리|어치|치|요|면|만|에|을|를|이|은|으로|로))?(?!\w)",
    re.IGNORECASE,
)
"""What is an argument by itself."""

_EDGES = " \t\n.,;:!?\"'()[]{}“”‘’"
_WEAK_WORDS = """
a an the my your our their his her its this that these those it is are was were be been am i you we they me us he
she what where when how who which why do does did can could would should will shall may might must have has
had get give let want need like to of for in on at by from with into about under over below above between and or
but then also not no any some there here if as so than too very just much many more most up out back please because
since i'm i'd don't let's something anything page pages passage passages containing contains called
"""
_WEAK = frozenset(_WEAK_WORDS.split())
"""Words that no argument begins or ends with."""
_VERB_WORDS = """
add arrange ask book calculate check create explain find forget list look looking make note open plan put quote
read recommend refund remember remind return schedule search see sell send set ship show tell track write
"""
VERBS = frozenset(_VERB_WORDS.split())
"""What a request begins with; one of them at most is taken off, since "remind me to send it" is about sending."""
_PREPOSITION_WORDS = "to of for in on at by from with into about under over below above between"
_PREPOSITIONS = frozenset(_PREPOSITION_WORDS.split())
_VAGUE = frozenset(["정보", "내용", "내역", "현황"])
"""What stands behind a thing without saying more of it."""
_PRICE_ENDINGS = ("비", "값", "료")
_CLAUSE_END = re.compile(r"[,;:?!]+(?=\s|\Z)|\.(?=\s|\Z)|\n|\0")


def find_pieces(request: str, known: Collection[str] = (), quoted: Collection[str] = ()) -> list[str]:
    """List the pieces, longest first, then their parts between prepositions.

    `known` are the tool's own words, `quoted` those of the requests in its description.
    """
    if is_korean(request):
        return _find_korean_pieces(request, known, quoted)
    stems = frozenset(map(stem, known))
    chunks = [chunk.split() for chunk in _CLAUSE_END.split(VALUE.sub("\0", request))]
    pieces = [piece for chunk in chunks if (piece := _trim(chunk, stems))]
    if not pieces and stems:
        return find_pieces(request)
    pieces.sort(key=len, reverse=True)
    parts = [trimmed for piece in pieces for part in _parts(piece) if (trimmed := _trim(part, stems, verbs=0))]
    return list(dict.fromkeys(" ".join(words).strip(_EDGES) for words in (*pieces, *parts)))


def _find_korean_pieces(request: str, known: Collection[str], quoted: Collection[str]) -> list[str]:
    clauses = [clause for clause in _CLAUSE_END.split(VALUE.sub("\0", request)) if clause.strip()]
    said = [found for clause in clauses for found in (find_message(clause), find_order(clause)) if found is not None]
    nouns = sorted((noun for clause in clauses for noun in find_nouns(clause)), key=len, reverse=True)
    names = frozenset(map(strip_particle, known))
    trimmed = [piece for noun in nouns if (piece := _trim_korean(noun, names))]
    own = names | frozenset(map(strip_particle, quoted))
    # What else than the words of its own requests is said; those are a value only where nothing else is.
    fresh = [piece for piece in trimmed if not all(word in own for word in piece.split()) or _is_placed(piece, request)]
    return list(dict.fromkeys([*said, *(fresh or trimmed)]))


def _is_placed(piece: str, request: str) -> bool:
    """Return whether a particle of place says that the piece is a value: "부산까지"."""
    return re.search(rf"{re.escape(piece)}(?:까지|에서|으로|로|에게|한테|에)(?![가-힣])", request) is not None


def _trim_korean(piece: str, names: Collection[str]) -> str:
    """Remove the tool's own words from both ends of a piece: "김민수 고객 정보" is about "김민수".

    >>> _trim_korean("김민수 고객 정보", {"고객"}), _trim_korean("회원 정보", {"고객"})
    ('김민수', '회원 정보')
    """
    words = piece.split()
    while words and _is_named(words[0], names):
        del words[0]
    end = len(words)
    while end and (_is_named(words[end - 1], names) or words[end - 1] in _VAGUE):
        end -= 1
    # A vague word alone may be what is looked for.
    return " ".join(words[:end] if any(_is_named(word, names) for word in words[end:]) else words)


def _is_named(word: str, names: Collection[str]) -> bool:
    """Return whether a word is one of these, also as what it costs: "택시비" is of "택시"."""
    return word in names or (word[-1:] in _PRICE_ENDINGS and len(word) > 2 and word[:-1] in names)


def stem(word: str) -> str:
    """Normalize a word for comparison: in lower case, without the ending of a plural."""
    return word.strip(_EDGES).casefold().removesuffix("s")


def _trim(words: Sequence[str], stems: Collection[str], verbs: int = 1) -> list[str]:
    first, last = 0, len(words)
    while first < last:
        word = words[first].strip(_EDGES).casefold()
        if word and word not in _WEAK and stem(word) not in stems:
            if word not in VERBS or not verbs:
                break
            verbs -= 1
        first += 1
    while last > first:
        word = words[last - 1].strip(_EDGES).casefold()
        if word and word not in _WEAK and stem(word) not in stems:
            break
        last -= 1
    return list(words[first:last])


def _parts(words: Sequence[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for word in words:
        if word.casefold() in _PREPOSITIONS:
            yield part
            part = []
        else:
            part.append(word)
    yield part
