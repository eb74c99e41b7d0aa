"""Rerun an agent or a recipe from a recording, with the recorded model answers and tool results.

Nothing leaves the process and no tool runs. What is new is the agent itself: its code, its instructions and its tools'
schemas of today, with which the same answers have to lead to the same calls and the same output.

Rerun a recipe from a recording: each step returns the recorded result of the step with its id.

No tool runs and no model is called. Only the recipe itself is new: its current steps, conditions and loops, which
have to make the same calls, with the same arguments, of the same results.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from re import fullmatch
from typing import Any, cast

from flowkit.agent import Agent, AgentResult
from flowkit.apps import load_app
from flowkit.codec import JSON, loads
from flowkit.context import CONTEXT, Context
from flowkit.errors import ConfigurationError, ModelError, ToolError
from flowkit.executor import Deny, Outcome
from flowkit.exports.recorded_run import (
    RecordedCall,
    RecordedRecipe,
    RecordedRun,
    RecordedStep,
    give_media,
    load_recipe_run,
)
from flowkit.history import read_history
from flowkit.masking import MASK, show_arguments
from flowkit.measure.rehearsing import AnyTool, answer_for, imitate
from flowkit.messages import AssistantMessage, Content, Message, UserMessage, message_from_json
from flowkit.models.base import Delta, Model, ModelRequest
from flowkit.models.openai import OpenAIModel
from flowkit.models.pricing import Price
from flowkit.models.recording import Recorder, Replayer
from flowkit.models.wire.bytes_to_deltas import stream_deltas
from flowkit.models.wire.settings import NO_HEADERS, ModelServer, Settings
from flowkit.recipes import Recipe, RecipeResult
from flowkit.recipes.model_steps import AskRequest, lower_agents
from flowkit.runs.limits import Limits
from flowkit.runs.results import RunResult

AnyRecipe = Recipe[..., Any]

_TURN_CALL = r"turn/(\d+)(?:/attempt/\d+)?/call/(\d+)"


@dataclass(frozen=True, slots=True)
class Replay:
    """The result of a replay: the calls that followed from the model's answers, and the output as JSON."""

    calls: list[tuple[str, dict[str, Any]]]
    output: Any
    status: str
    result: AgentResult[Any] | RecipeResult[Any]


def replay_run(
    recording: str | Path,
    app: str | Path | Agent[Any] | AnyRecipe,
    *,
    data: object = None,
    tools: str | Path | None = None,
) -> Replay:
    """Replay a run of this app's agent or recipe from a recording that `flowkit runs export --test` wrote.

    `data` is passed to instructions and to functions that choose tools; tools don't run, so they don't see it. `tools` is
    the Python file with the tools of a recipe in YAML. Raises
    `ModelError` with the difference if the conversation isn't the recorded one.
    """
    path = Path(recording)
    header = _read_header(path)
    if "recipe" in header:
        if isinstance(app, Agent):
            raise ConfigurationError(f"{path} is the recording of recipe {header['recipe']!r}, not of an agent")
        recipe = app if isinstance(app, Recipe) else _find_recipe(app, str(header["recipe"]), tools)
        return asyncio.run(replay_recipe_recording(path, recipe))
    if isinstance(app, Recipe):
        raise ConfigurationError(f"{path} is the recording of agent {header['agent']!r}, not of a recipe")
    agent = app if isinstance(app, Agent) else _find_agent(str(app), str(header["agent"]))
    return asyncio.run(replay_recording(path, agent, data=data))


async def replay_recording(path: Path, agent: Agent[Any], *, data: object = None) -> Replay:
    """Replay as `replay_run`, for a program with an event loop."""
    return await _run(agent, Replayer(path, compare="conversation"), _read_header(path), data)


async def replay_recipe_recording(path: Path, recipe: AnyRecipe) -> Replay:
    """Replay a recipe's run as `replay_run`, for a program with an event loop."""
    result, calls = await replay_recipe_run(path, recipe)
    return Replay(calls, _as_json(result), result.status, result)


async def record_run(
    run: RecordedRun, agent: Agent[Any], path: Path, *, hide: Sequence[str] = (), data: object = None
) -> Replay:
    """Rerun the agent from the journal's data and record that, which also proves that a replay works."""
    recorder = Recorder(JournalModel(run), path, hide=hide, about=run.to_json())
    return await _run(agent, recorder, run.to_json(), data)


async def _run(agent: Agent[Any], model: Model, about: Mapping[str, JSON], data: object) -> Replay:
    message = message_from_json(cast(Mapping[str, JSON], about["message"]))
    assert isinstance(message, UserMessage)
    answers = RecordedAnswers([RecordedCall.from_json(call) for call in cast(list[dict[str, JSON]], about["calls"])])
    history = read_history(cast(list[Mapping[str, JSON]], about["history"]))
    with agent.override(model=model, tools=answers.replace):
        run = agent.start(
            _as_said(message),
            data=data,
            user=cast("str | None", about["user"]),
            session=cast("str | None", about["session"]),
            history=cast(Sequence[Message], history),
            cache=False,
            journal=None,
            limits=_find_limits(about),
        )
    result = await run.wait()
    # One that failed when it was recorded has to fail in the same way.
    if result.status == "failed" and result.error is not None and str(result.error) != about.get("error"):
        raise result.error
    return Replay(_read_calls(result), _as_json(result), result.status, result)


