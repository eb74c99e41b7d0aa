"""The executor's state for one call or control while it lives."""

import asyncio
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from flowkit.cache import KeyOf, Look
from flowkit.codec import JSON, dump_sorted
from flowkit.context import Context
from flowkit.errors import InDoubt, ToolError, ToolResultError
from flowkit.executor import phases
from flowkit.executor.outcomes import Decision, Source, State
from flowkit.executor.plan import AnyTool, Plan
from flowkit.executor.resources import Ticket
from flowkit.executor.worker import Running
from flowkit.graph import ModelStep, Node
from flowkit.masking import show_arguments
from flowkit.references import ToolCall
from flowkit.tools.schema.arguments import Arguments

T = TypeVar("T")


MODEL_SLOT = "model"
"""The named slot of steps that ask a model, where `slots=` limits it."""


class Failure:
    """The failure of a call; `may_pass` if a retry may help, `running` is a job that may still be busy with it.

    `broken` is the reason that it didn't start, and that no call of its run may start any more: its journal is gone, or
    another process has the run.
    """

    __slots__ = ("broken", "error", "exception", "may_pass", "running", "state")

    def __init__(self, state: State, error: str, exception: Exception | None = None, *, may_pass: bool = False) -> None:
        self.state: State = state
        self.error = error
        self.exception = exception
        self.may_pass = may_pass
        self.running: Running | None = None
        self.broken: Exception | None = None

    @property
    def error_type(self) -> str | None:
        """The class of the exception."""
        return None if self.exception is None else type(self.exception).__name__

    def is_remembered(self, tool: AnyTool) -> bool:
        """Return whether the tool caches this error."""
        return self.exception is not None and isinstance(self.exception, tool.cache_errors)


class Made:
    """The calls that a running tool has made: how many of each tool in this attempt, and which attempt used a name first."""

    __slots__ = ("attempt", "counts", "names")

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self.counts: dict[str, int] = {}
        self.names: dict[str, int] = {}


class Extra:
    """The fields that few entries have. The class holds their defaults until one is set, so that creating one is cheap."""

    after: frozenset[str] = frozenset()
    """Nodes that only have to finish first."""
    attempts_before: int = 0
    """How many attempts at it earlier processes made."""
    age_s: float | None = None
    """The age of its result in seconds, if it came from a cache."""
    asks_person: bool | None = None
    """The answer of the tool's approval rule; None before it was called."""
    because: str | None = None
    """The ancestor that failed."""
    children: "Sequence[Entry]" = ()
    context: Context[Any] | None = None
    decision: Decision | None = None
    """The person's decision."""
    error: str | None = None
    error_type: str | None = None
    """The class of its function's exception."""
    flight: str | None = None
    """The cache key under which it may share its run with other runs and processes."""
    followers: "Sequence[Entry]" = ()
    """Equal calls that wait for this one's result."""
    gate: int = 0
    """The place, in the list of its gates, of the one where it waits."""
    key_of: KeyOf | None = None
    """Makes its key, for the look into a cache that answers later."""
    look: Look | None = None
    """The result of that look-up."""
    given: Mapping[str, object] | None = None
    """The arguments of an early call before the run's guard changed them."""
    has_doubt: bool = False
    """Whether a call that it made, or one of a run that its function started, is in doubt."""
    has_written: bool = False
    """Whether a run that its function started has begun a write."""
    is_guarded: bool = False
    """Whether the run's guard has passed it."""
    is_guess: bool = False
    """Whether it was prefetched: it is provisional until a call of a complete turn waits for its result."""
    is_provisional: bool = False
    """Whether its turn may still be discarded: calls that it makes must not write yet."""
    is_disowned: bool = False
    """Whether its turn was discarded: calls that it makes never write."""
    is_lent: bool = False
    """Whether others have its slot while it runs."""
    lasting_id: str | None = None
    """Its id in every attempt and process, where an earlier attempt of a call around it has taken that here."""
    leader: "Entry | None" = None
    """The equal call that it takes the result of."""
    made: "Made | None" = None
    """The names of the calls that it has made while it ran."""
    optional: bool = False
    on_seal: "Sequence[Callable[[], None]]" = ()
    reading: Any = None
    """Its reads so far, if its result may be shared: a `ReadScope`."""
    raw: object = None
    """The function's return value, for a caller in the same process."""
    repaired: tuple[str, ...] = ()
    retries: int | None = None
    runs: "tuple[int, dict[str, Iterator[int]]] | None" = None
    """The attempt, and the counts of the equal runs that its function has started."""
    source: Source = "run"
    stop: str | None = None
    """The reason that it was stopped while it ran, or waited in a task."""
    ticket: Ticket | None = None
    timeout_s: float | None = None
    is_withdrawn: bool = False
    """Whether it was cancelled before it was sealed."""
    was_asked: bool = False
    """Whether it was dropped while a person had to decide on it."""
    waits: int = 0
    """How many of its calls a running tool waits for now."""

    def add_child(self, child: "Entry") -> None:
        # As in `_add`, which a control would call for each of its nodes.
        if isinstance(self.children, list):
            self.children.append(child)
        else:
            self.children = [child]

    def add_follower(self, follower: "Entry") -> None:
        self.followers = _add(self.followers, follower)

    def tell_seal(self, told: "Callable[[], None]") -> None:
        """Call `told` when the entry is sealed or its turn is complete, or when that can't happen any more."""
        self.on_seal = _add(self.on_seal, told)


