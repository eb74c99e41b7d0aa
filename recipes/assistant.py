"""A personal assistant: a calendar file, the weather, reminders.

    flowkit chat recipes/assistant.py "What is on my calendar on 2026-12-01, and how is the weather in Seoul?"

What it shows: tools that are chosen by what was said, so that a small request carries few schemas; reads and writes of
one resource in their order; a web service with a time limit; writes whose id is the call's own.

The calendar is an iCalendar file (RFC 5545); `assistant_calendar.py` reads and writes it.
"""

import os
import sqlite3
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field

from assistant_calendar import Event, append_event, find_conflict, find_event, read_events
from flowkit import CONTEXT, Agent, ConfigurationError, Context, DefaultModel, Tool, ToolError, Toolset, tool

WEATHER_URL = "https://api.open-meteo.com/v1/forecast"
PLACES_URL = "https://geocoding-api.open-meteo.com/v1/search"
WEATHER_TIMEOUT_S = 5.0
UTC_ZONE = ZoneInfo("UTC")


@dataclass(frozen=True)
class Desk:
    """What one person's tools work on; the addresses are those of Open-Meteo, or of a server of one's own."""

    calendar: Path
    reminders: Path
    weather_url: str = WEATHER_URL
    places_url: str = PLACES_URL
    zone: ZoneInfo = UTC_ZONE


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
    zone: ZoneInfo | None = None,
) -> Generator[Desk]:
    """Open the files of this folder, unless others are named; days and times are those of this machine's zone.

    `FLOWKIT_WEATHER_URL` names another weather server.
    """
    folder = Path(__file__).parent
    desk = Desk(
        calendar or folder / "assistant.ics",
        reminders or folder / "assistant.sqlite3",
        weather_url or os.environ.get("FLOWKIT_WEATHER_URL") or WEATHER_URL,
        places_url or os.environ.get("FLOWKIT_PLACES_URL") or PLACES_URL,
        zone or _find_local_zone(),
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

    As in "What is on my calendar on Monday?", "Am I free on 2026-12-01?" or "월요일 일정이 뭐가 있나요?".
    """
    zone = ctx.data.zone
    first = datetime.combine(day, datetime.min.time(), tzinfo=zone)
    last = datetime.combine(day + timedelta(days=days), datetime.min.time(), tzinfo=zone)
    return read_events(ctx.data.calendar, first, last, zone)


@tool(name="calendar.write", effect="idempotent", resource="calendar")
def write_calendar(
    title: str,
    start: Annotated[datetime, Field(description="As in 2026-12-01T14:00.")],
    minutes: Annotated[int, Field(ge=5, le=1440)] = 60,
    place: str | None = None,
    ctx: Context[Desk] = CONTEXT,
) -> Event:
    """Write an event into the calendar; refuses a time that is taken.

    As in "Put lunch with Kim into my calendar on 2026-12-01T12:00" or "내일 12시에 김과 점심을 캘린더에 넣어 줘".
    """
    # The id is the same when this call is repeated, so it can't be written twice.
    calendar, zone = ctx.data.calendar, ctx.data.zone
    if (written := find_event(calendar, ctx.idempotency_key, zone)) is not None:
        return written
    begin = _set_zone(start, zone).astimezone(zone)
    # By the clock of UTC: minutes over a change of clocks are still minutes.
    end = (begin.astimezone(UTC) + timedelta(minutes=minutes)).astimezone(zone)
    event = Event(ctx.idempotency_key, title, begin, end, place)
    if (other := find_conflict(calendar, event.start, event.end, zone)) is not None:
        until = "all day" if other.all_day else f"until {other.end:%H:%M}"
        raise ToolError(f"{other.title!r} is at that time, {until}; choose another")
    append_event(calendar, event)
    return event


@tool(name="weather.check", ttl=1800, scope="all", timeout=2 * WEATHER_TIMEOUT_S)
async def check_weather(
    place: Annotated[str, Field(description="A city, as in Seoul.")],
    day: Annotated[date | None, Field(description="Today when left out; at most 15 days ahead.")] = None,
    ctx: Context[Desk] = CONTEXT,
) -> Weather:
    """Check the weather of a place: the lowest and highest temperature in degrees Celsius, and rain in millimetres.

    As in "How is the weather in Seoul?", "Will it rain in Busan tomorrow?" or "서울 날씨가 어떤가요?".
    """
    found = await _get(ctx.data.places_url, {"name": place, "count": "1"})
    places = cast(list[dict[str, Any]], found.get("results") or [])
    if not places:
        raise ToolError(f"no place called {place!r} is known; write it as on an English map")
    wanted = (day or datetime.now(ctx.data.zone).date()).isoformat()
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

    As in "Remind me to call mother at 2026-12-01T18:00" or "오후 6시에 어머니께 전화하라고 알려 줘".
    """
    reminder = Reminder(ctx.idempotency_key, text, _set_zone(at, ctx.data.zone))
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
    """Choose the tools whose words stand in the request; all of them when none do."""
    text = request.casefold()
    chosen = [one for one in TOOLS if any(word in text for word in WORDS[one.name].split())]
    return chosen or list(TOOLS)


def tools_for(ctx: Context[Desk]) -> Iterable[Tool[..., Any]]:
    """Return the tools of one turn, by the user's last message."""
    return choose_tools(ctx.message)


agent = Agent(
    DefaultModel(),
    name="assistant",
    tools=[Toolset.dynamic(tools_for)],
    instructions=lambda ctx: (
        f"You are a personal assistant. Today is {datetime.now(ctx.data.zone):%A, %Y-%m-%d}. Use the tools for every fact; call "
        "several at once when they don't need one another. Answer in the user's language, briefly."
    ),
)


@contextmanager
def _open_reminders(desk: Desk) -> Generator[sqlite3.Connection]:
    """Open a connection of one call: what it changed is committed on leaving."""
    with closing(sqlite3.connect(desk.reminders)) as connection, connection:
        yield connection


def _find_local_zone() -> ZoneInfo:
    """Find this machine's zone by name, so that days keep their length over a change of clocks; UTC where it has none."""
    try:
        import tzlocal

        return ZoneInfo(tzlocal.get_localzone_name())
    except (ModuleNotFoundError, ZoneInfoNotFoundError):
        return UTC_ZONE


def _set_zone(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment with a time zone: a time without one is a time of the person's own zone."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


async def _get(url: str, query: dict[str, str]) -> dict[str, Any]:
    import httpx2

    try:
        async with httpx2.AsyncClient(timeout=WEATHER_TIMEOUT_S) as client:
            answer = await client.get(url, params=query)
            answer.raise_for_status()
            return cast(dict[str, Any], answer.json())
    except (httpx2.HTTPError, ValueError) as error:
        raise ToolError(f"the weather service can't be asked now: {error or type(error).__name__}") from error