def _find_limits(about: Mapping[str, JSON]) -> Limits:
    """If a limit stopped the run, stop the rerun after as many turns; the journal doesn't record which limit it was.

    Other runs finish with their last answer and need no limit.
    """
    turns = about.get("turns")
    return Limits(turns=turns if about.get("status") == "limit" and isinstance(turns, int) else None)


def _as_said(message: UserMessage) -> str | Sequence[Content]:
    return message.content


def _as_json(result: RunResult[Any]) -> JSON:
    """Return the output as `run.finished` reports it."""
    from pydantic_core import to_jsonable_python

    return cast(JSON, to_jsonable_python(result.output_or_none))


def _read_calls(result: AgentResult[Any]) -> list[tuple[str, dict[str, Any]]]:
    """Read the model's own calls, in their order."""
    found: list[tuple[int, int, tuple[str, dict[str, Any]]]] = []
    for outcome in result.calls:
        place = fullmatch(_TURN_CALL, outcome.call.id)
        if place is not None and outcome.state != "void":
            arguments = show_arguments(outcome.call.arguments)
            found.append((int(place[1]), int(place[2]), (outcome.call.name, cast(dict[str, Any], arguments))))
    return [call for _, _, call in sorted(found, key=lambda item: item[:2])]


def _find_agent(target: str, name: str) -> Agent[Any]:
    app = load_app(target)
    found = next((agent for agent in app.agents.values() if agent.name == name), None)
    if found is None:
        raise ConfigurationError(f"{target} has no agent {name!r}, to which the recorded run belongs")
    return found


def _find_recipe(target: str | Path, name: str, tools: str | Path | None) -> AnyRecipe:
    app = load_app(str(target), tools=None if tools is None else Path(tools))
    found = next((recipe for recipe in app.recipes.values() if recipe.name == name), None)
    if found is None:
        raise ConfigurationError(f"{target} has no recipe {name!r}, to which the recorded run belongs")
    return found


def _read_header(path: Path) -> dict[str, JSON]:
    try:
        with path.open("rb") as file:
            header = loads(file.readline())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: not a recording of flowkit") from error
    about = header.get("about") if isinstance(header, dict) else None
    if not isinstance(about, dict) or not {"message", "inputs"} & about.keys():
        raise ConfigurationError(f"{path}: not the recording of a run; `flowkit runs export --test` writes one")
    return about


class RecordedAnswers:
    """The recorded results of tools, returned instead of running them.

    An equal call gets the result of the call that it equals, the second one that of the second. A call that wasn't
    recorded is told so: a prefetch that nobody asked for, or the first sign that the agent does something else.
    """

    def __init__(self, calls: Sequence[RecordedCall]) -> None:
        self._left: dict[str, list[RecordedCall]] = {}
        for call in calls:
            self._left.setdefault(call.tool, []).append(call)

    def replace(self, tool: AnyTool) -> AnyTool:
        """Return a tool that returns this one's recorded result."""
        return answer_for(tool, lambda arguments: self._answer(tool.name, arguments))

    def _answer(self, name: str, arguments: Mapping[str, JSON]) -> JSON:
        left = self._left.get(name, [])
        equal = [call for call in left if _is_of(call.arguments, arguments)]
        if not equal:
            raise ToolError(f"the recording has no result of {name} for these arguments")
        if len(equal) > 1:
            left.remove(equal[0])
        if equal[0].error is not None:
            raise ToolError(equal[0].error)
        return give_media(equal[0].value)


def _is_of(recorded: Mapping[str, JSON], given: Mapping[str, JSON]) -> bool:
    """Return True if the call equals the recorded one; a masked secret matches any value, and defaults can be omitted."""
    return all(value == MASK or given.get(name) == value for name, value in recorded.items())


class JournalModel:
    """Send a run's recorded answers as a Chat Completions server would."""

    price: Price | None = None

    def __init__(self, run: RecordedRun) -> None:
        self._as = OpenAIModel("recorded", base_url="http://127.0.0.1:9/v1", api_key="none")
        self._answers = list(run.answers)
        self._fault = run.error if run.status == "failed" else None

    @property
    def name(self) -> str:
        return self._as.name

    @property
    def source(self) -> str:
        return self._as.source

    @property
    def base_url(self) -> str | None:
        return self._as.base_url

    @property
    def settings(self) -> Settings:
        return self._as.settings

    @property
    def server(self) -> ModelServer:
        return self._as.server

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Stream the next answer."""
        return stream_deltas(self, request)

    async def make_headers(self, request: ModelRequest) -> Mapping[str, str]:
        """Return no headers: no request leaves the process."""
        return NO_HEADERS

    @asynccontextmanager
    async def open(
        self, body: Mapping[str, JSON], headers: Mapping[str, str] = NO_HEADERS
    ) -> AsyncGenerator[AsyncGenerator[bytes, None], None]:
        """Open the next answer's bytes."""
        if not self._answers and self._fault is not None:
            raise ModelError(self._fault)
        if not self._answers:
            raise ConfigurationError(
                "the agent asks its model once more than the recorded run did: it isn't the one that ran then"
            )
        chunks = _say(_write(self._answers.pop(0)))
        try:
            yield chunks
        finally:
            await chunks.aclose()