def _add(items: Sequence[T], item: T) -> Sequence[T]:
    if isinstance(items, list):
        items.append(item)
        return items
    return [item]


class Entry:
    """One node's life, kept small: a run may have a million."""

    __slots__ = (
        "arguments",
        "attempt",
        "bound",
        "dependents",
        "early",
        "ended_s",
        "extra",
        "id",
        "is_within",
        "key",
        "missing",
        "node",
        "on_end",
        "order",
        "parent",
        "phase",
        "plan",
        "sealed_s",
        "started_s",
        "state",
        "value",
        "worker",
    )

    def __init__(self, node_id: str, node: Node, plan: Plan | None, parent: "Entry | None", order: float) -> None:
        self.id = node_id
        self.node = node
        self.plan = plan
        self.parent = parent
        self.is_within = parent is not None and (parent.plan is not None or parent.is_within)
        """Whether a running tool made it."""
        self.order = order
        self.phase: int = phases.NEW
        self.missing = 0
        self.dependents: list[Entry] | None = None
        self.arguments: Arguments | None = None
        self.bound: Mapping[str, object] | None = None
        """The arguments with references, own and needed, that are still to be resolved."""
        self.value: JSON = None
        self.state: State | None = None
        self.attempt = 0
        self.early = False
        self.sealed_s: float | None = None
        self.started_s: float | None = None
        self.ended_s: float | None = None
        self.worker: asyncio.Task[None] | None = None
        self.key: Hashable | None = None
        """The key that equal reads share."""
        self.on_end: Sequence[Callable[[Entry], None]] = ()
        """Called when its outcome is reported; here and not in `extra`, since each node of a control has one."""
        self.extra: Extra | None = None

    @property
    def more(self) -> Extra:
        """The rare part, made now if it isn't there."""
        if self.extra is None:
            self.extra = Extra()
        return self.extra

    def tell_end(self, told: "Callable[[Entry], None]") -> None:
        """Call `told` when the outcome is reported."""
        self.on_end = (*self.on_end, told)

    @property
    def lasting_id(self) -> str:
        """Its id, the same in every attempt of the calls around it and in every process."""
        above: Entry | None = self
        while above is not None:
            if above.extra is not None and above.extra.lasting_id is not None:
                return above.extra.lasting_id + self.id.removeprefix(above.id)
            above = above.parent
        return self.id

    @property
    def slot(self) -> str | None:
        """The named slot it needs besides a general one."""
        return MODEL_SLOT if self.plan is None else self.plan.slot

    @property
    def error(self) -> str | None:
        """Why it has no result."""
        return None if self.extra is None else self.extra.error

    @property
    def source(self) -> Source:
        """Where its result came from; its own run for nearly all."""
        return "run" if self.extra is None else self.extra.source

    @property
    def stop(self) -> str | None:
        """Return the reason that it was stopped; None for nearly all."""
        return None if self.extra is None else self.extra.stop

    @property
    def age_s(self) -> float | None:
        """Return the age of its result, if it came from a cache."""
        return None if self.extra is None else self.extra.age_s

    def find_secrets(self) -> frozenset[str]:
        """Find the secrets in the call's arguments, which no visible text may repeat."""
        if self.plan is None or not self.plan.has_secrets:
            return frozenset()
        if self.arguments is not None:
            return self.plan.tool.secrets.find(self.arguments.given)
        # They were invalid, and the error has the reason.
        return self.plan.tool.secrets.find(self.node.arguments) if isinstance(self.node, ToolCall) else frozenset()

    @property
    def is_bounded(self) -> bool:
        """Return whether its own node limits its time or its attempts."""
        return self.extra is not None and (self.extra.timeout_s is not None or self.extra.retries is not None)

    @property
    def may_write(self) -> bool:
        """Return whether calls that it makes may write: its arguments are final, and its turn is complete."""
        return self.sealed_s is not None and (self.extra is None or not self.extra.is_provisional)

    @property
    def has_ended(self) -> bool:
        return self.phase >= phases.ENDED

    @property
    def is_holder(self) -> bool:
        """A control that only holds other nodes: it has no task."""
        return self.plan is None and not isinstance(self.node, (ToolCall, ModelStep))

    @property
    def is_usable(self) -> bool:
        """Return whether a call that refers to it may run: it has a value, or its failure counts as null."""
        return self.state == "finished" or (self.extra is not None and self.extra.optional)

    @property
    def has_doubt(self) -> bool:
        """Return whether a call inside it is in doubt; unless it is a write, it runs again once that is settled."""
        return self.extra is not None and self.extra.has_doubt

    @property
    def is_withdrawn(self) -> bool:
        """Return whether it was cancelled before it was sealed; sealing it later doesn't run it."""
        return self.extra is not None and self.extra.is_withdrawn

    @property
    def is_told(self) -> bool:
        """Return whether its outcome is reported: it was sealed, or never will be."""
        return self.phase >= phases.ENDED and (self.sealed_s is not None or self.state == "void")

    def ask_to_stop(self, reason: str) -> None:
        """Request that its task stops; the task then reports the outcome."""
        more = self.more
        more.stop = reason
        if more.context is not None:
            more.context.cancelled.set()
        if self.worker is not None:
            self.worker.cancel()


