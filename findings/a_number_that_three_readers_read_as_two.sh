#!/usr/bin/env bash
# orjson 3.13.0 beside pydantic-core and the standard library: a whole number of twenty digits, as ids of chats and
# posts are.
# Expected by most: a strict JSON reader gives the integer, or refuses what it can't hold.
# Seen: orjson gives a float from 2**64 on, without a word, and the last digits are gone; the other two give the integer.
# Just below 2**64 all three agree, so tests with ids of today don't show it.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check orjson==3.13.0 pydantic==2.13.4
"$work/venv/bin/python" - <<'PYTHON'
import json

import orjson
import pydantic_core

text = "18446744073709551617"
seen = orjson.loads(text), json.loads(text), pydantic_core.from_json(text)
print(*map(repr, seen))
assert seen == (1.8446744073709552e19, 2**64 + 1, 2**64 + 1) and type(seen[0]) is float, seen
assert orjson.loads("18446744073709551615") == 2**64 - 1
PYTHON
echo "as stated"
