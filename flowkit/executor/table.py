"""What an executor knows: its entries by id, and how they look to others."""

import asyncio
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from secrets import token_hex
from typing import Any, cast

from flowkit.cache import Cache, NullCache
from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.errors import ResolutionError, ToolError
from flowkit.events import EventLog
from flowkit.executor.entries import AnyTool, Entry, Failure, Phase, Plan, Waiter
from flowkit.executor.inside import Progress
from flowkit.executor.outcomes import Outcome
from flowkit.executor.resources import Resources
from flowkit.executor.running import Runner, SlotWaiter
from flowkit.executor.slots import DEFAULT_LIMIT, Slots
from flowkit.graph import Group, ModelStep
from flowkit.identity import SCOPES, RunIdentity
from flowkit.journal import RunJournal
from flowkit.masking import show_arguments
from flowkit.references import Path, Reference, ToolCall, find_references, lookup, substitute
from flowkit.tools import ToolLookup

RunModelStep = Callable[[ModelStep, Mapping[str, JSON]], Awaitable[JSON]]
NOBODY = RunIdentity()
LookAtReference = Callable[[ToolCall, Reference, JSON], None]


class Table(ABC):
    """The state of one run's graph, and the questions that change nothing."""

    def __init__(
        self,
        tools: ToolLookup,
        log: EventLog,
        *,
        data: object = None,
        identity: RunIdentity = NOBODY,
        cache: Cache | None = None,
        journal: RunJournal | None = None,
        past: Mapping[str, Outcome] | None = None,
        slots: int | Mapping[str, int] = DEFAULT_LIMIT,
        fail_fast: bool = False,
        timeout_s: float | None = None,
        run_model_step: RunModelStep | None = None,
        look_at_reference: LookAtReference | None = None,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._tools = tools
        self._log = log
        self._data = data
        self._identity = identity
        self._cache: Cache = NullCache() if cache is None else cache
        self._journal = journal
        self._past: Mapping[str, Outcome] = {} if past is None else past
        self._remembers = journal is not None or bool(past)
        self._fail_fast = fail_fast
        self._timeout_s = timeout_s
        self._run_model = run_model_step
        self._look_at_reference = look_at_reference
        # Results are shared among those of one identity; None where the run doesn't have it.
        self._scope_keys = {scope: identity.scope_key(scope) for scope in SCOPES}
        if not identity.can_be_joined:
            # Nobody knows whether another run of this id is the same person's.
            self._scope_keys["run"] = token_hex(16)
        self._entries: dict[str, Entry] = {}
        self._count = 0
        self._plans: dict[str, Plan] = {}
        self._brought: dict[str, Mapping[str, Plan]] = {}
        """Of the groups that running tools opened, the tools that their nodes call, by group and name."""
        self._pending: dict[str, Entry] = {}
        self._asking: set[str] = set()
        self._is_looking = False
        self._shared: dict[Hashable, Entry] = {}
        self._resources = Resources()
        self._mismatches: dict[tuple[AnyTool, Path, AnyTool, str], str | None] = {}
        self._ended: deque[Entry] = deque()
        self._is_settling = False
        self._is_closed = False
        self._broken: BaseException | None = None
        self._waiters: set[Waiter] = set()
        self._deadline: asyncio.TimerHandle | None = None
        self._runner = Runner(
            log,
            slots=Slots[Entry | SlotWaiter](slots),
            cache=self._cache,
            journal=journal,
            make_context=self._make_context,
            run_model_step=self._run_model_step,
            settle=self._settle,
            broken=self._break_off,
            random=random,
        )

    def _plan(self, name: str) -> Plan | None:
        plan = self._plans.get(name)
        if plan is None:
            tool = self._tools.get(name)
            if tool is None:
                return None
            plan = self._plans[name] = Plan(tool, remembers=self._remembers)
        return plan

    def _find_plan(self, name: str, above: Entry | None) -> Plan | None:
        """The tool that a node below `above` calls by this name: the nearest group's that brought tools, or the run's."""
        while above is not None:
            brought = self._brought.get(above.id)
            if brought is not None:
                return brought.get(name)
            above = above.parent
        return self._plan(name)

    def _value(self, reference: Reference) -> JSON:
        """What a reference points to; raises `ResolutionError`."""
        producer = self._entries.get(reference.call_id)
        if producer is None:
            raise ResolutionError(f"there is no call {reference.call_id!r}")
        if producer.state != "finished":
            if not producer.is_usable:
                raise ResolutionError(f"{producer.node.name or producer.id!r} has no result")
            return None  # an optional step that failed counts as null
        path = reference.path
        return lookup(producer.value, path, producer.node.name or producer.id) if path else producer.value

    def _children(self, entry: Entry) -> list[Entry]:
        """What this entry made that is still in the graph."""
        if entry.extra is None:
            return []
        return [child for child in entry.extra.children if self._entries.get(child.id) is child]

    def _is_told(self, entry: Entry) -> bool:
        return entry.phase >= Phase.ENDED and (entry.sealed_s is not None or entry.state == "void")

    def _show_call(self, entry: Entry) -> ToolCall:
        """The call with its references resolved, if they can be, and its secrets masked."""
        node = entry.node
        arguments: Mapping[str, object] = node.arguments if isinstance(node, (ToolCall, ModelStep)) else {}
        secrets = () if entry.plan is None else entry.plan.tool.secrets
        if find_references(arguments):
            # One that can't be resolved is shown as it was written: it failed, and says so.
            with suppress(ToolError):
                arguments = cast("Mapping[str, object]", substitute(arguments, self._value))
        return ToolCall(entry.id, node.name, cast("Mapping[str, object]", show_arguments(arguments, secrets)))

    def _make_outcome(self, entry: Entry) -> Outcome:
        assert entry.state is not None
        return Outcome(
            call=self._show_call(entry),
            state=entry.state,
            value=entry.value,
            error=entry.error,
            source=entry.source,
            age_s=entry.age_s,
            attempt=entry.attempt,
            early=entry.early,
            parent=None if entry.parent is None else entry.parent.id,
            decision=None if entry.extra is None else entry.extra.decision,
            sealed_s=entry.sealed_s,
            started_s=entry.started_s,
            ended_s=entry.ended_s or 0.0,
        )

    def _make_context(self, entry: Entry) -> Context[Any]:
        context = Context[Any](
            self._data,
            user=self._identity.user,
            session=self._identity.session,
            run_id=self._identity.run_id,
            call_id=entry.id,
            attempt=max(1, entry.attempt),
            idempotency_key=self._identity.idempotency_key(entry.id),
            log=self._log,
            _progress=Progress(self._log, entry),
            _call=partial(self.call, parent=entry.id),
            _open=partial(self.run_group, parent=entry.id),
        )
        entry.more.context = context
        return context

    # What the layers above add

    @abstractmethod
    async def call(self, tool: AnyTool, args: Sequence[object], kwargs: Mapping[str, object], parent: str) -> Any:
        """A call that a running tool makes."""

    @abstractmethod
    async def run_group(self, group: Group, tools: Mapping[str, AnyTool], parent: str) -> JSON:
        """Nodes that a running tool opens."""

    @abstractmethod
    def _settle(self, entry: Entry, failure: Failure | None) -> None:
        """What the runner tells of a call that ran."""

    @abstractmethod
    def _break_off(self, error: BaseException) -> None:
        """Something below a call failed."""

    @abstractmethod
    async def _run_model_step(self, entry: Entry) -> JSON:
        """Ask the model of a step."""
