"""Tell a question from an order in Korean, and a tool that reads from one that changes something.

"예약하고 싶어요" and "연차 쓸게요" want something done, "남았나요?" wants to know. Embeddings compare what a sentence is
about, and hardly how it is meant. A polite order in the form of a question ("바꿀 수 있을까요?") is neither here.
"""

import re

_READING = frozenset(
    [
        "get",
        "show",
        "list",
        "find",
        "search",
        "check",
        "count",
        "tell",
        "quote",
        "estimate",
        "look",
        "read",
        "calculate",
        "compute",
        "trace",
        "track",
        "recommend",
        "price",
        "weigh",
        "query",
        "fetch",
        "describe",
        "compare",
        "see",
        "view",
        "lookup",
    ]
)
_POLITE = re.compile(r"수\s*(?:있|없)|(?:주|드리|될|되)(?:시)?(?:겠|실|실래|실\s*수|을까)|줄래|줄\s*수|실래요")
_WANTS_TO_KNOW = re.compile(r"(?:알려|보여|확인|궁금|찾아|조회|검색|가르쳐|말해|얼마|언제|어디|며칠|몇)")
_TOLD = re.compile(r"(?<!라고 )(?:알려|보여|가르쳐|말해)\s*(?:줘|주|줄)|궁금")
_ORDER = re.compile(
    r"(?:해|하여|아|어|여|러|려|켜|내|꿔|춰|와|워|줘)\s*(?:줘요?|주세요|주십시오|달라)|(?:할|갈|올|쓸|살|을|낼|볼)(?:게요?|래요?|려고요?)"
    r"|고\s*싶|부탁|(?:청구|신청|예약|취소|등록|변경|접수|주문|충전|정지|결석)(?:이요|요|합니다|해요)|ㄹ게"
)
_QUESTION = re.compile(
    r"(?:나요|까요?|가요|니|죠|지요|[은는]지|어요|에요|예요|해요|[돼되]요)\s*\?|\?\s*\Z|(?:나요|인가요|[은는]지)\s*\Z"
)
_STATEMENT = re.compile(r"(?:요|니다|다|음|함)[\s.!~ㅠㅜ]*\Z")


def is_reading(tool_name: str) -> bool:
    """Return whether a tool's name says that it only reads.

    >>> is_reading("show_balance"), is_reading("transfer_money")
    (True, False)
    """
    return any(word in _READING for word in re.split(r"[\W_]+", tool_name.casefold())[:2])


def wants_a_deed(part: str) -> bool:
    """Return whether the part asks for something to be done, or states what happened, rather than wants to know.

    >>> wants_a_deed("12월 21일부터 연차 쓸게요"), wants_a_deed("연차 며칠 남았어?"), wants_a_deed("잔액 알려 주세요")
    (True, False, False)
    """
    if _WANTS_TO_KNOW.search(part):
        return False
    return _ORDER.search(part) is not None or (_QUESTION.search(part) is None and _STATEMENT.search(part) is not None)


def wants_to_know(part: str) -> bool:
    """Return whether the part is a question, and no order in the form of one.

    >>> wants_to_know("관리비 얼마 나왔어요?"), wants_to_know("금요일로 바꿀 수 있을까요?")
    (True, False)
    """
    if _TOLD.search(part):
        return True
    return _QUESTION.search(part) is not None and _POLITE.search(part) is None and not wants_a_deed(part)
