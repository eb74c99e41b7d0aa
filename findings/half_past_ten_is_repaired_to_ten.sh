#!/usr/bin/env bash
# json_repair 0.64.6: values that a model forgot to put in quotes.
# Expected by most: what can't be read as a number is kept as text, whole; or all such values are cut alike.
# Seen: 2026-11-30, 1.2.3 and 125,000 are kept as text, whole; of 10:30 only the hour is left, as a number, and of 50%
# only 50. Nothing tells that something was dropped, and a field of type number takes it. So a repaired order may be
# right in its day and wrong in its hour.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check json-repair==0.64.6
"$work/venv/bin/python" - <<'PYTHON'
import json_repair

values = ("2026-11-30", "1.2.3", "125,000", "12k", "10:30", "50%")
seen = [json_repair.loads('{"value": %s}' % value)["value"] for value in values]
print(dict(zip(values, seen)))
assert seen == ["2026-11-30", "1.2.3", "125,000", "12k", 10, 50], seen
PYTHON
echo "as stated"
