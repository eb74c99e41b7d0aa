"""The connection of one event loop to a Redis server or cluster: few connections, many requests, a limit on every wait.

Requests are queued; a task sends the queued ones as one pipeline and gives each caller its answer. So two thousand
parallel reads need no more connections than two. A cancelled request leaves no unread answer in a connection: its
answer is read anyway, and no caller gets another one's.

redis-py would wait for seconds and retry ten times, which stalls a tool. Here nothing is retried: after a failure the
cache doesn't use Redis for a while (`Outage`). redis-py is imported with the first request, in a thread.

One exchange with a Redis server: bytes to send, answers to assign, and a limit on its duration.
"""

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from flowkit.cache.redis.layout import Command, Word
from flowkit.cache.redis.place import CONNECTIONS, Address, Outage, RedisAddress, Unreachable


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


BATCH_COMMANDS = 256
"""The most commands in one pipeline."""
_NEEDED = (
    *("redis.asyncio", "redis.asyncio.connection", "redis.asyncio.retry", "redis.backoff", "redis.crc"),
    *("redis.exceptions", "redis.maint_notifications"),
)
_loading = threading.Lock()
_loaded: list[str] = []
"""The modules, once all of them are there: while they are loaded, `sys.modules` has some that aren't whole."""


def _load() -> None:
    """Load redis-py; who comes second waits for the first, since two threads would meet in its circle of imports."""
    with _loading:
        if not _loaded:
            for name in _NEEDED:
                import_module(name)
            _loaded.extend(_NEEDED)


@dataclass(slots=True)
class _Waiting:
    commands: Sequence[Command]
    done: "asyncio.Future[list[Answer]]"
    insists: bool


