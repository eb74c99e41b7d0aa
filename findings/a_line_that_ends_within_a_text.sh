#!/usr/bin/env bash
# httpx 0.28.1: server-sent events read by `iter_lines`, where the text of an event holds U+2028 or U+0085, as texts
# that are pasted from office programs do.
# Expected by most: a line ends at CR or LF, as the format of server-sent events says; JSON may hold the others as they
# are, and `json.dumps(..., ensure_ascii=False)` writes them so.
# Seen: the line ends there, too, so one event's JSON is cut in two and neither half can be read. Bytes that are split
# at LF give it whole.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check httpx==0.28.1
"$work/venv/bin/python" - <<'PYTHON'
import json

import httpx

for mark in ("\u2028", "\u0085"):
    said = {"text": f"first{mark}second"}
    event = f"data: {json.dumps(said, ensure_ascii=False)}\n\n".encode()
    lines = list(httpx.Response(200, content=event).iter_lines())
    print(lines)
    assert lines == ['data: {"text": "first', 'second"}', ""], lines
    assert json.loads(event.split(b"\n")[0].removeprefix(b"data: ")) == said
PYTHON
echo "as stated"
