#!/usr/bin/env bash
# SQLite 3.51 (apsw 3.51.1.0) in WAL mode: a transaction that reads and then writes, as "look whether it's there, then
# add it" does, beside another writer that has already ended. The time to wait for a lock is a minute.
# Expected by most: the write waits up to a minute for the lock, and since nobody holds one it succeeds at once.
# Seen: "database is locked", at once, and the busy handler isn't even asked: what was read is no longer the newest, and
# waiting can't change that. A longer wait doesn't help; `BEGIN IMMEDIATE` takes the lock before the read.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check apsw==3.51.1.0
"$work/venv/bin/python" - <<'PYTHON'
import tempfile
from pathlib import Path

import apsw

with tempfile.TemporaryDirectory() as folder:
    first, second = (apsw.Connection(str(Path(folder, "shop.db"))) for _ in range(2))
    first.execute("PRAGMA journal_mode = WAL")
    first.execute("CREATE TABLE stock (item TEXT, pieces INTEGER)")
    asked: list[int] = []
    for begin in ("BEGIN", "BEGIN IMMEDIATE"):
        first.set_busy_handler(lambda times: asked.append(times) or times < 60)
        first.execute(begin)
        first.execute("SELECT count(*) FROM stock").fetchall()
        if begin == "BEGIN":
            second.execute("INSERT INTO stock VALUES ('mug', 1)")
        try:
            first.execute("INSERT INTO stock VALUES ('cup', 1)")
        except apsw.BusyError as error:
            print(begin, "->", error)
            assert begin == "BEGIN" and asked == [] and second.in_transaction is False
            first.execute("ROLLBACK")
        else:
            print(begin, "-> written")
            assert begin == "BEGIN IMMEDIATE"
            first.execute("COMMIT")
    assert second.execute("SELECT item FROM stock ORDER BY item").fetchall() == [("cup",), ("mug",)]
    first.close()
    second.close()
PYTHON
echo "as stated"
