"""Korean numbers as figures: native ones before what is counted ("세 명"), Sino-Korean ones before units ("만 오천 원").

Korean has two series of numbers, and what is counted says which is used. A syllable of either is a syllable of many
other words, too ("사원" is an employee, not four won), so a number is read only where a counter or unit follows it.
"""

import re

HANGUL = re.compile(r"[가-힣]")

_ONES = {
    "한": 1,
    "하나": 1,
    "두": 2,
    "둘": 2,
    "세": 3,
    "셋": 3,
    "석": 3,
    "네": 4,
    "넷": 4,
    "넉": 4,
    "다섯": 5,
    "여섯": 6,
    "일곱": 7,
    "여덟": 8,
    "아홉": 9,
}
_TENS = {
    "열": 10,
    "스물": 20,
    "스무": 20,
    "서른": 30,
    "마흔": 40,
    "쉰": 50,
    "예순": 60,
    "일흔": 70,
    "여든": 80,
    "아흔": 90,
}
_SINO = {digit: number for number, digit in enumerate("일이삼사오육칠팔구", start=1)}
_PLACES = {"천": 1000, "백": 100, "십": 10}

_COUNTER_WORDS = """
명 분 사람 개 장 권 병 그릇 잔 봉지 봉 팩 마리 번 대 켤레 송이 시간 살 달 박스 상자 통 캔 벌 자리 판 줄 조각 쌍 접시 묶음 포기 알 모
킬로그램 킬로 키로 그램 인분 박 회 주 끼 채 건 곡 팀 그루 바퀴 편 포대 다발 자루 컵 세트
"""
COUNTERS = _COUNTER_WORDS.split()
"""What stands behind a number and says what is counted."""
_AFTER_COUNTER = r"(?![가-힣])|(?=(?:이|을|를|은|는|만|씩|의|에|랑|과|와|로|으로|치|짜리|용|정도|이서|이요|요|간|동안|더|이나|도)(?![가-힣]{2}))"

_NATIVE = re.compile(
    rf"(?<![가-힣\w])(?P<tens>{'|'.join(_TENS)})?(?P<ones>{'|'.join(sorted(_ONES, key=len, reverse=True))})?\s*"
    rf"(?P<counter>{'|'.join(sorted(COUNTERS, key=len, reverse=True))})(?:{_AFTER_COUNTER})"
)
_TOGETHER = re.compile(rf"(?<![가-힣\w])(?:(?P<ones>{'|'.join(_ONES)})이서|(?P<alone>혼자)서?)(?![가-힣])")
_PEOPLE = re.compile(
    rf"(?P<who>(?:어른|성인|아이|어린이|인원|총|모두|일행)(?:은|는|이|가)?)\s+(?P<ones>{'|'.join(_ONES)})(?=[\s,.?!이]|\Z)"
)
_NIGHT = re.compile(r"(?<![가-힣])하룻밤")

_DIGIT = r"(?:\d[\d,]*(?:\.\d+)?|[일이삼사오육칠팔구])"
_SMALL = rf"(?:{_DIGIT}?\s?천\s?)?(?:{_DIGIT}?\s?백\s?)?(?:{_DIGIT}?\s?십\s?)?{_DIGIT}?"
_NUMBER = rf"(?<![가-힣\w.,-])(?P<number>(?:{_SMALL}\s?억\s?)?(?:{_SMALL}\s?만\s?)?{_SMALL})"
_WON = re.compile(
    rf"{_NUMBER}(?P<space>\s*)원(?:(?![가-힣])|(?=짜리|에|을|이|은|으|까|어치|정|만|부|씩|밖|대|보|한|미|넘|입|도|의|인|치|권|보내|송금))"
)
_MEASURED = re.compile(
    rf"{_NUMBER}(?P<space>\s*)(?P<unit>킬로그램|킬로|키로|그램|kg|g|인분|개월|퍼센트|프로|박|회|분|주|월|일|명|년)"
    rf"(?:{_AFTER_COUNTER}|(?=\s*(?:뒤|후)))"
)
_LONE = {"월", "분", "회", "박", "일", "주", "명", "년"}
"""Units that make another word with one Sino-Korean digit before them: "사회", "이주", "오월" is May all the same."""
_HALF = re.compile(
    r"(?<![가-힣])반\s*(?P<unit>킬로그램|킬로|키로|kg)|(?P<whole>\d+)\s*(?P<second>킬로그램|킬로|키로|kg)\s*반(?![가-힣])"
)
_HALF_OF = re.compile(
    r"(?<![가-힣])반\s*(?P<counter>박스|상자|판|팩|통|병|모|마리|포기|접시|인분|컵|봉지)(?![가-힣]{2})"
)
_MONTHS = {"유": "6", "시": "10"}


