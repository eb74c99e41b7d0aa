"""Reads inside a running call narrow the scope of its result.

A shared result may be computed from another tool's result: by `ctx.call`, in a recipe, or in the run of a nested
agent. So while a call with a shareable result runs, every call inside it is recorded here, at any depth and in any
run. If one of them has a narrower scope, or belongs to another user, the result is visible only to this run.
"""

from contextvars import ContextVar

from flowkit.executor.entries import Entry
from flowkit.identity import SCOPES, RunIdentity, Scope


class ReadScope:
    """One call with a result that may be shared; `around` is the enclosing such call."""

    __slots__ = ("_identity", "_scope", "around", "narrower")

    def __init__(self, scope: Scope, identity: RunIdentity, around: "ReadScope | None") -> None:
        self._scope: Scope = scope
        self._identity = identity
        self.around = around
        self.narrower: str | None = None
        """A called tool with a narrower scope; None while there is none."""

    def note(self, tool: str, scope: Scope, identity: RunIdentity) -> None:
        """Take note of a call that is made on the way to this result."""
        if self.narrower is None and not self._allows(scope, identity):
            self.narrower = tool
        if self.around is not None:
            self.around.note(tool, scope, identity)

    def _allows(self, scope: Scope, identity: RunIdentity) -> bool:
        if scope == "all":
            return True
        if SCOPES.index(scope) < SCOPES.index(self._scope) or identity.user != self._identity.user:
            return False
        return scope == "user" or identity.session == self._identity.session


READ_SCOPE: ContextVar[ReadScope | None] = ContextVar("flowkit_reading", default=None)
"""The call with a result to share that this task is a part of."""


def find_read_scope(entry: Entry | None) -> ReadScope | None:
    """Return the nearest call with a result to share, this one or one around it."""
    while entry is not None:
        if entry.extra is not None and entry.extra.reading is not None:
            return entry.extra.reading
        entry = entry.parent
    return READ_SCOPE.get()
