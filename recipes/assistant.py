"""A personal assistant: a calendar file, the weather, reminders.

    flowkit chat recipes/assistant.py "What is on my calendar on 2026-12-01, and how is the weather in Seoul?"

What it shows: tools that are chosen by what was said, so that a small request carries few schemas; reads and writes of
one resource in their order; a web service with a time limit; writes whose id is the call's own.

The calendar is an iCalendar file (RFC 5545) that other programs may read and write too.
"""

import os
import sqlite3
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field

from flowkit import CONTEXT, Agent, ConfigurationError, Context, DefaultModel, Tool, ToolError, Toolset, tool

WEATHER_URL = "https://api.open-meteo.com/v1/forecast"
PLACES_URL = "https://geocoding-api.open-meteo.com/v1/search"
WEATHER_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Desk:
    """What one person's tools work on; the addresses are those of Open-Meteo, or of a server of one's own."""

    calendar: Path
    reminders: Path
    weather_url: str = WEATHER_URL
    places_url: str = PLACES_URL


@dataclass(frozen=True)
class Event:
    id: str
    title: str
    start: datetime
    end: datetime
    place: str | None = None


@dataclass(frozen=True)
class Weather:
    place: str
    day: date
    lowest_c: float
    highest_c: float
    rain_mm: float


@dataclass(frozen=True)
class Reminder:
    id: str
    text: str
    at: datetime


@contextmanager
def open_data(
    calendar: Path | None = None,
    reminders: Path | None = None,
    weather_url: str | None = None,
    places_url: str | None = None,
) -> Generator[Desk]:
    """The files of this folder, unless others are named; `FLOWKIT_WEATHER_URL` names another weather server."""
    folder = Path(__file__).parent
    desk = Desk(
        calendar or folder / "assistant.ics",
        reminders or folder / "assistant.sqlite3",
        weather_url or os.environ.get("FLOWKIT_WEATHER_URL") or WEATHER_URL,
        places_url or os.environ.get("FLOWKIT_PLACES_URL") or PLACES_URL,
    )
    try:
        with _open_reminders(desk) as db:
            db.execute("CREATE TABLE IF NOT EXISTS reminders (id TEXT PRIMARY KEY, text TEXT, at TEXT)")
    except sqlite3.Error as error:
        raise ConfigurationError(f"the reminders {str(desk.reminders)!r} can't be opened: {error}") from error
    yield desk


@tool(name="calendar.read", effect="read", resource="calendar")
def read_calendar(
    day: Annotated[date, Field(description="The first day, as in 2026-12-01.")],
    days: Annotated[int, Field(ge=1, le=31)] = 1,
    ctx: Context[Desk] = CONTEXT,
) -> list[Event]:
    """Read the calendar's events of a day, or of several from that day on, in order.

    As in "What is on my calendar on Monday?" or "Am I free on 2026-12-01?".
    """
    first = datetime.combine(day, datetime.min.time(), tzinfo=UTC)
    last = first + timedelta(days=days)
    events = [event for event in _read_events(ctx.data.calendar) if event.start < last and event.end > first]
    return sorted(events, key=lambda event: event.start)


@tool(name="calendar.write", effect="idempotent", resource="calendar")
def write_calendar(
    title: str,
    start: Annotated[datetime, Field(description="As in 2026-12-01T14:00.")],
    minutes: Annotated[int, Field(ge=5, le=1440)] = 60,
    place: str | None = None,
    ctx: Context[Desk] = CONTEXT,
) -> Event:
    """Write an event into the calendar; refuses a time that is taken.

    As in "Put lunch with Kim into my calendar on 2026-12-01T12:00".
    """
    # The id is the same when this call is repeated, so it can't be written twice.
    event = Event(ctx.idempotency_key, title, _aware(start), _aware(start) + timedelta(minutes=minutes), place)
    for other in _read_events(ctx.data.calendar):
        if other.id == event.id:
            return other
        if other.start < event.end and event.start < other.end:
            raise ToolError(f"{other.title!r} is at that time, until {other.end:%H:%M}; choose another")
    _append_event(ctx.data.calendar, event)
    return event


@tool(name="weather.check", ttl=1800, scope="all", timeout=2 * WEATHER_TIMEOUT_S)
async def check_weather(
    place: Annotated[str, Field(description="A city, as in Seoul.")],
    day: Annotated[date | None, Field(description="Today when left out; at most 15 days ahead.")] = None,
    ctx: Context[Desk] = CONTEXT,
) -> Weather:
    """Check the weather of a place: the lowest and highest temperature in degrees Celsius, and rain in millimetres.

    As in "How is the weather in Seoul?" or "Will it rain in Busan tomorrow?".
    """
    found = await _get(ctx.data.places_url, {"name": place, "count": "1"})
    places = cast(list[dict[str, Any]], found.get("results") or [])
    if not places:
        raise ToolError(f"no place called {place!r} is known; write it as on an English map")
    wanted = (day or datetime.now(UTC).date()).isoformat()
    forecast = await _get(
        ctx.data.weather_url,
        {
            "latitude": str(places[0]["latitude"]),
            "longitude": str(places[0]["longitude"]),
            "daily": "temperature_2m_min,temperature_2m_max,precipitation_sum",
            "timezone": "auto",
            "start_date": wanted,
            "end_date": wanted,
        },
    )
    daily = cast(dict[str, list[float]], forecast.get("daily") or {})
    if not daily.get("temperature_2m_min"):
        raise ToolError(f"there is no forecast for {wanted}; it reaches 15 days ahead")
    return Weather(
        str(places[0]["name"]),
        date.fromisoformat(wanted),
        daily["temperature_2m_min"][0],
        daily["temperature_2m_max"][0],
        daily["precipitation_sum"][0],
    )


