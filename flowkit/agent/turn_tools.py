"""The tools of the turn at hand: they may come and go between turns."""

from typing import Any

from flowkit.context import Context
from flowkit.tools import Tool, tool
from flowkit.tools.long_results import LongResults
from flowkit.tools.toolsets import Toolset


class TurnTools:
    """A run's tools, asked for anew before each turn; once a result was cut, with the one that reads on."""

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
