"""Korean requests in a form that the demo model's rules can read.

Korean joins to a word what English sets before it: "부산까지" is "to Busan". It ends with the verb, writes amounts by
ten thousands ("3만 5천원"), and names days and hours in words. `normalise` writes amounts, days and hours as figures
and sets codes apart from the letters beside them; `find_nouns` takes particles and verbs off, so that what is left can
be an argument. Rules and short lists do this, not a dictionary: a morphological analyser is three times as large as
everything else that the model needs.
"""

import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta

from flowkit.models.offline.korean_numbers import HANGUL, write_figures
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

_UNITS = {
    r"(?:킬로그램|킬로|키로그램|키로|㎏)": "kg",
    r"(?:그램)": "g",
}
EARLY_HOUR = 5
"""Up to here an hour without "오전" or "새벽" is one of the afternoon: nobody meets at two in the night."""
_WEEKDAYS = "월화수목금토일"
_DAYS = {"오늘": 0, "금일": 0, "내일": 1, "명일": 1, "모레": 2, "내일모레": 2, "글피": 3, "어제": -1, "그저께": -2}
_COUNTS = {"하루": 1, "이틀": 2, "사흘": 3, "나흘": 4, "닷새": 5, "일주일": 7, "열흘": 10, "보름": 15}
_HOLIDAYS = {
    "크리스마스이브": "12월 24일",
    "크리스마스": "12월 25일",
    "성탄절": "12월 25일",
    "신정": "1월 1일",
    "삼일절": "3월 1일",
    "어린이날": "5월 5일",
    "현충일": "6월 6일",
    "광복절": "8월 15일",
    "개천절": "10월 3일",
    "한글날": "10월 9일",
}
"""Those with a fixed date, read as one only where a particle of time follows: "크리스마스 선물" is a thing."""
_HOLIDAY = re.compile(
    r"(?<![가-힣])(크리스마스\s?이브|" + "|".join(_HOLIDAYS) + r")\s*(?:날|당일)?(?=\s*(?:에|까지|부터)(?![가-힣]))"
)
_NUMBER_WORDS = {
    word: number
    for number, word in enumerate(
        ["한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉", "열", "열한", "열두"], start=1
    )
}
_LASTS = r"(?:\s*(?:동안|간)(?![가-힣]{3})|치(?![가-힣]{2})|분(?=[\s,.]|\Z)|(?=\s*(?:더|연장)))"
_SPANS = {
    rf"일{_LASTS}": "days",
    rf"주일?(?:{_LASTS}|(?=[\s,.?!]|\Z))": "weeks",
    rf"(?:개월|달)(?:{_LASTS}|(?![가-힣]))": "months",
}
_AHEAD = re.compile(
    r"(?<![가-힣\d])(?:(?P<count>"
    + "|".join(_COUNTS)
    + r")|(?P<number>\d{1,3})\s*(?P<unit>주일?|개월|달))\s*(?:뒤|후)(?:에)?"
)
_SOON = re.compile(
    r"(?<![가-힣\d])(?:(?P<hours>\d{1,2}(?:\.5)?)\s*시간)?\s*(?:(?P<minutes>\d{1,3})\s*분)?\s*(?:뒤|후|있다가|이따가)(?:에)?"
)
_DAY = (
    r"(?P<iso>\d{4}-\d{2}-\d{2})(?!T)"
    r"|(?:(?:(?P<year>\d{4})\s*년|(?P<next_year>내년)|올해)\s*)?(?P<month>\d{1,2})\s*월\s*"
    r"(?:(?P<number>\d{1,2})\s*일|(?P<month_end>말일?)(?=에|까지|부터|이|은|쯤|[\s,.?!]|\Z))"
    r"|(?:(?P<next>다음\s*달|담\s*달|내달)|이번\s*달|이달|금월)\s*(?:(?P<of_month>\d{1,2})\s*일|(?P<end>말일?)(?=에|까지|부터|이|은|쯤|[\s,.?!]|\Z))"
    r"|(?P<last>월말|말일)(?=에|까지|부터|이|은|쯤|[\s,.?!]|\Z)"
    r"|(?P<months>\d{1,2})\s*개월\s*뒤|(?P<ahead>\d{1,3})\s*일\s*(?:뒤|후)"
    r"|(?P<day_alone>\d{1,2})\s*일(?=\s*(?:에(?!\s*\S+\s*번)|부터|까지|날|자로|오전|오후|아침|저녁|밤|낮|점심|새벽))"
    r"|(?:(?P<week>다다음\s*주|다음\s*주|담\s*주|이번\s*주)\s*)?(?P<weekday>[월화수목금토일])요일"
    r"|(?P<word>내일모레|오늘|금일|내일|명일|모레|글피|어제|그저께)"
)
_TIME = (
    r"(?P<half>오전|오후|아침|낮|점심|저녁|밤|새벽)?\s*"
    r"(?:(?P<hour>\d{1,2}|" + "|".join(sorted(_NUMBER_WORDS, key=len, reverse=True)) + r")\s*시(?!\s*간)"
    r"(?:\s*(?P<minute>\d{1,2})\s*분|\s*(?P<thirty>반))?"
    r"|(?P<noon>정오)|(?P<midnight>자정)|(?P<clock>\d{1,2}:\d{2}))"
)
_PARTICLE_AFTER = r"(?:\s*(?:에|의))?"
_MOMENT = re.compile(rf"(?<![가-힣\d-])(?:{_DAY}){_PARTICLE_AFTER}(?:\s*{_TIME})?")
_TIME_ALONE = re.compile(rf"(?<![가-힣\d:T-]){_TIME}")
_SPANS_TO = re.compile(r"\s*(?:부터|에서|~|-)\s*")
_SPAN = re.compile(
    r"(?<![가-힣])(?P<count>" + "|".join(_COUNTS) + r")\s*(?:동안|간|치|(?=\s*(?:더|연장)))(?![가-힣]{3})"
)
_SEAM = re.compile(
    r"(?<=[A-Za-z0-9_)%])(?=[가-힣])(?![가-힣]\d{4}(?!\d))|(?<=[가-힣])(?<!\d[가-힣](?=\d{4}(?!\d)))(?=[A-Za-z0-9_(])"
)
"""Between a code and the letters beside it; a car's plate ("12가3456") is one code."""


