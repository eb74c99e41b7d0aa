"""The assistant's calendar: an iCalendar file (RFC 5545) that other programs read and write too.

Repeats, exceptions and moved events are expanded by `recurring-ical-events`; days and times without a zone are those of
the person's own zone.
"""

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

from flowkit import ToolError

INSTALL = "the calendar needs flowkit's extra `apps`: pip install 'flowkit-agents[apps]'"


@dataclass(frozen=True)
class Event:
    """An event on the calendar; `all_day` ones begin and end at midnight."""

    id: str
    title: str
    start: datetime
    end: datetime
    place: str | None = None
    all_day: bool = False


def read_events(path: Path, start: datetime, end: datetime, zone: tzinfo) -> list[Event]:
    """Read what takes place between two moments, in order; cancelled events are left out. Raises `ToolError`."""
    found = (_read_event(component, zone) for component in _expand(path, start, end))
    return sorted(found, key=lambda event: (event.start, event.end))


def find_conflict(path: Path, start: datetime, end: datetime, zone: tzinfo) -> Event | None:
    """Find the first event that takes up time between two moments; transparent ones (RFC 5545, 3.8.2.7) don't."""
    for component in _expand(path, start, end):
        event = _read_event(component, zone)
        if str(component.get("TRANSP", "OPAQUE")).upper() != "TRANSPARENT" and event.start < end and start < event.end:
            return event
    return None


def find_event(path: Path, id: str, zone: tzinfo) -> Event | None:
    """Find the event with this id."""
    for calendar in _read_calendars(path):
        for component in calendar.walk("VEVENT"):
            if str(component.get("UID", "")) == id:
                return _read_event(component, zone)
    return None


def append_event(path: Path, event: Event) -> None:
    """Add an event to the file, which is made where there is none."""
    icalendar = _import_icalendar()
    calendars = _read_calendars(path)
    if not calendars:
        calendar = icalendar.Calendar()
        calendar.add("PRODID", "-//flowkit//assistant//EN")
        calendar.add("VERSION", "2.0")
        calendars = [calendar]
    component = icalendar.Event()
    component.add("UID", event.id)
    component.add("SUMMARY", event.title)
    component.add("DTSTART", event.start.astimezone(UTC))
    component.add("DTEND", event.end.astimezone(UTC))
    component.add("DTSTAMP", datetime.now(UTC))
    if event.place is not None:
        component.add("LOCATION", event.place)
    calendars[0].add_component(component)
    # Another program may read the file at any moment: it sees the old calendar or the new one.
    part = path.with_suffix(".part")
    part.write_bytes(b"".join(calendar.to_ical() for calendar in calendars))
    part.replace(path)


def _expand(path: Path, start: datetime, end: datetime) -> Iterator[Any]:
    """Yield each occurrence of an event between two moments that isn't cancelled."""
    calendars = _read_calendars(path)
    if not calendars:
        return
    try:
        import recurring_ical_events  # pyright: ignore[reportMissingTypeStubs] - the package has no types
    except ModuleNotFoundError as error:
        raise ToolError(INSTALL) from error
    for calendar in calendars:
        try:
            for component in calendar.walk("VEVENT"):
                _mend_rule(component)
            if str(calendar.get("X-WR-TIMEZONE", "UTC")) not in available_timezones():
                del calendar["X-WR-TIMEZONE"]  # nobody's standard, and "GMT+9" would be an error
            occurrences: list[Any] = recurring_ical_events.of(calendar).between(start, end)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ToolError(f"the calendar {path.name!r} has an event that can't be read: {error}") from error
        yield from (one for one in occurrences if str(one.get("STATUS", "")).upper() != "CANCELLED")


def _mend_rule(component: Any) -> None:
    """Let a repeat that ends on a day include that day, and refuse one that takes minutes to count.

    Many programs write a day where a moment is required (RFC 5545, 3.3.10), which would end at its midnight.
    """
    rule = component.get("RRULE")
    if rule is None or isinstance(rule, list):
        return
    if {str(kind).upper() for kind in rule.get("FREQ", [])} & {"SECONDLY", "MINUTELY"}:
        raise ValueError(f"{component.get('SUMMARY', '')!s} repeats each second or minute")
    if isinstance(component.decoded("DTSTART"), datetime):
        ends = [day if isinstance(day, datetime) else datetime.combine(day, time.max) for day in rule.get("UNTIL", [])]
        if ends:
            rule["UNTIL"] = ends


def _read_calendars(path: Path) -> list[Any]:
    """Read the calendars of the file: several may follow one another in it (RFC 5545, 3.4)."""
    if not path.exists():
        return []
    icalendar = _import_icalendar()
    try:
        return icalendar.Calendar.from_ical(_unfold(path.read_bytes()), multiple=True)
    except UnicodeDecodeError as error:
        raise ToolError(f"the calendar {path.name!r} isn't UTF-8: export it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise ToolError(f"the calendar {path.name!r} can't be read: {error}") from error


def _unfold(data: bytes) -> str:
    """Decode the file, and join folded lines before: a fold may stand within a character (RFC 5545, 3.1)."""
    return re.sub(rb"\n[ \t]", b"", re.sub(rb"\r\n?", b"\n", data)).decode("utf-8-sig").replace("\n", "\r\n")


def _read_event(component: Any, zone: tzinfo) -> Event:
    """Read a component: without an end it lasts a day if it begins on a day, else no time (RFC 5545, 3.6.1)."""
    begins = component.decoded("DTSTART")
    all_day = not isinstance(begins, datetime) or str(component.get("X-MICROSOFT-CDO-ALLDAYEVENT")).upper() == "TRUE"
    start = _place(begins, zone)
    if "DTEND" in component:
        end = _place(component.decoded("DTEND"), zone)
    elif "DURATION" in component:
        end = start + component.decoded("DURATION")
    else:
        end = _place(begins + timedelta(days=1), zone) if all_day else start
    if all_day and end <= start:
        end = _place(begins + timedelta(days=1), zone)  # some programs write a day's own date as its end
    place = component.get("LOCATION")
    return Event(
        str(component.get("UID", "")),
        str(component.get("SUMMARY", "")),
        start,
        end,
        None if place is None else str(place),
        all_day,
    )


def _place(moment: date | datetime, zone: tzinfo) -> datetime:
    """Return the moment in this zone; a day begins at its midnight, and a time without a zone is a time in it."""
    if not isinstance(moment, datetime):
        return datetime.combine(moment, datetime.min.time(), tzinfo=zone)
    return moment.replace(tzinfo=zone) if moment.tzinfo is None else moment.astimezone(zone)


def _import_icalendar() -> Any:
    try:
        import icalendar
    except ModuleNotFoundError as error:
        raise ToolError(INSTALL) from error
    # A zone such as "/mozilla.org/20050126_1/Europe/Berlin" is read rightly, with a warning.
    warnings.filterwarnings("ignore", message=".*is a globally unique TZID")
    return icalendar
