"""Tools: typed functions that models, recipes and other tools call; their schemas, values, needs and keys."""

from flowkit.tools.decorator import (
    Approval,
    Effect,
    Need,
    Needs,
    Scope,
    Tool,
    ToolLookup,
    make_tool,
    tool,
)

__all__ = [
    "Approval",
    "Effect",
    "Need",
    "Needs",
    "Scope",
    "Tool",
    "ToolLookup",
    "make_tool",
    "tool",
]
