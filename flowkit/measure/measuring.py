"""Run every case with every model, one run at a time, alternating between models.

Alternating, so that an hour with a slow network affects all of them; one at a time, so that they don't wait for
one another. Each round begins with another model. Nothing is taken from a cache or written to a journal, and writes
are answered in place of running (see `rehearsing`).

A model that times its answers as they arrive.

What is timed is what arrives here, piece by piece: the request's way, the server's work and the answer's way back. The
assembler says when a call has begun and when its arguments are complete, as it does for a run.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypedDict, Unpack
from uuid import uuid4

from flowkit import codec
from flowkit.agent import Agent, AgentResult
from flowkit.apps import App
from flowkit.assemble import Assembler
from flowkit.assemble.parts import CallOpened, CallReady, SealedCall
from flowkit.errors import ConfigurationError, FlowkitError
from flowkit.masking import show_arguments
from flowkit.measure.cases import Case, CasesFile
from flowkit.measure.checks import Defaults, Judge, find_wrong_answer, find_wrong_calls, read_defaults
from flowkit.measure.records import CaseRun, MadeCall, Measured
from flowkit.measure.rehearsing import AnyTool, Rehearsal
from flowkit.models.base import (
    CallDelta,
    Delta,
    Model,
    ModelRequest,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
)
from flowkit.models.pricing import ManyModels, Price, Priced
from flowkit.suggestions import suggest

Now = Callable[[], float]


@dataclass(slots=True)
class TimedAnswer:
    """One answer; `opened_s` and `complete_s` are by the position of a call in it, all on one clock."""

    asked_s: float
    turn: int
    first_token_s: float | None = None
    opened_s: dict[int, float] = field(default_factory=dict[int, float])
    complete_s: dict[int, float] = field(default_factory=dict[int, float])


class TimedModel:
    """The same model; `answers` has the times of each answer, attempts that broke included."""

    def __init__(self, model: Model, now: Now) -> None:
        self.model = model
        self.answers: list[TimedAnswer] = []
        self._now = now

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def source(self) -> str:
        return self.model.source

    @property
    def price(self) -> Price | None:
        return self.model.price if isinstance(self.model, Priced) else None

    @property
    def base_url(self) -> str | None:
        return self.model.base_url if isinstance(self.model, Priced) else None

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Stream the model's answer, timed as it passes."""
        return self._open(request)

    @asynccontextmanager
    async def _open(self, request: ModelRequest) -> AsyncGenerator[AsyncGenerator[Delta, None], None]:
        answer = TimedAnswer(self._now(), request.turn)
        self.answers.append(answer)
        assembler = Assembler(known_names=[spec.name for spec in request.tools])
        async with self.model.stream(request) as deltas:
            timed = self._time(deltas, answer, assembler)
            try:
                yield timed
            finally:
                await timed.aclose()

    async def _time(
        self, deltas: AsyncIterator[Delta], answer: TimedAnswer, assembler: Assembler
    ) -> AsyncGenerator[Delta, None]:
        begun_s: dict[int | str, float] = {}  # by slot or id: a call's name, which opens it, may come later
        async for delta in deltas:
            at_s = self._now()
            if isinstance(delta, CallDelta) and not delta.choice:
                key = delta.id if delta.slot is None else delta.slot
                if key is not None:
                    begun_s.setdefault(key, at_s)
            if answer.first_token_s is None and isinstance(delta, (TextDelta, ThinkingDelta, RefusalDelta, CallDelta)):
                answer.first_token_s = at_s
            for part in assembler.feed(delta):
                match part:
                    case CallOpened(index=index):
                        answer.opened_s[index] = [*begun_s.values(), *[at_s] * (index + 1)][index]
                    case CallReady(index=index) | SealedCall(index=index):
                        answer.complete_s.setdefault(index, at_s)
                    case _:
                        pass
            yield delta


