"""All writing to the cache, in one thread: results, the leases held here, counters, cleaning up.

Results that wait together are written in one transaction, which also releases the leases of their keys.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from flowkit.cache.access import Access
from flowkit.cache.counters import Counters
from flowkit.cache.opening import Store
from flowkit.cache.unfinished import Unfinished
from flowkit.stores.thread import StoreThread, WriteJob

T = TypeVar("T")

TIDY_WRITES = 200
"""Expired results and those above the size limit are dropped after so many writes."""


BUMP_ATTEMPTS = 3
"""How often a bump is retried if the file is replaced meanwhile."""
EVERYTHING = "*"
"""The family of all names."""

logger = logging.getLogger("flowkit.cache")


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An entry on its way to the disk."""

    key: str
    data: bytes
    expire_s: float
    tag: str


class Writer:
    """Writes for one cache; failures of the store are counted and otherwise ignored."""

    def __init__(
        self, access: Access, counters: Counters, unfinished: Unfinished, *, lease_s: float, size_limit: int
    ) -> None:
        self._access = access
        self._unfinished = unfinished
        self._is_opening = False
        self._has_warned = False
        self._is_repairing = False
        self._counters = counters
        self._lease_s = lease_s
        self._size_limit = size_limit
        self._entries: deque[NewEntry] = deque()
        self._owners: dict[str, str] = {}
        """The owner of each lease held here, by key."""
        self._pid = os.getpid()
        self._untidy = 0
        self._thread = StoreThread(
            "flowkit-cache", self._handle, tick=self._tick, tick_s=lease_s / 3, leave=self._leave
        )

    async def write(self, operation: Callable[[Store], T], otherwise: T) -> T:
        """Run `operation` in the thread; `otherwise` when the store can't."""
        if self._access.store is None and not self._access.may_open():
            return otherwise
        return await self._thread.submit(lambda: self._access.write(operation, otherwise))

    async def open(self) -> None:
        """Open the store in the thread, unless it is open or was tried just now."""
        if self._access.look() is None and self._access.may_open():
            await self._thread.submit(self._access.ensure)

    def open_within(self, patience_s: float) -> None:
        """Open the store in the thread, and wait so long for it; no longer once it waits for another process."""
        if self._begin_opening() and not self._access.settled.wait(patience_s):
            self._access.settled.set()  # once is enough: the next look-up doesn't wait

    async def open_soon(self) -> None:
        """Open the store in the thread, and wait until it is open; no longer once it waits for another process."""
        if self._access.look() is None and self._begin_opening():
            await self._access.settled.wait_async()

    async def bump(self, resources: Sequence[str]) -> None:
        """Invalidate the reads on these resources, or mark that this has yet to be done."""
        await self._thread.submit(partial(self._bump, resources))

    def repair_soon(self) -> None:
        """Invalidate the reads that failed bumps have left, unless that is in progress."""
        if not self._is_repairing:
            self._is_repairing = True
            self._thread.post(self._repair, _ignore)

    async def put(self, entry: NewEntry) -> None:
        """Store an entry and release the lease of its key."""
        if self._access.store is None and not self._access.may_open():
            return
        self._entries.append(entry)
        await self.write(self._put_entries, None)

    async def take_lease(self, key: str, owner: str) -> bool:
        """Take the lease; return whether it is ours now. In a store in trouble every caller has it."""

        def take(store: Store) -> bool:
            is_ours = store.marks.take_lease(key, owner, self._lease_s)
            if is_ours:
                self._owners[key] = owner
            return is_ours

        try:
            return await self.write(take, True)
        except asyncio.CancelledError:
            # The thread takes it all the same, and would renew it for as long as the process lives.
            self._thread.post(lambda: self._access.write(partial(self._release, key, owner), None), _ignore)
            raise

    async def release_lease(self, key: str, owner: str) -> None:
        """Release it, where it is still ours."""
        if self._owners.get(key) == owner:
            await self.write(partial(self._release, key, owner), None)

    async def close(self) -> None:
        """Write all pending changes and stop the thread; the next write starts it again."""
        if self._access.store is not None:
            await self._thread.submit(self._finish)
        self._thread.close()

    def _begin_opening(self) -> bool:
        """Let the thread open the store, unless it is doing so; False when that failed just now."""
        if not self._is_opening:
            if not self._access.may_open():
                return False
            self._is_opening = True
            self._access.settled.clear()
            self._thread.post(self._open, _ignore)
        return True

    # In the thread.

    def _handle(self, batch: Sequence[WriteJob]) -> None:
        for job in batch:
            job.run()
            job.settle()

    def _open(self) -> None:
        try:
            self._access.ensure()
        finally:
            self._is_opening = False

    def _bump(self, resources: Sequence[str]) -> None:
        if self._has_bumped(resources):
            return
        try:
            try:
                self._unfinished.add()
            except OSError:
                # No process finds anything in a deleted file, and there is no other way to notify them.
                self._access.unlink()
                self._unfinished.remove(())
        except OSError as error:
            if self._has_warned:
                return
            self._has_warned = True
            logger.error(
                "a write on %s couldn't end the cached reads of other processes (%s); this one takes none from the cache",
                ", ".join(resources),
                error,
            )

    def _has_bumped(self, resources: Sequence[str]) -> bool:
        """Return whether the generations grew, in the current file: it may be replaced at any moment."""

        def bump(store: Store) -> Store:
            store.marks.bump(resources)
            return store

        for _ in range(BUMP_ATTEMPTS):
            store = self._access.write(bump, None)
            if store is None or store.is_current():
                return store is not None
        return False

    def _repair(self) -> None:
        try:
            if not self._unfinished.is_any():
                return  # another process was sooner
            names = self._unfinished.list_names()  # before the bump: it doesn't invalidate later results
            if self._has_bumped((EVERYTHING,)):
                self._unfinished.remove(names)
        finally:
            self._is_repairing = False

    def _tick(self) -> None:
        self._repair()
        self._access.write(self._renew, None)
        self._access.write(self._flush_counters, None)

    def _finish(self) -> None:
        self._access.write(self._flush_counters, None)
        if self._untidy:
            self._access.write(self._tidy, None)

    def _leave(self) -> None:
        if self._access.store is not None:
            self._finish()
            self._access.store.close()

    def _put_entries(self, store: Store) -> None:
        """Write all pending entries, in one transaction; those asked for later are then written."""
        entries: list[NewEntry] = []
        while self._entries:
            entries.append(self._entries.popleft())
        if not entries:
            return
        with store.writer.transact():
            for entry in entries:
                store.writer.set(entry.key, entry.data, expire=entry.expire_s, tag=entry.tag)
                self._untidy += max(1, len(entry.data) * TIDY_WRITES * 20 // max(1, self._size_limit))
        if done := {entry.key: self._owners.pop(entry.key) for entry in entries if entry.key in self._owners}:
            store.marks.release_leases(done)
        if self._untidy >= TIDY_WRITES:
            self._tidy(store)

    def _release(self, key: str, owner: str, store: Store) -> None:
        if self._owners.get(key) == owner:
            del self._owners[key]
            store.marks.release_leases({key: owner})

    def _tidy(self, store: Store) -> None:
        self._untidy = 0
        store.writer.cull()
        store.marks.forget_leases()

    def _renew(self, store: Store) -> None:
        if self._pid != os.getpid():
            # Forked: the parent keeps its leases.
            self._pid = os.getpid()
            self._owners.clear()
        if self._owners:
            store.marks.renew_leases(self._owners, self._lease_s)

    def _flush_counters(self, store: Store) -> None:
        if counts := self._counters.take():
            store.marks.add_counts(counts)


def _ignore(_result: object, _error: BaseException | None) -> None:
    """Ignore the result: it isn't awaited, and errors were counted."""
