#!/usr/bin/env bash
# dateparser 1.5.0: "tomorrow at 3 pm" in English and in Korean, as a user says it of a reminder.
# Expected by most: a text that the library takes in a language is read whole, or refused with None.
# Seen: of the Korean text the day is read and the hour is dropped without a word; the hour of the call stands in its
# place. So a reminder that is set at ten in the morning rings at ten. The English text is read whole.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check dateparser==1.5.0
"$work/venv/bin/python" - <<'PYTHON'
import warnings
from datetime import datetime

import dateparser

NOW = datetime(2026, 11, 30, 10)


def read(text: str, language: str) -> datetime | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dateparser.parse(text, languages=[language], settings={"RELATIVE_BASE": NOW})


english, korean = read("tomorrow at 3 pm", "en"), read("내일 오후 3시", "ko")
print(english, korean)
assert english == datetime(2026, 12, 1, 15), english
assert korean == datetime(2026, 12, 1, 10), korean
PYTHON
echo "as stated"