def keep_result(entry: Entry, plan: Plan, result: object) -> Failure | None:
    """Keep what the function returned, as JSON; return the failure if it can't be."""
    try:
        entry.value = plan.dump(plan.tool.name, result)
    except ToolResultError as error:
        return refuse_result(plan, error)
    return None


def refuse_result(plan: Plan, error: ToolResultError) -> Failure:
    """Make the failure of a call with a result that isn't JSON."""
    # The function has returned: who reads that it failed would do it again.
    return Failure("failed", str(error) if plan.is_read else explain_unshown(error), error)


def explain_unshown(error: ToolResultError) -> str:
    """Explain to a model that a write was done although its result can't be shown."""
    return f"it was done, but its result can't be shown: {error}; don't repeat it"


def check_result(entry: Entry) -> None:
    """Raise `ToolError` for a call without a result, for the tool that made it.

    Raises `InDoubt` for a group with a call in doubt, even an optional one: the group's result isn't known yet.
    """
    if entry.is_holder and entry.has_doubt:
        raise InDoubt(f"{entry.node.name}: a call in it may or may not have happened")
    if entry.state != "finished":
        raise ToolError(f"{entry.node.name}: {entry.error or entry.state}")


def began_with(entry: Entry, arguments: Mapping[str, object]) -> bool:
    """Return whether an early call was started with these arguments, before the run's guard changed them.

    They are compared as JSON, so that true isn't 1.
    """
    given = None if entry.extra is None else entry.extra.given
    started = cast(ToolCall, entry.node).arguments if given is None else given
    return dump_sorted(show_arguments(started)) == dump_sorted(show_arguments(arguments))
