"""An agent's settings, and the errors for settings of the wrong kind."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict, cast

from flowkit.agent.guards import AnswerGuard, CallGuard, RequestGuard, Watch
from flowkit.agent.plan import Instructions, Prefetch
from flowkit.cache import Cache
from flowkit.journal import Journal
from flowkit.models.base import NamedTool, ToolChoice
from flowkit.option_checks import FLAG, TEXT, Expected, is_count
from flowkit.runs.budgets import Budget
from flowkit.runs.limits import Limits
from flowkit.runs.options import MODEL
from flowkit.tools import Tool
from flowkit.tools.toolsets import Toolset

ToolLike = Tool[..., Any] | Toolset | Callable[..., Any]


def _say_tools(value: object) -> str:
    if isinstance(getattr(value, "tools", None), Toolset):  # an MCP server
        return "tools=[….tools]"
    name = getattr(value, "name", None) or getattr(value, "__name__", "…")
    return f"tools=[{name}]" if callable(value) or isinstance(value, Toolset) else ""


EXPECTED: Mapping[str, Expected] = {
    "model": replace(MODEL, takes_none=False),
    "tools": Expected(
        "a list of tools",
        lambda value: isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping | Toolset),
        _say_tools,
        takes_none=False,
    ),
    "instructions": Expected(
        "a string, or a function of the context",
        lambda value: isinstance(value, str) or callable(value),
        takes_none=False,
    ),
    "output_tool": Expected("a tool", lambda value: isinstance(value, Tool)),
    "prefetch": Expected(
        "a list of calls such as [get_order.call()], or a function that returns it",
        lambda value: callable(value) or (isinstance(value, Sequence) and not isinstance(value, str)),
        takes_none=False,
    ),
    "early": FLAG,
    "references": FLAG,
    "think_tags": FLAG,
    "tool_choice": Expected(
        "'auto', 'none', 'required' or NamedTool(name)",
        lambda value: isinstance(value, NamedTool) or value in ("auto", "none", "required"),
        takes_none=False,
    ),
    "attempts": Expected("1 or more", lambda value: is_count(value) and cast(int, value) > 0, takes_none=False),
    "output_attempts": Expected("1 or more", lambda value: is_count(value) and cast(int, value) > 0, takes_none=False),
    "budget": Expected(
        "Budget(…), or a list of them",
        lambda value: (
            isinstance(value, Budget)
            or (
                isinstance(value, list | tuple)
                and all(isinstance(one, Budget) for one in cast("Sequence[object]", value))
            )
        ),
    ),
    "name": replace(TEXT, takes_none=False),
}


class AgentSettings(TypedDict, total=False):
    """The options of an agent, besides its model and its output type."""

    tools: Iterable[ToolLike]
    instructions: Instructions
    prefetch: Prefetch
    limits: Limits | None
    budget: Budget | Sequence[Budget] | None
    cache: Cache | bool
    journal: Journal | None
    allow_changed: bool
    early: bool
    references: bool
    think_tags: bool
    tool_choice: ToolChoice
    before_request: RequestGuard | Watch | Sequence[RequestGuard | Watch] | None
    before_call: CallGuard | Sequence[CallGuard] | None
    after_answer: AnswerGuard | Watch | Sequence[AnswerGuard | Watch] | None
    attempts: int
    output_attempts: int
    slots: int | Mapping[str, int]
    name: str
