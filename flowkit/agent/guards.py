"""Guards: the user's functions that look at a request, an answer or a call, and pass, change or refuse it.

One that decides is waited for. One that only watches runs beside the model, and stops its answer when it refuses;
nothing that changes anything starts, and no answer counts, before all of them have passed. A guard that raises has not
passed: it is an error with its name.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import isawaitable
from types import TracebackType
from typing import Any, Literal, cast

from flowkit import events
from flowkit.context import Context
from flowkit.errors import ConfigurationError, GuardFailed, GuardRefused, ToolError
from flowkit.events import EventLog
from flowkit.masking import mask_text, show_traceback
from flowkit.messages import Message
from flowkit.references import ToolCall

logger = logging.getLogger("flowkit.agent")

Place = Literal["request", "call", "answer"]

GROWTH = 8
"""A watcher is called again when the answer has grown by this fraction."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """A guard's refusal, with a reason for the user or the model.

    `to` selects the reader: with `user` the run ends, with `model` the model continues with the reason. By default the
    model reads the refusal of a call, and the user that of a request or an answer.
    """

    reason: str
    to: Literal["model", "user"] | None = None

    def __post_init__(self) -> None:
        if self.to not in (None, "model", "user"):
            raise ConfigurationError(f"Refuse: to is {self.to!r}, expected 'model' or 'user'")


Verdict = Refuse | None
RequestGuard = Callable[
    [tuple[Message, ...], Context[Any]], Sequence[Message] | Verdict | Awaitable[Sequence[Message] | Verdict]
]
"""Looks at the messages that a request carries: None passes them, other messages take their place in this request."""
CallGuard = Callable[
    [ToolCall, Context[Any]], Mapping[str, object] | Verdict | Awaitable[Mapping[str, object] | Verdict]
]
"""Looks at a call, with its arguments as its function is about to get them: None passes, a dict changes arguments."""
AnswerGuard = Callable[[Any, Context[Any]], Any]
"""Looks at an answer that is valid: None passes it, another value takes its place."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A guard that only watches, beside the model: `before_request=[Watch(is_on_topic)]`.

    It returns None or a `Refuse`. One for answers is called repeatedly with the answer so far: the text, or the value
    of `run.partial`.
    """

    guard: Callable[[Any, Context[Any]], Verdict | Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class Guards:
    """The guards of an agent, in the order in which they are called."""

    request: tuple[RequestGuard | Watch, ...] = ()
    call: tuple[CallGuard, ...] = ()
    answer: tuple[AnswerGuard | Watch, ...] = ()

    @property
    def is_watching(self) -> bool:
        """Return whether any of them runs beside the model."""
        return any(isinstance(guard, Watch) for guard in (*self.request, *self.answer))


def list_guards(agent: str, setting: str, given: object) -> tuple[Any, ...]:
    """List the guards of a setting: one, several or none; raises `ConfigurationError` for an object that can't be one."""
    if given is None:
        return ()
    guards = tuple(cast("Sequence[object]", given)) if isinstance(given, list | tuple) else (given,)
    for guard in guards:
        if isinstance(guard, Watch) and setting == "before_call":
            raise ConfigurationError(f"agent {agent!r}: before_call takes no Watch(…): a call waits for its guards")
        if not isinstance(guard, Watch) and not callable(guard):
            raise ConfigurationError(f"agent {agent!r}: {setting} is {guard!r}, expected a function, or a list of them")
    return guards


