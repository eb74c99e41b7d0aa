"""The answer so far as a run tells it: events, `run.partial`, and answers of several types by name."""

import asyncio
import itertools
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, SecretStr

from flowkit import Agent, DefinitionError, Journal, ScriptedModel, ToolError, tool
from flowkit.codec import JSON
from flowkit.events import Event, OutputPartial, TextDelta, merge
from flowkit.models.base import Delta
from flowkit.models.base import TextDelta as Piece
from flowkit.runs.run import Run
from flowkit.testing import call


class Answer(BaseModel):
    title: str
    score: int
    notes: list[str] = []  # pydantic copies it


class Escalation(BaseModel):
    to: str


def get_partials(run: Run[Any]) -> list[JSON]:
    return [event.output for event in run.log.events if isinstance(event, OutputPartial)]


async def follow(agent: Agent[Any], message: str = "Go") -> tuple[Any, list[JSON], Run[Any]]:
    run = agent.start(message)
    return await run.wait(), get_partials(run), run


def words(text: str, size: int = 3) -> list[Delta]:
    return [Piece(text[place : place + size]) for place in range(0, len(text), size)]


def test_events_tell_the_answer_as_it_grows_and_end_with_the_whole() -> None:
    text = '{"title": "Shoes", "score": 12, "notes": ["good", "cheap"]}'

    async def go() -> tuple[Any, list[JSON], Run[Any]]:
        return await follow(Agent(ScriptedModel([words(text)]), output_type=Answer))

    result, told, run = asyncio.run(go())
    assert result.output == Answer(title="Shoes", score=12, notes=["good", "cheap"])
    assert {"title": "Shoes"} in told
    assert {"title": "Shoes", "score": 1} not in told
    assert told[-1] == run.partial == result.output.model_dump()
    assert all(
        set(first) <= set(second)
        for first, second in itertools.pairwise(told)
        if isinstance(first, dict) and isinstance(second, dict)
    )


def test_the_last_partial_has_the_defaults_that_the_answer_has() -> None:
    async def go() -> list[JSON]:
        return (await follow(Agent(ScriptedModel(['{"title": "a", "score": 1}']), output_type=Answer)))[1]

    assert asyncio.run(go())[-1] == {"title": "a", "score": 1, "notes": []}


def test_a_text_is_its_own_partial() -> None:
    async def go() -> tuple[list[JSON], JSON]:
        _, told, run = await follow(Agent(ScriptedModel(["Hello there"])))
        return told, run.partial

    assert asyncio.run(go()) == ([], "Hello there")


def test_partials_can_be_iterated_and_end_with_the_run() -> None:
    async def go() -> list[JSON]:
        async with Agent(ScriptedModel(['{"title": "a", "score": 1}']), output_type=Answer).stream("Go") as run:
            return [partial async for partial in run.partials()]

    assert asyncio.run(go())[-1] == {"title": "a", "score": 1, "notes": []}


def test_an_answer_that_is_asked_for_again_begins_anew() -> None:
    model = ScriptedModel(['{"title": "wrong", "score": "many"}', '{"title": "right", "score": 1}'])

    async def go() -> list[JSON]:
        return (await follow(Agent(model, output_type=Answer)))[1]

    told = asyncio.run(go())
    assert told[0] == {"title": "wrong"}
    assert told[-1] == {"title": "right", "score": 1, "notes": []}


@pytest.mark.slow
def test_events_hold_a_few_times_the_size_of_the_answer_however_it_is_cut() -> None:
    text = '{"title": "' + "x" * 20_000 + '", "score": 1}'

    async def go() -> list[JSON]:
        return (await follow(Agent(ScriptedModel([words(text, 1)]), output_type=Answer)))[1]

    told = asyncio.run(go())
    # By growth there are about 80 of them; the rest is what a slow machine adds, five a second.
    assert len(told) < 200


@tool(effect="read")
async def answer(title: str, score: Annotated[int, Field(le=10)], kind: str = "plain") -> Answer:
    """Give the answer."""
    if score == 0:
        raise ToolError("not 0")
    return Answer(title=title, score=score)


