"""The request for one attempt at a turn, from the conversation so far and the tools of that turn."""

from collections.abc import Sequence
from typing import Any

from flowkit.agent.guards import GuardRun
from flowkit.agent.plan import AgentPlan
from flowkit.agent.tool_messages import fill_messages
from flowkit.context import Context
from flowkit.executor.threads import run_apart
from flowkit.history import NOT_RUN, mend, rename_calls
from flowkit.messages import Message, SystemMessage, ToolMessage, make_writable
from flowkit.models.base import ModelRequest, ToolChoice
from flowkit.tools import Tool, tool
from flowkit.tools.long_results import LongResults
from flowkit.tools.schema.docstrings import is_reader_missing, load_reader
from flowkit.tools.toolsets import Toolset


class TurnTools:
    """A run's tools, which may change between turns: they are listed again before each one.

    After a result was truncated, they include the tool that reads the rest.
    """

    def __init__(self, tools: Toolset, context: Context[Any]) -> None:
        self.now = tools
        self.long = LongResults()
        self._tools = tools
        self._context = context

    async def refresh(self) -> None:
        """Take those of the next turn."""
        tools = await self._tools.current(self._context)
        self.now = tools if self.long.is_empty else Toolset(tools, tool(effect="read")(self.long.reader()))

    def get(self, name: str) -> Tool[..., Any] | None:
        """Find the tool of this name, including tools that only others need."""
        return self.now.find(name)


async def make_request(
    plan: AgentPlan[Any],
    context: Context[Any],
    messages: Sequence[Message],
    tools: Toolset,
    *,
    guards: GuardRun,
    turn: int,
    attempt: int,
    tool_choice: ToolChoice,
    max_tokens: int | None,
) -> ModelRequest:
    """Make the request for one attempt at a turn; errors raised by its instructions pass through."""
    said = tuple(messages)
    if guards.guards.request:
        had_result = {message.call_id for message in said if isinstance(message, ToolMessage)}
        changed = await guards.check_request(said, turn)
        said = mend(changed, missing=NOT_RUN, keeps_instructions=True, left_out=had_result)
    made = plan.instructions if isinstance(plan.instructions, str) else plan.instructions(context)
    instructions = made if isinstance(made, str) else await made
    if any(is_reader_missing(tool.__doc__) for tool in tools):
        await run_apart(load_reader)
    wire_names = {name: alias for alias, name in tools.aliases.items()}
    sent = ((SystemMessage(instructions),) if instructions else ()) + rename_calls(said, wire_names)
    return ModelRequest(
        messages=await fill_messages(tuple(map(make_writable, sent))),
        tools=tools.specs(references=plan.references),
        tool_choice=tool_choice,
        output_schema=plan.output.schema,
        max_tokens=max_tokens,
        attempt=attempt,
        turn=turn,
        data=context.data,
    )
