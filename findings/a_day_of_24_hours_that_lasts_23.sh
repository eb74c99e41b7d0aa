#!/usr/bin/env bash
# icalendar 7.3.2: an event whose duration is 24 hours, over the night in which the clocks go forward.
# Expected by most: it ends 24 hours later, at one o'clock for a start at noon; RFC 5545 tells hours, which are exact, from
# days, which follow the clock.
# Seen: it ends at noon, 23 hours later, and is written back as one day: both are read as one `timedelta`, which knows
# no difference. So a calendar that is only read and stored says something else than before.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check icalendar==7.3.2
"$work/venv/bin/python" - <<'PYTHON'
from icalendar import Event


def lasting(duration: str) -> Event:
    lines = ["BEGIN:VEVENT", "UID:1", "DTSTART;TZID=America/New_York:20260307T120000", f"DURATION:{duration}", "END:VEVENT"]
    return Event.from_ical("\r\n".join([*lines, ""]))


for duration in ("PT24H", "P1D"):
    event = lasting(duration)
    hours = (event.end.timestamp() - event.start.timestamp()) / 3600
    print(duration, event.end, hours, "hours")
    assert hours == 23, (duration, hours)
    assert b"DURATION:P1D\r\n" in event.to_ical()
PYTHON
echo "as stated"