@tool(name="reminder.set", effect="idempotent", resource="reminders")
def set_reminder(
    text: str,
    at: Annotated[datetime, Field(description="As in 2026-12-01T09:00.")],
    ctx: Context[Desk] = CONTEXT,
) -> Reminder:
    """Set a reminder for a moment.

    As in "Remind me to call mother at 2026-12-01T18:00".
    """
    reminder = Reminder(ctx.idempotency_key, text, _aware(at))
    with _open_reminders(ctx.data) as db:
        db.execute("INSERT OR IGNORE INTO reminders VALUES (?, ?, ?)", (reminder.id, text, reminder.at.isoformat()))
    return reminder


TOOLS: tuple[Tool[..., Any], ...] = (read_calendar, write_calendar, check_weather, set_reminder)
WORDS = {
    "calendar.read": "calendar event meeting appointment free busy schedule 일정 캘린더 약속",
    "calendar.write": "calendar meeting appointment put add book schedule 일정 캘린더 약속",
    "weather.check": "weather rain snow warm cold temperature umbrella 날씨 비 우산",
    "reminder.set": "remind reminder forget 알림 알려",
}


def choose_tools(request: str) -> list[Tool[..., Any]]:
    """The tools whose words stand in the request; all of them when none do."""
    text = request.casefold()
    chosen = [one for one in TOOLS if any(word in text for word in WORDS[one.name].split())]
    return chosen or list(TOOLS)


def tools_for(ctx: Context[Desk]) -> Iterable[Tool[..., Any]]:
    """The tools of one turn, by what the user last said."""
    return choose_tools(ctx.message)


agent = Agent(
    DefaultModel(),
    name="assistant",
    tools=[Toolset.dynamic(tools_for)],
    instructions=lambda _: (
        f"You are a personal assistant. Today is {datetime.now(UTC):%A, %Y-%m-%d}. Use the tools for every fact; call "
        "several at once when they don't need one another. Answer in the user's language, briefly."
    ),
)


@contextmanager
def _open_reminders(desk: Desk) -> Generator[sqlite3.Connection]:
    """A connection of one call: what it changed is committed on leaving."""
    with closing(sqlite3.connect(desk.reminders)) as connection, connection:
        yield connection


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _import_icalendar() -> Any:
    try:
        import icalendar
    except ModuleNotFoundError as error:
        raise ToolError("the calendar needs the package icalendar: pip install 'flowkit-agents[apps]'") from error
    return icalendar


def _read_events(path: Path) -> list[Event]:
    if not path.exists():
        return []
    icalendar = _import_icalendar()
    try:
        calendar = icalendar.Calendar.from_ical(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ToolError(f"the calendar {path.name!r} can't be read: {error}") from error
    return [_read_event(component) for component in calendar.walk("VEVENT")]


def _read_event(component: Any) -> Event:
    start = _as_datetime(component.decoded("DTSTART"))
    end = _as_datetime(component.decoded("DTEND")) if "DTEND" in component else start + timedelta(hours=1)
    place = component.get("LOCATION")
    return Event(
        str(component.get("UID", "")),
        str(component.get("SUMMARY", "")),
        start,
        end,
        None if place is None else str(place),
    )


def _as_datetime(value: date | datetime) -> datetime:
    return _aware(value) if isinstance(value, datetime) else datetime.combine(value, datetime.min.time(), tzinfo=UTC)


def _append_event(path: Path, event: Event) -> None:
    icalendar = _import_icalendar()
    if path.exists():
        calendar = icalendar.Calendar.from_ical(path.read_bytes())
    else:
        calendar = icalendar.Calendar()
        calendar.add("PRODID", "-//flowkit//assistant//EN")
        calendar.add("VERSION", "2.0")
    component = icalendar.Event()
    component.add("UID", event.id)
    component.add("SUMMARY", event.title)
    component.add("DTSTART", event.start)
    component.add("DTEND", event.end)
    component.add("DTSTAMP", datetime.now(UTC))
    if event.place is not None:
        component.add("LOCATION", event.place)
    calendar.add_component(component)
    # Another program may read the file at any moment: it sees the old calendar or the new one.
    part = path.with_suffix(".part")
    part.write_bytes(calendar.to_ical())
    part.replace(path)


async def _get(url: str, query: dict[str, str]) -> dict[str, Any]:
    import httpx2

    try:
        async with httpx2.AsyncClient(timeout=WEATHER_TIMEOUT_S) as client:
            answer = await client.get(url, params=query)
            answer.raise_for_status()
            return cast(dict[str, Any], answer.json())
    except (httpx2.HTTPError, ValueError) as error:
        raise ToolError(f"the weather service can't be asked now: {error or type(error).__name__}") from error
