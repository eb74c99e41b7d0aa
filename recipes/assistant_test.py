"""Run with `python -m pytest`: a scripted model stands in for a real one, and the calendar is a real file."""

from pathlib import Path

import assistant
from flowkit.testing import ScriptedModel, call


def test_the_agent_writes_an_event(tmp_path: Path) -> None:
    event = call("calendar_write", title="Lunch", start="2026-12-01T12:00")
    model = ScriptedModel([[event], [call("calendar_read", day="2026-12-01")], "Done."])
    with (
        assistant.open_data(calendar=tmp_path / "a.ics", reminders=tmp_path / "a.sqlite3") as data,
        assistant.agent.override(model=model, cache=False),
    ):
        result = assistant.agent.run_sync("Put lunch into my calendar on 2026-12-01T12:00", data=data)

    written, read = result.calls
    assert [event.title for event in read.load(assistant.read_calendar)] == ["Lunch"]
    assert written.load(assistant.write_calendar).id
