"""Whose run it is: one value that every store, flight and key asks for it.

A run id is no identity, and neither is the name of a session: users choose both, so two users may choose the same.
A session is one user's, and a run is one session's. Whatever is kept apart, joined or shared by run, session or user
is so by a key of this value, which no other run, session or user has.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from flowkit.codec import dumps

Scope = Literal["run", "session", "user", "all"]
"""Who shares a result."""
SCOPES: tuple[Scope, ...] = ("run", "session", "user", "all")
"""From the narrowest to the widest."""
HERE = "here-"
"""How a key begins that means something in this process only, so that nothing is stored under it outside."""


@dataclass(frozen=True)  # no slots: its key is made once
class RunIdentity:
    """The place of a run: its user, the user's session, the run in it; what wasn't given is None or empty."""

    user: str | None = None
    session: str | None = None
    run_id: str = ""

    @cached_property
    def key(self) -> str:
        """The run as one text, which no other run has.

        >>> RunIdentity("ann", None, "r1").key
        '["ann",null,"r1"]'
        """
        return dumps([self.user, self.session, self.run_id]).decode()

    @property
    def can_be_joined(self) -> bool:
        """Whether a second start of this run is known to come from the same user."""
        return self.user is not None and bool(self.run_id)

    def scope_key(self, scope: Scope) -> str | None:
        """Return the text by which results of this scope are shared; None where the run lacks what it takes.

        >>> RunIdentity("ann", "today", "r1").scope_key("session")
        '["ann","today"]'
        >>> RunIdentity(session="today").scope_key("user") is None
        True
        """
        match scope:
            case "all":
                return ""
            case "user":
                return None if self.user is None else dumps([self.user]).decode()
            case "session":
                return None if self.session is None else dumps([self.user, self.session]).decode()
            case "run":
                return self.key if self.run_id else None

    def idempotency_key(self, call_id: str) -> str:
        """Return what names a call of this run to other services, the same in every attempt and process."""
        return hashlib.sha256(f"{self.key}\0{call_id}".encode()).hexdigest()[:32]

    def inside(self, call_id: str) -> "RunIdentity":
        """Return the identity of a run started by a call of this run: stable when the call runs again."""
        return RunIdentity(self.user, self.session, f"{self.run_id}/{call_id}")
