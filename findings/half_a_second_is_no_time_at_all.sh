#!/usr/bin/env bash
# redis-py 8.1.0: how long a key lives, given as a `timedelta` of less than a second or between two.
# Expected by most: a `timedelta` keeps its fraction, since Redis knows milliseconds; or one that doesn't fit is refused.
# Seen: it is cut to whole seconds. `expire(key, timedelta(milliseconds=500))` sends EXPIRE key 0, by which Redis deletes
# the key at once, and `set(ex=…)` of 1.9 s keeps it for 1 s. So a lock or a limiter with a short time holds nothing.
# Only `pexpire` and `px=` keep the fraction.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check redis==8.1.0
"$work/venv/bin/python" - <<'PYTHON'
from datetime import timedelta

import redis

commands = redis.Redis().pipeline()  # holds what would be sent, and opens no connection
commands.expire("lock", timedelta(milliseconds=500))
commands.set("lock", "me", ex=timedelta(milliseconds=1900))
commands.pexpire("lock", timedelta(milliseconds=500))
commands.set("lock", "me", px=timedelta(milliseconds=1900))
sent = [words for words, _ in commands.command_stack]
print(sent)
assert sent == [
    ("EXPIRE", "lock", 0),
    ("SET", "lock", "me", "EX", 1),
    ("PEXPIRE", "lock", 500),
    ("SET", "lock", "me", "PX", 1900),
]
PYTHON
echo "as stated"
