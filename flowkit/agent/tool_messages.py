"""What outcomes become for those who read them: the model's tool messages, the user's tips."""

from collections.abc import Iterator, Mapping
from typing import Any

from flowkit.codec import dumps
from flowkit.executor import Approve, Outcome
from flowkit.messages import RequestedCall, ToolMessage
from flowkit.tools import Tool
from flowkit.tools.long_results import DEFAULT_MAX_CHARS, READ_TOOL, LongResults
from flowkit.tools.toolsets import Toolset

SHORTEST_TIP_S = 0.05
"""A late start that cost less than this isn't worth telling."""


def make_tool_message(
    requested: RequestedCall, outcome: Outcome, tool: Tool[..., Any] | None, long: LongResults
) -> ToolMessage:
    """The call's one result: its value, cut when it is long, or in what way it came to nothing.

    What a person changed is told here: the arguments in the message that asked stay as the model wrote them, since
    servers sign them.
    """
    changed = ""
    if isinstance(outcome.decision, Approve) and outcome.decision.arguments is not None:
        changed = f"a person approved this with other arguments, {dumps(outcome.call.arguments).decode()}:\n"
    if outcome.state != "finished":
        return ToolMessage(requested.id, requested.name, changed + (outcome.error or outcome.state), is_error=True)
    value = outcome.value
    text = value if isinstance(value, str) else dumps(value).decode()
    if requested.name == READ_TOOL:
        # It is a page already, and says itself how to read on.
        return ToolMessage(requested.id, requested.name, text)
    limit = DEFAULT_MAX_CHARS if tool is None else tool.max_result_chars or DEFAULT_MAX_CHARS
    return ToolMessage(requested.id, requested.name, changed + long.show(requested.id, text, limit))


def make_tips(tools: Toolset, outcomes: Mapping[str, Outcome], ready_s: Mapping[str, float]) -> Iterator[str]:
    """What leaving an effect undeclared cost: how much sooner each such tool could have started, at the most."""
    late: dict[str, float] = {}
    for node, complete_s in ready_s.items():
        outcome = outcomes.get(node)
        tool = None if outcome is None else tools.find(outcome.call.name)
        if outcome is None or outcome.started_s is None or tool is None or tool.declared_effect:
            continue
        late[tool.name] = max(outcome.started_s - complete_s, late.get(tool.name, 0.0))
    for name, late_s in late.items():
        if late_s >= SHORTEST_TIP_S:
            yield (
                f"{name}: its effect isn't declared, so it was treated as a write; "
                f"as a read it would have started {late_s:.1f} s sooner"
            )
