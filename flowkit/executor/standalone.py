"""The executor alone, under the user's own loop: its tools, its cache, and its run from the first event to the last."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any, cast

from flowkit import events
from flowkit.cache import Cache, NullCache, open_default_cache
from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.errors import ConfigurationError, ToolError
from flowkit.events import EventLog, RunStatus
from flowkit.executor.outcomes import Approve, Deny, Outcome
from flowkit.identity import RunIdentity
from flowkit.journal import Journal, RunJournal
from flowkit.observers import tell_observers
from flowkit.option_checks import SLOTS, TEXT, TIME, Expected, find_misfit, has_methods
from flowkit.run_reports import report_end, report_start
from flowkit.tools import Tool, ToolLookup
from flowkit.tools.lives import Lives
from flowkit.tools.options import to_seconds
from flowkit.tools.toolsets import Toolset

ToolLike = Tool[..., Any] | Toolset | Callable[..., Any]


@dataclass(frozen=True, slots=True)
class ToolsByName:
    """Tools in a set, and those that they need."""

    tools: Toolset

    def get(self, name: str) -> Tool[..., Any] | None:
        """Find the tool of this name."""
        return self.tools.find(name)


def _say_path(value: object) -> str:
    is_path = isinstance(value, str | Path)
    return f"a journal is expected, such as Journal({str(value)!r}), not its path" if is_path else ""


EXPECTED: Mapping[str, Expected] = {
    "user": TEXT,
    "session": TEXT,
    "run_id": TEXT,
    "decisions": Expected(
        "a dict of Approve(…) or Deny(…) by the ids of calls",
        lambda value: (
            isinstance(value, Mapping)
            and all(isinstance(decision, Approve | Deny) for decision in cast(Mapping[object, object], value).values())
        ),
        takes_none=False,
    ),
    "cache": Expected(
        "True, False or a cache, such as DiskCache(folder)",
        lambda value: isinstance(value, bool) or has_methods("get", "lease")(value),
        takes_none=False,
    ),
    "journal": Expected("a journal", has_methods("open_run"), instead=_say_path),
    "timeout": TIME,
    "slots": SLOTS,
}
"""The types of the options that graphs, agents and recipes share."""


def check_options(what: str, given: Mapping[str, object]) -> None:
    """Raise `ConfigurationError` for an invalid option of a graph."""
    misfit = find_misfit({name: value for name, value in given.items() if value is not None}, EXPECTED)
    if (
        misfit is None
        and (seconds := to_seconds(cast("float | None", given.get("timeout")))) is not None
        and seconds <= 0
    ):
        misfit = f"timeout is {given['timeout']!r}, expected more than 0 seconds"
    if misfit is not None:
        raise ConfigurationError(f"{what}: {misfit}")


def find_tools(tools: ToolLookup | Iterable[ToolLike]) -> ToolLookup:
    """Return a lookup of these tools by name; raises `DefinitionError` for an object that can't be a tool."""
    if isinstance(tools, Toolset):
        return ToolsByName(tools)
    if callable(getattr(tools, "get", None)):
        return cast(ToolLookup, tools)
    if isinstance(tools, Iterable):
        return ToolsByName(Toolset(*tools))
    name = getattr(tools, "__name__", "…")
    raise ConfigurationError(f"tools is {tools!r}, expected a list of tools: tools=[{name}]")


def choose_cache(cache: Cache | bool | None) -> Cache:
    """Return the cache of an option: True is the user's own, False and None are none."""
    if isinstance(cache, bool):
        return open_default_cache() if cache else NullCache()
    return NullCache() if cache is None else cache


def begin_log(identity: RunIdentity) -> EventLog:
    """Return the log of a new run; raises `ConfigurationError` outside an event loop."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError("an Executor is made inside the event loop: async with Executor(…) as graph") from None
    return EventLog(identity.run_id, loop.time)


def name_run(user: str | None, session: str | None, run_id: str | None) -> RunIdentity:
    """Return the identity of a run, with a new id if there is none."""
    return RunIdentity(user, session, run_id or f"run-{token_hex(8)}")


class OwnRun:
    """The run of an executor without an agent or recipe: its first and last event, and its journal.

    `lives` are the resources that its tools hold until it ends.
    """

    def __init__(self, identity: RunIdentity, log: EventLog, data: object) -> None:
        self._identity = identity
        self._log = log
        self._context = Context[Any](data, identity.user, identity.session, run_id=identity.run_id, log=log)
        self._held: RunJournal | None = None
        self.lives = Lives(self._context)

    async def find_now(self, tools: ToolLookup) -> ToolLookup:
        """Return a lookup of these tools, with the tools that the dynamic sources among them list now."""
        if not isinstance(tools, ToolsByName) or not tools.tools.is_dynamic:
            return tools
        try:
            for life in tools.tools.lives:
                if life is not None:
                    await self.lives.open(life)
            return ToolsByName(await tools.tools.current(self._context))
        except BaseException as error:  # on cancellation, too: no other object knows what is open by now
            await self.lives.close()
            if isinstance(error, ToolError) and isinstance(error.__cause__, ConfigurationError):
                raise error.__cause__ from None
            raise

    async def begin(self, journal: Journal | None, inputs: Mapping[str, JSON]) -> RunJournal | None:
        """Claim the run in its journal, if it has one, and report its start."""
        identity, log = self._identity, self._log
        if journal is not None:
            # The graph may have grown since; finished nodes are found by their ids.
            self._held = await journal.open_run(
                identity.run_id,
                name="graph",
                inputs=dict(inputs),
                user=identity.user,
                session=identity.session,
                only_read=(),
            )
            log.first_seq = self._held.first_seq
            self._held.follow(log)
        tell_observers(log)
        report_start(log, "graph")
        log.emit(events.RunStarted, "graph", None, identity.user, identity.session, dict(inputs))
        return self._held

    async def finish(self, outcomes: Sequence[Outcome | None], error: BaseException | None, *, has_doubt: bool) -> None:
        """Report its outcome, and release its journal; a stopped run can be resumed by its id."""
        has_doubt = has_doubt or (self._held is not None and await self._held.has_doubt())
        status = _find_status(outcomes, error, has_doubt=has_doubt)
        try:
            await self.lives.close()
        finally:
            await self._tell_end(status, error)

    async def _tell_end(self, status: RunStatus, error: BaseException | None) -> None:
        self._log.emit(events.RunFinished, status, None, None if error is None else f"{type(error).__name__}: {error}")
        report_end(self._log, "graph", status)
        self._log.close()
        if self._held is None:
            return
        try:
            if status not in ("cancelled", "waiting"):
                await self._held.finish(status)
        finally:
            await self._held.close()


def _find_status(outcomes: Sequence[Outcome | None], error: BaseException | None, *, has_doubt: bool) -> RunStatus:
    states = {None if outcome is None else outcome.state for outcome in outcomes}
    if error is not None:
        return "cancelled" if isinstance(error, asyncio.CancelledError) else "failed"
    if has_doubt:
        return "in_doubt"
    if None in states:
        return "waiting"
    return "done" if states <= {"finished"} else "failed"
