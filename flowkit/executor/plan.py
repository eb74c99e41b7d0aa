"""The properties of a tool that decide how its calls run."""

from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

from flowkit.executor.resources import Access
from flowkit.tools import Tool
from flowkit.tools.options import Approval, PoolName
from flowkit.tools.schema.arguments import Arguments

AnyTool = Tool[..., Any]
_NO_NEEDS: frozenset[str] = frozenset()
_plans: WeakValueDictionary[tuple[int, bool], "Plan"] = WeakValueDictionary()
"""The plans of the runs in progress: a thousand runs of one agent share them. A plan keeps the tool, and so its `id`."""


def find_plan(tool: AnyTool, *, remembers: bool) -> "Plan":
    """Return the plan of a tool, shared by all concurrent runs that use it."""
    key = id(tool), remembers
    plan = _plans.get(key)
    if plan is None:
        plan = _plans[key] = Plan(tool, remembers=remembers)
    return plan


class Plan:
    """The properties of a tool that the executor needs, read once per tool, since there may be a million calls.

    `remembers` is True if the run may have recorded results of its calls: it resumes another, or has a journal.
    """

    __slots__ = (
        "__weakref__",
        "approval",
        "dump",
        "effect",
        "function",
        "has_secrets",
        "invoke",
        "is_async",
        "is_plain",
        "is_plainly_right",
        "is_read",
        "needs",
        "own_json",
        "pool",
        "read",
        "remembers",
        "runs_once",
        "slot",
        "tool",
        "touches",
    )

    def __init__(self, tool: AnyTool, *, remembers: bool) -> None:
        self.tool = tool
        self.remembers = remembers
        # The reader itself where it runs no code of the author's, which may raise anything.
        self.read = tool.reader.read if tool.reader.is_plain else tool.validate
        self.is_plainly_right = tool.reader.is_plainly_right
        self.invoke = tool.invoke
        self.dump = tool.results.dump
        self.own_json = tool.results.own_json
        self.function = tool.function
        self.effect = tool.effect
        self.has_secrets = bool(tool.secrets)
        self.is_async = tool.is_async
        self.is_read = tool.effect == "read"
        self.slot = tool.slot
        self.pool: PoolName | None = tool.pool
        self.needs = frozenset(need.parameter for need in tool.needs) if tool.needs else _NO_NEEDS
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
            or tool.life is not None
            or not tool.is_async
        )
        # The attempt only has to await the function with the values.
        self.is_plain = self.runs_once and tool.takes_values and not self.has_secrets and self.slot is None

    def accesses(self, arguments: Arguments | Mapping[str, object]) -> list[Access]:
        """List the resources of a call with these arguments, and whether it writes them."""
        return [(resource, not self.is_read) for resource in self.tool.resources(arguments)]
