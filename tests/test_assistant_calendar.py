"""The assistant's calendar on files that other programs write (RFC 5545)."""

import asyncio
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

import assistant
from flowkit import Context, ToolError

pytest.importorskip("recurring_ical_events", reason="the extra `apps` isn't installed")

SEOUL = ZoneInfo("Asia/Seoul")


def write_file(folder: Path, *events: str, before: str = "") -> Path:
    bodies = "".join(f"BEGIN:VEVENT\nUID:{number}\n{event}\nEND:VEVENT\n" for number, event in enumerate(events))
    text = f"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:-//test//EN\n{before}{bodies}END:VCALENDAR\n"
    path = folder / "other.ics"
    path.write_bytes(text.replace("\n", "\r\n").encode())
    return path


def read(path: Path, day: str, days: int = 1, zone: ZoneInfo = SEOUL) -> list[assistant.Event]:
    desk = assistant.Desk(path, path.with_suffix(".sqlite3"), zone=zone)
    return asyncio.run(assistant.read_calendar.run({"day": day, "days": days}, context=Context(desk)))


def write(path: Path, title: str, start: str, key: str = "k") -> assistant.Event:
    desk = assistant.Desk(path, path.with_suffix(".sqlite3"), zone=SEOUL)
    context = Context(desk, idempotency_key=key)
    return asyncio.run(assistant.write_calendar.run({"title": title, "start": start}, context=context))


