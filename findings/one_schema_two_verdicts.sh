#!/usr/bin/env bash
# pydantic 2.13.4 and jsonschema 4.26.0, one schema: {"type": "number", "multipleOf": 0.1}.
# Expected by most: a validator of the schema that pydantic writes agrees with pydantic.
# Seen: pydantic takes 0.3, 2.3 and 4.35 (of 0.01), jsonschema refuses all three, and both take 1.1.
# pydantic allows the rounding error of a float division; jsonschema wants the quotient of the doubles to be whole.
# So a price with cents that one side of a wire accepts is refused by the other.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check pydantic==2.13.4 jsonschema==4.26.0
"$work/venv/bin/python" - <<'PYTHON'
from typing import Annotated

import jsonschema
from pydantic import Field, TypeAdapter, ValidationError

seen = []
for value, step in ((0.3, 0.1), (2.3, 0.1), (4.35, 0.01), (1.1, 0.1)):
    adapter = TypeAdapter(Annotated[float, Field(multiple_of=step)])
    try:
        adapter.validate_python(value)
        by_pydantic = True
    except ValidationError:
        by_pydantic = False
    schema = adapter.json_schema()
    by_jsonschema = jsonschema.Draft202012Validator(schema).is_valid(value)
    seen.append((value, by_pydantic, by_jsonschema))
    print(f"{value} as a multiple of {step}: pydantic {by_pydantic}, jsonschema {by_jsonschema}")
assert seen == [(0.3, True, False), (2.3, True, False), (4.35, True, False), (1.1, True, True)], seen
PYTHON
echo "as stated"
