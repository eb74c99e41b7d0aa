"""The gate at which the run's guard checks a call, before a person is asked and anything runs."""

from collections.abc import Mapping
from typing import Any, Protocol, cast

from flowkit.context import Context
from flowkit.executor import phases
from flowkit.executor.approvals import change_arguments
from flowkit.executor.entries import Entry
from flowkit.executor.plan import Plan
from flowkit.executor.table import Table
from flowkit.references import ToolCall, find_references, substitute


class CallGuard(Protocol):
    """Looks at calls before they run."""

    async def __call__(
        self, call: ToolCall, context: Context[Any], secrets: frozenset[str]
    ) -> Mapping[str, object] | None:
        """Pass a call, or return arguments to change; raises `ToolError` to refuse it. `secrets` are in its arguments."""
        ...


class Guarded:
    """Lets a call on that the guard has passed; early calls, too, since these only run sooner."""

    def __init__(self, table: Table, guard: CallGuard | None) -> None:
        self._table = table
        self._guard = guard

    def applies(self, plan: Plan) -> bool:
        """Return whether calls of this tool pass this gate."""
        return self._guard is not None

    def enter(self, entry: Entry) -> bool:
        """Let the call pass if the guard has passed it; otherwise start a task in which the guard runs."""
        if entry.more.is_guarded:
            return True  # a refused call has ended
        entry.phase = phases.GUARD
        self._table.apart.append(entry)
        return False

    async def ask(self, entry: Entry, context: Context[Any]) -> None:
        """Run the guard, and apply its changes to the arguments."""
        assert self._guard is not None
        assert entry.arguments is not None
        seen = ToolCall(entry.id, entry.node.name, entry.arguments.values)
        changed = await self._guard(seen, context, entry.find_secrets())
        if changed is not None:
            given: Mapping[str, object] = cast(ToolCall, entry.node).arguments
            if entry.sealed_s is None:
                entry.more.given = given
            if find_references(given):
                given = cast("Mapping[str, object]", substitute(given, self._table.value))
            change_arguments(self._table, entry, {**given, **changed})
        entry.more.is_guarded = True
