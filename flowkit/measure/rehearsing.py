"""Tools for a rehearsal: reads run, writes are answered.

Comparing models must not refund an order once for each of them. So a tool that could change something, or that needs
approval, isn't run: its arguments are validated as usual, and it returns the case's result or a stub. A tool
without a declared effect counts as a write. A write can be allowed to run by its name.
"""

from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from flowkit.codec import JSON
from flowkit.context import CALLED_INSTEAD, Context
from flowkit.tools import Tool
from flowkit.tools.decorator import make_tool

AnyTool = Tool[..., Any]
Answer = Callable[[dict[str, Any]], JSON]
"""Gives a tool's result for its arguments."""


class Rehearsal:
    """The stand-ins for tools in one run; `stubbed` lists the writes that weren't run, in order."""

    def __init__(self, results: Mapping[str, JSON], stub: JSON, allowed: Collection[str] = ()) -> None:
        """Prepare the stand-ins; `allowed` are the names of writes that really run, `*` means all."""
        self.stubbed: list[str] = []
        self.tools: dict[str, AnyTool] = {}
        """The tools of the run by their names, as they really are."""
        self._results = results
        self._stub = stub
        self._allowed = allowed

    def replace(self, tool: AnyTool) -> AnyTool:
        """Return the tool's stand-in, or the tool itself if it runs."""
        self.tools[tool.name] = tool
        if tool.name in self._results:
            value = self._results[tool.name]
            return answer_for(tool, lambda _: deepcopy(value))
        if runs_in_rehearsal(tool) or tool.name in self._allowed or "*" in self._allowed:
            return tool
        return answer_for(tool, lambda _: self._give_stub(tool.name))

    def replace_called(
        self, called: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
        """Return the tool and arguments for a function's `ctx.call`: a read may call a write."""
        tool = make_tool(called)
        instead = self.replace(tool)
        return (called, args, kwargs) if instead is tool else (instead, (), dict(tool.call(*args, **kwargs).arguments))

    @contextmanager
    def at_work(self) -> Generator[None]:
        """Make runs that start inside the block call the stand-ins, also from functions."""
        token = CALLED_INSTEAD.set(self.replace_called)
        try:
            yield
        finally:
            CALLED_INSTEAD.reset(token)

    def _give_stub(self, name: str) -> JSON:
        self.stubbed.append(name)
        return deepcopy(self._stub)


def runs_in_rehearsal(tool: AnyTool) -> bool:
    """Return whether running it changes nothing and needs no approval."""
    return tool.effect == "read" and not tool.approval


def answer_for(tool: AnyTool, answer: Answer) -> AnyTool:
    """Make a tool that a model sees as this one, and that returns an answer instead of running."""

    def give(arguments: dict[str, Any]) -> JSON:
        return answer(arguments)

    return imitate(tool, give)


def imitate(
    tool: AnyTool,
    give: Callable[..., JSON],
    *,
    approval: Callable[[Mapping[str, Any], Context[Any]], bool] | None = None,
) -> AnyTool:
    """Make a stand-in with this tool's signature that calls `give` with the arguments and optionally the context.

    It needs approval only by the given rule.
    """
    return Tool.from_schema(
        tool.name,
        tool.description,
        tool.parameters,
        give,
        result_schema=tool.result_schema,
        effect=tool.effect,
        secret=tuple(tool.secrets),
        strict=tool.strict,
        max_result_chars=tool.max_result_chars,
        accepts_references=tool.accepts_references,
        approval=approval or False,
    )