class TimedModels(TimedModel):
    """A router or a fallback, whose members tell the price."""

    @property
    def models(self) -> tuple[Model, ...]:
        """The models behind it."""
        return self.model.models if isinstance(self.model, ManyModels) else ()


def time_model(model: Model, now: Now) -> TimedModel:
    """Wrap a model for one run."""
    return TimedModels(model, now) if isinstance(model, ManyModels) else TimedModel(model, now)


GIVE_UP_AFTER = 3
"""A model that fails this often before it has answered anything isn't asked the rest."""

_CALL = re.compile(r"turn/(\d+)(?:/attempt/\d+)?/call/(\d+)")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to measure, and what it is called in the table."""

    label: str
    model: Model


@dataclass(slots=True)
class _Standing:
    """One model's results so far."""

    answered: int = 0
    failed: int = 0
    error: str = ""

    @property
    def is_given_up(self) -> bool:
        return self.answered == 0 and self.failed >= GIVE_UP_AFTER


class MeasureOptions(TypedDict, total=False):
    """Options of `measure`; `Measuring` has their defaults."""

    repeats: int
    judge: Model | None
    allowed_writes: Collection[str]
    timeout_s: float | None
    data: dict[str, str] | None
    user: str | None
    now: Now | None


async def measure(
    app: App,
    models: Sequence[Candidate],
    cases: CasesFile,
    *,
    tell: Callable[[CaseRun], None] | None = None,
    **options: Unpack[MeasureOptions],
) -> Measured:
    """Measure the app's agent with each of these models on each case.

    `data` and `user` override those of the cases. `now` is the clock, by default the event loop's; `tell` is
    called with each finished run. An error of one model fails only its run. Raises `ConfigurationError` if the
    app's data can't be opened, or if a case needs a judge and there is none.
    """
    return await Measuring(app, models, cases, **options).run(tell)


class Measuring:
    """A measurement that can be stopped: `measured` has the results so far. Raises the errors of `measure`."""

    def __init__(
        self,
        app: App,
        models: Sequence[Candidate],
        cases: CasesFile,
        *,
        repeats: int = 1,
        judge: Model | None = None,
        allowed_writes: Collection[str] = (),
        timeout_s: float | None = 120.0,
        data: dict[str, str] | None = None,
        user: str | None = None,
        now: Now | None = None,
    ) -> None:
        agent = app.get_agent()
        needs_judge = [case.name for case in cases.cases if case.answer is not None and case.answer.judge is not None]
        if needs_judge and judge is None:
            raise ConfigurationError(f"the case {needs_judge[0]!r} needs a judge: name a model with --judge")
        if len({candidate.label for candidate in models}) < len(models):
            raise ConfigurationError("two models have one name: give one another, as in new=NAME")
        for name in () if agent.tools.is_dynamic else allowed_writes:
            if name != "*" and name not in agent.tools.names:
                raise ConfigurationError(
                    f"there is no tool {name!r} to run for real; {suggest(name, agent.tools.names)}"
                )
        judging = None if judge is None or not needs_judge else Judge(judge)
        self._course = _Course(app, agent, cases, judging, allowed_writes, timeout_s, data or {}, user, now)
        self._models = tuple(models)
        self._repeats = repeats
        self._standings = {candidate.label: _Standing() for candidate in models}
        self._runs: list[CaseRun] = []

    @property
    def planned(self) -> int:
        """How many runs there will be."""
        return self._repeats * len(self._course.cases.cases) * len(self._models)

    @property
    def measured(self) -> Measured:
        """The runs that have ended; where some are missing, its models and cases are those that were asked."""
        course, runs = self._course, self._runs
        is_whole = len(runs) == self.planned
        labels, asked = {run.model for run in runs}, {run.case for run in runs}
        cut = [] if is_whole else [f"stopped after {len(runs)} of {self.planned} runs: only these are counted"]
        return Measured(
            app=course.agent.name,
            models=tuple(one.label for one in self._models if is_whole or one.label in labels),
            cases=tuple(case.name for case in course.cases.cases if is_whole or case.name in asked),
            repeats=self._repeats if is_whole else max((run.repeat for run in runs), default=1),
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            runs=tuple(runs),
            judge=None if course.judge is None else course.judge.model.name,
            judge_cost_usd=None if course.judge is None else course.judge.cost_usd,
            notes=(*cut, *_note(runs, self._standings)),
        )

    async def run(self, tell: Callable[[CaseRun], None] | None = None) -> Measured:
        """Make all runs; call `tell` with each finished one."""
        cases, models = self._course.cases.cases, self._models
        for repeat in range(1, self._repeats + 1):
            for number, case in enumerate(cases):
                first = (number + repeat - 1) % len(models)
                for candidate in (*models[first:], *models[:first]):
                    standing = self._standings[candidate.label]
                    if standing.is_given_up:
                        run = _not_asked(candidate, case, repeat, standing)
                    else:
                        run = await self._course.run(candidate, case, repeat)
                        standing.answered += run.status == "done"
                        standing.failed += run.status != "done"
                        standing.error = run.error or standing.error
                    self._runs.append(run)
                    if tell is not None:
                        tell(run)
        return self.measured


