"""The context of a running tool.

A tool takes it in a parameter annotated `Context[Data]` with the default `CONTEXT`; it is hidden from the model.
"""

from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Event as Flag
from threading import Lock
from typing import Any, Generic, overload

from typing_extensions import ParamSpec, TypeVar

from flowkit.errors import ToolError
from flowkit.events import EventLog
from flowkit.identity import RunIdentity

D = TypeVar("D", default=Any)
P = ParamSpec("P")
R = TypeVar("R")


Called = tuple[Any, tuple[Any, ...], dict[str, Any]]
"""A tool, and the arguments that a function calls it with."""
CALLED_INSTEAD: ContextVar[Callable[[Any, tuple[Any, ...], dict[str, Any]], Called] | None] = ContextVar(
    "called instead", default=None
)
"""Gives what a function's `ctx.call` calls in place of a tool: in a rehearsal, no write runs from inside a read."""

_MAKING_FLAG = Lock()


@dataclass(slots=True)
class Context(Generic[D]):
    """One call's view of its run; `data` is the argument of `run(data=…)`.

    `user`, `session` and `run_id` are those of the run, `call_id` identifies the call in it, `attempt` counts from 1,
    and `attempts_before` of them were made by earlier processes.
    `idempotency_key` is the same for every attempt of this call and of the calls around it, and differs between calls
    and runs. It is made of `lasting_id`, which is `call_id` without those attempts. `cancelled` is
    set when the call should stop; a blocking tool has to check it, since a thread can't be stopped. `message` is the
    user's message, for the functions that make an agent's instructions or choose its tools. `log` takes the events of a
    run that this call starts.
    """

    data: D
    user: str | None = None
    session: str | None = None
    message: str = ""
    run_id: str = ""
    call_id: str = ""
    attempt: int = 1
    attempts_before: int = 0
    idempotency_key: str = ""
    lasting_id: str = ""
    log: EventLog | None = None
    _progress: Callable[[float, float | None, str], None] | None = None
    _call: Callable[[Any, tuple[Any, ...], dict[str, Any]], Awaitable[Any]] | None = None
    _open: Callable[[Any, Any], Awaitable[Any]] | None = None
    _cancelled: Flag | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def cancelled(self) -> Flag:
        """The flag that is set when the call should stop."""
        # Made when somebody looks: it takes a kilobyte, and hardly any tool does.
        with _MAKING_FLAG:  # the event loop may set it in the moment when a tool's thread looks for the first time
            if self._cancelled is None:
                self._cancelled = Flag()
            return self._cancelled

    @property
    def identity(self) -> RunIdentity:
        """The run's identity, which distinguishes it from every other run."""
        return RunIdentity(self.user, self.session, self.run_id)

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Report this call's progress to watchers; never waits, safe from a thread."""
        if self._progress is not None:
            self._progress(done, total, note)

    @overload
    async def call(self, tool: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    async def call(self, tool: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R: ...
    async def call(self, tool: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call another tool as a node of the same graph, with its cache, journal and events."""
        if self._call is None:
            raise ToolError("this tool calls other tools, so it needs a run; there is none here")
        instead = CALLED_INSTEAD.get()
        return await self._call(*((tool, args, kwargs) if instead is None else instead(tool, args, kwargs)))

    async def open_group(self, group: object, tools: object) -> Any:
        """Run nodes (a `Group` and the tools that they name) as a part of the same graph; for recipes used as tools."""
        if self._open is None:
            raise ToolError("this tool opens a graph of its own, so it needs a run; there is none here")
        return await self._open(group, tools)


class _ContextMarker:
    def __repr__(self) -> str:
        return "CONTEXT"


CONTEXT: Any = _ContextMarker()
"""The default of a `Context` parameter; a direct call that leaves it raises."""
