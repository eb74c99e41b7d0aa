"""The calls around a node: those of its own run that made it, and those of the runs around that one.

A node's id begins with the id of the call that made it, and the id of a run inside a call with the run's and the
call's around it. So a node runs again only if none of these calls has ended.
"""

from collections.abc import Iterator, Mapping

from flowkit.errors import RunBusy, RunError
from flowkit.journal.records import Recorded, RunDetails
from flowkit.journal.store import Filter, JournalStore, RunPlace

BETWEEN = "@"
"""What separates an id from the attempt that made it, where an earlier attempt has taken the id; in no tool's name."""


def check_runs_again(store: JournalStore, place: RunPlace, node: str) -> None:
    """Raise `RunError` if a call around this node has ended, `RunBusy` if one may end while nothing runs the node again."""
    details, inside = store.show(place), node
    while details is not None:
        for attempts in _find_around(details.nodes, inside):
            around = attempts[-1]
            if all(attempt.is_ended for attempt in attempts):
                raise RunError(
                    f"run {place.run_id!r}: {node!r} is inside of {around.tool or around.node!r} ({around.node}), which"
                    f" has {around.state}: nothing would run it again. Settle it as done or as failed"
                )
        run, details = details.summary, _find_outer(store, details)
        if details is None:
            return
        if details.summary.is_held:
            raise RunBusy(
                f"run {place.run_id!r}: the run around it, {details.summary.run_id!r}, is driven by a process"
            )
        inside = run.run_id.removeprefix(f"{details.summary.run_id}/")


def _find_around(nodes: Mapping[str, Recorded], inside: str) -> Iterator[list[Recorded]]:
    """Find the calls around the one of this id, the innermost first; each with those of its caller's further attempts."""
    above, _, _ = inside.rpartition("/")
    while above:
        attempts = [record for name, record in nodes.items() if name == above or name.startswith(above + BETWEEN)]
        if attempts:
            yield attempts
        above, _, _ = above.rpartition("/")


def _find_outer(store: JournalStore, details: RunDetails) -> RunDetails | None:
    """Find the run around this one."""
    parent = details.summary.parent
    if parent is None:
        return None
    # Its number isn't its place: it is the newest of those before the next.
    found = store.runs(Filter(before=parent + 1, inner=True, limit=1))
    if not found or found[0].number != parent:
        return None
    outer = found[0]
    return store.show(RunPlace(outer.run_id, outer.user, outer.session))
