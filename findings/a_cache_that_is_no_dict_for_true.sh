#!/usr/bin/env bash
# diskcache 5.6.3: keys that a dict takes for one.
# Expected by most: a cache with the interface of a dict finds under True what was stored under 1, as a dict does, or
# keeps 1, 1.0 and True all apart.
# Seen: 1 and 1.0 are one key, True is another; but (1,) and (1.0,) are two.
# Numbers are stored as SQLite's numbers and compared by value; everything else is compared by its pickled bytes.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check diskcache==5.6.3
"$work/venv/bin/python" - "$work/cache" <<'PYTHON'
import sys

import diskcache

with diskcache.Cache(sys.argv[1]) as cache:
    cache[1] = "number"
    cache[(1,)] = "tuple"
    seen = cache.get(1.0), cache.get(True), cache.get((1.0,))
    print(seen)
    assert seen == ("number", None, None), seen
assert ({1: "number"}.get(True), {(1,): "tuple"}.get((1.0,))) == ("number", "tuple")
PYTHON
echo "as stated"