def test_the_arguments_of_an_output_tool_are_shown_as_they_grow() -> None:
    model = ScriptedModel([[call("answer", title="bad", score=0)], [call("answer", title="Shoes", score=3)]])

    async def go() -> tuple[Any, list[OutputPartial], JSON]:
        agent = Agent(model, output_tool=answer)
        run = agent.start("Go")
        result = await run.wait()
        return result, [event for event in run.log.events if isinstance(event, OutputPartial)], run.partial

    result, told, last = asyncio.run(go())
    assert result.output.title == "Shoes"
    assert [event.call for event in told] == ["turn/1/call/0", "turn/2/call/0"]
    assert told[-1].output == {"title": "Shoes", "score": 3}
    assert last == {"title": "Shoes", "score": 3, "notes": []}


def test_the_arguments_of_a_tool_with_secrets_are_not_shown() -> None:
    @tool(effect="read")
    async def unlock(key: SecretStr) -> str:
        """Open it."""
        return "open"

    async def go() -> list[JSON]:
        return (await follow(Agent(ScriptedModel([[call("unlock", key="s3cret-key")]]), output_tool=unlock)))[1]

    assert asyncio.run(go()) == []


@pytest.mark.parametrize(
    "text",
    [
        '{"value": {"escalation": {"to": "Kim"}}}',
        '{"escalation": {"to": "Kim"}}',
        '<think>Kim?</think>\n```json\n{"value": {"escalation": {"to": "Kim"}}}\n```',
    ],
)
def test_an_answer_of_several_types_says_which(text: str) -> None:
    agent = Agent(ScriptedModel([text]), output_type={"answer": Answer, "escalation": Escalation})
    result = agent.run_sync("Go")
    assert (result.output, result.output_name) == (Escalation(to="Kim"), "escalation")


def test_types_of_one_form_are_told_apart_by_their_name() -> None:
    agent = Agent(ScriptedModel(['{"value": {"no": "why"}}']), output_type={"yes": str, "no": str})
    result = agent.run_sync("Go")
    assert (result.output, result.output_name) == ("why", "no")


def test_partials_and_events_have_the_answer_under_its_name() -> None:
    agent = Agent(
        ScriptedModel([words('{"value": {"answer": {"title": "Shoes", "score": 12}}}')]),
        output_type={"answer": Answer, "escalation": Escalation},
    )

    async def go() -> tuple[list[JSON], JSON]:
        _, told, run = await follow(agent)
        return told, run.log.events[-1].to_json()["output"]

    told, output = asyncio.run(go())
    whole: JSON = {"answer": {"title": "Shoes", "score": 12, "notes": []}}
    assert {"answer": {"title": "Shoes"}} in told
    assert (told[-1], output) == (whole, whole)


def test_two_names_at_once_are_asked_for_again() -> None:
    model = ScriptedModel(['{"value": {"yes": "a", "no": "b"}}', '{"value": {"yes": "a"}}'])
    assert Agent(model, output_type={"yes": str, "no": str}).run_sync("Go").output_name == "yes"


def test_no_types_are_refused_where_the_agent_is_made() -> None:
    with pytest.raises(DefinitionError, match="at least one type"):
        Agent(ScriptedModel([]), output_type={})


def test_a_run_in_a_journal_keeps_no_partials_and_gives_the_name_again(tmp_path: Path) -> None:
    async def go(message: str | None, *answers: str) -> Any:
        journal = Journal(tmp_path / "runs")
        agent = Agent(ScriptedModel(answers), output_type={"yes": str, "no": str}, journal=journal)
        result = await agent.run(message, run_id="r1")
        kept = [event["type"] for event in journal.events("r1") if isinstance(event, dict)]
        journal.close()
        return result, kept

    result, kept = asyncio.run(go("Go", '{"value": {"no": "why"}}'))
    again, _ = asyncio.run(go(None))
    assert "output.partial" not in kept
    assert (result.output_name, again.output_name) == ("no", "no")


def test_a_slow_watcher_gets_the_latest_partial_and_all_the_text() -> None:
    made: list[Event] = []
    for place, character in enumerate("abc"):
        made.append(TextDelta("r", 2 * place, 0.0, character, 1, None, place))
        made.append(OutputPartial("r", 2 * place + 1, 0.0, "abc"[: place + 1], 1))
    assert list(merge(made)) == [TextDelta("r", 4, 0.0, "abc", 1, None, 0), made[-1]]