class GuardRun:
    """The guards of one run."""

    def __init__(self, guards: Guards, context: Context[Any], log: EventLog) -> None:
        self.guards = guards
        self.refused: GuardRefused | None = None
        """The reason that a call's guard ended the run."""
        self._context = context
        self._log = log

    async def check_request(self, messages: tuple[Message, ...], turn: int) -> tuple[Message, ...]:
        """Return the messages as the guards leave them; raises `GuardRefused` or `GuardFailed`."""
        for guard in self.guards.request:
            if isinstance(guard, Watch):
                continue
            found = await self._ask(guard, "request", messages, self._context, turn)
            if isinstance(found, Refuse):
                self._check_reader(guard, "request", found, turn)
                raise self._refuse(guard, "request", found, turn)
            changed = messages if found is None else _read_messages(found)
            if changed is None:
                raise self._fail(guard, "request", found, "None, a list of messages or Refuse(…)", turn=turn)
            self._tell(guard, "request", "passed" if changed == messages else "changed", turn=turn)
            messages = changed
        return messages

    async def check_answer(
        self, answer: Any, turn: int, check: Callable[[object], object]
    ) -> tuple[Any, Refuse | None]:
        """Return the answer after the guards, and a refusal for the model; raises what `check_request` raises.

        `check` raises `TypeError` for a value that can't replace an answer.
        """
        for guard in self.guards.answer:
            if isinstance(guard, Watch):
                continue
            found = await self._ask(guard, "answer", answer, self._context, turn)
            if isinstance(found, Refuse):
                if found.to == "model":
                    self._tell(guard, "answer", "refused", found.reason, turn=turn)
                    return answer, found
                raise self._refuse(guard, "answer", found, turn)
            if isinstance(found, bool) and not isinstance(answer, bool):
                raise self._fail(guard, "answer", found, "None, another answer or Refuse(…)", turn=turn)
            if found is not None:
                try:
                    check(found)
                except TypeError as error:
                    expected = str(error).removeprefix("expected ")
                    raise self._fail(guard, "answer", found, f"None, {expected} or Refuse(…)", turn=turn) from None
            self._tell(guard, "answer", "passed" if found is None else "changed", turn=turn)
            answer = answer if found is None else found
        return answer, None

    async def check_call(
        self, call: ToolCall, context: Context[Any], secrets: frozenset[str]
    ) -> Mapping[str, object] | None:
        """Return the arguments that the guards change, if any; raises `ToolError` with the text for the model."""
        changed: dict[str, object] = {}
        for guard in self.guards.call:
            seen = ToolCall(call.id, call.name, {**call.arguments, **changed})
            try:
                found = await self._ask(guard, "call", seen, context, 0, secrets)
                if not (found is None or isinstance(found, Refuse | Mapping)):
                    raise self._fail(guard, "call", found, "None, a dict of arguments or Refuse(…)", call=call.id)
            except GuardFailed as failed:
                told = show_traceback(failed, secrets)
                extra = {"run_id": self._log.run_id, "call_id": call.id, "tool": call.name}
                logger.error("a call of %s isn't run, since its guard failed\n%s", call.name, told, extra=extra)
                raise ToolError(f"not run: its guard {_name(guard)!r} failed") from failed
            if isinstance(found, Refuse):
                refused = self._refuse(guard, "call", found, 0, call.id, secrets)
                if found.to == "user":
                    self.refused = refused
                raise ToolError(f"refused: {found.reason}")
            self._tell(guard, "call", "changed" if found else "passed", call=call.id)
            changed |= dict(cast("Mapping[str, object] | None", found) or {})
        return changed or None

    def watch(self, messages: tuple[Message, ...], turn: int, partial: Callable[[], object]) -> "Watching":
        """Start the watching guards on a request and on its answer."""
        return Watching(self, messages, turn, partial)

    async def judge(self, guard: Watch, place: Place, subject: object, turn: int) -> GuardRefused | None:
        """Run one watching guard and return its refusal, if any; a pass is not reported yet."""
        found = await self._ask(guard, place, subject, self._context, turn)
        if found is None:
            return None
        if isinstance(found, Refuse):
            self._check_reader(guard, place, found, turn)
            return self._refuse(guard, place, found, turn)
        problem = f"it watches, so it returns None or Refuse(…), not {type(found).__name__}"
        self._tell(guard, place, "failed", problem, turn=turn)
        raise GuardFailed(_name(guard), problem)

    def tell_passed(self, guard: Watch, place: Place, turn: int) -> None:
        """Report that a guard that watches has passed all that it saw."""
        self._tell(guard, place, "passed", turn=turn)

    async def _ask(
        self,
        guard: Any,
        place: Place,
        subject: object,
        context: Context[Any],
        turn: int,
        secrets: frozenset[str] = frozenset(),
    ) -> Any:
        function = guard.guard if isinstance(guard, Watch) else guard
        try:
            found = function(subject, context)
            return await found if isawaitable(found) else found
        except Exception as error:  # the user's function: one that can't decide has not let anything pass
            call = subject.id if isinstance(subject, ToolCall) else None
            said = mask_text(f"{type(error).__name__}: {error}", secrets)
            self._tell(guard, place, "failed", said, turn=turn, call=call)
            raise GuardFailed(_name(guard), said) from error

    def _check_reader(self, guard: Any, place: Place, refuse: Refuse, turn: int) -> None:
        """Raise where a refusal is for a model that can't read it: it hasn't answered yet, or was stopped amid it."""
        if refuse.to == "model":
            problem = "what it refuses isn't a whole answer, so no model reads why: leave to='model' out"
            self._tell(guard, place, "failed", problem, turn=turn)
            raise GuardFailed(_name(guard), problem)

    def _fail(
        self, guard: Any, place: Place, found: object, expected: str, *, turn: int = 0, call: str | None = None
    ) -> GuardFailed:
        """Raise an error for a value that isn't a verdict. A guard that returns False means a refusal, and must not pass."""
        kind = type(found).__name__
        said = str(found) if isinstance(found, bool) else f"an empty {kind}" if found in ([], ()) else kind
        problem = f"it returned {said}, expected {expected}"
        self._tell(guard, place, "failed", problem, turn=turn, call=call)
        return GuardFailed(_name(guard), problem)

    def _refuse(
        self,
        guard: Any,
        place: Place,
        refuse: Refuse,
        turn: int,
        call: str | None = None,
        secrets: frozenset[str] = frozenset(),
    ) -> GuardRefused:
        reason = mask_text(refuse.reason, secrets)
        self._tell(guard, place, "refused", reason, turn=turn, call=call)
        return GuardRefused(_name(guard), reason, place)

    def _tell(
        self,
        guard: Any,
        place: Place,
        verdict: Literal["passed", "changed", "refused", "failed"],
        reason: str = "",
        *,
        turn: int = 0,
        call: str | None = None,
    ) -> None:
        self._log.note(events.GuardDecided, _name(guard), place, verdict, reason, turn, call, isinstance(guard, Watch))


