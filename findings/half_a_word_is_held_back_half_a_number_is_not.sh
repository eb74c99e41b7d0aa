#!/usr/bin/env bash
# jiter 0.19.0 and pydantic-core's `from_json`, reading JSON that a model is still writing.
# Expected by most: reading a part of a document gives what is surely there, so a value that may still grow is left out.
# Seen: a string without its closing quote is left out, unless one asks for it; a number is given as far as it has come.
# Of {"amount": 1250} a reader of each piece sees 1, 12, 125 and 1250, and nothing tells which is whole. After a point
# or an exponent without digits the number is gone again: 3, nothing, 3.5.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check jiter==0.19.0 pydantic==2.14.4
"$work/venv/bin/python" - <<'PYTHON'
import jiter
import pydantic_core

for read in (
    lambda piece: jiter.from_json(piece, partial_mode=True),
    lambda piece: pydantic_core.from_json(piece, allow_partial=True),
):
    whole = b'{"city": "Seoul", "amount": 1250, "weight": 3.5}'
    seen = [read(whole[:end]) for end in range(1, len(whole) + 1)]
    cities = {part["city"] for part in seen if "city" in part}
    amounts = list(dict.fromkeys(part["amount"] for part in seen if "amount" in part))
    weights = [part.get("weight") for part in seen if len(part) > 1][-5:]
    print(cities, amounts, weights)
    assert (cities, amounts) == ({"Seoul"}, [1, 12, 125, 1250]), (cities, amounts)
    assert weights == [None, 3, None, 3.5, 3.5], weights
PYTHON
echo "as stated"
