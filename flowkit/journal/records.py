"""The journal's records: nodes, turns, approvals and runs, as frozen values with JSON inside."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from flowkit.codec import JSON
from flowkit.events import RunStatus
from flowkit.journal.driver_lease import NO_LEASE, RunLease

NodeEffect = Literal["read", "idempotent", "write"]
NodeState = Literal["claimed", "finished", "failed", "skipped", "denied", "cancelled", "void", "in_doubt", "retry"]
"""`claimed` was running when its driver stopped. `in_doubt` is a write that may have happened. `retry` may run again."""
RunState = RunStatus | Literal["queued", "running", "cancelling"]
"""The state of a run. `queued` waits for a process to drive it; `cancelling` has been requested from its driver."""


@dataclass(frozen=True, slots=True)
class Done:
    """The write did happen, and this is its result."""

    value: JSON = None


@dataclass(frozen=True, slots=True)
class Retry:
    """The write did not happen; it may run again."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The write counts as failed, with this error."""

    error: str


Resolution = Done | Retry | Fail


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded node; `arguments` are masked, `by` names the person who resolved it.

    `resources` are those that a write touches. `lease` is the time until which a claimed call may still be running.
    Until then no process settles the call, unless its driver is certainly dead.
    """

    node: str
    state: NodeState
    value: JSON = None
    error: str | None = None
    attempt: int = 1
    effect: NodeEffect = "read"
    arguments: JSON = None
    tool: str = ""
    code: str = ""
    by: str | None = None
    resources: tuple[str, ...] = ()
    lease: RunLease = field(default=NO_LEASE, compare=False, repr=False)

    @property
    def is_ended(self) -> bool:
        """Return whether it is final: it never runs again."""
        return self.state not in ("claimed", "in_doubt", "retry")

    def settle(self, resolution: Resolution, by: str) -> "Recorded":
        """Return the node after this decision."""
        match resolution:
            case Done(value):
                return replace(self, state="finished", value=value, error=None, by=by, lease=NO_LEASE)
            case Retry():
                return replace(self, state="retry", by=by, lease=NO_LEASE)
            case Fail(error):
                return replace(self, state="failed", error=error, by=by, lease=NO_LEASE)


def has_doubt(nodes: Mapping[str, Recorded]) -> bool:
    """Return whether one of these nodes is in doubt."""
    return any(node.state == "in_doubt" for node in nodes.values())


def explain_running(node: Recorded) -> str:
    """Explain why this node can't be settled yet."""
    until = datetime.fromtimestamp(node.lease.until_wall or 0.0, UTC)
    return f"{node.node!r} may still be running in another process, until {until:%Y-%m-%d %H:%M:%S} UTC at the latest"


@dataclass(frozen=True, slots=True)
class RecordedTurn:
    """A model's message, as `Message.to_json` wrote it; turns count from 1."""

    turn: int
    message: JSON


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's decision on a call, with the person and the time (seconds since 1970).

    `arguments` is set when the person changed them."""

    approved: bool
    by: str | None
    at: float
    reason: str = ""
    arguments: JSON = None


@dataclass(frozen=True, slots=True)
class Approval:
    """A call that a person has to decide on, with the arguments that the decision holds for."""

    node: str
    name: str
    arguments: JSON
    asked_at: float
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run in a list; `is_held` while a process drives it, times in seconds since 1970.

    `number` is unique in its journal and increases with each new run. `parent` is the number of the calling run, if an
    agent ran as a tool or a step.
    """

    run_id: str
    name: str
    status: RunState
    user: str | None
    session: str | None
    began_at: float
    changed_at: float
    is_held: bool = False
    error: str | None = None
    number: int = 0
    parent: int | None = None

    @property
    def cursor(self) -> str:
        """The cursor of the next page: `Journal.runs(cursor=…)` lists the runs that began before this one."""
        return str(self.number)


@dataclass(frozen=True, slots=True)
class RunDetails:
    """A run in full."""

    summary: RunSummary
    code: str
    inputs: JSON
    output: JSON
    messages: tuple[JSON, ...] = ()
    nodes: Mapping[str, Recorded] = field(default_factory=dict[str, Recorded])
    turns: tuple[RecordedTurn, ...] = ()
    approvals: Mapping[str, Approval] = field(default_factory=dict[str, Approval])

    @property
    def can_go_on(self) -> bool:
        """Return whether it can be driven: it isn't over, isn't driven, and doesn't wait for a person."""
        if self.summary.is_held:
            return False
        match self.summary.status:
            case "queued" | "running" | "cancelling":
                return True
            case "waiting":
                return all(approval.decision is not None for approval in self.approvals.values())
            case "in_doubt":
                return not any(node.state in ("in_doubt", "claimed") for node in self.nodes.values())
            case _:
                return False


@dataclass(frozen=True, slots=True)
class JournalStats:
    """The size of a journal: the number of runs per status, the start of the oldest, and the bytes on the disk.

    An unfinished run without a driver counts as `stopped`.
    """

    runs: Mapping[str, int]
    oldest_began_at: float | None
    size_bytes: int
    blob_bytes: int
