#!/usr/bin/env bash
# PyYAML 6.0.3: times of day without quotes.
# Expected by most: all times of day are read alike, as text (or all as numbers, by whoever knows YAML 1.1).
# Seen: 09:30 and 08:00 are text, 9:30 is 570, 10:30 is 630, 10:30:15 is 37815.
# YAML 1.1 has integers to the base of 60, and they may not begin with 0; so a file of opening hours changes its types
# at ten o'clock. YAML 1.2, which most editors check by, has no such numbers.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pyyaml==6.0.3
"$work/venv/bin/python" - <<'PYTHON'
import yaml

hours = yaml.safe_load("[08:00, 09:30, 9:30, 10:30, 10:30:15]")
print(hours)
assert hours == ["08:00", "09:30", 570, 630, 37815], hours
PYTHON
echo "as stated"