class _Node:
    """One server: its connections, the requests to send, and the number of sending tasks."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.free: list[Any] = []
        self.queue: deque[_Waiting] = deque()
        self.senders = 0


class RedisLink:
    """Sends requests to Redis from one event loop."""

    def __init__(self, place: RedisAddress, outage: Outage) -> None:
        self.pid = os.getpid()
        self._place = place
        self._outage = outage
        self._nodes: dict[Address, _Node] = {}
        self._homes: list[Address] = []
        """The node of each slot; empty unless this is known to be a cluster."""
        self._servers: WeakKeyDictionary[Any, bytes] = WeakKeyDictionary()
        """The id of the server at the other end of each connection."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._end: AsyncGenerator[None] | None = None

    async def run(self, commands: Sequence[Command], *, insists: bool = False) -> list[Answer]:
        """Send commands together, each to where its key is; raises `Unreachable`.

        During an outage nothing is sent, unless one `insists`.
        """
        if self._outage.is_on() and not insists:
            raise Unreachable("it didn't answer just now")
        await self._begin()
        answers = await self._run_where_they_belong(commands, insists)
        moved = [place for place, answer in enumerate(answers) if _is_moved(answer.value)]
        if moved:
            await self._learn_homes()
            again = await self._run_where_they_belong([commands[place] for place in moved], insists)
            for place, answer in zip(moved, again, strict=True):
                answers[place] = answer
        return answers

    async def list_nodes(self) -> list[Address]:
        """List the servers that may hold keys."""
        await self._begin()
        return list(dict.fromkeys(self._homes)) or [None]

    async def ask(self, address: Address, commands: Sequence[Command], *, insists: bool = False) -> list[Answer]:
        """Send commands to one server; raises `Unreachable`."""
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = _Node(self._place.make_pool(address, self._greet))
        waiting = _Waiting(commands, asyncio.get_running_loop().create_future(), insists)
        node.queue.append(waiting)
        if node.senders < CONNECTIONS:
            node.senders += 1
            # Not in the caller's context: it isn't the caller's task.
            task = asyncio.get_running_loop().create_task(self._send(node), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await waiting.done

    async def close(self) -> None:
        """Wait for the answers in flight, and close the connections."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            for connection in node.free:
                await node.pool.release(connection)
            await node.pool.disconnect()
        end, self._end = self._end, None
        if end is not None:
            await end.aclose()

    async def _begin(self) -> None:
        if not _loaded:
            await asyncio.to_thread(_load)
        if self._end is None:
            # `asyncio.run` closes the generators of its loop before it returns, which closes the connections.
            self._end = self._close_with_loop()
            await anext(self._end)

    async def _close_with_loop(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            self._end = None
            await self.close()

    async def _run_where_they_belong(self, commands: Sequence[Command], insists: bool) -> list[Answer]:
        if not self._homes:
            return await self.ask(None, commands, insists=insists)
        key_slot: Callable[[bytes], int] = import_module("redis.crc").key_slot
        places: dict[Address, list[int]] = {}
        for place, command in enumerate(commands):
            places.setdefault(self._homes[key_slot(command.key.encode())], []).append(place)
        parts = await asyncio.gather(
            *(self.ask(home, [commands[place] for place in own], insists=insists) for home, own in places.items())
        )
        answers: dict[int, Answer] = {}
        for own, part in zip(places.values(), parts, strict=True):
            answers.update(zip(own, part, strict=True))
        return [answers[place] for place in range(len(commands))]

    async def _learn_homes(self) -> None:
        """Read the slots of each node from the cluster."""
        [(found, _)] = await self.ask(None, [Command("", ("CLUSTER", "SLOTS"))])
        if isinstance(found, Exception):
            raise Unreachable(f"CLUSTER SLOTS: {found}")
        homes: list[Address] = [None] * 16_384
        for first, last, (host, port, *_), *_ in found:
            # An empty name is the node that was asked.
            address: Address = (host.decode(), port) if host else None
            homes[first : last + 1] = [address] * (last + 1 - first)
        self._homes = homes

    async def _send(self, node: _Node) -> None:
        batch: list[_Waiting] = []
        try:
            while node.queue:
                batch = [node.queue.popleft()]
                size = len(batch[0].commands)
                while node.queue and size < BATCH_COMMANDS:
                    size += len(node.queue[0].commands)
                    batch.append(node.queue.popleft())
                if self._outage.is_on() and not any(waiting.insists for waiting in batch):
                    _fail(batch, Unreachable("it didn't answer just now"))
                    continue
                try:
                    with Bound(self._place.timeout_s) as bound:
                        answers = await self._exchange(node, batch, bound)
                except Exception as error:  # noqa: BLE001  # of redis-py, of TLS, of the network: all of it is a miss
                    self._outage.begin(error)
                    _fail(batch, Unreachable(str(error)))
                    continue
                begin = 0
                for waiting in batch:
                    end = begin + len(waiting.commands)
                    if not waiting.done.done():
                        waiting.done.set_result(answers[begin:end])
                    begin = end
        finally:
            node.senders -= 1
            for waiting in batch:
                waiting.done.cancel()  # empty, unless the loop ends during the wait

    async def _exchange(self, node: _Node, batch: Sequence[_Waiting], bound: Bound) -> list[Answer]:
        words = [command.words for waiting in batch for command in waiting.commands]
        # All values in one command: each answer costs the client as much as all of the rest. A cluster refuses that.
        values = [] if self._homes else [place for place, word in enumerate(words) if word[0] == "GET"]
        if len(values) > 1:
            rest = [word for word in words if word[0] != "GET"]
            sent = [("MGET", *(words[place][1] for place in values)), *rest]
        else:
            values, sent = [], words
        is_known = bool(node.free)
        try:
            answers = await self._ask_once(node, sent, bound)
        except (ConnectionError, sys.modules["redis.exceptions"].ConnectionError) as error:
            if not is_known or isinstance(error, TimeoutError):
                raise
            # The server was restarted while the connection was idle. All of these commands may be sent twice.
            for connection in node.free:
                await connection.disconnect()
            answers = await self._ask_once(node, sent, bound)
        if any(str(answer.value).startswith("READONLY") for answer in answers if isinstance(answer.value, Exception)):
            # The server has become a replica: new connections find the one that took its place.
            for other in node.free:
                await other.disconnect()
        return spread(answers, values, len(words)) if values else answers

    async def _ask_once(self, node: _Node, sent: Sequence[Sequence[Word]], bound: Bound) -> list[Answer]:
        connection = await self._take_connection(node)
        try:
            bound.extend()
            await connection.send_packed_command((pack(sent),), check_health=False)
            server = self._servers[connection]
            answers: list[Answer] = []
            for _ in sent:
                answers.append(Answer(await _read(connection), server))
                bound.extend()
        finally:
            node.free.append(connection)
        return answers

    async def _take_connection(self, node: _Node) -> Any:
        """Take a free connection, reconnected where the server has closed it meanwhile, or another of the pool's.

        The pool's own way costs as much as the rest of a question.
        """
        if not node.free:
            return await node.pool.get_connection()
        connection = node.free.pop()
        try:
            try:
                is_stale = await connection.can_read()
            except (OSError, sys.modules["redis.exceptions"].RedisError):
                is_stale = True
            if is_stale:
                await connection.disconnect()
                await connection.connect()
        except BaseException:  # cancelled, too: a connection that isn't put back is lost to all others
            node.free.append(connection)
            raise
        return connection

    async def _greet(self, connection: Any) -> None:
        """Check the role of a newly connected server; a replica, which may lag, is refused."""
        await connection.on_connect()
        found: dict[str, str] = {}
        for section in ("server", "replication"):
            await connection.send_command("INFO", section, check_health=False)
            text = await _read(connection)
            if isinstance(text, bytes):
                found.update(read_info(text))
        if found.get("role") == "slave" and found.get("redis_mode") != "cluster":
            raise ConnectionError("it is a replica, which may lag behind")
        self._servers[connection] = found.get("run_id", "").encode()


async def _read(connection: Any) -> Any:
    """Read one answer; return a refusal of the server as an exception."""
    response_error: Any = sys.modules["redis.exceptions"].ResponseError
    try:
        return await connection.read_response()
    except response_error as error:
        return error


def _is_moved(value: object) -> bool:
    """Return whether this is a cluster's reply that it is one."""
    return isinstance(value, Exception) and ("MOVED" in str(value) or "slot" in str(value))


def _fail(batch: Sequence[_Waiting], error: Unreachable) -> None:
    for waiting in batch:
        if not waiting.done.done():
            waiting.done.set_exception(error)
