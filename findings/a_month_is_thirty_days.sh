#!/usr/bin/env bash
# pydantic 2.14.4: a `timedelta` by an ISO 8601 duration, as a model writes it for a reminder.
# Expected by most: P1M and P1Y are refused, since a month and a year have no fixed length.
# Seen: P1M is 30 days and P1Y 365, without a word; its own schema says `duration`, where the standard has both. So
# "in a month", said on 31 January, is 2 March, and four years from a leap day end a day short.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pydantic==2.14.4
"$work/venv/bin/python" - <<'PYTHON'
from datetime import date, timedelta

from pydantic import TypeAdapter

adapter = TypeAdapter(timedelta)
seen = [adapter.validate_python(text).days for text in ("P1M", "P1Y", "P1Y1M")]
print(adapter.json_schema(), seen, date(2026, 1, 31) + adapter.validate_python("P1M"))
assert adapter.json_schema() == {"format": "duration", "type": "string"}
assert seen == [30, 365, 395], seen
assert date(2026, 1, 31) + adapter.validate_python("P1M") == date(2026, 3, 2)
assert date(2024, 2, 29) + adapter.validate_python("P4Y") == date(2028, 2, 28)
PYTHON
echo "as stated"