def seoul(day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(2026, 12, day, hour, minute, tzinfo=SEOUL)


@pytest.mark.parametrize(
    ("event", "start", "end", "all_day"),
    [
        ("DTSTART:20261201T090000\nDURATION:PT90M", seoul(1, 9), seoul(1, 10, 30), False),
        ("DTSTART:20261201T090000\nDURATION:P1DT2H", seoul(1, 9), seoul(2, 11), False),
        ("DTSTART;VALUE=DATE:20261201", seoul(1), seoul(2), True),
        ("DTSTART;VALUE=DATE:20261201\nDURATION:P3D", seoul(1), seoul(4), True),
        (
            "DTSTART;VALUE=DATE:20261130\nDTEND;VALUE=DATE:20261202",
            datetime(2026, 11, 30, tzinfo=SEOUL),
            seoul(2),
            True,
        ),
        ("DTSTART:20261201T100000Z", seoul(1, 19), seoul(1, 19), False),
        ("DTSTART:20261130T150000Z\nDTEND:20261130T160000Z", seoul(1, 0), seoul(1, 1), False),
        ("DTSTART;TZID=America/New_York:20261201T080000\nDURATION:PT30M", seoul(1, 22), seoul(1, 22, 30), False),
    ],
)
def test_an_event_lasts_as_long_as_its_file_says(
    tmp_path: Path, event: str, start: datetime, end: datetime, all_day: bool
) -> None:
    (found,) = read(write_file(tmp_path, f"SUMMARY:Talk\n{event}"), "2026-12-01")
    assert (found.start, found.end, found.all_day) == (start, end, all_day)


ODD_ZONE = """BEGIN:VTIMEZONE
TZID:Customized Time Zone
BEGIN:STANDARD
DTSTART:16010101T000000
TZOFFSETFROM:+0100
TZOFFSETTO:+0100
END:STANDARD
END:VTIMEZONE
"""


@pytest.mark.parametrize(
    ("event", "start", "all_day"),
    [
        # Outlook: Windows' names, with and without their definition
        ("DTSTART;TZID=Korea Standard Time:20261202T100000", seoul(2, 10), False),
        ("DTSTART;TZID=Eastern Standard Time:20261201T200000", seoul(2, 10), False),
        ("DTSTART;TZID=Customized Time Zone:20261202T020000", seoul(2, 10), False),
        ('DTSTART;TZID="(UTC+09:00) Seoul":20261202T100000', seoul(2, 10), False),
        ("DTSTART:20261202T000000\nDTEND:20261203T000000\nX-MICROSOFT-CDO-ALLDAYEVENT:TRUE", seoul(2), True),
        # Evolution and Thunderbird: names of their own
        ("DTSTART;TZID=/freeassociation.sourceforge.net/Europe/Berlin:20261202T020000", seoul(2, 10), False),
        ("DTSTART;TZID=/mozilla.org/20050126_1/Europe/Berlin:20261202T020000", seoul(2, 10), False),
        # Repeats that end on a day, in UTC, without a zone; left out and added days
        ("DTSTART;TZID=Asia/Seoul:20261125T100000\nRRULE:FREQ=WEEKLY;UNTIL=20261202", seoul(2, 10), False),
        ("DTSTART;TZID=Asia/Seoul:20261125T100000\nRRULE:FREQ=WEEKLY;UNTIL=20261202T010000Z", seoul(2, 10), False),
        ("DTSTART;TZID=Asia/Seoul:20261125T100000\nRRULE:FREQ=WEEKLY;UNTIL=20261202T100000", seoul(2, 10), False),
        ("DTSTART;VALUE=DATE:20261125\nRRULE:FREQ=WEEKLY;UNTIL=20261202T145959Z", seoul(2), True),
        ("DTSTART;TZID=Asia/Seoul:20261101T100000\nRDATE;TZID=Asia/Seoul:20261202T140000", seoul(2, 14), False),
        ("DTSTART:20261101T010000Z\nRDATE;VALUE=PERIOD:20261202T050000Z/PT2H", seoul(2, 14), False),
        # A whole day that ends on itself, and a date that doesn't say that it is one
        ("DTSTART;VALUE=DATE:20261202\nDTEND;VALUE=DATE:20261202", seoul(2), True),
        ("DTSTART:20261202\nDTEND:20261203", seoul(2), True),
    ],
)
def test_exports_of_other_calendars_are_read(tmp_path: Path, event: str, start: datetime, all_day: bool) -> None:
    (found,) = read(write_file(tmp_path, f"SUMMARY:Talk\n{event}", before=ODD_ZONE), "2026-12-02")
    assert (found.start, found.all_day) == (start, all_day)
    assert not all_day or found.end == seoul(3)


@pytest.mark.parametrize(
    "exceptions",
    ["EXDATE:20261202T010000Z", "EXDATE;VALUE=DATE:20261202", "EXDATE;TZID=Asia/Seoul:20261202T100000,20261209T100000"],
)
def test_a_day_is_left_out_however_it_is_written(tmp_path: Path, exceptions: str) -> None:
    weekly = f"SUMMARY:Talk\nDTSTART;TZID=Asia/Seoul:20261125T100000\nRRULE:FREQ=WEEKLY\n{exceptions}"
    assert read(write_file(tmp_path, weekly), "2026-12-02") == []


def test_an_event_that_was_moved_in_another_zone_is_read_once(tmp_path: Path) -> None:
    weekly = "SUMMARY:Talk\nDTSTART;TZID=Asia/Seoul:20261125T100000\nRRULE:FREQ=WEEKLY;COUNT=2"
    moved = "SUMMARY:Talk\nRECURRENCE-ID:20261202T010000Z\nDTSTART;TZID=Europe/Berlin:20261203T080000"
    path = write_file(tmp_path, weekly, moved)
    path.write_bytes(path.read_bytes().replace(b"UID:1", b"UID:0"))
    assert [event.start for event in read(path, "2026-12-02", days=7)] == [seoul(3, 16)]


@pytest.mark.parametrize("end_of_line", [b"\n", b"\r", b"\r\n"])
def test_line_ends_folds_and_a_byte_order_mark_change_nothing(tmp_path: Path, end_of_line: bytes) -> None:
    path = write_file(tmp_path, "SUMMARY:회의\nDTSTART:20261202T010000Z", before="X-WR-TIMEZONE:GMT+9\n")
    first, second = "회의".encode()[:4], "회의".encode()[4:]
    folded = path.read_bytes().replace("회의".encode(), first + b"\r\n " + second)
    path.write_bytes(b"\xef\xbb\xbf" + folded.replace(b"\r\n", end_of_line))
    assert [event.title for event in read(path, "2026-12-02")] == ["회의"]
    write(path, "점심", "2026-12-02T12:00")
    assert b"X-WR-TIMEZONE:GMT+9" in path.read_bytes()
    assert [event.title for event in read(path, "2026-12-02")] == ["회의", "점심"]


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ("DURATION:PT1H", "can't be read"),
        ("DTSTART:2026-12-02", "can't be read"),
        ("DTSTART:20261202T010000Z\nRRULE:FREQ=SOMETIMES", "can't be read"),
        ("DTSTART:20200101T010000Z\nRRULE:FREQ=SECONDLY", "repeats each second"),
    ],
)
def test_an_event_that_cannot_be_read_is_told_of(tmp_path: Path, event: str, said: str) -> None:
    with pytest.raises(ToolError, match=said):
        read(write_file(tmp_path, f"SUMMARY:Talk\n{event}"), "2026-12-02")