@dataclass(frozen=True, slots=True)
class _Course:
    """The settings shared by all runs."""

    app: App
    agent: Agent[Any]
    cases: CasesFile
    judge: Judge | None
    allowed: Collection[str]
    timeout_s: float | None
    data: dict[str, str]
    user: str | None
    now: Now | None

    async def run(self, candidate: Candidate, case: Case, repeat: int) -> CaseRun:
        """Run one case with one model, and judge the result."""
        now = self.now or asyncio.get_running_loop().time
        timed = time_model(candidate.model, now)
        rehearsal = Rehearsal(case.results, self.cases.stub, self.allowed)
        empty = CaseRun(model=candidate.label, case=case.name, message=case.message, repeat=repeat, seconds=0.0)
        async with self.app.open({**case.data, **self.data}, self.user or case.user) as (data, user):
            began_s = now()
            try:
                with rehearsal.at_work(), self.agent.override(model=timed, tools=rehearsal.replace):
                    run = self.agent.start(
                        case.content,
                        data=data,
                        user=user,
                        session=f"measure-{uuid4().hex}",  # of its own, so that nothing is shared between runs
                        history=case.history,
                        cache=False,
                        journal=None,
                        timeout=self.timeout_s,
                    )
                result = await run.wait()
            except FlowkitError as error:
                return _judge_nothing(replace(empty, seconds=now() - began_s, status="failed", error=str(error)), case)
        measured = _read_result(empty, result, timed, rehearsal, now() - began_s)
        if measured.status != "done":
            return _judge_nothing(measured, case)
        return await self._judge(measured, case, rehearsal)

    async def _judge(self, run: CaseRun, case: Case, rehearsal: Rehearsal) -> CaseRun:
        wrong: list[str] = []
        calls_right = answer_right = None
        if case.calls is not None:
            problem = find_wrong_calls(case, run.calls, _find_defaults(rehearsal.tools.values()))
            calls_right = problem is None
            wrong += [] if problem is None else [f"calls: {problem}"]
        check = case.answer
        if check is not None:
            problems = find_wrong_answer(check, run.answer)
            if check.judge is not None and self.judge is not None and not problems:
                try:
                    verdict = await self.judge.find_wrong(case.message, run.answer, check.judge)
                    problems += [] if verdict is None else [verdict]
                except FlowkitError as error:  # the judge's fault, so nobody is blamed for it
                    return replace(run, calls_right=calls_right, wrong=(*wrong, f"not judged: {error}"))
            answer_right = not problems
            wrong += [f"answer: {problem}" for problem in problems]
        return replace(run, calls_right=calls_right, answer_right=answer_right, wrong=tuple(wrong))


