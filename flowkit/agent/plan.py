"""The plan of an agent, and the start of one run of it."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast

from flowkit.agent.guards import Guards
from flowkit.agent.outputs import Output
from flowkit.cache import Cache
from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.executor import Decision
from flowkit.journal import Journal
from flowkit.messages import Content, Message, SystemMessage, UserMessage, message_from_json
from flowkit.models.base import Model, ToolChoice
from flowkit.references import ToolCall
from flowkit.runs.budgets import Budget
from flowkit.runs.limits import Limits
from flowkit.tools.toolsets import Toolset

OutputT = TypeVar("OutputT")
Instructions = str | Callable[[Context[Any]], str | Awaitable[str]]
"""The text before the conversation in every request, or a function that makes it for each."""
Prefetch = Sequence[ToolCall] | Callable[[Context[Any], str], Sequence[ToolCall] | Awaitable[Sequence[ToolCall]]]
"""Reads that start in parallel to the first request, or a function of context and message that returns them."""


@dataclass(frozen=True, slots=True)
class AgentPlan(Generic[OutputT]):
    """The unchanging settings of a run."""

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
    guards: Guards = field(default_factory=Guards)
    budgets: tuple[Budget, ...] = ()
    attempts: int = 3
    output_attempts: int = 3
    slots: int | Mapping[str, int] = 16


@dataclass(frozen=True, slots=True)
class ForkPoint:
    """The start of a fork: before the turn `at` of another run, with other `results` of calls before it.

    `session` is the new run's. If the user has several runs of this id, it selects the one in that session.
    """

    run_id: str
    at: str
    user: str | None = None
    session: str | None = None
    results: Mapping[str, JSON] = field(default_factory=dict[str, JSON])


@dataclass(frozen=True, slots=True)
class Given:
    """The inputs of one run, besides its context."""

    message: str | tuple[Content, ...] | None = None
    history: tuple[Message, ...] = ()
    decisions: Mapping[str, Decision] = field(default_factory=dict[str, Decision])
    fork: ForkPoint | None = None
    """The source of the history, read when the run starts; without a message, the model is then asked immediately."""

    def to_json(self) -> JSON:
        """Convert to the journal's form; decisions are stored apart."""
        said = None if self.message is None else UserMessage(self.message).to_json()
        return {"message": said, "history": [message.to_json() for message in self.history]}

    @classmethod
    def from_json(cls, data: JSON) -> "Given":
        """Read what `to_json` wrote."""
        fields = cast(Mapping[str, JSON], data)
        said = fields.get("message")
        message = message_from_json(said) if isinstance(said, dict) else None
        return cls(
            message=message.content if isinstance(message, UserMessage) else None,
            history=cls.read_messages(cast(Sequence[JSON], fields.get("history", []))),
        )

    @staticmethod
    def read_messages(data: Sequence[JSON]) -> tuple[Message, ...]:
        """Read messages from their JSON."""
        return tuple(message_from_json(cast(Mapping[str, JSON], message)) for message in data)


logger = logging.getLogger("flowkit.agent")


def tell_dropped(agent: str, history: Sequence[Message], told: set[str]) -> None:
    """Warn once about a system message in this history that will be dropped; `told` records the warning."""
    if "system" not in told and any(isinstance(message, SystemMessage) and message.text for message in history):
        told.add("system")
        logger.warning(
            "agent %r: the system message in history= is left out, and the agent has no instructions: give it "
            "instructions=",
            agent,
        )
