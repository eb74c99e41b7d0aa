"""What of a tool decides how its calls run."""

from collections.abc import Mapping
from typing import Any

from flowkit.executor.resources import Access
from flowkit.tools import Tool
from flowkit.tools.options import Approval, PoolName
from flowkit.tools.schema.arguments import Arguments

AnyTool = Tool[..., Any]


class Plan:
    """A tool as the executor sees it; read once for each tool, since tools are asked a million times.

    `remembers` says that the run may know results of its calls: it goes on with another, or has a journal.
    """

    __slots__ = (
        "approval",
        "is_async",
        "is_read",
        "needs",
        "pool",
        "remembers",
        "runs_once",
        "slot",
        "tool",
        "touches",
    )

    def __init__(self, tool: AnyTool, *, remembers: bool) -> None:
        self.tool = tool
        self.remembers = remembers
        self.is_async = tool.is_async
        self.is_read = tool.effect == "read"
        self.slot = tool.slot
        self.pool: PoolName | None = tool.pool
        self.needs = frozenset(need.parameter for need in tool.needs)
        self.touches = bool(tool.options.resources)
        self.approval: Approval = tool.options.approval or False
        # One attempt is all of it: nothing to claim or to record, no context, no time-out, no second try.
        self.runs_once = not (
            self.is_read
            or self.touches
            or remembers
            or tool.takes_context
            or tool.timeout_s
            or tool.retries
            or tool.pool is not None
            or not tool.is_async
        )

    def accesses(self, arguments: Arguments | Mapping[str, object]) -> list[Access]:
        """List the resources of a call with these arguments, and whether it writes them."""
        return [(resource, not self.is_read) for resource in self.tool.resources(arguments)]
