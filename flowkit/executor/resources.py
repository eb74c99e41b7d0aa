"""Ordering on resources: writes run in the order of their calls, a read waits for the writes before it, reads run in
parallel.

A call that names a resource gets a ticket. It waits for earlier tickets that conflict: both touch the same resource
(`flowkit.resource_names`), and one of them writes. A ticket is ordered by its call. The ticket of a call made by a
running call comes just before the next call of its caller's rank, so it can overtake waiting tickets, but not started
ones.

To keep this cheap, a ticket waits only for the nearest earlier write, and a write also for the reads since then; these
wait for anything earlier. So when a ticket leaves without having run, those behind it are counted again.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence

from flowkit.resource_names import find_family

Position = tuple[float, float]
Access = tuple[str, bool]
"""A resource, and whether it is written."""


class Ticket:
    """One call's place in the queues of its resources; `owner` is its id."""

    __slots__ = ("accesses", "blockers", "followers", "has_started", "owner", "position")

    def __init__(self, owner: str, position: Position, accesses: Sequence[Access]) -> None:
        self.owner = owner
        self.position = position
        self.accesses = tuple(accesses)
        self.blockers: set[Ticket] = set()
        self.followers: set[Ticket] = set()
        self.has_started = False

    def __lt__(self, other: "Ticket") -> bool:
        return self.position < other.position


class _Queue:
    """The tickets on one name, by position."""

    __slots__ = ("reads", "writes")

    def __init__(self) -> None:
        self.reads: list[Ticket] = []
        self.writes: list[Ticket] = []


class Resources:
    """Every ticket that hasn't left."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        self._families: dict[str, _Queue] = {}

    def enter(self, ticket: Ticket) -> None:
        """Queue a call behind earlier calls, and behind those that have already started."""
        self._insert(ticket)
        self._block(ticket)
        for other in self._find_later(ticket):
            if other.has_started:
                _link(other, ticket)
            else:
                _link(ticket, other)

    def narrow(self, ticket: Ticket, accesses: Sequence[Access]) -> list[Ticket]:
        """Replace the feared resources by the actual ones; return the tickets that no longer wait."""
        if tuple(accesses) == ticket.accesses:
            return []
        followers = list(ticket.followers)
        self._remove(ticket)
        for blocker in ticket.blockers:
            blocker.followers.discard(ticket)
        ticket.blockers.clear()
        ticket.accesses = tuple(accesses)
        self._insert(ticket)
        self._block(ticket)
        return self._recount(ticket, followers)

    def leave(self, ticket: Ticket) -> list[Ticket]:
        """Leave the queue when the call has ended or never runs; return the tickets that no longer wait."""
        followers = list(ticket.followers)
        self._remove(ticket)
        had_blockers = bool(ticket.blockers)
        for blocker in ticket.blockers:
            blocker.followers.discard(ticket)
        ticket.blockers.clear()
        if had_blockers:
            return self._recount(ticket, followers)
        ticket.followers.clear()
        freed: list[Ticket] = []
        for follower in followers:
            follower.blockers.discard(ticket)
            if not follower.blockers:
                freed.append(follower)
        return sorted(freed)

    def _recount(self, ticket: Ticket, followers: list[Ticket]) -> list[Ticket]:
        ticket.followers.clear()
        freed: list[Ticket] = []
        for follower in followers:
            follower.blockers.discard(ticket)
            self._block(follower)
            if not follower.blockers:
                freed.append(follower)
        return sorted(freed)

    def _block(self, ticket: Ticket) -> None:
        for name, is_write in ticket.accesses:
            for queue in self._overlapping(name):
                writes = queue.writes
                place = bisect_left(writes, ticket)
                nearest = writes[place - 1] if place else None
                if nearest is not None:
                    _link(nearest, ticket)
                if is_write:
                    reads = queue.reads
                    start = 0 if nearest is None else bisect_left(reads, nearest)
                    for read in reads[start : bisect_left(reads, ticket)]:
                        _link(read, ticket)

    def _find_later(self, ticket: Ticket) -> Iterator[Ticket]:
        for name, is_write in ticket.accesses:
            for queue in self._overlapping(name):
                yield from queue.writes[bisect_right(queue.writes, ticket) :]
                if is_write:
                    yield from queue.reads[bisect_right(queue.reads, ticket) :]

    def _overlapping(self, name: str) -> list[_Queue]:
        prefix = find_family(name)
        if prefix is None:
            own = self._queues.get(name)
            found = [] if own is None else [own]
            if self._families:
                found += [queue for family, queue in self._families.items() if name.startswith(family)]
            return found
        found = [queue for other, queue in self._queues.items() if other.startswith(prefix)]
        return found + [
            queue for other, queue in self._families.items() if other.startswith(prefix) or prefix.startswith(other)
        ]

    def _insert(self, ticket: Ticket) -> None:
        for name, is_write in _strongest(ticket.accesses):
            queues, key = self._home(name)
            queue = queues.setdefault(key, _Queue())
            insort(queue.writes if is_write else queue.reads, ticket)

    def _remove(self, ticket: Ticket) -> None:
        for name, is_write in _strongest(ticket.accesses):
            queues, key = self._home(name)
            queue = queues[key]
            tickets = queue.writes if is_write else queue.reads
            del tickets[bisect_left(tickets, ticket)]
            if not queue.writes and not queue.reads:
                del queues[key]

    def _home(self, name: str) -> tuple[dict[str, _Queue], str]:
        family = find_family(name)
        return (self._queues, name) if family is None else (self._families, family)


def _strongest(accesses: Iterable[Access]) -> Iterable[Access]:
    """Yield each name once, as written if any of the accesses writes it."""
    names: dict[str, bool] = {}
    for name, is_write in accesses:
        family = find_family(name)
        key = name if family is None else f"{family}*"
        names[key] = names.get(key, False) or is_write
    return names.items()


def _link(first: Ticket, second: Ticket) -> None:
    if first is not second:
        second.blockers.add(first)
        first.followers.add(second)
