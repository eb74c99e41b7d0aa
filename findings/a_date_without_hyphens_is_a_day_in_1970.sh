#!/usr/bin/env bash
# pydantic 2.14.4: the basic format of ISO 8601, 20261130, as many APIs and models write a day.
# Expected by most: a `datetime` reads it as that day, as `datetime.fromisoformat` of the standard library does, or
# refuses it.
# Seen: it is read as seconds since 1970, so it is 23 August 1970, with UTC as its zone. A text of digits is a number
# to it, also the year "2026" alone. A `date` refuses both, and the same day with a time, 20261130T090000, is refused.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pydantic==2.14.4
"$work/venv/bin/python" - <<'PYTHON'
from datetime import UTC, date, datetime

from pydantic import TypeAdapter, ValidationError

moment = TypeAdapter(datetime)
seen = [moment.validate_json(text) for text in ('"20261130"', '"2026"')]
print(*seen, datetime.fromisoformat("20261130"))
assert datetime.fromisoformat("20261130") == datetime(2026, 11, 30)
assert seen[0] == datetime(1970, 8, 23, 12, 5, 30, tzinfo=UTC), seen
assert seen[1] == datetime(1970, 1, 1, 0, 33, 46, tzinfo=UTC), seen
for adapter, text in ((TypeAdapter(date), '"20261130"'), (moment, '"20261130T090000"')):
    try:
        adapter.validate_json(text)
    except ValidationError:
        continue
    raise AssertionError(text)
PYTHON
echo "as stated"
