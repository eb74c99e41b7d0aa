"""The background work of a Redis cache, in one thread: renew leases, retry failed bumps, sum up counters.

The thread has its own loop, so it continues whatever the caller's loop does, and after that has closed.

A write with a failed bump leaves results that must not be read. So the bump is kept here and retried until it
succeeds, and until then reads on its resources aren't looked up. Other processes of this machine see a file, since
Redis can't notify them (`Unfinished`); another process finishes the bumps of a dead one.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from secrets import token_hex
from threading import Lock
from time import monotonic, time
from typing import TypeVar

from flowkit.cache.counters import Counters
from flowkit.cache.redis.layout import Command, KeyLayout, list_written_rows
from flowkit.cache.redis.link import RedisLink
from flowkit.cache.redis.place import Outage, Unreachable
from flowkit.cache.unfinished import Unfinished
from flowkit.resource_names import overlap
from flowkit.stores.folders import make_private_folder
from flowkit.stores.thread import StoreThread, WriteJob

T = TypeVar("T")

TICK_S = 0.5
"""How often it is looked whether there is something to do."""
COUNT_S = 5.0
"""How often hits and misses are added up in Redis."""
ORPHANED_S = 5.0
"""A mark of a failed bump that is older than this, while Redis answers, is of a process that has died."""
EVERYTHING = "*"
"""The family of all names."""


@dataclass(slots=True)
class FailedBump:
    """A bump that failed; `mark` is the file that announces it."""

    resources: tuple[str, ...]
    mark: str | None = None


class Keeper:
    """Runs the deferred work of one cache."""

    def __init__(
        self,
        make_link: Callable[[], RedisLink],
        layout: KeyLayout,
        outage: Outage,
        counters: Counters,
        folder: Path,
        *,
        lease_s: float,
    ) -> None:
        self._make_link = make_link
        self._layout = layout
        self._outage = outage
        self._counters = counters
        self._lease_s = lease_s
        self._folder = folder
        self._unfinished = Unfinished(folder)
        self._numbers = count()
        self._kept: dict[int, FailedBump] = {}
        self._lock = Lock()
        self._owners: dict[str, str] = {}
        """The owner of each lease held here, by key."""
        self._pid = os.getpid()
        self._runner: asyncio.Runner | None = None
        self._link: RedisLink | None = None
        self._renew_at = self._count_at = 0.0
        self._is_working = False
        self._thread = StoreThread(
            "flowkit-redis", self._handle, tick=self._tick, tick_s=min(TICK_S, lease_s / 3), leave=self._leave
        )

    # From any thread

    def is_kept(self, resources: Sequence[str]) -> bool:
        """Return whether a write on one of these resources, in any process, still has to invalidate its reads."""
        if self._kept:
            with self._lock:
                kept = [name for each in self._kept.values() for name in each.resources]
            if any(overlap(resource, name) for resource in resources for name in kept):
                return True
        if not self._unfinished.is_any():
            return False
        self.work()
        return True

    async def keep(self, resources: Sequence[str]) -> None:
        """Repeat this bump until it succeeds; wait until the other processes of this machine can see that it failed.

        A cancelled wait changes nothing about either.
        """
        kept = FailedBump(tuple(resources))
        with self._lock:
            self._kept[next(self._numbers)] = kept
        self._is_working = True
        await self._thread.submit(lambda: self._tell(kept))

    def hold(self, key: str, owner: str) -> None:
        """Renew this lease until it is released."""
        self._owners[key] = owner
        self.work()

    def find_owner(self, key: str) -> str:
        """Find the owner under which the lease of this key is held here; empty when it isn't."""
        return self._owners.get(key, "")

    def let_go(self, key: str, owner: str) -> None:
        """Renew it no more."""
        if self._owners.get(key) == owner:
            del self._owners[key]

    def release_soon(self, key: str, owner: str) -> None:
        """Release a lease that may have been taken for a caller that is gone."""
        self._is_working = True
        command = self._layout.release(key, owner)
        self._thread.post(lambda: self._try([command]), _ignore)

    def work(self) -> None:
        """Start the thread if it isn't running."""
        if not self._is_working or self._pid != os.getpid():
            self._is_working = True
            self._thread.post(_nothing, _ignore)

    def call(self, operation: Callable[[RedisLink], Awaitable[T]]) -> T:
        """Run something in the thread's loop and wait for it; for callers that have no loop."""
        self._is_working = True
        return self._thread.call(lambda: self._run(operation))

    def close(self) -> None:
        """Send the counts and stop the thread; the next operation starts it again."""
        self._thread.close()
        self._is_working = False

    # In the thread

    def _handle(self, batch: Sequence[WriteJob]) -> None:
        self._notice_fork()
        for job in batch:
            job.run()
            job.settle()

    def _tick(self) -> None:
        self._notice_fork()
        if self._kept or self._unfinished.is_any():
            self._repair()
        if self._outage.is_on():
            return
        now = monotonic()
        if self._owners and now >= self._renew_at:
            self._renew_at = now + self._lease_s / 3
            self._try([self._layout.renew(key, owner, self._lease_s) for key, owner in list(self._owners.items())])
        if now >= self._count_at:
            self._count_at = now + COUNT_S
            self._add_counts()

    def _leave(self) -> None:
        if self._kept:
            self._repair()
        if not self._outage.is_on():
            self._add_counts()
        if self._runner is not None:
            if self._link is not None:
                self._runner.run(self._link.close())
            self._runner.close()
            self._runner = self._link = None

    def _notice_fork(self) -> None:
        if self._pid != os.getpid():
            # The parent keeps its leases, its pending bumps and its connections.
            self._pid = os.getpid()
            self._owners.clear()
            self._kept.clear()
            _LEFT_TO_PARENT.append((self._runner, self._link))
            self._runner = self._link = None

    def _tell(self, kept: FailedBump) -> None:
        """Leave a file for the other processes of this machine; where that can't be, only this one knows."""
        try:
            make_private_folder(self._folder)
            kept.mark = self._unfinished.add()
        except OSError:
            self._unfinished.remove(())

    def _repair(self) -> None:
        with self._lock:
            todo = list(self._kept.items())
        for number, kept in todo:
            if not self._bump(kept.resources):
                return
            with self._lock:
                self._kept.pop(number, None)
            if kept.mark is not None:
                self._unfinished.remove([kept.mark])
        if not self._unfinished.list_names():
            # Of a process that was killed between its last mark and the folder.
            self._unfinished.remove(())
        orphans = self._find_orphans()
        if orphans and self._bump((EVERYTHING,)):
            self._unfinished.remove(orphans)

    def _find_orphans(self) -> list[str]:
        """Find the marks that no living process seems to make good."""
        found: list[str] = []
        with self._lock:
            own = {kept.mark for kept in self._kept.values()}
        for name in self._unfinished.list_names():
            try:
                age_s = time() - (self._folder / "unfinished" / name).stat().st_mtime
            except OSError:
                continue
            # One from the future was made before the clock was set back, at an unknown time.
            if name not in own and not 0 <= age_s < ORPHANED_S:
                found.append(name)
        return found

    def _bump(self, resources: Sequence[str]) -> bool:
        try:
            self._run(lambda link: bump(link, self._layout, resources, insists=True))
        except Unreachable:
            return False
        self._outage.end()
        return True

    def _add_counts(self) -> None:
        counts = self._counters.take()
        if counts:
            self._try(
                [command for tool, (hits, misses) in counts.items() for command in self._count(tool, hits, misses)]
            )

    def _count(self, tool: str, hits: int, misses: int) -> list[Command]:
        return self._layout.count(tool, hits, misses)

    def _try(self, commands: Sequence[Command]) -> None:
        """Send the changes that no caller waits for."""
        try:
            self._run(lambda link: link.run(commands))
        except Unreachable:
            return  # counted

    def _run(self, operation: Callable[[RedisLink], Awaitable[T]]) -> T:
        if self._runner is None:
            self._runner = asyncio.Runner()
        if self._link is None:
            self._link = self._make_link()
        return self._runner.run(_await(operation, self._link))


