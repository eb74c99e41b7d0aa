#!/usr/bin/env bash
# pydantic 2.14.4: a dict whose keys are pairs, such as (city, district), written as JSON.
# Expected by most: what a type adapter writes it reads back, or it refuses to write what JSON has no keys for.
# Seen: the parts are joined by commas without any escape, so two keys become one text that stands twice in the object;
# and the adapter that wrote it takes no text as such a key, so it can't read any of what it writes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pydantic==2.14.4
"$work/venv/bin/python" - <<'PYTHON'
import json

from pydantic import TypeAdapter, ValidationError

adapter = TypeAdapter(dict[tuple[str, str], int])
shops = {("Busan", "Haeundae,12"): 1, ("Busan,Haeundae", "12"): 2}
written = adapter.dump_json(shops)
print(written)
assert written == b'{"Busan,Haeundae,12":1,"Busan,Haeundae,12":2}', written
assert json.loads(written) == {"Busan,Haeundae,12": 2}
try:
    adapter.validate_json(adapter.dump_json({("Busan", "Haeundae"): 1}))
except ValidationError as error:
    print(error.errors()[0]["type"])
else:
    raise AssertionError("read back")
PYTHON
echo "as stated"
