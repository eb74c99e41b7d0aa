#!/usr/bin/env bash
# python-dateutil 4.0.0: what happens monthly from 31 January on, by its two tools for such dates.
# Expected by most: both fall back to the last day of a shorter month, as `relativedelta` does.
# Seen: the rule skips each month that has no such day, so the rent is due seven times a year, and `count=12` lasts into
# the next year. RFC 5545 says so of recurrences; the last day of the month is written BYMONTHDAY=-1.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check python-dateutil==4.0.0
"$work/venv/bin/python" - <<'PYTHON'
from datetime import datetime

from dateutil.relativedelta import relativedelta
from dateutil.rrule import MONTHLY, rrule

start = datetime(2027, 1, 31)
by_rule = list(rrule(MONTHLY, dtstart=start, count=12))
by_steps = [start + relativedelta(months=step) for step in range(12)]
at_the_end = list(rrule(MONTHLY, dtstart=start, bymonthday=-1, count=12))
print([f"{day:%d %b}" for day in by_rule], [f"{day:%d %b}" for day in by_steps[:4]])
assert [day.month for day in by_rule if day.year == 2027] == [1, 3, 5, 7, 8, 10, 12]
assert by_rule[-1] == datetime(2028, 8, 31), by_rule[-1]
assert by_steps[1] == datetime(2027, 2, 28) and by_steps[-1] == datetime(2027, 12, 31)
assert at_the_end[:2] == [datetime(2027, 1, 31), datetime(2027, 2, 28)]
PYTHON
echo "as stated"