_LEFT_TO_PARENT: list[object] = []
"""The parent's connections in a forked process: closing them here would close the parent's."""


async def bump(
    link: RedisLink, layout: KeyLayout, resources: Sequence[str], *, insists: bool = False
) -> dict[str, bytes]:
    """Set new tokens for all rows that a write on these resources changes; return them, by row.

    Raises `Unreachable` where one of them may not have been changed.
    """
    tokens = {row: token_hex(12).encode() for row in list_written_rows(resources)}
    commands = [layout.write_row(row, token) for row, token in tokens.items()]
    answers = await link.run(commands, insists=insists)
    refused = [row for row, answer in zip(tokens, answers, strict=True) if isinstance(answer.value, Exception)]
    if refused:
        # A server that is full takes no new token, but it drops one.
        dropped = await link.run([layout.drop_row(row) for row in refused], insists=insists)
        for answer in dropped:
            if isinstance(answer.value, Exception):
                raise Unreachable(str(answer.value))
        return {}
    if not all(answer.server for answer in answers):
        # A service that hides the server's id: a replica that takes its place must have the tokens.
        await link.run([Command(commands[0].key, ("WAIT", 1, 100))], insists=insists)
    return tokens


async def _await(operation: Callable[[RedisLink], Awaitable[T]], link: RedisLink) -> T:
    return await operation(link)


def _nothing() -> None:
    return


def _ignore(_result: object, _error: BaseException | None) -> None:
    """Ignore the result: it isn't awaited, and errors were counted."""
