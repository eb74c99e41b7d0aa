"""An agent: a model with instructions, tools and limits.

Nothing happens until a run is started; an agent can have many runs in parallel. `run`, `run_sync` and `stream` are
built on `start`.
"""

import re
from collections.abc import Coroutine, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import replace
from datetime import timedelta
from functools import reduce
from types import MappingProxyType
from typing import Any, Generic, cast, overload

from pydantic import BaseModel
from typing_extensions import TypeForm, TypeVar, Unpack

from flowkit.agent.agent_run import AgentResult, AgentWork
from flowkit.agent.as_tool import make_agent_tool
from flowkit.agent.guards import AnswerGuard, CallGuard, Guards, RequestGuard, Watch, list_guards
from flowkit.agent.outputs import Output, make_output, make_tool_output
from flowkit.agent.plan import AgentPlan, ForkPoint, Given, Instructions, Prefetch, tell_dropped
from flowkit.agent.prefetching import check_prefetch
from flowkit.agent.run_record import hide_inputs
from flowkit.agent.settings import EXPECTED, AgentSettings, ToolLike
from flowkit.agent.tool_messages import find_question
from flowkit.agent.warming import WarmUp, warm_up
from flowkit.cache import Cache
from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.errors import ConfigurationError, DefinitionError
from flowkit.executor.current import JOURNAL
from flowkit.history import read_history, unanswered
from flowkit.identity import RunIdentity
from flowkit.journal import Journal, RunJournal
from flowkit.messages import Content, Message, UserMessage, read_content, text_of
from flowkit.models.base import Model, ToolChoice
from flowkit.notebook import Bundle, show_table
from flowkit.option_checks import find_misfit
from flowkit.runs.budgets import Budget
from flowkit.runs.decided import DECIDED
from flowkit.runs.limits import Limits
from flowkit.runs.nested import NewRun, place_run
from flowkit.runs.options import MODEL, RunOptions, check_identity, check_run_options, find_limits, open_cache, open_log
from flowkit.runs.run import Run, RunsAtWork, block_on, hold, make_run_id, wait_with
from flowkit.tools import Tool
from flowkit.tools.toolsets import Change, Toolset

OutputT = TypeVar("OutputT", default=str)
Said = str | Sequence[str | Content]

_CALL = re.compile(r"^turn/\d+(/attempt/\d+)?/call/\d+/?")
"""The start of the names of an agent's calls."""
_NONE: Mapping[str, Any] = MappingProxyType({})


class AgentRunOptions(RunOptions, total=False):
    """The options of one run of an agent: those of every run, a model, and a conversation.

    - With a journal, `session` names a conversation that each run continues.
    - `history` is an earlier conversation, as messages of flowkit or of Chat Completions. If no message is passed, its
      last message is the new one, provided it is the user's. System messages in it are dropped, since the agent has its
      own instructions.
    - `model` replaces the agent's own.
    - `fork` names a run in the journal to start from: the messages and results before the turn `at`, as in `turn/2`,
      are taken over, and none of these calls runs again. If the run can't be forked, the new one fails.
    - `results` replaces results of calls by the calls' names.
    """

    history: Iterable[Message | Mapping[str, JSON] | BaseModel]
    model: Model | None
    fork: str | None
    at: str | None
    results: Mapping[str, JSON]


def _read_fork(plan: AgentPlan[Any], options: AgentRunOptions) -> ForkPoint | None:
    """Read the start of a fork; None for other runs."""
    forked, at = options.get("fork"), options.get("at")
    if forked is None:
        if at is not None or "results" in options:
            raise ConfigurationError("at= and results= are of a fork: give fork=, the run that it begins with")
        return None
    if plan.journal is None or at is None or "history" in options:
        raise ConfigurationError("a fork needs the journal of its run, and at=, as in 'turn/2'; it has its history")
    return ForkPoint(forked, at, options.get("user"), options.get("session"), options.get("results") or {})


def _add_tool(tools: Toolset, added: Tool[..., Any]) -> Toolset:
    """Return the tools with this one, which may be among them already."""
    found = tools.get(added.name)
    return tools if found is not None and found.identity == added.identity else Toolset(tools, added)


