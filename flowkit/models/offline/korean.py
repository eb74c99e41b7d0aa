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

HANGUL = re.compile(r"[가-힣]")

_DIGITS = r"\d+(?:,\d{3})*(?:\.\d+)?"
_AMOUNT = re.compile(
    rf"(?<![\w.-])(?:(?P<myriads>{_DIGITS})\s*만)?\s*(?:(?P<thousands>{_DIGITS})\s*천)?\s*(?P<rest>{_DIGITS})?\s*원"
)
_UNITS = {
    r"(?:킬로그램|킬로|키로그램|키로|㎏)": "kg",
    r"(?:그램)": "g",
}
_WEEKDAYS = "월화수목금토일"
_DAYS = {"오늘": 0, "금일": 0, "내일": 1, "명일": 1, "모레": 2, "내일모레": 2, "글피": 3, "어제": -1, "그저께": -2}
_COUNTS = {"하루": 1, "이틀": 2, "사흘": 3, "나흘": 4, "닷새": 5, "일주일": 7, "열흘": 10, "보름": 15}
_NUMBER_WORDS = {
    word: number
    for number, word in enumerate(
        ["한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉", "열", "열한", "열두"], start=1
    )
}
_DAY = (
    r"(?P<iso>\d{4}-\d{2}-\d{2})(?!T)"
    r"|(?:(?P<year>\d{4})\s*년\s*)?(?P<month>\d{1,2})\s*월\s*(?P<number>\d{1,2})\s*일"
    r"|(?P<ahead>\d{1,3})\s*일\s*(?:뒤|후)"
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
_SPAN = re.compile(r"(?<![가-힣])(?P<count>" + "|".join(_COUNTS) + r")(?=\s*(?:동안|간|치))")
_SEAM = re.compile(r"(?<=[A-Za-z0-9_)%])(?=[가-힣])|(?<=[가-힣])(?=[A-Za-z0-9_(])")


def is_korean(text: str) -> bool:
    """Tell whether the text holds Hangul syllables."""
    return HANGUL.search(text) is not None


def normalise(request: str, now: datetime) -> str:
    """Write days, hours and amounts as figures, counted from `now`, and set codes apart from Hangul.

    >>> normalise("내일 오후 3시 반에 3만 5천원짜리 알려 줘", datetime(2026, 12, 1))
    '2026-12-02T15:30 에 35000 원짜리 알려 줘'
    >>> normalise("부산까지 2킬로, ORD-1003과 다음 주 금요일", datetime(2026, 12, 1))
    '부산까지 2 kg, ORD-1003 과 2026-12-11'
    """
    text = _MOMENT.sub(lambda match: _read_moment(match, now), request)
    text = _TIME_ALONE.sub(lambda match: _read_hour_today(match, now), text)
    text = _SPAN.sub(lambda match: f"{_COUNTS[match['count']]}일", text)
    text = re.sub(r"(?<=\d)\s*일(?:\s*(?:동안|간)|치)", " days ", text)
    text = _AMOUNT.sub(_read_amount, text)
    for words, unit in _UNITS.items():
        text = re.sub(rf"(?<=\d)\s*{words}(?:짜리)?", f" {unit} ", text)
    text = _SEAM.sub(" ", text)
    return re.sub(r"[ \t]+(?=[,.?!]|\Z)", "", re.sub(r"[ \t]{2,}", " ", text)).strip()


def _read_moment(match: re.Match[str], now: datetime) -> str:
    day = _read_day(match, now.date())
    if day is None:
        return match.group()
    hour = _read_hour(match)
    # "내일의 일정": the particle goes with the day; after an hour it stands behind the whole.
    return f"{day:%Y-%m-%d} " if hour is None else f"{day:%Y-%m-%d}T{hour} "


def _read_day(match: re.Match[str], today: date) -> date | None:
    try:
        if match["iso"]:
            return date.fromisoformat(match["iso"])
        if match["month"]:
            year = int(match["year"] or today.year)
            day = date(year, int(match["month"]), int(match["number"]))
            # Without a year the next such day is meant, as in December of 3 January.
            return day if match["year"] or day >= today else day.replace(year=year + 1)
        if match["ahead"]:
            return today + timedelta(days=int(match["ahead"]))
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
        case _:
            pass
    return f"{hour:02}:{minute:02}" if hour < 24 and minute < 60 else None


def _read_hour_today(match: re.Match[str], now: datetime) -> str:
    """An hour without a day is today's, but a bare "12:30" stays: it may be a value of its own."""
    hour = _read_hour(match)
    if hour is None or match["clock"]:
        return match.group()
    return f"{now:%Y-%m-%d}T{hour} "


def _read_amount(match: re.Match[str]) -> str:
    parts = {name: float((match[name] or "0").replace(",", "")) for name in ("myriads", "thousands", "rest")}
    if not any(match.group(name) for name in parts):
        return match.group()
    won = parts["myriads"] * 10_000 + parts["thousands"] * 1_000 + parts["rest"]
    space = " " if match.group().startswith(" ") else ""
    return f"{space}{won:.0f} 원" if won == int(won) else match.group()


_PARTICLES_ANYWHERE = [
    "에서부터",
    "으로부터",
    "로부터",
    "에서는",
    "에서도",
    "까지는",
    "까지도",
    "에게서",
    "한테서",
    "이라는",
    "라는",
    "이라고",
    "에서",
    "까지",
    "부터",
    "에게",
    "한테",
    "께서",
    "하고",
    "처럼",
    "보다",
    "마다",
    "조차",
    "밖에",
    "이랑",
    "으로",
    "에는",
    "에도",
    "이나",
    "에",
    "의",
    "도",
    "만",
    "께",
]
_AFTER_CONSONANT = ("은", "을", "과", "이")
_AFTER_VOWEL = ("는", "를", "와", "가", "랑", "로", "나")
_LASTING = frozenset(
    [
        "제주도",
        "강원도",
        "경기도",
        "전라도",
        "경상도",
        "충청도",
        "울릉도",
        "강화도",
        "거제도",
        "완도",
        "진도",
        "청도",
        "사과",
        "고양이",
        "어린이",
        "종이",
        "나이",
        "아이",
        "오이",
        "놀이",
        "회의",
        "강의",
        "동의",
        "논의",
        "문의",
        "예의",
        "창의",
        "합의",
        "협의",
        "주의",
        "정의",
        "의의",
        "치과",
        "내과",
        "외과",
        "안과",
        "학과",
        "성과",
        "결과",
        "효과",
        "경과",
        "휴가",
        "평가",
        "국가",
        "작가",
        "물가",
        "증가",
        "추가",
        "허가",
        "참가",
        "인가",
        "국화",
        "전화",
        "영화",
        "문화",
        "카페라떼",
        "나",
        "너",
        "저",
        "도로",
        "경로",
        "진로",
        "서로",
        "바로",
        "새로",
        "별로",
        "지도",
        "속도",
        "온도",
        "정도",
        "제도",
        "태도",
        "용도",
        "한도",
        "시도",
        "의도",
        "각도",
        "포도",
        "파도",
        "복도",
        "수도",
        "인도",
        "가로",
        "세로",
        "회로",
        "만",
        "도",
        "은",
        "이",
        "가",
        "로",
        "과",
        "와",
        "의",
        "에",
        "노트북",
        "스마트폰",
        "바나나",
        "하나",
        "누나",
        "바다",
        "소다",
        "판다",
        "어머니",
        "할머니",
        "아주머니",
        "주머니",
        "언니",
        "동네",
        "담요",
        "필요",
        "중요",
        "수요",
        "올해",
        "남해",
        "동해",
        "피해",
        "오해",
        "이해",
    ]
)
"""Words that end as a particle does."""

_ASKING_WORDS = frozenset(
    [
        "좀",
        "혹시",
        "그리고",
        "그럼",
        "근데",
        "지금",
        "제",
        "내",
        "나의",
        "저의",
        "저",
        "저는",
        "나는",
        "제가",
        "내가",
        "저희",
        "우리",
        "우리의",
        "이",
        "그",
        "해당",
        "관련",
        "관련된",
        "대해",
        "대한",
        "대해서",
        "관해",
        "관해서",
        "얼마",
        "얼마나",
        "얼마예요",
        "얼마에요",
        "얼마인가요",
        "언제",
        "어디",
        "어디에",
        "어디쯤",
        "어때",
        "어때요",
        "어떨까",
        "어떨까요",
        "어떤",
        "어떻게",
        "무엇",
        "무엇을",
        "무엇이",
        "뭐",
        "뭐가",
        "뭐야",
        "뭔가요",
        "무슨",
        "몇",
        "며칠",
        "왜",
        "누가",
        "누구",
        "있는",
        "있는지",
        "나오는",
        "적힌",
        "들어간",
        "언급된",
        "포함된",
        "정확한",
        "정확히",
        "전부",
        "모두",
        "전체",
        "다",
        "데",
        "거",
        "것",
        "건",
        "게",
        "걸",
        "곳",
        "곳을",
        "말",
        "말이",
        "단어",
        "단어가",
        "문구",
        "문구가",
        "표현",
        "표현이",
        "한번",
        "하나",
        "하나만",
        "같이",
        "함께",
        "이상",
        "이하",
        "미만",
        "초과",
        "이내",
        "정도",
        "원",
        "짜리",
        "원짜리",
        "에",
        "에서",
        "으로",
        "로",
        "은",
        "는",
        "을",
        "를",
        "이",
        "가",
        "과",
        "와",
        "랑",
        "이랑",
        "의",
        "도",
        "부터",
        "까지",
        "동안",
        "이라는",
        "라는",
        "라고",
        "일",
        "시간",
        "분",
        "개",
        "번",
        "명",
        "줘",
        "와",
        "봐",
        "써",
        "해",
        "해줘",
        "주고",
    ]
)
"""Words that ask, point or join, and stand for no thing."""
ASKED_NOUNS = frozenset(
    [
        "일정",
        "스케줄",
        "캘린더",
        "달력",
        "날씨",
        "기온",
        "알림",
        "리마인더",
        "배송비",
        "택배비",
        "운송비",
        "비용",
        "요금",
        "가격",
        "재고",
        "상태",
        "위치",
        "목록",
        "리스트",
        "추천",
        "반품",
        "환불",
        "검색",
        "조회",
        "추적",
        "문서",
        "페이지",
        "구절",
        "부분",
        "파일",
    ]
)
"""What is asked for or done, as a tool's name says it; never with what."""
_VERB_ENDING = re.compile(
    r"(?:[요까다죠니네]|줘|세요|십시오|할게|할래|싶어|되나|인지|는지|을지|달라고|해|해서|하고|하는|려면|려고|으려고|ㄹ까|"
    r"하면|으면|면서|는데|은데|인데|어서|아서|고서|[아어여]야|와|워|추워|더워|있어|없어|될까|볼까|맞춰|잡아|넣어|찾아|"
    r"보여|알려|읽어|열어|가르쳐|말해|골라|적어|남겨|바꿔|지워|써|봐|줄래|주라|드려|팔아|사고|찾고|보내는|보낼|보내)$"
)
_QUOTED_BY = re.compile(r"(?P<words>.+?)(?:이라는|라는|이라고|라고)\s")
_ORDERED = re.compile(r"(?:으라고|라고)$")


def strip_particle(word: str) -> str:
    """Take the particle off a word, or leave the word as it is.

    Which form a particle has is told by the sound before it, so "사과" isn't "사" with "과".

    >>> [strip_particle(word) for word in ("부산까지", "제주도", "사과", "녹차를", "컵이", "서울에서는")]
    ['부산', '제주도', '사과', '녹차', '컵', '서울']
    """
    if word in _LASTING:
        return word
    for particle in _PARTICLES_ANYWHERE:
        if word.endswith(particle) and len(word) > len(particle) + (len(particle) == 1):
            stem = word.removesuffix(particle)
            if particle in ("으로", "이랑", "이나", "이라는", "이라고") and not _has_final(stem):
                continue
            return stem
    if len(word) < 2 or not HANGUL.match(word[-2]):
        return word
    if word[-1] in (_AFTER_CONSONANT if _has_final(word[:-1]) else _AFTER_VOWEL):
        return word[:-1]
    # ㄹ takes the form without 으: 서울로, 겨울로
    return word[:-1] if word[-1] == "로" and (ord(word[-2]) - 0xAC00) % 28 == 8 else word


def _has_final(text: str) -> bool:
    """Tell whether the last syllable ends in a consonant (Unicode 3.12: 28 finals for each pair before)."""
    return bool(text) and "가" <= text[-1] <= "힣" and (ord(text[-1]) - 0xAC00) % 28 != 0


def find_nouns(clause: str) -> Iterator[str]:
    """Find what a clause is about: its words without the verb at its end, words that ask, and last particles.

    The longest piece comes first.

    >>> list(find_nouns("무선 이어폰을 찾고 있어요"))
    ['무선 이어폰']
    """
    quoted = _QUOTED_BY.match(clause + " ")
    pieces: list[list[str]] = [[]]
    for word in (quoted["words"] if quoted else clause).split():
        bare = word.strip(".,?!~\"'“”‘’()")
        stem = strip_particle(bare)
        if not bare or bare in _ASKING_WORDS or stem in _ASKING_WORDS or stem in ASKED_NOUNS or _is_verb(bare):
            pieces.append([])
        elif stem != bare:
            # A particle ends what is said of one thing: "서울에서 부산까지" names two.
            pieces[-1].append(stem)
            pieces.append([])
        else:
            pieces[-1].append(bare)
    found = [" ".join(piece) for piece in pieces if piece]
    yield from dict.fromkeys(sorted(found, key=len, reverse=True))


def _is_verb(word: str) -> bool:
    return (
        len(word) > 1 and word not in _LASTING and HANGUL.search(word) is not None and bool(_VERB_ENDING.search(word))
    )


def find_order(clause: str) -> str | None:
    """Find what somebody is to be reminded of or told: "약 먹으라고 알려 줘" → "약 먹기".

    >>> find_order("엄마한테 전화하라고 알림 맞춰 줘")
    '엄마한테 전화하기'
    """
    words = clause.split()
    for place, word in enumerate(words):
        if _ORDERED.search(word):
            verb = _ORDERED.sub("기", word)
            before = [w for w in words[:place] if w not in _ASKING_WORDS]
            return " ".join([*before, verb])
    return None


_JOINED = re.compile(
    r"(?P<noun>[가-힣]+?)(?:이랑|랑|하고|와|과)\s+(?!같이|함께|어울|비슷|잘)|(?:주시고|주고|그리고|또한)[,\s]\s*"
)


def split_korean(request: str) -> list[str]:
    """Split a request where one thing asked for is joined to another.

    >>> split_korean("내일 일정이랑 서울 날씨 알려 줘")
    ['내일 일정', '서울 날씨 알려 줘']
    """
    parts: list[str] = []
    start = 0
    for match in _JOINED.finditer(request):
        noun = match["noun"]
        if noun is None or noun in ASKED_NOUNS:
            end = match.start() if noun is None else match.end("noun")
            parts.append(request[start:end].strip(" ,"))
            start = match.end()
    parts.append(request[start:].strip())
    return [part for part in parts if part]


_VALUE_WORD = re.compile(r"[A-Z]{1,6}-?\d+|\d")


def find_statement(request: str) -> str | None:
    """Find the clause that states something, as a reason does: the last that names no code and no number.

    >>> find_statement("ORD-1005 반품하고 싶어요, 컵이 깨졌어요")
    '컵이 깨졌어요'
    """
    clauses = [clause.strip() for clause in re.split(r"[,.?!;\n]+(?:\s|\Z)", request) if clause.strip()]
    found = [clause for clause in clauses if not _VALUE_WORD.search(clause) and len(clause.split()) > 1]
    return found[-1] if found and len(clauses) > 1 else None


_GLOSSARY = {
    "calendar event meeting schedule appointment": "일정 캘린더 달력 스케줄 약속 회의 미팅",
    "remind reminder alarm": "알림 리마인더 라고",
    "weather forecast": "날씨 기온 눈 비 우산 추워 더워",
    "write add create put book": "추가 넣 잡아 등록 적어 기록 예약",
    "read get show status": "보여 알려 확인 어때 조회 상태",
    "search find": "찾 검색 있나요 파나요",
    "list": "목록 나열 어떤 무슨 종류",
    "word words text exact": "단어 문구 라는 구절 나오는 언급",
    "meaning question answer": "왜 어떻게 설명 대해",
    "document file page": "문서 파일 페이지",
    "recommend suggest": "추천 어울리",
    "return": "반품 교환",
    "refund money pay": "환불 돌려",
    "track parcel": "택배 추적 송장 운송장",
    "ship shipping cost price": "배송비 택배비 운송비 요금 비용 얼마",
    "order": "주문",
    "cancel delete remove": "취소 삭제 지워",
    "send mail message": "메일 메시지 문자",
    "translate": "번역",
    "calculate compute": "계산",
}
"""Words of tools' names, and the Korean words that call for them."""
_CALLED_FOR = tuple((frozenset(names.split()), tuple(words.split())) for names, words in _GLOSSARY.items())


def count_called_for(request: str, tool_name: str) -> int:
    """Count the words of a tool's name that a Korean request calls for.

    >>> count_called_for("캘린더에 넣어 줘", "calendar_write"), count_called_for("캘린더에 넣어 줘", "reminder_set")
    (2, 0)
    """
    parts = set(re.split(r"[^a-z]+", tool_name.casefold()))
    return sum(bool(names & parts) and any(word in request for word in words) for names, words in _CALLED_FOR)
