"""Days, hours and amounts of a Korean request as figures, counted from a moment that is given.

Korean writes amounts by ten thousands ("3만 5천원"), and names days and hours in words. `normalise` writes all of them as
figures, and sets codes apart from the letters beside them.
"""

import re
from datetime import date, datetime, timedelta

from flowkit.models.offline.korean_numbers import write_figures

_UNITS = {
    r"(?:킬로그램|킬로|키로그램|키로|㎏)": "kg",
    r"(?:그램)": "g",
}
_WEEKS = {"이번주": 0, "다음주": 1, "담주": 1, "다다음주": 2, "지난주": -1, "저번주": -1, "지지난주": -2}
EARLY_HOUR = 5
"""Up to here an hour without "오전" or "새벽" is one of the afternoon: nobody meets at two in the night."""
_WEEKDAYS = "월화수목금토일"
_DAYS = {"오늘": 0, "금일": 0, "내일": 1, "명일": 1, "모레": 2, "내일모레": 2, "글피": 3, "어제": -1, "그저께": -2}
_SPELLED = [
    (re.compile(r"(?<![가-힣])낼(?=\s|까지|부터|오[전후]|아침|저녁|점심|밤|\d|[한두세네]\s*시|\Z)"), "내일"),
    (re.compile(r"(?<![가-힣])그제(?=\s|까지|부터|오[전후]|저녁|밤|\Z)"), "그저께"),
    (re.compile(r"(?<=[월화수목금토일])욜일?"), "요일"),
    (re.compile(r"(?<![가-힣])(?:내주|차주|담주)(?=\s*[월화수목금토일]요일)"), "다음 주"),
    (re.compile(r"(?<![가-힣])금주(?=\s*[월화수목금토일]요일)"), "이번 주"),
    (re.compile(r"(?<!\d)(\d{4})\s*[./]\s*(\d{1,2})\s*[./]\s*(\d{1,2})(?!\d)\.?"), r"\1년 \2월 \3일"),
    (
        re.compile(
            r"(?<![\d./])(1[0-2]|0?[1-9])/([12]\d|3[01]|0?[1-9])(?=\s*(?:에|까지|부터|오[전후]|\([월화수목금토일]\)|\d{1,2}\s*시))"
        ),
        r"\1월 \2일",
    ),
]
"""Other spellings of days, and what the rules read."""
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
    + r")|(?P<number>\d{1,3})\s*(?P<unit>주일?|개월|달))\s*(?:뒤|후)(?:에)?(?!\s*[월화수목금토일]요일)"
)
_PAST = re.compile(
    r"\A(?P<said>(?:그럼|혹시|저)?\s*)(?:(?P<count>"
    + "|".join(_COUNTS)
    + r")|(?P<number>\d{1,2})\s*(?P<unit>일|주일?))\s*전(?:에)?(?=\s)"
)
"""Only where a request begins with it: "출발 이틀 전" isn't counted from now."""
_HOURS_AND_MINUTES = re.compile(r"(?<![\d.])(\d{1,2})\s*시간\s*(\d{1,2})\s*분(?!\s*(?:뒤|후|있다))")
_SOON = re.compile(
    r"(?<![가-힣\d])(?:(?P<hours>\d{1,2}(?:\.5)?)\s*시간)?\s*(?:(?P<minutes>\d{1,3})\s*분)?\s*(?:뒤|후|있다가|이따가)(?:에)?"
)
_DAY = (
    r"(?P<iso>\d{4}-\d{2}-\d{2})(?!T)"
    r"|(?:(?:(?P<year>\d{4})\s*년|(?P<next_year>내년)|올해)\s*)?(?P<month>\d{1,2})\s*월\s*"
    r"(?:(?P<number>\d{1,2})\s*일|(?P<month_end>말일?)(?=에|까지|부터|이|은|쯤|[\s,.?!]|\Z))"
    r"|(?:(?P<next>다음\s*달|담\s*달|내달)|(?P<before>지난\s*달|저번\s*달)|이번\s*달|이달|금월)\s*(?:(?P<of_month>\d{1,2})\s*일|(?P<end>마지막\s*날|말일?)(?=에|까지|부터|이|은|쯤|[\s,.?!]|\Z))"
    r"|(?P<year_end>연말|올해\s*말)(?=에|까지|부터)"
    r"|(?P<weeks>\d{1,2})\s*주\s*(?:뒤|후)\s*(?P<weeks_day>[월화수목금토일])요일"
    r"|(?P<last>월말|말일)(?=에|까지|부터|이|은|쯤|[\s,.?!]|\Z)"
    r"|(?P<months>\d{1,2})\s*개월\s*뒤|(?P<ahead>\d{1,3})\s*일\s*(?:뒤|후)"
    r"|(?P<day_alone>\d{1,2})\s*일(?=\s*(?:에(?!\s*\S+\s*번)|부터|까지|날|자로|오전|오후|아침|저녁|밤|낮|점심|새벽))"
    r"|(?:(?P<week>다다음\s*주|다음\s*주|담\s*주|이번\s*주|지난\s*주|저번\s*주|지지난\s*주)\s*)?(?P<weekday>[월화수목금토일])요일"
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


def normalise(request: str, now: datetime) -> str:
    """Write days, hours and amounts as figures, counted from `now`, and set codes apart from Hangul.

    >>> normalise("내일 오후 3시 반에 3만 5천원짜리 알려 줘", datetime(2026, 12, 1))
    '2026-12-02T15:30 에 35000 원짜리 알려 줘'
    >>> normalise("부산까지 2킬로, ORD-1003과 다음 주 금요일", datetime(2026, 12, 1))
    '부산까지 2 kg, ORD-1003 과 2026-12-11'
    """
    text = _HOLIDAY.sub(lambda match: _HOLIDAYS[re.sub(r"\s", "", match[1])], request)
    for spelling, read in _SPELLED:
        text = spelling.sub(read, text)
    text = _SOON.sub(lambda match: _read_soon(match, now), write_figures(text))
    text = _HOURS_AND_MINUTES.sub(lambda match: f"{int(match[1]) * 60 + int(match[2])} 분", text)
    text = _PAST.sub(lambda match: _read_past(match, now.date()), text)
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
            first = _add_months(today.replace(day=1), bool(match["next"]) - bool(match["before"]))
            return first.replace(day=int(match["of_month"])) if match["of_month"] else _end_month(first)
        if match["year_end"]:
            return date(today.year, 12, 31)
        if match["weeks"]:
            days = _WEEKDAYS.index(match["weeks_day"]) - today.weekday()
            return today + timedelta(days=days + 7 * int(match["weeks"]))
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
            return today + timedelta(days=days + 7 * _WEEKS[week])
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


def _read_past(match: re.Match[str], today: date) -> str:
    """Write the day that is so long ago: "이틀 전에", "2주 전에"."""
    days = _COUNTS[match["count"]] if match["count"] else int(match["number"]) * (7 if match["unit"] != "일" else 1)
    return f"{match['said']}{today - timedelta(days=days):%Y-%m-%d} "


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
    if hour is None or (match["clock"] and not match["half"]):
        return match.group()
    return f"{now:%Y-%m-%d}T{hour} "
