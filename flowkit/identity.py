"""The identity of a run: one value that every store, flight and key uses.

A run id is no identity, and neither is the name of a session: users choose both, so two users may choose the same.
A session belongs to one user, and a run to one session. Everything that is separated, joined or shared by run, session
or user uses a key of this value, which no other run, session or user has.
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
"""The prefix of keys that are valid in this process only, so nothing is stored under them outside."""


@dataclass(frozen=True)  # no slots: its key is made once
class RunIdentity:
    """The place of a run: its user, the user's session, and the run in it; missing parts are None or empty."""

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
        """Return whether a second start of this run certainly comes from the same user."""
        return self.user is not None and bool(self.run_id)

    def scope_key(self, scope: Scope) -> str | None:
        """Return the key by which results of this scope are shared; None if the run lacks the user or session for it.

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
        """Return the name of a call of this run for other services, the same in every attempt and process."""
        return hashlib.sha256(f"{self.key}\0{call_id}".encode()).hexdigest()[:32]

    def inside(self, call_id: str) -> "RunIdentity":
        """Return the identity of a run started by a call of this run: stable when the call runs again."""
        return RunIdentity(self.user, self.session, f"{self.run_id}/{call_id}")
