"""A run as others see it: what it is given, what it leaves, and the handle in between."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from flowkit.agent.outputs import Output
from flowkit.cache import Cache
from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.errors import FlowkitError
from flowkit.events import Event, EventLog, RunStatus
from flowkit.executor import Approve, Deny, Outcome
from flowkit.journal import Journal
from flowkit.messages import Content, Message, Usage, UserMessage, message_from_json
from flowkit.models.base import Model, ToolChoice
from flowkit.references import ToolCall
from flowkit.runs.limits import Limits
from flowkit.tools.toolsets import Toolset

OutputT = TypeVar("OutputT")
Decision = Approve | Deny
Instructions = str | Callable[[Context[Any]], str | Awaitable[str]]
"""What stands before the conversation in every request, or a function that makes it for each."""
Prefetch = Sequence[ToolCall] | Callable[[Context[Any], str], Sequence[ToolCall] | Awaitable[Sequence[ToolCall]]]
"""Reads that start beside the first request, or a function of context and message that gives them."""
BeforeRequest = Callable[[tuple[Message, ...], Context[Any]], Sequence[Message] | Awaitable[Sequence[Message]]]
"""Gives the messages that a request carries; the run's own history stays as it is."""


@dataclass(frozen=True, slots=True)
class Plan(Generic[OutputT]):
    """All that a run is given and doesn't change."""

    name: str
    model: Model
    tools: Toolset
    output: Output[OutputT]
    instructions: Instructions = ""
    prefetch: Prefetch = ()
    limits: Limits = field(default_factory=Limits)
    cache: Cache | None = None
    journal: Journal | None = None
    allow_changed: bool = False
    early: bool = True
    references: bool = False
    think_tags: bool = False
    tool_choice: ToolChoice = "auto"
    before_request: BeforeRequest | None = None
    attempts: int = 3
    output_attempts: int = 3
    slots: int | Mapping[str, int] = 16


@dataclass(frozen=True, slots=True)
class Given:
    """What one run begins with, besides its context."""

    message: str | tuple[Content, ...] | None = None
    history: tuple[Message, ...] = ()
    decisions: Mapping[str, Decision] = field(default_factory=dict[str, Decision])

    def to_json(self) -> JSON:
        """The form in the journal; decisions are its own."""
        said = None if self.message is None else UserMessage(self.message).to_json()
        return {"message": said, "history": [message.to_json() for message in self.history]}

    @classmethod
    def from_json(cls, data: JSON) -> "Given":
        """What `to_json` wrote."""
        fields = cast(Mapping[str, JSON], data)
        said = fields.get("message")
        message = message_from_json(said) if isinstance(said, dict) else None
        return cls(
            message=message.content if isinstance(message, UserMessage) else None,
            history=cls.read_messages(cast(Sequence[JSON], fields.get("history", []))),
        )

    @staticmethod
    def read_messages(data: Sequence[JSON]) -> tuple[Message, ...]:
        """Messages from their JSON."""
        return tuple(message_from_json(cast(Mapping[str, JSON], message)) for message in data)


@dataclass(frozen=True, slots=True)
class Pending:
    """A call that waits for a person; `arguments` are final, references resolved. `id` is the key of its decision."""

    id: str
    name: str
    arguments: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class AgentResult(Generic[OutputT]):
    """How a run ended.

    `output` is None unless `status` is `done`; `text` is the last thing the model said. `messages` is the whole
    conversation, ready to be a next run's `history`; `calls` the outcome of every call, needed ones included. `usage`
    and `cost` include what its tools spent by asking agents, and what it spent before a crash; `cost` is in US
    dollars, None where a price isn't known. `prefetched` counts the prefetched calls that the model asked
    for, and all of them. `tips` tell, for a person, what tools without a declared effect cost.
    """

    output: OutputT | None
    text: str
    messages: tuple[Message, ...]
    calls: tuple[Outcome, ...]
    usage: Usage
    cost: float | None
    status: RunStatus
    pending: tuple[Pending, ...]
    error: FlowkitError | None
    run_id: str
    prefetched: tuple[int, int] = (0, 0)
    tips: tuple[str, ...] = ()


class Run(Generic[OutputT]):
    """A run that goes on whether or not anyone watches; iterate over it for its events. `id` is its `run_id`."""

    def __init__(
        self,
        log: EventLog,
        decide: Callable[[str, Decision], None],
        drive: Coroutine[Any, Any, AgentResult[OutputT]],
        on_end: Callable[[], object],
    ) -> None:
        self.id = log.run
        self.log = log
        self._decide = decide
        self._is_stopping = False
        self._task = asyncio.create_task(drive, name=f"run {log.run}")
        self._task.add_done_callback(lambda _: (log.close(), on_end()))

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.log.watch()

    def watch(self, after: int = -1) -> AsyncIterator[Event]:
        """The events with a `seq` greater than `after`, for a watcher that comes back."""
        return self.log.watch(after)

    async def wait(self) -> AgentResult[OutputT]:
        """The result, whatever its status; cancelling the waiter leaves the run alone."""
        return await asyncio.shield(self._task)

    def cancel(self) -> None:
        """Stop: running tools are cancelled, the stream is closed; `wait` then gives what there is."""
        if not self._is_stopping:
            self._is_stopping = True
            # Behind the task's first step: a task that is cancelled before it never begins, and has no result.
            self._task.get_loop().call_soon(self._task.cancel)

    def decide(self, call: str, decision: Decision) -> None:
        """Answer a call that waits for approval while the run still goes on; `call` is the events' name of it.

        Raises `KeyError` when it doesn't wait.
        """
        self._decide(call, decision)

    @property
    def is_done(self) -> bool:
        """Whether the result is there."""
        return self._task.done()


def is_loop_running() -> bool:
    """Whether an event loop runs in this thread, which a blocking form would stop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
