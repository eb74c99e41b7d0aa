"""Cycles of waiting that only a running graph can have: announced calls that refer to each other, and what a call made."""

from collections.abc import Container, Iterable, Iterator

from flowkit.executor import phases
from flowkit.executor.entries import Entry
from flowkit.executor.table import Table
from flowkit.graph import find_own_references, get_after


def find_circle(table: Table, entry: Entry) -> list[str]:
    """Find the cycle in which a call made by a running one waits for its own maker; empty if there is none.

    A maker waits for the call that it made, and that call may queue behind it on a resource, or join an equal call that
    waits for the maker.
    """
    if entry.parent is None:
        return []
    above = set[str]()
    parent: Entry | None = entry.parent
    while parent is not None:
        above.add(parent.id)
        parent = parent.parent
    return _find_way(table, [entry], above)


def find_circle_of_edges(table: Table, announced: Entry, producers: Iterable[Entry]) -> list[str]:
    """Find the cycle that a call closes when it waits for these calls; empty if there is none.

    A node that is added in one piece closes none, since it refers only to earlier ones. An announced node may
    refer to a later one, which may refer back to it.
    """
    return _find_way(table, producers, {announced.id})


def _find_way(table: Table, starts: Iterable[Entry], wanted: Container[str]) -> list[str]:
    """Find a way along what calls wait for from one of these calls to a wanted one: the ids, the wanted one last."""
    stack = list(starts)
    came_from: dict[str, str] = dict.fromkeys((entry.id for entry in stack), "")
    while stack:
        current = stack.pop()
        for other in _waits_on(table, current):
            if other.id in wanted:
                path = [other.id, current.id]
                while (before := came_from[path[-1]]) != "":
                    path.append(before)
                return path[::-1]
            if other.id not in came_from:
                came_from[other.id] = current.id
                stack.append(other)
    return []


def _waits_on(table: Table, entry: Entry) -> Iterator[Entry]:
    entries = table.entries
    if entry.phase == phases.NEEDS:
        names = [reference.call_id for reference in find_own_references(entry.node)]
        for name in (*names, *get_after(entry.node)):
            if not entries[name].has_ended:
                yield entries[name]
    elif entry.phase == phases.RESOURCE and entry.extra is not None and entry.extra.ticket is not None:
        yield from (entries[ticket.owner] for ticket in entry.extra.ticket.blockers)
    elif entry.phase == phases.FLIGHT and entry.key is not None:
        leader = table.shared.get(entry.key)
        if leader is not None and leader is not entry:
            yield leader
    elif entry.phase == phases.RUNNING and entry.extra is not None:
        yield from (child for child in entry.extra.children if not child.has_ended)
