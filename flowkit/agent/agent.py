"""An agent: a model with instructions, tools and bounds.

Nothing happens until a run is started; an agent can have many at once. `start` is the program; `run`, `run_sync` and
`stream` fold it.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypedDict, cast

from pydantic import BaseModel
from typing_extensions import TypeForm, TypeVar, Unpack

from flowkit.agent.as_tool import make_agent_tool
from flowkit.agent.driving import Driver
from flowkit.agent.limits import Limits
from flowkit.agent.outputs import make_output
from flowkit.agent.prefetching import check_prefetch
from flowkit.agent.run import (
    AgentResult,
    BeforeRequest,
    Decision,
    Given,
    Instructions,
    Plan,
    Prefetch,
    Run,
    is_loop_running,
)
from flowkit.cache import Cache, open_default_cache
from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.errors import ConfigurationError
from flowkit.events import EventLog
from flowkit.history import read_history, unanswered
from flowkit.identity import RunIdentity
from flowkit.journal import Journal
from flowkit.messages import Content, Message, UserMessage, read_content, text_of
from flowkit.models.base import Model, ToolChoice
from flowkit.suggestions import check_option_names
from flowkit.tools import Tool
from flowkit.tools.toolsets import Toolset

OutputT = TypeVar("OutputT", default=str)
ToolLike = Tool[..., Any] | Toolset | Callable[..., Any]
Said = str | Sequence[Content]
_NONE: Mapping[str, Any] = MappingProxyType({})


class RunOptions(TypedDict, total=False):
    """What a run may be started with.

    `data` is what tools see as `ctx.data`; `user` and `session` say who may share cached results. With a journal a
    `session` is also a conversation, which each run goes on with and adds to. `run_id` names the run. `history` is what
    was said before, as messages of flowkit or of Chat Completions; its last message is the new one where that is the
    user's and none is given besides. System messages in it are left out, since the agent has its own instructions.
    `decisions` answer the calls that wait for a person, by the ids of `result.pending`.
    """

    data: object
    user: str | None
    session: str | None
    history: Iterable[Message | Mapping[str, JSON] | BaseModel]
    decisions: Mapping[str, Decision]
    run_id: str | None


class Agent(Generic[OutputT]):
    """A model that answers with the help of tools.

    `instructions` stand before every request. `output_type` is `str` or any type that pydantic knows: the answer is
    then validated, and asked for again, `output_attempts` times in all, when it doesn't fit. `prefetch` names reads
    that start beside the first request; a model that asks for one joins it, and isn't told of it otherwise. `cache`
    keeps results with a TTL: True is the user's cache folder, False none. In a `journal` runs survive the process; it
    is closed by who opened it. `allow_changed` lets them go on under changed code. `early=False` starts no call before
    the model's turn has ended. `references=True` lets the model hand one call's result to another in the same turn.
    `think_tags=True` reads `<think>…</think>` in the text as thinking. `before_request` may trim or guard the messages
    of each request. `attempts` bounds how often a turn whose stream broke is asked for, `slots` how many calls run at
    once, in all or by the tools' named slots.

    Raises `DefinitionError` for tools that share a name, a prefetch that isn't a `read`, or an output type without a
    JSON schema.
    """

    def __init__(
        self,
        model: Model,
        *,
        tools: Iterable[ToolLike] = (),
        instructions: Instructions = "",
        output_type: TypeForm[OutputT] = str,
        prefetch: Prefetch = (),
        limits: Limits | None = None,
        cache: Cache | bool = True,
        journal: Journal | None = None,
        allow_changed: bool = False,
        early: bool = True,
        references: bool = False,
        think_tags: bool = False,
        tool_choice: ToolChoice = "auto",
        before_request: BeforeRequest | None = None,
        attempts: int = 3,
        output_attempts: int = 3,
        slots: int | Mapping[str, int] = 16,
        name: str = "agent",
    ) -> None:
        if isinstance(model, str):
            raise ConfigurationError(
                f"agent {name!r}: a model is expected, such as OpenAIModel({model!r}), not its name"
            )
        if isinstance(journal, (str, Path)):
            raise ConfigurationError(
                f"agent {name!r}: a journal is expected, such as Journal({str(journal)!r}), not its path"
            )
        self.name = name
        self._cache = cache
        self._plan: Plan[OutputT] = Plan(
            name=name,
            model=model,
            tools=Toolset(*tools),
            output=make_output(output_type),
            instructions=instructions,
            prefetch=prefetch,
            limits=limits or Limits(),
            journal=journal,
            allow_changed=allow_changed,
            early=early,
            references=references,
            think_tags=think_tags,
            tool_choice=tool_choice,
            before_request=before_request,
            attempts=attempts,
            output_attempts=output_attempts,
            slots=slots,
        )
        self._overrides: ContextVar[Mapping[str, Any]] = ContextVar(f"overrides of {name}", default=_NONE)
        self._running: dict[RunIdentity, Run[OutputT]] = {}
        self._check_prefetch()

    @property
    def model(self) -> Model:
        """The model that runs started here would ask."""
        return self._overrides.get().get("model", self._plan.model)

    @property
    def tools(self) -> Toolset:
        """The tools that runs started here would have."""
        replaced = cast(Mapping[str, ToolLike], self._overrides.get().get("tools", {}))
        return self._plan.tools.replacing(replaced) if replaced else self._plan.tools

    def start(self, message: Said | None = None, **options: Unpack[RunOptions]) -> Run[OutputT]:
        """Start a run that owns its task; needs a running event loop.

        With a `history` that ends in calls which wait for a person, leave `message` out and give `decisions`; a new
        message denies them. A `run_id` that is running for this user in this session is joined, not started again; with no
        `user` nobody is joined. With a journal a
        `run_id` that it knows goes on; give the same `data` and `user` then, and no message. Raises `ValueError` for a
        message or a history that can't be read.
        """
        check_option_names(options, RunOptions, "a run")
        run_id, user, session = options.get("run_id"), options.get("user"), options.get("session")
        identity = RunIdentity(user, session, run_id or "")
        if identity.can_be_joined and identity in self._running:
            return self._running[identity]
        messages = read_history(options.get("history", ()))
        if message is None and messages and isinstance(last := messages[-1], UserMessage):
            # As chat clients send it: the whole conversation, its last message the new one.
            message, messages = last.content, messages[:-1]
        said = None if message is None else read_content(message)
        plan = self._current_plan()
        if message is None and not unanswered(messages) and (run_id is None or plan.journal is None):
            raise ConfigurationError("there is nothing to run: give a message, or a history with undecided calls")
        if message is not None and options.get("decisions") and unanswered(messages):
            raise ConfigurationError(
                "a message denies the calls that wait: go on with the decisions, then say the message"
            )
        context = Context(
            options.get("data"),
            user=user,
            session=session,
            message=text_of(said),
            run_id=run_id or _make_run_id(),
        )
        return self._launch(plan, context, Given(said, messages, options.get("decisions", {})))

    def start_inside(self, message: Said, around: Context[Any]) -> Run[OutputT]:
        """Start a run for a call of the run `around` it, with the same data, user and session.

        It is in no journal: what is said in it is no part of the session's conversation, and it begins anew when the
        call does.
        """
        said = read_content(message)
        context = Context(
            around.data, user=around.user, session=around.session, message=text_of(said), run_id=_make_run_id()
        )
        return self._launch(replace(self._current_plan(), journal=None), context, Given(said))

    async def run(self, message: Said | None = None, **options: Unpack[RunOptions]) -> AgentResult[OutputT]:
        """The result of a run, which is cancelled with its caller; the arguments are those of `start`.

        Raises the run's error when its status is `failed`; `error.result` then holds what there is.
        """
        run = self.start(message, **options)
        try:
            result = await run.wait()
        except asyncio.CancelledError:
            run.cancel()
            await run.wait()
            raise
        if result.status == "failed" and result.error is not None:
            raise result.error
        return result

    def run_sync(self, message: Said | None = None, **options: Unpack[RunOptions]) -> AgentResult[OutputT]:
        """`run`, for a program without an event loop."""
        if is_loop_running():
            raise ConfigurationError("run_sync would block the event loop that runs here; write `await agent.run(…)`")
        return asyncio.run(self.run(message, **options))

    @asynccontextmanager
    async def stream(self, message: Said | None = None, **options: Unpack[RunOptions]) -> AsyncGenerator[Run[OutputT]]:
        """`start`, and the run is cancelled and waited for on leaving."""
        run = self.start(message, **options)
        try:
            yield run
        finally:
            run.cancel()
            await run.wait()

    def as_tool(self, *, name: str | None = None, description: str | None = None) -> Tool[..., Any]:
        """The agent as a tool of another one: it takes a `task`, and gives the answer.

        Its effect and scope are the strongest of its tools; its events stand under the call, and what it spends counts
        in the run that calls it. Raises `DefinitionError` when one of its tools always asks a person.
        """
        instructions = self._plan.instructions
        said = instructions.strip() if isinstance(instructions, str) else ""
        return make_agent_tool(
            self.start_inside,
            self._plan.tools,
            name=name or self.name,
            description=description or said.partition("\n")[0] or f"Give {self.name} a task, and get its answer.",
        )

    @contextmanager
    def override(
        self,
        *,
        model: Model | None = None,
        tools: Mapping[str, ToolLike] | None = None,
        cache: Cache | bool | None = None,
        journal: Journal | None = None,
    ) -> Generator[None]:
        """Runs started inside, by this task and those it starts, have another model, cache, journal or, by name, tools."""
        given = {"model": model, "tools": tools, "cache": cache, "journal": journal}
        changes = {name: value for name, value in given.items() if value is not None}
        before = self._overrides.get()
        if tools is not None:
            changes["tools"] = {**before.get("tools", {}), **tools}
        token = self._overrides.set({**before, **changes})
        try:
            yield
        finally:
            self._overrides.reset(token)

    def _launch(self, plan: Plan[OutputT], context: Context[Any], given: Given) -> Run[OutputT]:
        self._check_identity(plan, context.user, context.session)
        log = EventLog(context.run_id, asyncio.get_running_loop().time)
        driver = Driver(plan, log, context, given)
        identity = context.identity
        run = Run(log, driver.decide, driver.drive(), on_end=lambda: self._running.pop(identity, None))
        if identity.can_be_joined:
            self._running[identity] = run
        return run

    def _current_plan(self) -> Plan[OutputT]:
        return replace(
            self._plan,
            model=self.model,
            tools=self.tools,
            cache=self._open_cache(),
            journal=self._overrides.get().get("journal", self._plan.journal),
        )

    def _open_cache(self) -> Cache | None:
        cache = self._overrides.get().get("cache", self._cache)
        if isinstance(cache, bool):
            return open_default_cache() if cache else None
        return cast(Cache, cache)

    def _check_prefetch(self) -> None:
        prefetch = self._plan.prefetch
        # A dynamic set has its tools only in a run, so there the run checks.
        if not callable(prefetch) and not self._plan.tools.is_dynamic:
            for call in prefetch:
                check_prefetch(self._plan.tools, call, self.name)

    @staticmethod
    def _check_identity(plan: Plan[Any], user: str | None, session: str | None) -> None:
        """Refuse a run that lacks the identity by which its tools' results are kept apart."""
        for tool in plan.tools:
            if tool.ttl_s is None:
                continue
            if (tool.scope == "user" and user is None) or (tool.scope == "session" and session is None):
                raise ConfigurationError(
                    f"tool {tool.name!r} keeps its results for each {tool.scope}: start the run with {tool.scope}=…"
                )


def _make_run_id() -> str:
    return f"run-{secrets.token_hex(8)}"
