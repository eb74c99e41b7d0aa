"""One exchange with a Redis server: bytes to send, answers to assign, and a limit on its duration."""

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from flowkit.cache.redis.layout import Word


class Answer(NamedTuple):
    """The answer to a command, an exception if the server refused it, and the id of the answering server."""

    value: Any
    server: bytes


class Bound:
    """Interrupts the block with `TimeoutError` if it makes no progress for this time.

    Unlike `asyncio.timeout` it doesn't count time in which a blocking function or other tasks held the loop: data that
    has arrived meanwhile is read first.
    """

    TURNS = 4
    """How often the loop polls for arrived data, and lets it be read, after the timeout."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._until = 0.0
        self._has_ended = False

    def __enter__(self) -> "Bound":
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self.extend()
        self._timer: asyncio.Handle = self._loop.call_at(self._until, self._look, 0)
        return self

    def extend(self) -> None:
        """Extend the time limit, since there was progress."""
        self._until = self._loop.time() + self._timeout_s

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._timer.cancel()
        if self._has_ended and kind is not None and issubclass(kind, asyncio.CancelledError):
            self._task.uncancel()
            raise TimeoutError(f"no answer within {self._timeout_s:g} s") from error

    def _look(self, turn: int) -> None:
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._look, 0)
        elif turn < self.TURNS:
            self._timer = self._loop.call_soon(self._look, turn + 1)
        else:
            self._has_ended = True
            self._task.cancel()


def pack(commands: Sequence[Sequence[Word]]) -> bytes:
    """Make the bytes of these commands.

    >>> pack([("GET", "a")])
    b'*2\\r\\n$3\\r\\nGET\\r\\n$1\\r\\na\\r\\n'
    """
    parts: list[bytes] = []
    for words in commands:
        parts.append(b"*%d\r\n" % len(words))
        for word in words:
            text = word if isinstance(word, bytes) else str(word).encode(errors="surrogatepass")
            parts.append(b"$%d\r\n%b\r\n" % (len(text), text))
    return b"".join(parts)


def read_info(text: bytes) -> dict[str, str]:
    """Read the fields of an answer to INFO.

    >>> read_info(b"# Server\\r\\nrun_id:4f\\r\\nredis_mode:standalone\\r\\n")
    {'run_id': '4f', 'redis_mode': 'standalone'}
    """
    fields = (line.partition(":") for line in text.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in fields if colon}


def spread(answers: Sequence[Answer], values: Sequence[int], count: int) -> list[Answer]:
    """Put what one command gave for all values where each was asked for."""
    (found, server), *rest = answers
    gathered = iter([found] * len(values) if isinstance(found, Exception) else found)
    others = iter(rest)
    asked = set(values)
    return [Answer(next(gathered), server) if place in asked else next(others) for place in range(count)]