class Agent(Generic[OutputT]):
    """A model that answers with the help of tools.

    - `instructions` precede the conversation in every request.
    - `output_type` is `str` or any type that pydantic supports. The answer is validated, with up to `output_attempts`
      attempts in total. Several types have names, as in `{"answer": Answer, "escalation": Escalation}`;
      `result.output_name` is the name that the model chose.
    - `output_tool`: the result of its first successful call is the answer, and ends the run.
    - `prefetch` names reads that start in parallel to the first request. If the model makes such a call, it gets that
      result; otherwise the model never sees it.
    - `cache` keeps results with a TTL; True is the user's cache folder, False disables it.
    - `journal`: runs in it survive the process. The caller that opened it closes it. `allow_changed` resumes them under
      changed code.
    - `early=False` starts no call before the model's turn is complete.
    - `references=True` lets the model pass one call's result to another in the same turn.
    - `think_tags=True` reads `<think>…</think>` in the text as thinking.
    - `before_request`, `before_call` and `after_answer` are guards, one or several: functions that pass, change or
      refuse the messages of each request, a call before it runs, and the answer.
    - `attempts` limits the attempts at a turn after a broken stream.
    - `budget` limits the cost of all runs together.
    - `slots` limits the calls in parallel, in total or by the tools' named slots.

    Raises `DefinitionError` for tools that share a name, a prefetch that isn't a `read`, or an output type without a
    JSON schema.
    """

    @overload
    def __init__(
        self,
        model: Model,
        *,
        output_type: TypeForm[OutputT] = str,
        output_tool: None = None,
        **settings: Unpack[AgentSettings],
    ) -> None: ...
    @overload
    def __init__(
        self,
        model: Model,
        *,
        output_type: Mapping[str, TypeForm[OutputT]],
        output_tool: None = None,
        **settings: Unpack[AgentSettings],
    ) -> None: ...
    @overload
    def __init__(
        self,
        model: Model,
        *,
        output_tool: Tool[..., Coroutine[Any, Any, OutputT]],
        **settings: Unpack[AgentSettings],
    ) -> None: ...
    @overload
    def __init__(self, model: Model, *, output_tool: Tool[..., OutputT], **settings: Unpack[AgentSettings]) -> None: ...
    def __init__(
        self,
        model: Model,
        *,
        tools: Iterable[ToolLike] = (),
        instructions: Instructions = "",
        output_type: Any = str,
        output_tool: Tool[..., Any] | None = None,
        prefetch: Prefetch = (),
        limits: Limits | None = None,
        budget: Budget | Sequence[Budget] | None = None,
        cache: Cache | bool = True,
        journal: Journal | None = None,
        allow_changed: bool = False,
        early: bool = True,
        references: bool = False,
        think_tags: bool = False,
        tool_choice: ToolChoice = "auto",
        before_request: RequestGuard | Watch | Sequence[RequestGuard | Watch] | None = None,
        before_call: CallGuard | Sequence[CallGuard] | None = None,
        after_answer: AnswerGuard | Watch | Sequence[AnswerGuard | Watch] | None = None,
        attempts: int = 3,
        output_attempts: int = 3,
        slots: int | Mapping[str, int] = 16,
        name: str = "agent",
    ) -> None:
        given = {
            "model": model,
            "tools": tools,
            "instructions": instructions,
            "output_tool": output_tool,
            "prefetch": prefetch,
            "budget": budget,
            "early": early,
            "references": references,
            "think_tags": think_tags,
            "tool_choice": tool_choice,
            "attempts": attempts,
            "output_attempts": output_attempts,
            "name": name,
        }
        misfit = find_misfit(given, EXPECTED)
        if misfit is not None:
            raise ConfigurationError(f"agent {name!r}: {misfit}")
        check_run_options(
            {"cache": cache, "journal": journal, "allow_changed": allow_changed, "limits": limits, "slots": slots},
            RunOptions,
            f"agent {name!r}",
        )
        if output_tool is not None and output_type is not str:
            raise DefinitionError(f"agent {name!r}: the answer is output_tool's result; leave output_type= out")
        made = make_output(output_type) if output_tool is None else make_tool_output(output_tool)
        output = cast(Output[OutputT], made)
        self.name = name
        self._cache = cache
        self._plan: AgentPlan[OutputT] = AgentPlan(
            name=name,
            model=model,
            tools=Toolset(*tools) if output_tool is None else _add_tool(Toolset(*tools), output_tool),
            output=output,
            instructions=instructions,
            prefetch=prefetch,
            limits=limits or Limits(),
            budgets=() if budget is None else (budget,) if isinstance(budget, Budget) else tuple(budget),
            journal=journal,
            allow_changed=allow_changed,
            early=early,
            references=references,
            think_tags=think_tags,
            tool_choice=tool_choice,
            guards=Guards(
                list_guards(name, "before_request", before_request),
                list_guards(name, "before_call", before_call),
                list_guards(name, "after_answer", after_answer),
            ),
            attempts=attempts,
            output_attempts=output_attempts,
            slots=slots,
        )
        self._latest_plan = self._plan
        self._options: AgentRunOptions = {}
        self._overrides: ContextVar[Mapping[str, Any]] = ContextVar(f"overrides of {name}", default=_NONE)
        self._at_work = RunsAtWork[AgentResult[OutputT]]()
        self._told = set[str]()
        self._check_prefetch()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Bundle:
        """Show the agent in a notebook."""
        rows = [
            ("model", self.model.name),
            ("instructions", self.description),
            ("tools", ", ".join(tool.name for tool in self.tools)),
        ]
        return show_table(f"agent {self.name}", rows)

    @property
    def model(self) -> Model:
        """The model that runs started here would call."""
        return self._overrides.get().get("model", self._options.get("model") or self._plan.model)

    @property
    def description(self) -> str:
        """The agent's purpose: the first line of its instructions."""
        instructions = self._plan.instructions
        said = instructions.strip() if isinstance(instructions, str) else ""
        return said.partition("\n")[0] or f"Give {self.name} a task, and get its answer."

    def __repr__(self) -> str:
        return f"<agent {self.name}>"

    @property
    def tools(self) -> Toolset:
        """The tools that runs started here would have."""
        return reduce(Toolset.replacing, self._overrides.get().get("tools", ()), self._plan.tools)

    def options(self, **options: Unpack[AgentRunOptions]) -> "Agent[OutputT]":
        """Return the same agent with these options for its runs: `await support.options(user="c-17").run("Hi")`."""
        check_run_options(options, AgentRunOptions, "a run", {"model": MODEL})
        changed = copy(self)
        changed._options = cast(AgentRunOptions, {**self._options, **options})
        return changed

    def adding(self, *tools: ToolLike) -> "Agent[OutputT]":
        """Return the same agent with more tools; raises `DefinitionError` for a name that is taken."""
        changed = copy(self)
        changed._plan = replace(self._plan, tools=Toolset(self._plan.tools, *tools))
        return changed

    def start(self, message: Said | None = None, **options: Unpack[AgentRunOptions]) -> Run[AgentResult[OutputT]]:
        """Start a run that owns its task; needs a running event loop.

        If the `history` ends with calls that wait for a person, omit `message` and pass `decisions`; a new message
        denies them. A run that a tool's function starts without a `run_id` gets one from its call, the same when the
        call runs again, and is recorded in the calling run's journal. If this user has a run with this `run_id` in progress in this session, that run is returned;
        without a `user`, no run is joined. If the journal has the run, it is resumed: pass the same `data` and `user`
        then, and no message. Raises `ValueError` for a message or a history that can't be read.
        """
        check_run_options(options, AgentRunOptions, "a run", {"model": MODEL})
        chosen = cast(AgentRunOptions, {**self._options, **options})
        run_id, user, session = chosen.get("run_id"), chosen.get("user"), chosen.get("session")
        decisions = chosen.get("decisions", {})
        plan = self._make_plan(chosen)
        fork = _read_fork(plan, chosen)
        messages = read_history(chosen.get("history", ()))
        if not plan.instructions:
            tell_dropped(self.name, messages, self._told)
        if message is None and messages and isinstance(last := messages[-1], UserMessage):
            # As chat clients send it: the whole conversation, its last message the new one.
            message, messages = last.content, messages[:-1]
        said = None if message is None else read_content(message)
        at_work = self._at_work.find(RunIdentity(user, session, run_id or ""))
        if at_work is not None:
            at_work.add_decisions(decisions)
            return at_work
        if fork is None and message is None and not unanswered(messages) and (run_id is None or plan.journal is None):
            raise ConfigurationError("there is nothing to run: give a message, or a history with undecided calls")
        if message is not None and decisions and unanswered(messages):
            raise ConfigurationError(
                "a message denies the calls that wait: resume with the decisions, then send the message"
            )
        given = Given(said, messages, decisions, fork)
        if run_id is not None or fork is not None:
            place = NewRun(RunIdentity(user, session, run_id or make_run_id()))
        else:
            has_journal = plan.journal is not None
            place = place_run(chosen, self.name, lambda: hide_inputs(given, plan.tools)[0], has_journal=has_journal)
        user, session = place.identity.user, place.identity.session
        context = Context(
            chosen.get("data"),
            user=user,
            session=session,
            message=text_of(said),
            run_id=place.identity.run_id,
        )
        question = find_question(messages) if decisions and plan.journal is None else None
        key = None if question is None else (user, session, question)
        before = None if key is None else DECIDED.find(key, decisions)
        if before is not None:
            return before
        run = self._launch(plan, context, given, around=place.around)
        if key is not None:
            DECIDED.keep(key, decisions, run)
        return run

    def start_inside(self, message: Said, around: Context[Any], tool: str = "") -> Run[AgentResult[OutputT]]:
        """Start a run for a call of the run `around` it, with the same data, user and session.

        Its id is derived from the run and the call, so that it has the same idempotency keys if the call runs again. It
        is recorded and resumed in the journal of the enclosing run, if that has one. Its messages don't become part of
        the session's conversation.
        """
        said = read_content(message)
        is_known = bool(around.run_id and around.call_id)
        context = Context(
            around.data,
            user=around.user,
            session=around.session,
            message=text_of(said),
            run_id=around.identity.inside(around.lasting_id or around.call_id).run_id if is_known else make_run_id(),
        )
        plan = replace(self._make_plan(self._options), journal=None)
        tool = tool or _CALL.sub("", around.call_id)
        return self._launch(plan, context, Given(said), around=JOURNAL.get(), tool=tool)

    async def run(self, message: Said | None = None, **options: Unpack[AgentRunOptions]) -> AgentResult[OutputT]:
        """Start a run and return its result; it is cancelled with its caller. The arguments are those of `start`.

        Raises the run's error when its status is `failed`; `error.result` then holds the partial result.
        """
        return await wait_with(self.start(message, **options))

    def run_sync(self, message: Said | None = None, **options: Unpack[AgentRunOptions]) -> AgentResult[OutputT]:
        """Run in an event loop of its own, for a program without one."""
        return block_on(lambda: self.run(message, **options), "agent")

    def stream(
        self, message: Said | None = None, **options: Unpack[AgentRunOptions]
    ) -> AbstractAsyncContextManager[Run[AgentResult[OutputT]]]:
        """Start a run that is cancelled and waited for on leaving."""
        return hold(lambda: self.start(message, **options))

    def as_tool(self, *, name: str | None = None, description: str | None = None) -> Tool[..., Any]:
        """Make a tool of the agent, for another one: it takes a `task` and returns the answer.

        Its effect is the strongest and its scope the narrowest of its tools. Its events are nested under the call, and
        its cost counts in the calling run. Raises `DefinitionError` when one of its tools always requires approval.
        """
        called = name or self.name
        return make_agent_tool(
            lambda task, around: self.start_inside(task, around, called),
            self._plan.tools,
            name=called,
            description=description or self.description,
        )

    def warm_up(self, *, timeout: float | timedelta = 10) -> Coroutine[Any, Any, WarmUp]:
        """Prepare the first run: open cache and journal, load prices, connect to the server.

        A part that fails, or takes longer than `timeout` seconds, raises no error: `problems` of the result names it.
        """
        timeout_s = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        return warm_up(self._make_plan(self._options), timeout_s)

    @contextmanager
    def override(
        self,
        *,
        model: Model | None = None,
        tools: Mapping[str, ToolLike] | Change | None = None,
        cache: Cache | bool | None = None,
        journal: Journal | None = None,
    ) -> Generator[None]:
        """Override the model, tools, cache or journal of runs started in this task, by value or by function."""
        before = self._overrides.get()
        changed = None if tools is None else (*before.get("tools", ()), tools)
        given = {"model": model, "tools": changed, "cache": cache, "journal": journal}
        changes = {name: value for name, value in given.items() if value is not None}
        token = self._overrides.set({**before, **changes})
        try:
            yield
        finally:
            self._overrides.reset(token)

    def _launch(
        self,
        plan: AgentPlan[OutputT],
        context: Context[Any],
        given: Given,
        around: RunJournal | None = None,
        tool: str = "",
    ) -> Run[AgentResult[OutputT]]:
        check_identity(plan.tools, context.user, context.session)
        work = AgentWork(plan, open_log(context.run_id), context, given, around=around, tool=tool)
        return self._at_work.start(work, context.identity)

    def _make_plan(self, options: AgentRunOptions) -> AgentPlan[OutputT]:
        """Make the plan of a run: the agent's settings, then the run's options, then the overrides, which win."""
        plan = self._plan
        overrides = self._overrides.get()
        made = replace(
            plan,
            model=overrides.get("model", options.get("model") or plan.model),
            tools=self.tools,
            cache=open_cache(overrides.get("cache", options.get("cache", self._cache))),
            journal=overrides.get("journal", options.get("journal", plan.journal)),
            limits=find_limits(options.get("limits") or plan.limits, options.get("timeout")),
            allow_changed=options.get("allow_changed", plan.allow_changed),
            slots=options.get("slots", plan.slots),
        )
        if made != self._latest_plan:
            self._latest_plan = made
        return self._latest_plan  # a thousand runs hold one

    def _check_prefetch(self) -> None:
        prefetch = self._plan.prefetch
        # A dynamic set has its tools only in a run, so there the run checks.
        if not callable(prefetch) and not self._plan.tools.is_dynamic:
            for call in prefetch:
                check_prefetch(self._plan.tools, call, self.name)
