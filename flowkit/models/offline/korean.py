"""The words of a Korean request in a form that the demo model's rules can read.

Korean joins to a word what English sets before it: "부산까지" is "to Busan". It ends with the verb. `find_nouns` takes
particles and verbs off, so that what is left can be an argument. Rules and short lists do this, not a dictionary: a
morphological analyser is three times as large as everything else that the model needs.
"""

import re
from collections.abc import Iterator

from flowkit.models.offline.korean_numbers import HANGUL
from flowkit.models.offline.korean_words import (
    AFTER_CONSONANT,
    AFTER_VOWEL,
    ASKED_NOUNS,
    ASKING_WORDS,
    CALLED_FOR,
    DEEDS,
    LASTING,
    PARTICLES_ANYWHERE,
    VERBS_ALONE,
)


def is_korean(text: str) -> bool:
    """Return whether the text holds Hangul syllables."""
    return HANGUL.search(text) is not None


_VERB_ENDING = re.compile(
    r"(?:[요까다죠니네]|줘|세요|십시오|할게|할래|싶어|되나|인지|는지|을지|달라고|해|해서|하고|하는|려면|려고|으려고|ㄹ까|"
    r"하면|으면|[내오되시주사타쓰보나]면|면서|는데|은데|인데|어서|아서|고서|[아어여]야|와|워|추워|더워|있어|없어|될까|볼까|맞춰|잡아|넣어|찾아|"
    r"들어|걸어|꺼내|올려|내려|돌려|맡겨|옮겨|전해|정해|늘려|줄여|챙겨|구해|미뤄|당겨|담아|끊어|받아|닫아|묶어|풀어|"
    r"보여|알려|읽어|열어|가르쳐|말해|골라|적어|남겨|바꿔|지워|써|봐|줄래|주라|드려|팔아|사고|찾고|보내는|보낼|보내)$"
)
_BEFORE_GIVING = re.compile(r"(?:러|려|켜|쳐|져|펴|꿔|춰|둬|놔|돼|해|써|꺼|아|어|여|와|워|내|깨|채|서)$")
_GIVING = ("주세", "줘", "주시", "주실", "줄래", "주십", "달라", "주면", "줄")
"""An action done for somebody: the word before is a verb, as "불러" in "불러 주세요"."""
_ATTRIBUTED = re.compile(r"(?:것|거|걸|건|게|수|적|때|줄|뻔|만큼|대로)(?:이|은|을|가|도|에|만|예요|같)?$")
"""What follows the attributive of a verb, as "미룰" in "미룰 수"."""
_JOINING = re.compile(r"(?:[놓두내타가오쓰보듣먹입잃잊받찾들빌풀맡](?:아|어|러|버리)?|리)고$")
_COPULA = re.compile(r"(?<=[가-힣]{2})(?:인데요?|입니다만?|이에요|이고요?|이며|이라서|이니까)$")
_QUOTED_BY = re.compile(r"(?P<words>.+?)(?:이라는|라는|이라고|라고)\s")
_ORDERED = re.compile(r"(?:으라고|라고)$")


def strip_particle(word: str) -> str:
    """Remove a word's particle, if it has one.

    A particle's form depends on the sound before it, so "사과" isn't "사" with "과".

    >>> [strip_particle(word) for word in ("부산까지", "제주도", "사과", "녹차를", "컵이", "서울에서는")]
    ['부산', '제주도', '사과', '녹차', '컵', '서울']
    """
    if word in LASTING:
        return word
    for particle in PARTICLES_ANYWHERE:
        if word.endswith(particle) and len(word) > len(particle) + (len(particle) == 1):
            stem = word.removesuffix(particle)
            if particle in ("으로", "이랑", "이나", "이라는", "이라고") and not _has_final(stem):
                continue
            return stem
    if len(word) < 2 or not HANGUL.match(word[-2]):
        return word
    if word[-1] in (AFTER_CONSONANT if _has_final(word[:-1]) else AFTER_VOWEL):
        return word[:-1]
    # ㄹ takes the form without 으: 서울로, 겨울로
    return word[:-1] if word[-1] == "로" and (ord(word[-2]) - 0xAC00) % 28 == 8 else word


