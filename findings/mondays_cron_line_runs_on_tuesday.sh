#!/usr/bin/env bash
# APScheduler 3.11.3 and croniter 7.0.0, one line of a crontab: "0 9 * * 1".
# Expected by most: a trigger that is made `from_crontab` reads the days of the week as cron does, with Monday as 1.
# Seen: it runs on Tuesday, since its own numbers begin with Monday as 0; so "1-5" is Tuesday to Saturday, and the
# line for Sunday, "7", is refused. Names of days mean the same in both.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check apscheduler==3.11.3 croniter==7.0.0
"$work/venv/bin/python" - <<'PYTHON'
from datetime import UTC, datetime

from apscheduler.triggers.cron import CronTrigger
from croniter import croniter

NOW = datetime(2026, 11, 28, tzinfo=UTC)  # a Saturday


def by_scheduler(line: str) -> str:
    return CronTrigger.from_crontab(line, timezone=UTC).get_next_fire_time(None, NOW).strftime("%A")


def by_cron(line: str) -> str:
    return croniter(line, NOW).get_next(datetime).strftime("%A")


for line in ("0 9 * * 1", "0 9 * * mon"):
    print(line, by_scheduler(line), by_cron(line))
assert (by_scheduler("0 9 * * 1"), by_cron("0 9 * * 1")) == ("Tuesday", "Monday")
assert (by_scheduler("0 9 * * mon"), by_cron("0 9 * * mon")) == ("Monday", "Monday")
assert by_scheduler("0 9 * * 1-5") == "Saturday"
try:
    CronTrigger.from_crontab("0 9 * * 7", timezone=UTC)
except ValueError as error:
    print(error)
else:
    raise AssertionError("7 is taken")
PYTHON
echo "as stated"