class Watching:
    """The guards that watch one answer: entered around its reading, which is interrupted when one refuses.

    Leaving waits for those that haven't decided, and raises the refusal or error of one of them.
    """

    def __init__(self, run: GuardRun, messages: tuple[Message, ...], turn: int, partial: Callable[[], object]) -> None:
        self._run = run
        self._messages = messages
        self._turn = turn
        self._partial = partial
        self._scope = asyncio.timeout(None)
        self._is_open = False
        self._stopped: GuardRefused | GuardFailed | None = None
        self._deciding: list[asyncio.Task[None]] = []
        self._following: list[asyncio.Task[None]] = []
        self._grown = asyncio.Event()
        self._length = self._seen = 0
        self._is_whole = False

    async def __aenter__(self) -> "Watching":
        await self._scope.__aenter__()
        self._is_open = True
        guards = self._run.guards
        self._deciding = [asyncio.create_task(self._decide(g)) for g in guards.request if isinstance(g, Watch)]
        self._following = [asyncio.create_task(self._follow(g)) for g in guards.answer if isinstance(g, Watch)]
        return self

    def grow(self, length: int) -> None:
        """Take note of how long the answer is by now."""
        self._length = length
        if self._following and (length - self._seen) * GROWTH >= self._seen:
            self._seen = length
            self._grown.set()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            try:
                await self._scope.__aexit__(kind, error, traceback)
            except TimeoutError:
                if self._stopped is None:
                    raise
            self._is_open = False
            if error is None and self._stopped is None:
                self._is_whole = True
                self._grown.set()
                await asyncio.gather(*self._deciding, *self._following)
        finally:
            self._is_open = False
            tasks = [*self._deciding, *self._following]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if self._stopped is not None:
            raise self._stopped

    async def _decide(self, guard: Watch) -> None:
        if await self._pass(guard, "request", self._messages):
            self._run.tell_passed(guard, "request", self._turn)

    async def _follow(self, guard: Watch) -> None:
        """Pass the growing answer to the watchers, and finally the complete one."""
        grown = self._grown
        while True:
            await grown.wait()
            is_whole = self._is_whole
            if not is_whole:
                grown.clear()
            seen = self._partial()
            if seen is not None and not await self._pass(guard, "answer", seen):
                return
            if is_whole:
                self._run.tell_passed(guard, "answer", self._turn)
                return

    async def _pass(self, guard: Watch, place: Place, subject: object) -> bool:
        try:
            stopped: GuardRefused | GuardFailed | None = await self._run.judge(guard, place, subject, self._turn)
        except GuardFailed as failed:
            stopped = failed
        if stopped is not None and self._stopped is None:
            self._stopped = stopped
            if self._is_open:
                # Reading stops immediately: its task is cancelled as by a timeout.
                self._scope.reschedule(asyncio.get_running_loop().time())
        return stopped is None


def _read_messages(found: object) -> tuple[Message, ...] | None:
    """Return the messages that a guard put in place of a request's; None if they aren't messages."""
    if not isinstance(found, list | tuple):
        return None
    messages = tuple(cast("Sequence[object]", found))
    if not messages:
        return None
    return cast("tuple[Message, ...]", messages) if all(isinstance(one, Message) for one in messages) else None


def _name(guard: Any) -> str:
    function = guard.guard if isinstance(guard, Watch) else guard
    return getattr(function, "__name__", type(function).__name__)