def is_korean(text: str) -> bool:
    """Return whether the text holds Hangul syllables."""
    return HANGUL.search(text) is not None


def normalise(request: str, now: datetime) -> str:
    """Write days, hours and amounts as figures, counted from `now`, and set codes apart from Hangul.

    >>> normalise("내일 오후 3시 반에 3만 5천원짜리 알려 줘", datetime(2026, 12, 1))
    '2026-12-02T15:30 에 35000 원짜리 알려 줘'
    >>> normalise("부산까지 2킬로, ORD-1003과 다음 주 금요일", datetime(2026, 12, 1))
    '부산까지 2 kg, ORD-1003 과 2026-12-11'
    """
    text = _HOLIDAY.sub(lambda match: _HOLIDAYS[re.sub(r"\s", "", match[1])], request)
    text = _SOON.sub(lambda match: _read_soon(match, now), write_figures(text))
    text = _AHEAD.sub(_read_ahead, text)
    text = _read_moments(text, now)
    text = _TIME_ALONE.sub(lambda match: _read_hour_today(match, now), text)
    text = _SPAN.sub(lambda match: f"{_COUNTS[match['count']]} days ", text)
    for words, unit in _SPANS.items():
        text = re.sub(rf"(?<=\d)\s*{words}", f" {unit} ", text)
    for words, unit in _UNITS.items():
        text = re.sub(rf"(?<=\d)\s*{words}(?:짜리)?", f" {unit} ", text)
    text = _SEAM.sub(" ", text)
    return re.sub(r"[ \t]+(?=[,.?!]|\Z)", "", re.sub(r"[ \t]{2,}", " ", text)).strip()


def _read_moments(text: str, now: datetime) -> str:
    """Write days with their hours as figures; a day that ends a span is counted from the day that begins it."""
    written: list[str] = []
    end = 0
    begins: date | None = None
    for match in _MOMENT.finditer(text):
        between = text[end : match.start()]
        is_alone = (match["weekday"] and not match["week"]) or match["day_alone"]
        day = _read_day(match, begins if begins and is_alone and _SPANS_TO.fullmatch(between) else now.date())
        hour = _read_hour(match)
        # "내일의 일정": the particle goes with the day; after an hour it stands behind the whole.
        figures = match.group() if day is None else f"{day:%Y-%m-%d} " if hour is None else f"{day:%Y-%m-%d}T{hour} "
        written += [between, figures]
        end, begins = match.end(), day
    return "".join([*written, text[end:]])


