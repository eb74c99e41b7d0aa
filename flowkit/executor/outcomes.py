"""A call's outcome, and a person's decision on a waiting call."""

from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, overload

from pydantic import ValidationError

from flowkit.codec import JSON
from flowkit.errors import ToolResultError
from flowkit.references import ToolCall
from flowkit.tools import Tool
from flowkit.tools.schema.results import describe_misfit

T = TypeVar("T")

State = Literal["finished", "failed", "skipped", "denied", "cancelled", "void", "in_doubt"]
Source = Literal["run", "cache", "flight", "journal"]


@dataclass(frozen=True, slots=True)
class Approve:
    """Approval; `arguments` replace the call's own if they are given. `by` names the person who decided."""

    arguments: Mapping[str, object] | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class Deny:
    """No; the model reads the reason."""

    reason: str = ""
    by: str | None = None


Decision = Approve | Deny


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a call; times are seconds since the run began.

    `call` has its arguments with references resolved and secrets masked. `error` is the text that the model reads.
    `attempt` counts from 1, and is 0 for a call that never ran. `started_s` is None for a result from elsewhere, such
    as the cache. `decision` is a person's decision on it, if one was needed.
    """

    call: ToolCall
    state: State
    value: JSON = None
    error: str | None = None
    source: Source = "run"
    age_s: float | None = None
    attempt: int = 0
    early: bool = False
    parent: str | None = None
    decision: Decision | None = None
    sealed_s: float | None = None
    started_s: float | None = None
    ended_s: float = 0.0

    @overload
    def load(self, tool: Tool[..., Coroutine[Any, Any, T]]) -> T: ...
    @overload
    def load(self, tool: Tool[..., T]) -> T: ...
    def load(self, tool: Tool[..., Any]) -> Any:
        """Return the value as the type that `tool` promises: `outcome.load(get_order)` is an `Order`.

        Raises `ToolResultError` for a call without a value, or with one of another shape; the error includes the call's
        state.
        """
        if self.state != "finished":
            raise ToolResultError(
                f"call {self.call.id!r} has no result, it is {self.state}: {self.error or 'no reason'}"
            )
        return load_result(tool, self.call.id, self.call.name, self.value)


def load_result(tool: Tool[..., Any], call_id: str, name: str, value: JSON) -> Any:
    """Load a call's result as its tool's type; raises `ToolResultError` for one of another shape."""
    try:
        return tool.load(value)
    except ValidationError as misfit:
        raise ToolResultError(
            f"the result of {call_id!r}, of {name!r}, isn't what {tool.name!r} returns: {describe_misfit(misfit, value)}"
        ) from misfit