def _read_result(
    empty: CaseRun, result: AgentResult[Any], timed: TimedModel, rehearsal: Rehearsal, seconds: float
) -> CaseRun:
    """Read a run's results, before it is judged."""
    error = None if result.error is None else str(result.error)
    if result.status == "waiting":
        error = f"it waits for a person to decide on {', '.join(pending.name for pending in result.pending)}"
    first = timed.answers[0] if timed.answers else None
    first_s = None if first is None or first.first_token_s is None else first.first_token_s - first.asked_s
    output = result.output_or_none
    said = output if isinstance(output, str) else result.text if output is None else _dump(output, result.text)
    return replace(
        empty,
        status=result.status,
        error=error,
        seconds=seconds,
        first_token_s=first_s,
        calls=tuple(_read_calls(result, timed.answers)),
        answer=said,
        turns=len({answer.turn for answer in timed.answers}),
        input_tokens=result.usage.input_tokens,
        output_tokens=result.usage.output_tokens,
        cached_tokens=result.usage.cached_tokens,
        cost_usd=result.cost_usd,
        stubbed=tuple(rehearsal.stubbed),
    )


def _dump(output: object, text: str) -> str:
    """Return a typed answer as the JSON that the model wrote; a tool's own JSON as it is."""
    if text:
        return text
    try:
        from pydantic_core import to_jsonable_python

        return codec.dumps(to_jsonable_python(output)).decode()
    except ValueError:
        return str(output)


def _read_calls(result: AgentResult[Any], answers: Sequence[TimedAnswer]) -> list[MadeCall]:
    """Read the calls that the model made itself, in their order; without those of attempts that broke off."""
    by_turn = {answer.turn: answer for answer in answers}
    made: list[tuple[int, int, MadeCall]] = []
    for outcome in result.calls:
        place = _CALL.fullmatch(outcome.call.id)
        if place is None or outcome.state == "void":
            continue
        turn, index = int(place[1]), int(place[2])
        answer = by_turn.get(turn)
        opened_s = None if answer is None else answer.opened_s.get(index)
        complete_s = None if answer is None else answer.complete_s.get(index)
        arguments_s = None if opened_s is None or complete_s is None else complete_s - opened_s
        arguments = show_arguments(outcome.call.arguments)
        made.append(
            (turn, index, MadeCall(outcome.call.name, arguments if isinstance(arguments, dict) else {}, arguments_s))
        )
    return [call for _, _, call in sorted(made, key=lambda item: item[:2])]


def _find_defaults(tools: Collection[AnyTool]) -> Defaults:
    return {tool.name: read_defaults(tool.parameters) for tool in tools}


def _judge_nothing(run: CaseRun, case: Case) -> CaseRun:
    """Judge a run without an answer: it is wrong in all that its case judges."""
    return replace(
        run,
        calls_right=None if case.calls is None else False,
        answer_right=None if case.answer is None else False,
        wrong=(f"{run.status}: {run.error or 'no answer'}",),
    )


def _not_asked(candidate: Candidate, case: Case, repeat: int, standing: _Standing) -> CaseRun:
    run = CaseRun(model=candidate.label, case=case.name, message=case.message, repeat=repeat, seconds=0.0)
    why = f"not asked: it failed {standing.failed} times before it answered anything ({standing.error})"
    return _judge_nothing(replace(run, status="failed", error=why), case)


def _note(runs: Sequence[CaseRun], standings: dict[str, _Standing]) -> list[str]:
    """List notes that explain the figures."""
    notes: list[str] = []
    stubbed = Counter(name for run in runs for name in run.stubbed)
    if stubbed:
        told = ", ".join(f"{name} {count} times" for name, count in sorted(stubbed.items()))
        notes.append(f"writes were answered, not run: {told}; --run-write NAME runs one for real")
    for label, standing in standings.items():
        if standing.is_given_up:
            notes.append(f"{label} was given up after {standing.failed} failures: {standing.error}")
    return notes
