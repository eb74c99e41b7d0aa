"""Tools: typed functions that models, recipes and other tools call; their schemas, values, needs and keys."""

from flowkit.tools.core import Tool, ToolLookup
from flowkit.tools.decorator import Needs, make_tool, tool
from flowkit.tools.needs import Need
from flowkit.tools.options import Approval, Effect, Scope

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
