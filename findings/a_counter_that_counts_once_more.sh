#!/usr/bin/env bash
# redis-py 8.1.0: INCR on a connection that is lost after the server has counted and before its reply has come.
# Expected by most: the caller gets a ConnectionError and decides; a command that isn't idempotent is never sent twice.
# Seen: the client connects again and sends it again, by default, and returns 2 for one call; so a limiter, a stock or a
# budget that counts by INCR is off by one for each lost connection, and nobody is told. `Retry(NoBackoff(), 0)` as
# `retry` gives the error.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check redis==8.1.0
"$work/venv/bin/python" - <<'PYTHON'
import socket
import threading
from typing import BinaryIO

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry


def read_command(stream: BinaryIO) -> list[bytes]:
    head = stream.readline()
    words = []
    for _ in range(int(head[1:])) if head else ():
        length = int(stream.readline()[1:])
        words.append(stream.read(length))
        stream.read(2)
    return words


class Counter:
    """A server with one counter, whose first connection is lost before the reply to its first INCR."""

    def __init__(self) -> None:
        self.count = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            with connection, connection.makefile("rb") as stream:
                while command := read_command(stream):
                    if command[0] == b"INCRBY":
                        self.count += 1
                        if self.count == 1:
                            break
                        connection.sendall(b":%d\r\n" % self.count)
                    else:
                        connection.sendall(b"%1\r\n$5\r\nproto\r\n:3\r\n" if command[0] == b"HELLO" else b"+OK\r\n")


counter = Counter()
returned = redis.Redis(port=counter.port).incr("sent")
print("one call returned", returned, "and the server counted", counter.count)
assert (returned, counter.count) == (2, 2)

counter = Counter()
try:
    redis.Redis(port=counter.port, retry=Retry(NoBackoff(), 0)).incr("sent")
except redis.ConnectionError:
    assert counter.count == 1
else:
    raise AssertionError("no error")
PYTHON
echo "as stated"