def _read_day(match: re.Match[str], today: date) -> date | None:
    try:
        if match["iso"]:
            return date.fromisoformat(match["iso"])
        if match["month"]:
            year = int(match["year"] or today.year + bool(match["next_year"]))
            first = date(year, int(match["month"]), 1)
            day = _end_month(first) if match["month_end"] else first.replace(day=int(match["number"]))
            # Without a year the next such day is meant, as in December of 3 January.
            is_said = match["year"] or match["next_year"]
            return day if is_said or day >= today else day.replace(year=year + 1)
        if match["of_month"] or match["end"] or match["last"]:
            first = _add_months(today.replace(day=1), bool(match["next"]))
            return first.replace(day=int(match["of_month"])) if match["of_month"] else _end_month(first)
        if match["day_alone"]:
            number = int(match["day_alone"])
            return _add_months(today.replace(day=1), number < today.day).replace(day=number)
        if match["ahead"]:
            return today + timedelta(days=int(match["ahead"]))
        if match["months"]:
            day = _add_months(today.replace(day=1), int(match["months"]))
            return day.replace(day=min(today.day, _end_month(day).day))
    except ValueError:
        return None  # 2월 30일
    if match["weekday"]:
        days = _WEEKDAYS.index(match["weekday"]) - today.weekday()
        week = re.sub(r"\s", "", match["week"] or "")
        if week:
            # Weeks begin on Monday: on a Tuesday, Friday of the next week is ten days ahead.
            return today + timedelta(days=days + 7 * {"이번주": 0, "다음주": 1, "담주": 1, "다다음주": 2}[week])
        return today + timedelta(days=days % 7)
    return today + timedelta(days=_DAYS[match["word"]])


def _add_months(first: date, months: int) -> date:
    years, month = divmod(first.month - 1 + months, 12)
    return first.replace(year=first.year + years, month=month + 1)


def _end_month(first: date) -> date:
    return _add_months(first, 1) - timedelta(days=1)


def _read_soon(match: re.Match[str], now: datetime) -> str:
    """Write the moment some hours and minutes ahead: "30분 뒤", "두 시간 반 뒤"."""
    if not (match["hours"] or match["minutes"]):
        return match.group()
    ahead = timedelta(hours=float(match["hours"] or 0), minutes=int(match["minutes"] or 0))
    return f"{now + ahead:%Y-%m-%dT%H:%M} "


def _read_ahead(match: re.Match[str]) -> str:
    """Write how far ahead a day is in days or months: "이틀 뒤", "2주 뒤", "한 달 뒤"."""
    if match["count"]:
        return f"{_COUNTS[match['count']]}일 뒤 "
    number = int(match["number"])
    return f"{number * 7}일 뒤 " if match["unit"].startswith("주") else f"{number}개월 뒤 "


def _read_hour(match: re.Match[str]) -> str | None:
    if match["noon"] or match["midnight"]:
        return "12:00" if match["noon"] else "00:00"
    if match["clock"]:
        hour, minute = map(int, match["clock"].split(":"))
    elif match["hour"]:
        hour = _NUMBER_WORDS.get(match["hour"]) or int(match["hour"])
        minute = 30 if match["thirty"] else int(match["minute"] or 0)
    else:
        return None
    match match["half"]:
        case "오후" | "저녁" | "밤" | "점심" | "낮" if hour < 12:
            # "낮 11시" is before noon; "밤 12시" is midnight.
            hour += 0 if match["half"] in ("낮", "점심") and hour >= 10 else 12
        case "오전" | "새벽" | "밤" if hour == 12:
            hour = 0
        case None if match["hour"] and 1 <= hour <= EARLY_HOUR:
            hour += 12
        case _:
            pass
    return f"{hour:02}:{minute:02}" if hour < 24 and minute < 60 else None


def _read_hour_today(match: re.Match[str], now: datetime) -> str:
    """Read an hour without a day as today's, but keep a bare "12:30": it may be a value of its own."""
    hour = _read_hour(match)
    if hour is None or match["clock"]:
        return match.group()
    return f"{now:%Y-%m-%d}T{hour} "


_VERB_ENDING = re.compile(
    r"(?:[요까다죠니네]|줘|세요|십시오|할게|할래|싶어|되나|인지|는지|을지|달라고|해|해서|하고|하는|려면|려고|으려고|ㄹ까|"
    r"하면|으면|면서|는데|은데|인데|어서|아서|고서|[아어여]야|와|워|추워|더워|있어|없어|될까|볼까|맞춰|잡아|넣어|찾아|"
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
