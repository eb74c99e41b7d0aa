#!/usr/bin/env bash
# recurring-ical-events 3.8.2 and python-dateutil 2.9.0, one rule: each Monday, three times, written on a Saturday.
# Expected by most: two libraries that read RFC 5545 agree when it happens, and three times is three times.
# Seen: one gives Saturday and three Mondays, the other three Mondays. RFC 5545 counts the start as the first of the
# three, which neither does, and leaves undefined what a start gives that doesn't fit its rule. One writes such a start by
# putting in the day of the request. A start on the Monday gives the same three in both.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check recurring-ical-events==3.8.2 icalendar==7.3.2 python-dateutil==2.9.0.post0
"$work/venv/bin/python" - <<'PYTHON'
from datetime import datetime

import recurring_ical_events
from dateutil.rrule import rrulestr
from icalendar import Calendar

RULE = "FREQ=WEEKLY;BYDAY=MO;COUNT=3"


def days(start: datetime) -> tuple[list[str], list[str]]:
    event = ["BEGIN:VEVENT", "UID:1", f"DTSTART:{start:%Y%m%dT%H%M%S}", f"RRULE:{RULE}", "END:VEVENT"]
    lines = ["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//x//y//EN", *event, "END:VCALENDAR", ""]
    events = recurring_ical_events.of(Calendar.from_ical("\r\n".join(lines))).all()
    return sorted(f"{each.start:%m-%d}" for each in events), [f"{day:%m-%d}" for day in rrulestr(RULE, dtstart=start)]


saturday, monday = days(datetime(2026, 11, 28, 9)), days(datetime(2026, 11, 30, 9))
print(saturday, monday)
mondays = ["11-30", "12-07", "12-14"]
assert saturday == (["11-28", *mondays], mondays), saturday
assert monday == (mondays, mondays), monday
PYTHON
echo "as stated"