def test_a_file_in_another_encoding_is_told_of(tmp_path: Path) -> None:
    path = write_file(tmp_path, "SUMMARY:회의\nDTSTART:20261202T010000Z")
    path.write_bytes(path.read_text(encoding="utf-8").encode("cp949"))
    with pytest.raises(ToolError, match="export it as UTF-8"):
        read(path, "2026-12-02")


def test_a_day_is_a_day_of_the_desks_zone(tmp_path: Path) -> None:
    path = write_file(tmp_path, "SUMMARY:Late\nDTSTART:20261130T160000Z\nDURATION:PT1H")
    assert [event.title for event in read(path, "2026-12-01")] == ["Late"]
    assert read(path, "2026-12-01", zone=ZoneInfo("Europe/London")) == []


WEEKLY = "SUMMARY:Stand-up\nDTSTART;TZID=Asia/Seoul:20261103T100000\nDURATION:PT15M\nRRULE:FREQ=WEEKLY;COUNT=6"


def test_a_weekly_event_is_read_in_each_of_its_weeks(tmp_path: Path) -> None:
    path = write_file(tmp_path, WEEKLY)
    assert [event.start for event in read(path, "2026-12-01", days=15)] == [seoul(1, 10), seoul(8, 10)]


def test_a_week_that_was_left_out_or_moved_is_read_so(tmp_path: Path) -> None:
    moved = "SUMMARY:Stand-up, later\nRECURRENCE-ID;TZID=Asia/Seoul:20261208T100000\nDTSTART;TZID=Asia/Seoul:20261208T150000"
    path = write_file(tmp_path, f"{WEEKLY}\nEXDATE;TZID=Asia/Seoul:20261201T100000", moved)
    path.write_bytes(path.read_bytes().replace(b"UID:1", b"UID:0"))
    assert [(event.title, event.start) for event in read(path, "2026-12-01", days=15)] == [
        ("Stand-up, later", seoul(8, 15))
    ]


def test_a_cancelled_event_is_not_read_and_leaves_its_time_free(tmp_path: Path) -> None:
    path = write_file(tmp_path, "SUMMARY:Off\nSTATUS:CANCELLED\nDTSTART:20261201T090000\nDURATION:PT1H")
    assert read(path, "2026-12-01") == []
    write(path, "Tea", "2026-12-01T09:00")
    assert [event.title for event in read(path, "2026-12-01")] == ["Tea"]


def test_a_transparent_event_is_read_and_leaves_its_time_free(tmp_path: Path) -> None:
    path = write_file(tmp_path, "SUMMARY:Holiday\nTRANSP:TRANSPARENT\nDTSTART;VALUE=DATE:20261201")
    write(path, "Tea", "2026-12-01T09:00")
    assert [event.title for event in read(path, "2026-12-01")] == ["Holiday", "Tea"]


