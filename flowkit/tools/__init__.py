"""Tools: typed functions that models, recipes and other tools call; their schemas, values, needs and keys."""

from flowkit.tools.core import Tool, ToolLookup
from flowkit.tools.decorator import Needs, make_tool, tool
from flowkit.tools.effects import Approval, Effect, Scope
from flowkit.tools.needs import Need

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
