"""How a call ended, and what a person decides on one that waits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from flowkit.codec import JSON
from flowkit.references import ToolCall

State = Literal["finished", "failed", "skipped", "denied", "cancelled", "void", "in_doubt"]
Source = Literal["run", "cache", "flight", "journal"]


@dataclass(frozen=True, slots=True)
class Approve:
    """Yes; with other arguments when `arguments` says so. `by` tells who decided."""

    arguments: Mapping[str, object] | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Deny:
    """No; the model reads the reason."""

    reason: str = ""
    by: str | None = None


Decision = Approve | Deny


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a call; times are seconds since the run began.

    `call` has its arguments with references resolved and secrets masked. `error` is what the model reads. `attempt`
    counts from 1, and is 0 for a call that never ran. `started_s` is None for what came from elsewhere. `decision` is
    what a person said about it, where one was asked.
    """

    call: ToolCall
    state: State
    value: JSON = None
    error: str | None = None
    source: Source = "run"
    age_s: float | None = None
    attempt: int = 0
    early: bool = False
    parent: str | None = None
    decision: Decision | None = None
    sealed_s: float | None = None
    started_s: float | None = None
    ended_s: float = 0.0