def _has_final(text: str) -> bool:
    """Return True if the last syllable ends in a consonant (Unicode 3.12: 28 finals for each pair before)."""
    return bool(text) and "가" <= text[-1] <= "힣" and (ord(text[-1]) - 0xAC00) % 28 != 0


_PAIRS_OF_REQUESTS = frozenset(
    [
        "주세",
        "세요",
        "해주",
        "해줘",
        "할게",
        "게요",
        "하고",
        "고싶",
        "싶어",
        "싶은",
        "은데",
        "어요",
        "아요",
        "해요",
        "나요",
        "까요",
        "있나",
        "있어",
        "있을",
        "을까",
        "수있",
        "알려",
        "보여",
        "합니",
        "습니",
        "니다",
        "부탁",
        "탁드",
        "드려",
        "려요",
        "에서",
        "까지",
        "부터",
        "으로",
        "에요",
        "예요",
        "이요",
        "좀해",
        "되나",
        "인데",
        "는데",
        "라고",
        "이랑",
        "하는",
        "오전",
        "오후",
        "에는",
        "그리",
        "리고",
        "이번",
        "다음",
    ]
)
"""Pairs of syllables of which any request may be made."""


def find_pairs(text: str) -> set[str]:
    """Find the pairs of syllables in the words of a text, without those of particles, endings and courtesies.

    >>> sorted(find_pairs("충전소 찾아 주세요"))
    ['전소', '찾아', '충전']
    """
    words = (strip_particle(word) for word in re.findall(r"[가-힣]{2,}", text))
    return {word[place : place + 2] for word in words for place in range(len(word) - 1)} - _PAIRS_OF_REQUESTS


def find_nouns(clause: str) -> Iterator[str]:
    """Find a clause's subject matter: its words without the final verb, request words, and final particles.

    The longest piece comes first.

    >>> list(find_nouns("무선 이어폰을 찾고 있어요"))
    ['무선 이어폰']
    """
    quoted = _QUOTED_BY.match(clause + " ")
    pieces: list[list[str]] = [[]]
    words = (quoted["words"] if quoted else clause).split()
    for word, after in zip(words, [*words[1:], ""], strict=False):
        bare = _COPULA.sub("", word.strip(".,?!~\"'“”‘’()"))
        stem = strip_particle(bare)
        is_asking = bare in ASKING_WORDS or stem in ASKING_WORDS or stem in ASKED_NOUNS or stem in DEEDS
        if not bare or is_asking or _is_verb(bare) or _is_verb_before(bare, after):
            pieces.append([])
        elif bare.endswith("의") and bare == f"{stem}의":
            pieces[-1].append(bare)  # "서울의 봄" is one thing
        elif stem != bare:
            # A particle ends what is said of one thing: "서울에서 부산까지" names two.
            pieces[-1].append(stem)
            pieces.append([])
        else:
            pieces[-1].append(bare)
    found = [_end_genitive(" ".join(piece)) for piece in pieces if piece]
    if quoted and not found:
        found = [quoted["words"]]
    yield from dict.fromkeys(sorted(found, key=len, reverse=True))


def _end_genitive(piece: str) -> str:
    *before, last = piece.split(" ")
    return " ".join([*before, strip_particle(last) if last.endswith("의") else last])


def _is_verb(word: str) -> bool:
    return len(word) > 1 and word not in LASTING and HANGUL.search(word) is not None and bool(_VERB_ENDING.search(word))


def _is_verb_before(word: str, after: str) -> bool:
    """Return whether what follows makes a verb of the word: "불러 주세요", "미룰 수", "사고 싶어요"."""
    if word.endswith("고") and after.startswith("싶"):
        return True
    if word in VERBS_ALONE or (_JOINING.search(word) and word not in LASTING):
        return True
    if after.startswith(_GIVING) and _BEFORE_GIVING.search(word):
        return True
    # The final consonants ㄴ and ㄹ
    return bool(_ATTRIBUTED.fullmatch(after)) and word[-1:] >= "가" and (ord(word[-1]) - 0xAC00) % 28 in (4, 8)


