"""Find the parts of a request that forbid something ("Don't cancel AP-1234", "취소하지 마세요") or only ask about it.

Embeddings hardly distinguish a request from its negation, so such clauses are removed before a tool is chosen. A
clause that asks not to forget something is a request.
"""

import re

from flowkit.messages import ToolSpec
from flowkit.models.offline.korean_numbers import HANGUL
from flowkit.models.offline.moods import is_reading

# A verb's 고 joins clauses; 재고 (stock), 창고 and 신고 are nouns.
_CLAUSE_END = re.compile(
    r"(?<=[.!?;,\n])\s+|\n|(?<=[하주말되있없가오내받넣담빼꾸먹]고)\s+(?!싶|있|계|나)|(?<=지만)\s+|\s+(?=but\b|and (?:do not|don't|don’t|never)\b)",
    re.IGNORECASE,
)
_KOREAN = re.compile(
    r"(?P<verb>[가-힣]+)지(?:는|도)?\s*(?:마(?:세요|요|라|십시오|시고|시길|시죠)?|말(?:아|고|자|라|아요|아라)?)"
    r"(?:\s*(?:주세요|줘|줘요|주십시오|주시고|달라고.*|라고.*))?\s*(?:\.|!|~|\?|,|\Z)"
    r"|(?:안|않)\s*(?:할|하|갈|살|볼|받을|보낼|을|해도)\s?(?:게요|게|래요|래|겠습니다|겠어요|려고요|될 것 같아요|거예요|됩니다|돼요)"
)
_KEPT = re.compile(r"(?:잊|까먹|놓치|늦|걱정하|빠뜨리|빼먹|잊어버리)\Z")
_LET_BE = re.compile(r"(?:그대로|그냥|일단|가만히)\s.*(?:두|둬|놔|유지|있)|^(?:그대로|그냥)\b")
_ENGLISH = re.compile(
    r"\W*(?:no|please|and|but|so|ok|okay)?\W*(?:do not|don't|don’t|never|i (?:do not|don't|don’t) want (?:you )?to)\s+"
    r"(?!forget|let me forget|you\b|worry|hesitate|miss|know|have|be late)",
    re.IGNORECASE,
)


def leave_declined_out(request: str) -> tuple[str, list[str]]:
    """Return the request without its clauses that decline something, and those clauses.

    >>> leave_declined_out("L-20418 연장하지 말고 연체 목록 보여 줘")
    ('연체 목록 보여 줘', ['L-20418 연장하지 말고'])
    >>> leave_declined_out("Don't cancel AP-1234, but show my appointments")
    ('but show my appointments', ["Don't cancel AP-1234"])
    >>> leave_declined_out("약 먹는 거 잊지 말고 알려 줘")
    ('약 먹는 거 잊지 말고 알려 줘', [])
    """
    kept: list[str] = []
    declined: list[str] = []
    start = 0
    for end in [*_CLAUSE_END.finditer(request), None]:
        clause = request[start : None if end is None else end.start()]
        is_declined = _declines(clause) or (bool(declined) and _LET_BE.search(clause) is not None)
        (declined if is_declined else kept).append(clause)
        start = len(request) if end is None else end.end()
    if not declined:
        return request, []
    return " ".join(filter(str.strip, kept)), [clause.strip(" ,.;!") for clause in declined]


_WOULD = re.compile(r"(?P<act>[가-힣]+?)(?P<deed>하|되)?면\s.*(?:\?|나요|까요|가요|[돼되]요|되죠|얼마|어떻게|뭐)")
_KINDLY = re.compile(r"(?:줄|주실)\s*수|주시겠|줄래|주실래|(?:가능하|괜찮으시|괜찮으)면")
"""A request in the form of a question."""
_PRICES = frozenset(["fee", "price", "cost", "fare", "quote", "estimate", "shipping", "calculate"])
_IF = re.compile(r"\b(?:if|when|once) (?:i|we|you|they) (?P<act>\w+)", re.IGNORECASE)


def only_asks_about(part: str, tool: ToolSpec) -> bool:
    """Return True if the part asks about the consequences of an action, which is no request to do it.

    A tool that reads may be what answers such a question, if it tells of the action or of its price.

    >>> only_asks_about("HT-2001 취소하면 위약금 있나요?", ToolSpec("cancel_booking", "Cancel a booking."))
    True
    >>> only_asks_about("부산까지 2 kg 보내면 얼마예요?", ToolSpec("quote_fee", "Quote the fee for a parcel."))
    False
    """
    would = _WOULD.search(part)
    if would is not None and not _KINDLY.search(part):
        if not is_reading(tool.name):
            return True
        if _PRICES & set(re.split(r"[\W_]+", tool.name.casefold())) or not would["deed"]:
            return False
        return would["act"] not in tool.description
    supposed = _IF.search(part)
    return supposed is not None and supposed["act"].casefold() in re.split(r"[\W_]+", tool.name.casefold())


def _declines(clause: str) -> bool:
    if HANGUL.search(clause) is None:
        return _ENGLISH.match(clause) is not None
    found = _KOREAN.search(clause)
    return found is not None and not (found["verb"] and _KEPT.search(found["verb"]))