def test_a_repeat_and_a_whole_day_take_their_time(tmp_path: Path) -> None:
    path = write_file(tmp_path, WEEKLY, "SUMMARY:Trip\nDTSTART;VALUE=DATE:20261203")
    with pytest.raises(ToolError, match="'Stand-up' is at that time, until 10:15"):
        write(path, "Tea", "2026-12-08T10:10")
    with pytest.raises(ToolError, match="'Trip' is at that time, all day"):
        write(path, "Tea", "2026-12-03T10:10")


def test_the_calendars_own_zone_counts(tmp_path: Path) -> None:
    zone = "BEGIN:VTIMEZONE\nTZID:Mine\nBEGIN:STANDARD\nDTSTART:19700101T000000\nTZOFFSETFROM:+0530\nTZOFFSETTO:+0530\nEND:STANDARD\nEND:VTIMEZONE\n"
    path = write_file(tmp_path, "SUMMARY:Call\nDTSTART;TZID=Mine:20261201T090000\nDURATION:PT1H", before=zone)
    assert [event.start for event in read(path, "2026-12-01")] == [seoul(1, 12, 30)]


def test_a_file_of_several_calendars_is_read_and_written_whole(tmp_path: Path) -> None:
    path = write_file(tmp_path, "SUMMARY:One\nDTSTART:20261201T090000\nDURATION:PT1H")
    path.write_bytes(path.read_bytes() * 2)
    path.write_bytes(path.read_bytes()[::1].replace(b"SUMMARY:One", b"SUMMARY:Two", 1))
    assert sorted(event.title for event in read(path, "2026-12-01")) == ["One", "Two"]
    write(path, "Tea", "2026-12-01T12:00")
    assert sorted(event.title for event in read(path, "2026-12-01")) == ["One", "Tea", "Two"]


def test_a_written_event_is_the_same_moment_for_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "new.ics"
    written = write(path, "Lunch", "2026-12-01T12:00")
    assert written.start == seoul(1, 12)
    assert write(path, "Lunch", "2026-12-01T12:00") == written
    assert b"DTSTART:20261201T030000Z" in path.read_bytes()


def test_an_hour_over_a_change_of_clocks_is_an_hour(tmp_path: Path) -> None:
    desk = assistant.Desk(tmp_path / "a.ics", tmp_path / "a.sqlite3", zone=ZoneInfo("Europe/Berlin"))
    arguments = {"title": "Night", "start": "2026-10-25T02:30", "minutes": 60}
    written = asyncio.run(assistant.write_calendar.run(arguments, context=Context(desk, idempotency_key="k")))
    assert written.end.timestamp() - written.start.timestamp() == 3600


def test_a_broken_file_is_a_sentence_for_the_model(tmp_path: Path) -> None:
    path = tmp_path / "broken.ics"
    path.write_text("this is no calendar")
    with pytest.raises(ToolError, match=r"the calendar 'broken\.ics' can't be read"):
        read(path, "2026-12-01")


@given(
    first=st.dates(date(2026, 1, 1), date(2026, 12, 31)),
    every=st.integers(1, 4),
    count=st.integers(1, 20),
    asked=st.dates(date(2026, 1, 1), date(2027, 12, 31)),
    days=st.integers(1, 31),
)
def test_every_weekly_rule_agrees_with_counting_weeks(
    tmp_path_factory: pytest.TempPathFactory, first: date, every: int, count: int, asked: date, days: int
) -> None:
    event = f"SUMMARY:S\nDTSTART;TZID=Asia/Seoul:{first:%Y%m%d}T100000\nDURATION:PT1H\nRRULE:FREQ=WEEKLY;INTERVAL={every};COUNT={count}"
    path = write_file(tmp_path_factory.mktemp("weekly"), event)
    expected = [first + timedelta(weeks=every * index) for index in range(count)]
    wanted = [day for day in expected if asked <= day < asked + timedelta(days=days)]
    assert [found.start.date() for found in read(path, asked.isoformat(), days)] == wanted
