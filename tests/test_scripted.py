"""The model that says what a script tells it."""

import asyncio

import pytest

from flowkit.errors import ModelError, StreamError
from flowkit.messages import Usage, UserMessage
from flowkit.models.base import (
    CallDelta,
    Delta,
    EndDelta,
    FinishDelta,
    Model,
    ModelRequest,
    TextDelta,
    ThinkingDelta,
    UsageDelta,
)
from flowkit.models.scripted import CUT, Script, ScriptedModel, call, finish, raw_call, thinking
from flowkit.testing import run_virtual

REQUEST = ModelRequest((UserMessage("hi"),))


async def say(model: Model, request: ModelRequest = REQUEST) -> list[Delta]:
    async with model.stream(request) as deltas:
        return [delta async for delta in deltas]


def test_a_text_is_a_turn_that_ends_well() -> None:
    assert run_virtual(say(ScriptedModel(["Hi"]))) == [TextDelta("Hi"), FinishDelta("stop"), EndDelta()]


def test_a_turn_is_said_in_its_order() -> None:
    model = ScriptedModel([[thinking("hm"), "I look.", call("f", x=1), call("g"), Usage(5, 2)]])
    assert run_virtual(say(model)) == [
        ThinkingDelta("hm"),
        TextDelta("I look."),
        CallDelta(0, id="call_1", name="f"),
        CallDelta(0, arguments='{"x": 1}'),
        CallDelta(1, id="call_2", name="g"),
        CallDelta(1, arguments="{}"),
        UsageDelta(Usage(5, 2)),
        FinishDelta("tool_calls"),
        EndDelta(),
    ]


def test_ids_differ_between_turns() -> None:
    model = ScriptedModel([[call("f")], [call("f"), call("f").with_id("mine")]])

    async def ids() -> list[str]:
        deltas = [*await say(model), *await say(model)]
        return [delta.id for delta in deltas if isinstance(delta, CallDelta) and delta.id]

    assert run_virtual(ids()) == ["call_1", "call_2", "mine"]


def test_pauses_pass_on_the_clock_of_the_loop() -> None:
    model = ScriptedModel([["a", 0.5, call("f", text="long enough").slowly(2.0, pieces=4), "b"]])

    async def times() -> list[tuple[float, Delta]]:
        clock = asyncio.get_running_loop().time
        async with model.stream(REQUEST) as deltas:
            return [(clock(), delta) async for delta in deltas]

    timed = run_virtual(times())
    fragments = [at for at, delta in timed if isinstance(delta, CallDelta) and delta.arguments]
    assert fragments == [1.0, 1.5, 2.0, 2.5]
    assert "".join(d.arguments or "" for _, d in timed if isinstance(d, CallDelta)) == '{"text": "long enough"}'


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ([call("f"), finish("length")], [FinishDelta("length"), EndDelta()]),
        (["a", CUT, "never"], [TextDelta("a")]),
        ([raw_call("f", '{"x":')], [CallDelta(0, arguments='{"x":'), FinishDelta("tool_calls"), EndDelta()]),
    ],
)
def test_a_turn_ends_as_the_script_says(script: Script, end: list[Delta]) -> None:
    assert run_virtual(say(ScriptedModel([script])))[-len(end) :] == end


def test_an_error_that_stands_first_refuses_the_request() -> None:
    refused = ModelError("too many", status=429)

    async def opens() -> None:
        async with ScriptedModel([[refused]]).stream(REQUEST):
            pytest.fail("it opened")

    with pytest.raises(ModelError) as failed:
        run_virtual(opens())
    assert failed.value is refused


def test_a_later_error_breaks_the_answer() -> None:
    model = ScriptedModel([["a", StreamError("broke")]])
    heard: list[Delta] = []

    async def listen() -> None:
        async with model.stream(REQUEST) as deltas:
            async for delta in deltas:
                heard.append(delta)

    with pytest.raises(StreamError, match="broke"):
        run_virtual(listen())
    assert heard == [TextDelta("a")]


def test_requests_are_kept() -> None:
    model = ScriptedModel(["a", "b"])
    second = ModelRequest((UserMessage("again"),), turn=2)
    run_virtual(say(model))
    run_virtual(say(model, second))
    assert model.requests == [REQUEST, second]


def test_a_function_of_the_request_may_be_the_script() -> None:
    model = ScriptedModel(lambda request: f"turn {request.turn}")
    assert run_virtual(say(model, ModelRequest((), turn=7)))[0] == TextDelta("turn 7")


def test_a_request_beyond_the_script_says_so() -> None:
    with pytest.raises(ModelError, match="the script has 0 turns, and turn 1 was asked for"):
        run_virtual(say(ScriptedModel([])))