async def _say(pieces: Sequence[bytes]) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        yield piece


def _write(message: AssistantMessage) -> list[bytes]:
    """Write one answer as the body of a stream."""
    deltas: list[dict[str, JSON]] = []
    if message.text:
        deltas.append({"content": message.text})
    if message.refusal:
        deltas.append({"refusal": message.refusal})
    for index, call in enumerate(message.calls):
        function: dict[str, JSON] = {"name": call.name, "arguments": call.arguments}
        deltas.append({"tool_calls": [{"index": index, "id": call.id, "type": "function", "function": function}]})
    finish = "tool_calls" if message.calls else "stop"
    chunks: list[dict[str, JSON]] = [{"index": 0, "delta": delta} for delta in deltas]
    chunks.append({"index": 0, "delta": {}, "finish_reason": finish})
    lines = [json.dumps({"choices": [chunk]}, ensure_ascii=False) for chunk in chunks]
    return [f"data: {line}\n\n".encode() for line in (*lines, "[DONE]")]


async def replay_recipe_run(
    path: Path, recipe: AnyRecipe
) -> tuple[RecipeResult[Any], list[tuple[str, dict[str, Any]]]]:
    """Run the recipe on the recorded results; return its result, and the calls in the order of the recipe's steps.

    Raises the run's error if the recorded run didn't fail in the same way.
    """
    run = load_recipe_run(path)
    answers = _RecordedSteps(run)
    nodes, asking = lower_agents(recipe.plan.body.nodes, answers.ask, recipe.plan.tools, models_too=True)
    tools = {name: answers.replace(tool) for name, tool in recipe.plan.tools.items()}
    plan = replace(
        recipe.plan, body=replace(recipe.plan.body, nodes=nodes), tools={**tools, **asking}, requests={}, nestings={}
    )
    alone: AnyRecipe = Recipe(plan)
    inputs, user, session = dict(run.inputs), run.user, run.session
    result = await alone.start(inputs, user=user, session=session, cache=False, journal=None).wait()
    if result.status == "waiting":
        result = await alone.start(
            inputs,
            user=user,
            session=session,
            cache=False,
            resume=result,
            decisions={call.id: Deny(answers.steps[call.id].error or "") for call in result.pending},
        ).wait()
    if result.status != run.status or (result.error is not None and str(result.error) != run.error):
        raise result.error or ToolError(f"the recorded run was {run.status}: {run.error}; this one is {result.status}")
    order = {node.id: index for index, node in enumerate(recipe.plan.body.nodes)}
    calls = sorted(
        (outcome for outcome in result.calls if outcome.call.id in answers.steps),
        key=lambda outcome: _find_place(outcome.call.id, order),
    )
    return result, [_show(outcome) for outcome in calls]


class _RecordedSteps:
    """What the steps gave, in place of running them."""

    def __init__(self, run: RecordedRecipe) -> None:
        self.steps = {step.id: step for step in run.steps}

    def replace(self, tool: AnyTool) -> AnyTool:
        """Return a tool with this tool's parameters that returns the recorded result of the step."""

        def give(arguments: dict[str, Any], context: Context[Any] = CONTEXT) -> JSON:
            return self._answer(tool.name, context.call_id)

        def asks(arguments: Mapping[str, Any], context: Context[Any]) -> bool:
            return (step := self.steps.get(context.call_id)) is not None and step.is_denied

        return imitate(tool, give, approval=asks if tool.approval else None)

    async def ask(self, request: AskRequest, values: Mapping[str, JSON], context: Context[Any]) -> JSON:
        """Return what the model or the agent of this step answered."""
        return self._answer(request.name, context.call_id)

    def _answer(self, tool: str, step_id: str) -> JSON:
        step: RecordedStep | None = self.steps.get(step_id)
        if step is None or step.tool.rstrip("+") != tool:
            raise ToolError(
                f"the recording has no result of {tool} at step {step_id!r}: the recipe isn't the one that ran"
            )
        if step.error is not None:
            raise ToolError(step.error)
        return give_media(step.value)


def _find_place(step_id: str, order: Mapping[str, int]) -> list[tuple[int, str]]:
    """Place a call as its step stands in the recipe, numbers by size: calls in flight together end in any order."""
    first, *inner = step_id.split("/")
    parts = [(int(part), "") if part.isdecimal() else (-1, part) for part in inner]
    return [(order.get(first, len(order)), first), *parts]


def _show(outcome: Outcome) -> tuple[str, dict[str, Any]]:
    return outcome.call.name, cast(dict[str, Any], show_arguments(outcome.call.arguments))