def write_figures(text: str) -> str:
    """Write the numbers of a text that count or measure something as figures.

    >>> write_figures("만 오천 원으로 사과 여섯 개, 스물세 명, 칠십이 킬로")
    '15000 원으로 사과 6 개, 23 명, 72 킬로'
    >>> write_figures("사원 두 명이 반 킬로씩, 십이월 이십사일")
    '사원 2 명이 0.5 킬로씩, 12월 24일'
    """
    text = _WON.sub(_read_won, text)
    text = re.sub(
        r"(?<![가-힣])(유|시)월(?=\s*(?:[\d일이삼사오육칠팔구십초말]|에|의|부터|까지|분|\Z)|\s)",
        lambda match: f"{_MONTHS[match[1]]}월",
        text,
    )
    text = _MEASURED.sub(_read_measured, text)
    text = _HALF.sub(_read_half, text)
    text = re.sub(r"(?<![가-힣])반\s?시간(?![가-힣]{2})", "30 분", text)
    text = _HALF_OF.sub(lambda match: f"0.5 {match['counter']}", text)
    text = _NATIVE.sub(_read_native, text)
    text = re.sub(r"(?<![\d.])(\d{1,2})\s*시간\s*반(?![가-힣])", r"\1.5 시간", text)
    text = _TOGETHER.sub(lambda match: f"{_ONES.get(match['ones'], 1)} 명", text)
    text = _PEOPLE.sub(lambda match: f"{match['who']} {_ONES[match['ones']]} 명", text)
    return _NIGHT.sub("1 박", text)


def _read_native(match: re.Match[str]) -> str:
    if not (match["tens"] or match["ones"]):
        return match.group()
    number = _TENS.get(match["tens"], 0) + _ONES.get(match["ones"], 0)
    if number == 1 and match["counter"] in ("번", "분"):
        return match.group()  # "한 번 봐 주세요" asks for a look, not for one
    # Of hours in minutes the other series is used: "두 분" are people.
    return f"{number} {'명' if match['counter'] in ('분', '사람') else match['counter']}"


def _read_won(match: re.Match[str]) -> str:
    number = read_number(match["number"])
    if number is None or not re.search(r"[\d십백천만억]", match["number"]) or number != int(number):
        return match.group()
    return f"{number:.0f}{match['space'] or ' '}원"


def _read_measured(match: re.Match[str]) -> str:
    said, unit = match["number"].strip(), match["unit"]
    number = read_number(said)
    if number is None or re.search(r"\d", said) or (unit in _LONE and len(said) == 1 and not _is_one_of(said, match)):
        return match.group()
    return f"{number:g}{match['space']}{unit}"


def _is_one_of(digit: str, match: re.Match[str]) -> bool:
    """Return whether one digit before such a unit is meant as a number: "오월 삼일", "이 주 뒤", "오 분"."""
    behind = match.string[match.end() :]
    match match["unit"]:
        case "월":
            # "이월" is what is carried over, too.
            return digit not in "일이" or re.match(r"\s*[\d일이삼사오육칠팔구십]+\s*일", behind) is not None
        case "일":
            return re.search(r"\d\s*월\s*\Z", match.string[: match.start()]) is not None
        case "분" if re.search(r"\d\s*시\s*\Z|[한두세네섯곱덟홉열]\s*시\s*\Z", match.string[: match.start()]):
            return True
        case "주":
            return re.match(r"\s*(?:뒤|후|간|동안|치|더)", behind) is not None
        case _:
            return bool(match["space"]) and digit != "이"


def _read_half(match: re.Match[str]) -> str:
    unit = match["unit"] or match["second"]
    return f"{float(match['whole'] or 0) + 0.5:g} {unit}"


def read_number(said: str) -> float | None:
    """Read figures and Sino-Korean numbers, also mixed; None where there are none.

    >>> read_number("만 오천"), read_number("백이십만"), read_number("1.5만"), read_number("3만 5천"), read_number("칠십이")
    (15000.0, 1200000.0, 15000.0, 35000.0, 72.0)
    """
    words = re.sub(r"[\s,]", "", said)
    if not words:
        return None
    total = 0.0
    for unit, worth in (("억", 100_000_000), ("만", 10_000)):
        before, found, words = words.rpartition(unit)
        if found:
            total += worth * (_read_small(before) if before else 1)
    return total + (_read_small(words) if words else 0)


def _read_small(words: str) -> float:
    total = 0.0
    for place, worth in _PLACES.items():
        before, found, words = words.rpartition(place)
        if found:
            total += worth * (_read_digit(before) if before else 1)
    return total + (_read_digit(words) if words else 0)


def _read_digit(word: str) -> float:
    return float(_SINO.get(word, 0) or word)
