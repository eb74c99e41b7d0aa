"""The personal assistant: a real calendar file, a real weather server on loopback, a real database."""

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import assistant
from flowkit import ScriptedModel, ToolError
from flowkit.context import Context
from flowkit.models.scripted import call

pytest.importorskip("icalendar", reason="the extra `apps` isn't installed")


class OpenMeteo(BaseHTTPRequestHandler):
    """Answers as Open-Meteo does, for one city."""

    def do_GET(self) -> None:
        if self.path.startswith("/places"):
            found = [{"name": "Seoul", "latitude": 37.57, "longitude": 126.98}] if "name=Seoul" in self.path else []
            body: dict[str, Any] = {"results": found}
        else:
            body = {"daily": {"temperature_2m_min": [-3.5], "temperature_2m_max": [4.0], "precipitation_sum": [0.2]}}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def weather() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), OpenMeteo) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def desk(tmp_path: Path, weather: str) -> Iterator[assistant.Desk]:
    with assistant.open_data(
        calendar=tmp_path / "a.ics",
        reminders=tmp_path / "r.sqlite3",
        weather_url=f"{weather}/forecast",
        places_url=f"{weather}/places",
    ) as desk:
        yield desk


def test_an_event_that_was_written_is_read_and_its_time_is_taken(desk: assistant.Desk) -> None:
    async def go() -> list[Any]:
        context = Context(desk, idempotency_key="k1")
        lunch = {"title": "Lunch", "start": "2026-12-01T12:00", "place": "Jongno"}
        first = await assistant.write_calendar.run(lunch, context=context)
        again = await assistant.write_calendar.run(lunch, context=context)
        assert first.id == again.id
        with pytest.raises(ToolError, match="'Lunch' is at that time"):
            await assistant.write_calendar.run({"title": "Tea", "start": "2026-12-01T12:30"}, context=Context(desk))
        return await assistant.read_calendar.run({"day": "2026-12-01"}, context=context)

    (event,) = asyncio.run(go())
    assert (event.title, event.place) == ("Lunch", "Jongno")
    assert event.start == datetime(2026, 12, 1, 12, tzinfo=UTC)


def test_the_weather_comes_over_http_and_an_unknown_place_says_so(desk: assistant.Desk) -> None:
    found = asyncio.run(assistant.check_weather.run({"place": "Seoul", "day": "2026-12-01"}, context=Context(desk)))
    assert (found.place, found.day, found.lowest_c, found.highest_c) == ("Seoul", date(2026, 12, 1), -3.5, 4.0)
    with pytest.raises(ToolError, match="no place called 'Atlantis'"):
        asyncio.run(assistant.check_weather.run({"place": "Atlantis"}, context=Context(desk)))


def test_without_a_network_the_weather_is_a_clear_error(tmp_path: Path) -> None:
    with (
        assistant.open_data(
            reminders=tmp_path / "r", weather_url="http://127.0.0.1:9", places_url="http://127.0.0.1:9"
        ) as desk,
        pytest.raises(ToolError, match="the weather service can't be asked now"),
    ):
        asyncio.run(assistant.check_weather.run({"place": "Seoul"}, context=Context(desk)))


def test_a_reminder_is_kept_once(desk: assistant.Desk) -> None:
    async def go() -> None:
        for _ in range(2):
            await assistant.set_reminder.run(
                {"text": "call mother", "at": "2026-12-01T18:00"}, context=Context(desk, idempotency_key="k")
            )

    asyncio.run(go())
    database = sqlite3.connect(desk.reminders)
    assert database.execute("SELECT text FROM reminders").fetchall() == [("call mother",)]
    database.close()


@pytest.mark.parametrize(
    ("request_text", "names"),
    [
        ("Will it rain in Busan?", ["weather.check"]),
        ("내일 서울 날씨 어때?", ["weather.check"]),
        ("Remind me to buy milk", ["reminder.set"]),
        ("Am I free on Monday?", ["calendar.read"]),
        ("Hello", ["calendar.read", "calendar.write", "weather.check", "reminder.set"]),
    ],
)
def test_only_the_tools_that_a_request_needs_are_told(request_text: str, names: list[str]) -> None:
    assert [tool.name for tool in assistant.choose_tools(request_text)] == names


def test_the_agent_sends_only_the_schemas_that_are_needed_and_runs_both_at_once(desk: assistant.Desk) -> None:
    model = ScriptedModel(
        [
            [call("calendar_read", day="2026-12-01"), call("weather_check", place="Seoul", day="2026-12-01")],
            "Free and cold.",
        ]
    )
    with assistant.agent.override(model=model, cache=False):
        result = assistant.agent.run_sync(
            "Is my calendar free on 2026-12-01, and how is the weather in Seoul?", data=desk
        )
    assert result.output == "Free and cold."
    assert [spec.name for spec in model.requests[0].tools] == ["calendar_read", "calendar_write", "weather_check"]
    assert [outcome.state for outcome in result.calls] == ["finished", "finished"]
