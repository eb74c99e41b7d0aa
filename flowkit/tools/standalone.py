"""Run a single tool without an executor: first its needs, one call after another."""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.references import Reference, ToolCall
from flowkit.tools.schema.arguments import Arguments


class Runnable(Protocol):
    """The part of a tool that this module uses."""

    name: str
    is_async: bool

    @property
    def needed_tools(self) -> Mapping[str, "Runnable"]: ...
    @property
    def needs(self) -> tuple[Any, ...]: ...
    def validate(
        self, arguments: Mapping[str, object] | str | bytes, needed: Mapping[str, object] | None = None
    ) -> Arguments: ...
    def expand(self, call: ToolCall) -> tuple[ToolCall, ...]: ...
    def invoke(self, arguments: Arguments, context: Context[Any] | None = None) -> Any: ...
    def dump(self, result: object) -> JSON: ...


async def run_in_order(tool: Runnable, read: Arguments, context: Context[Any]) -> Any:
    """Run the function and return its own result; raises `ToolArgumentsError`, and whatever the functions raise."""
    if not tool.needs:
        return await _invoke(tool, read, context)
    results: dict[str, JSON] = {}
    *before, last = tool.expand(ToolCall("", tool.name, read.given))
    for call in before:
        needed = tool.needed_tools[call.name]
        results[call.id] = needed.dump(await _run_call(needed, call, results, context))
    return await _run_call(tool, last, results, context)


async def _run_call(tool: Runnable, call: ToolCall, results: Mapping[str, JSON], context: Context[Any]) -> Any:
    needed = {name: results[value.call_id] for name, value in call.arguments.items() if isinstance(value, Reference)}
    given = {name: value for name, value in call.arguments.items() if name not in needed}
    return await _invoke(tool, tool.validate(given, needed), context)


async def _invoke(tool: Runnable, arguments: Arguments, context: Context[Any]) -> Any:
    if not tool.is_async:
        return await asyncio.to_thread(tool.invoke, arguments, context)
    return await tool.invoke(arguments, context)
