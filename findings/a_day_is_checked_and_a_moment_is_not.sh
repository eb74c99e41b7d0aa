#!/usr/bin/env bash
# jsonschema 4.26.0: formats, by the checker that the package has for each draft and that one has to ask for.
# Expected by most: who asks for formats to be checked gets them checked, or is told which of them can't be.
# Seen: "not so, yesterday!" is refused as a `date`, `uuid` or `email` and accepted as a `date-time`, `time`, `duration`,
# `uri` or `hostname`: these need packages that the extra `format` installs, and a format without its package is passed
# over without a word. So the day of an order is checked and the moment of its delivery isn't, on the same object.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
cat > "$work/formats.py" <<'PYTHON'
from jsonschema import Draft202012Validator

formats = ("date", "uuid", "email", "date-time", "time", "duration", "uri", "hostname")
checker = Draft202012Validator.FORMAT_CHECKER
print(
    *(
        name
        for name in formats
        if Draft202012Validator({"type": "string", "format": name}, format_checker=checker).is_valid("not so, yesterday!")
    )
)
PYTHON
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jsonschema==4.26.0
alone=$("$work/venv/bin/python" "$work/formats.py")
"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'jsonschema[format]==4.26.0'
with_extra=$("$work/venv/bin/python" "$work/formats.py")
echo "accepted alone: $alone; with the extra: $with_extra"
[ "$alone" = "date-time time duration uri hostname" ]
[ "$with_extra" = "" ]
echo "as stated"
