"""The names of the calls that a running tool makes with `ctx.call`.

Each has two. Its id is its own in this run: a retry's calls stand beside those of the attempt before. Its lasting id is
the same in every attempt and process: from it come the keys that other services know, and the ids of inner runs. The
first attempt's ids are their lasting ids, since the first attempt after a crash finds by them what was finished.
"""

from collections.abc import MutableMapping

from flowkit.executor.entries import Entry, Made
from flowkit.journal.enclosing import BETWEEN


def name_made(caller: Entry, tool: str, entries: MutableMapping[str, Entry], *, writes: bool) -> tuple[str, str | None]:
    """Name one more call of this tool: return its id, and its lasting id where that is another one.

    The calls of an attempt are counted for each tool from its beginning, so they have the same lasting ids in the same
    order. A need of the caller, or a call that its guard made, may have taken the first.
    """
    more, attempt = caller.more, find_attempt(caller)
    made = more.made
    if made is None:
        made = more.made = Made(attempt)
    elif attempt > 1 and made.attempt != attempt:
        made.attempt, made.counts = attempt, {}
    while True:
        count = made.counts[tool] = made.counts.get(tool, 0) + 1
        name = f"{caller.id}/{tool}" if count == 1 else f"{caller.id}/{tool}_{count}"
        before = entries.get(name)
        if before is None:
            made.names[name] = attempt
            break
        above = before.parent
        # Of an early run of the caller that was dropped, or of an attempt before this one.
        is_of_dropped = above is not None and above is not caller and above.id == caller.id
        if is_of_dropped or 0 < made.names.get(name, attempt) < attempt:
            name = _find_free(name, before, entries, max(attempt, 2), writes=writes)
            break
    lasting = f"{caller.lasting_id}/{tool}" if count == 1 else f"{caller.lasting_id}/{tool}_{count}"
    return name, None if lasting == name else lasting


def find_attempt(caller: Entry) -> int:
    """Return the number of the attempt in this process; 0 before the first, while the guard is called."""
    return caller.attempt - (0 if caller.extra is None else caller.extra.attempts_before)


def _find_free(name: str, before: Entry, entries: MutableMapping[str, Entry], number: int, *, writes: bool) -> str:
    if writes and before.has_ended and before.started_s is None:
        # A write is recorded under the id that the first attempt after a crash asks for: otherwise it would run twice.
        del entries[name]
        return name
    while f"{name}{BETWEEN}{number}" in entries:
        number += 1
    return f"{name}{BETWEEN}{number}"