def find_order(clause: str) -> str | None:
    """Find the content of a reminder or message: "약 먹으라고 알려 줘" → "약 먹기".

    >>> find_order("엄마한테 전화하라고 알림 맞춰 줘")
    '엄마한테 전화하기'
    """
    words = clause.split()
    for place, word in enumerate(words):
        if _ORDERED.search(word):
            verb = _ORDERED.sub("기", word)
            before = [w for w in words[:place] if w not in ASKING_WORDS]
            return " ".join([*before, verb])
    return None


_JOINED = re.compile(
    r"(?P<counted>\d\s*[가-힣]{1,2}?)(?:이랑|랑|하고|와|과)\s+(?=[^,.?!]*\d\s*[가-힣])"
    r"|(?P<noun>[가-힣]+?)(?:이랑|랑|하고|와|과)\s+(?!같이|함께|어울|비슷|잘)|(?:주시고|주고|그리고|또한)[,\s]\s*"
)


def split_korean(request: str) -> list[str]:
    """Split a Korean request between its tasks.

    >>> split_korean("내일 일정이랑 서울 날씨 알려 줘")
    ['내일 일정', '서울 날씨 알려 줘']
    """
    parts: list[str] = []
    start = 0
    for match in _JOINED.finditer(request):
        noun = match["noun"] or match["counted"]
        if noun is None or noun in ASKED_NOUNS or match["counted"]:
            end = match.start() if noun is None else match.start() + len(noun)
            parts.append(request[start:end].strip(" ,"))
            start = match.end()
    parts.append(request[start:].strip())
    return [part for part in parts if part]


_VALUE_WORD = re.compile(r"[A-Z]{1,6}-?\d+|\d")


_SAID = re.compile(
    r"(?P<words>[^,.?!\0]+?(?:다|냐|자|니))고\s+(?:메일|이메일|문자|메시지|메세지|카톡|알림|알려|전해|말|연락|공지|답장|보내)"
)


def find_message(clause: str) -> str | None:
    """Find what is to be told in somebody's words: "회식이 미뤄졌다고 메일 보내 줘" → "회식이 미뤄졌다".

    >>> find_message("회식이 미뤄졌다고 메일 보내 줘")
    '회식이 미뤄졌다'
    """
    found = _SAID.search(clause)
    return None if found is None else " ".join(word for word in found["words"].split() if word not in ASKING_WORDS)


_REQUESTS = re.compile(r"(?:주세요|줘요?|주십시오|주시겠어요|부탁\S*|싶\S+|[할갈을볼]게요?|려고요?)[.!?]?\s*$")


def find_statement(request: str, *, alone: bool = False) -> str | None:
    """Find the clause that states something, as a reason does: the last that names no code and no number.

    With `alone` it may be the only clause, unless that asks for something to be done.

    >>> find_statement("ORD-1005 반품하고 싶어요, 컵이 깨졌어요")
    '컵이 깨졌어요'
    >>> find_statement(", 충전이 안 되는데 고쳐 주세요", alone=True)
    '충전이 안 되는데'
    """
    request = re.sub(r"(?<=[는은인]데)\s+", ", ", request)
    clauses = [clause.strip() for clause in re.split(r"[,.?!;\n]+(?:\s|\Z)", request) if clause.strip()]
    found = [clause for clause in clauses if not _VALUE_WORD.search(clause) and len(clause.split()) > 1]
    stated = [clause for clause in found if not _REQUESTS.search(clause)]
    found = stated if alone else stated or found
    return found[-1] if found and (alone or len(clauses) > 1) else None


def count_called_for(request: str, tool_name: str) -> int:
    """Count the words of a tool's name that a Korean request calls for.

    >>> count_called_for("캘린더에 넣어 줘", "calendar_write"), count_called_for("캘린더에 넣어 줘", "reminder_set")
    (2, 0)
    """
    parts = set(re.split(r"[^a-z]+", tool_name.casefold()))
    return sum(bool(names & parts) and any(word in request for word in words) for names, words in CALLED_FOR)
