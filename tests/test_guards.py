"""Guards of requests, calls and answers: they pass, change or refuse, and one that fails has not passed."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from flowkit import (
    Agent,
    Approve,
    ConfigurationError,
    Context,
    GuardFailed,
    GuardRefused,
    Journal,
    Message,
    Needs,
    Refuse,
    ScriptedModel,
    ToolCall,
    Watch,
    tool,
)
from flowkit.events import CallFailed, CallFinished, CallStarted, GuardDecided, RunFinished, TextDelta
from flowkit.messages import AssistantMessage, ToolMessage, UserMessage
from flowkit.models.base import CallDelta, FinishDelta
from flowkit.models.base import TextDelta as Piece
from flowkit.testing import call, run_virtual


def told(result_events: Sequence[object]) -> list[tuple[str, str, str, str]]:
    return [(e.guard, e.on, e.verdict, e.reason) for e in result_events if isinstance(e, GuardDecided)]


async def finish(agent: Agent[Any], message: str = "Go", **options: Any) -> tuple[Any, list[Any]]:
    run = agent.start(message, **options)
    return await run.wait(), run.log.events


def no_weather(messages: tuple[Message, ...], _: Context) -> Refuse | None:
    said = messages[-1]
    return (
        Refuse("We don't talk about the weather.")
        if isinstance(said, UserMessage) and "weather" in str(said.content)
        else None
    )


# Requests


def test_a_refused_request_never_goes_out_and_the_user_reads_why() -> None:
    model = ScriptedModel(["Sunny.", "Hello."])
    agent = Agent(model, before_request=no_weather)
    result, events = asyncio.run(finish(agent, "How is the weather?"))
    assert (result.status, str(result.error)) == (
        "failed",
        "guard 'no_weather' refused the request: We don't talk about the weather.",
    )
    assert model.requests == []
    assert events[-1].notice == "We don't talk about the weather."
    assert told(events) == [("no_weather", "request", "refused", "We don't talk about the weather.")]
    again, _ = asyncio.run(finish(agent, "Hi", history=result.messages))
    assert (again.status, len(model.requests[0].messages)) == ("done", 1), (
        "what was refused is no part of the conversation"
    )


def test_run_raises_the_refusal() -> None:
    with pytest.raises(GuardRefused) as raised:
        Agent(ScriptedModel([]), before_request=no_weather).run_sync("weather?")
    assert (raised.value.guard, raised.value.place) == ("no_weather", "request")


def test_guards_change_a_request_one_after_the_other() -> None:
    async def shout(messages: tuple[Message, ...], _: Context) -> list[Message]:
        return [
            UserMessage(str(message.content).upper()) if isinstance(message, UserMessage) else message
            for message in messages
        ]

    def last_word(messages: tuple[Message, ...], _: Context) -> list[Message]:
        return [
            UserMessage(str(message.content).split()[-1]) if isinstance(message, UserMessage) else message
            for message in messages
        ]

    model = ScriptedModel(["ok"])
    result, events = asyncio.run(finish(Agent(model, before_request=[shout, no_weather, last_word]), "hello there"))
    assert model.requests[0].messages == (UserMessage("THERE"),)
    assert result.messages[0] == UserMessage("hello there")
    assert [verdict for _, _, verdict, _ in told(events)] == ["changed", "passed", "changed"]


def test_a_guard_that_raises_is_an_error_with_its_name_and_no_pass() -> None:
    def broken(messages: tuple[Message, ...], _: Context) -> None:
        raise KeyError("policy")

    model = ScriptedModel(["ok"])
    result, events = asyncio.run(finish(Agent(model, before_request=broken)))
    assert isinstance(result.error, GuardFailed)
    assert (result.error.guard, str(result.error)) == ("broken", "guard 'broken' failed: KeyError: 'policy'")
    assert (result.status, model.requests) == ("failed", [])
    assert told(events) == [("broken", "request", "failed", "KeyError: 'policy'")]


# Calls


@tool(effect="read")
async def look(order: str) -> str:
    """Look an order up."""
    return f"order {order}"


@tool(effect="write")
async def refund(order: str, won: int = 0) -> str:
    """Give money back."""
    return f"{won} won for {order}"


def only_own(call: ToolCall, context: Context) -> Refuse | None:
    return Refuse("that order is another customer's") if call.arguments["order"] != context.data else None


def test_the_model_reads_why_a_call_is_refused_and_goes_on() -> None:
    model = ScriptedModel([[call("look", order="O2"), call("refund", order="O1", won=5)], "Sorry."])
    result, events = asyncio.run(
        finish(Agent(model, tools=[look, refund], cache=False, before_call=only_own), data="O1")
    )
    assert result.output == "Sorry."
    answers = [message.text for message in result.messages if isinstance(message, ToolMessage)]
    assert answers == ["refused: that order is another customer's", "5 won for O1"]
    assert [event.call for event in events if isinstance(event, CallStarted)] == ["turn/1/call/1"]
    assert sorted(verdict for _, _, verdict, _ in told(events)) == ["passed", "refused"]


def test_a_guard_changes_arguments_and_sees_defaults() -> None:
    seen: list[Mapping[str, object]] = []

    async def at_most(call: ToolCall, _: Context) -> dict[str, object] | None:
        seen.append(dict(call.arguments))
        await asyncio.sleep(0)
        return {"won": 10} if call.arguments["won"] == 0 else None

    model = ScriptedModel([[call("refund", order="O1")], "Done."])
    result, events = asyncio.run(finish(Agent(model, tools=[refund], before_call=at_most)))
    assert seen == [{"order": "O1", "won": 0}]
    assert result.calls[0].value == "10 won for O1"
    assert told(events) == [("at_most", "call", "changed", "")]


def test_arguments_that_the_tool_does_not_take_fail_the_call() -> None:
    model = ScriptedModel([[call("refund", order="O1")], "Done."])
    agent = Agent(model, tools=[refund], before_call=lambda call, _: {"won": "many"})
    result, _ = asyncio.run(finish(agent))
    assert result.calls[0].state == "failed"
    assert "won" in (result.calls[0].error or "")


def test_an_early_call_waits_for_its_guard_and_a_change_of_it_runs_once() -> None:
    ran: list[str] = []
    asked: list[str] = []

    @tool(effect="read")
    async def peek(order: str) -> str:
        """Look."""
        ran.append(order)
        return order

    def guard(call: ToolCall, _: Context) -> dict[str, object] | Refuse | None:
        asked.append(str(call.arguments["order"]))
        return Refuse("no") if call.arguments["order"] == "bad" else {"order": "changed"}

    script = [
        [
            CallDelta(0, id="a", name="peek", arguments='{"order": "bad"}'),
            1.0,
            CallDelta(1, id="b", name="peek", arguments='{"order": "good"}'),
            1.0,
            FinishDelta("tool_calls"),
        ],
        "Done.",
    ]

    async def go() -> tuple[Any, list[Any]]:
        return await finish(Agent(ScriptedModel(script), tools=[peek], cache=False, before_call=guard))

    result, events = run_virtual(go())
    assert (ran, asked) == (["changed"], ["bad", "good"])
    assert [outcome.state for outcome in result.calls] == ["failed", "finished"]
    started = next(event for event in events if isinstance(event, CallStarted))
    assert started.early
    assert started.t < 2.0


def test_what_a_call_needs_and_what_a_tool_calls_are_guarded_too() -> None:
    names: list[str] = []

    @tool(effect="read")
    async def describe(found: str = Needs(look)) -> str:
        """Describe an order."""
        return found

    def note(call: ToolCall, _: Context) -> None:
        names.append(call.name)

    model = ScriptedModel([[call("describe", order="O1")], "Done."])
    asyncio.run(finish(Agent(model, tools=[describe], cache=False, before_call=note)))
    assert names == ["look", "describe"]


def test_an_agent_that_is_used_as_a_tool_asks_its_own_guards() -> None:
    names: list[str] = []

    def note_as(who: str) -> Any:
        def note(call: ToolCall, _: Context) -> None:
            names.append(f"{who}: {call.name}")

        return note

    inner = ScriptedModel([[call("look", order="O1")], "Found."])
    clerk = Agent(inner, tools=[look], cache=False, before_call=note_as("inner"), name="clerk")
    model = ScriptedModel([[call("clerk", task="Look.")], "Done."])
    asyncio.run(finish(Agent(model, tools=[clerk.as_tool()], cache=False, before_call=note_as("outer"))))
    assert names == ["outer: clerk", "inner: look"]


def test_a_guard_of_a_call_that_raises_stops_the_call_alone_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken(call: ToolCall, _: Context) -> None:
        raise RuntimeError("no policy")

    model = ScriptedModel([[call("refund", order="O1", won=5)], "Sorry."])
    result, events = asyncio.run(finish(Agent(model, tools=[refund], before_call=broken)))
    assert (result.status, result.calls[0].state, result.calls[0].error) == (
        "done",
        "failed",
        "not run: its guard 'broken' failed",
    )
    assert told(events) == [("broken", "call", "failed", "RuntimeError: no policy")]
    assert not any(isinstance(event, CallStarted) for event in events)
    assert "its guard failed" in caplog.text


def test_a_refusal_for_the_user_ends_the_run() -> None:
    model = ScriptedModel([[call("refund", order="O1")], "never said"])
    agent = Agent(model, tools=[refund], before_call=lambda call, _: Refuse("Call us for refunds.", to="user"))
    result, events = asyncio.run(finish(agent))
    assert (result.status, events[-1].notice, len(model.requests)) == ("failed", "Call us for refunds.", 1)
    assert isinstance(result.messages[-1], ToolMessage), "the conversation stays valid"


def test_a_person_is_asked_after_the_guard_and_sees_what_it_changed() -> None:
    @tool(effect="write", approval=True)
    async def pay(won: int) -> str:
        """Pay."""
        return f"paid {won}"

    model = ScriptedModel([[call("pay", won=99)], [call("pay", won=1)], "Done."])
    agent = Agent(
        model,
        tools=[pay],
        before_call=lambda call, _: Refuse("too much") if call.arguments["won"] == 99 else {"won": 2},
    )

    async def go() -> Any:
        first = await agent.run("Go")
        assert [(pending.name, pending.arguments) for pending in first.pending] == [("pay", {"won": 2})]
        return await agent.run(history=first.messages, decisions={first.pending[0].id: Approve()})

    assert asyncio.run(go()).calls[-1].value == "paid 2"


def test_secrets_are_masked_in_what_a_guard_says() -> None:
    @tool(effect="read")
    async def unlock(key: SecretStr) -> str:
        """Open it."""
        return "open"

    def check(call: ToolCall, _: Context) -> Refuse:
        key = call.arguments["key"]
        assert isinstance(key, SecretStr)
        return Refuse(f"{key.get_secret_value()} is too short")

    model = ScriptedModel([[call("unlock", key="s3cret-key")], "Done."])
    result, events = asyncio.run(finish(Agent(model, tools=[unlock], before_call=check)))
    assert told(events) == [("check", "call", "refused", "********** is too short")]
    assert "s3cret" not in str([event.to_json() for event in events])
    assert "s3cret" not in str(result.calls[0].error)


def test_a_guard_that_waits_is_stopped_with_its_run() -> None:
    async def forever(call: ToolCall, _: Context) -> None:
        await asyncio.Event().wait()

    async def go() -> Any:
        agent = Agent(ScriptedModel([[call("look", order="O1")]]), tools=[look], cache=False, before_call=forever)
        run = agent.start("Go")
        async for event in run:
            if event.type == "turn.finished":
                run.cancel()
        return await run.wait()

    assert asyncio.run(asyncio.wait_for(go(), 20)).status == "cancelled"


def test_a_call_that_ran_before_a_crash_is_not_asked_about_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def note(call: ToolCall, _: Context) -> None:
        asked.append(call.name)

    def go(message: str | None, script: list[Any]) -> None:
        journal = Journal(tmp_path / "runs")
        agent = Agent(ScriptedModel(script), tools=[refund], journal=journal, before_call=note)
        asyncio.run(agent.run(message, run_id="r1"))
        journal.close()

    go("Go", [[call("refund", order="O1")], "Done."])
    go(None, [])
    assert asked == ["refund"]


# Answers


def test_an_answer_is_changed_in_the_output_and_the_conversation() -> None:
    def hide(answer: str, _: Context) -> str | None:
        return answer.replace("0101", "****") if "0101" in answer else None

    model = ScriptedModel(["Your PIN is 0101."])
    result, events = asyncio.run(finish(Agent(model, after_answer=hide)))
    assert (result.output, result.text) == ("Your PIN is ****.", "Your PIN is ****.")
    assert "0101" not in str(result.messages)
    assert told(events) == [("hide", "answer", "changed", "")]


def test_a_refused_answer_is_no_output_and_no_part_of_the_conversation() -> None:
    agent = Agent(ScriptedModel(["Bad words."]), after_answer=lambda answer, _: Refuse("I can't say that."))
    result, events = asyncio.run(finish(agent))
    assert (result.status, result.output_or_none, result.text) == ("failed", None, "")
    assert result.messages == (UserMessage("Go"),)
    assert events[-1].notice == "I can't say that."


class Price(BaseModel):
    won: int


def test_the_model_is_asked_again_with_the_reason_as_often_as_for_an_invalid_answer() -> None:
    def even(answer: Price, _: Context) -> Refuse | None:
        return Refuse("prices are even numbers", to="model") if answer.won % 2 else None

    model = ScriptedModel(['{"won": 1}', '{"won": 2}'])
    result, _ = asyncio.run(finish(Agent(model, output_type=Price, after_answer=even)))
    assert result.output == Price(won=2)
    assert "prices are even numbers" in str(model.requests[1].messages[-1])
    stubborn = Agent(ScriptedModel(['{"won": 1}'] * 3), output_type=Price, after_answer=even)
    result, _ = asyncio.run(finish(stubborn))
    assert result.status == "failed"


def test_an_output_tools_result_is_guarded() -> None:
    @tool(effect="read")
    async def price(won: int) -> Price:
        """Give the price."""
        return Price(won=won)

    def even(answer: Price, _: Context) -> Refuse | Price | None:
        return Refuse("an even one", to="model") if answer.won % 2 else Price(won=answer.won + 100)

    model = ScriptedModel([[call("price", won=1)], [call("price", won=2)]])
    result, _ = asyncio.run(finish(Agent(model, output_tool=price, after_answer=even)))
    assert result.output == Price(won=102)


class Note(BaseModel):
    text: str


@pytest.mark.parametrize(
    ("output_type", "said", "given", "told"),
    [
        (Price, '{"won": 1}', "two", "it returned str, expected None, a value of the agent's output type or Refuse"),
        (Price, '{"won": 1}', {"won": 2}, "it returned dict, expected None, a value of the agent's output type"),
        (str, "one", 2, "it returned int, expected None, a text or Refuse"),
    ],
)
def test_another_answer_has_to_be_of_the_type_that_the_agent_promises(
    output_type: Any, said: str, given: Any, told: str
) -> None:
    def change(_: Any, __: Context) -> Any:
        return given

    agent = Agent(ScriptedModel([said]), output_type=output_type, after_answer=change)
    result, _ = asyncio.run(finish(agent))
    assert (result.status, type(result.error)) == ("failed", GuardFailed)
    assert told in str(result.error)


def test_another_answer_comes_under_the_name_of_its_type() -> None:
    def change(_: Any, __: Context) -> Note:
        return Note(text="too dear")

    model = ScriptedModel(['{"value": {"price": {"won": 1}}}'])
    agent = Agent(model, output_type={"price": Price, "note": Note}, after_answer=change)
    result, _ = asyncio.run(finish(agent))
    assert (result.output, result.output_name) == (Note(text="too dear"), "note")


def test_an_answer_of_none_is_guarded() -> None:
    seen: list[object] = []

    def look_at(answer: object, _: Context) -> None:
        seen.append(answer)

    @tool(effect="read")
    async def clear() -> None:
        """Clear."""

    asyncio.run(finish(Agent(ScriptedModel([[call("clear")]]), output_tool=clear, after_answer=look_at)))
    asyncio.run(finish(Agent(ScriptedModel(['{"value": null}']), output_type=int | None, after_answer=look_at)))
    assert seen == [None, None]


def refuse_to_model(_: object, __: Context) -> Refuse:
    return Refuse("no", to="model")


def send_nothing(_: object, __: Context) -> list[Message]:
    return []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"before_request": refuse_to_model}, "leave to='model' out"),
        ({"before_request": Watch(refuse_to_model)}, "leave to='model' out"),
        ({"after_answer": Watch(refuse_to_model)}, "leave to='model' out"),
        ({"before_request": send_nothing}, "it returned an empty list, expected None, a list of messages or Refuse"),
    ],
)
def test_what_a_guard_can_not_mean_is_told(options: dict[str, Any], told: str) -> None:
    result, _ = asyncio.run(finish(Agent(ScriptedModel(["Hi"]), **options)))
    assert isinstance(result.error, GuardFailed)
    assert told in str(result.error)


# Watchers


def test_a_watcher_runs_beside_the_model_and_stops_its_answer() -> None:
    async def check(messages: tuple[Message, ...], _: Context) -> Refuse:
        await asyncio.sleep(1.5)
        return Refuse("Off topic.")

    async def go() -> tuple[Any, list[Any]]:
        model = ScriptedModel([[Piece("One"), 1.0, Piece("two"), 1.0, Piece("three"), 60.0, Piece("four")]])
        return await finish(Agent(model, before_request=Watch(check)))

    result, events = run_virtual(go())
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Onetwo"
    assert (result.status, events[-1].notice) == ("failed", "Off topic.")
    assert isinstance(events[-1], RunFinished)
    assert events[-1].t == pytest.approx(1.5)
    assert result.messages == (), "neither the message nor what was said of the answer"


def test_no_write_starts_and_no_answer_counts_before_the_watchers_have_passed() -> None:
    async def check(messages: tuple[Message, ...], _: Context) -> None:
        await asyncio.sleep(5)

    async def go() -> tuple[Any, list[Any]]:
        model = ScriptedModel([[call("look", order="O1"), call("refund", order="O1")], "Done."])
        return await finish(Agent(model, tools=[look, refund], cache=False, before_request=Watch(check)))

    result, events = run_virtual(go())
    starts = {event.call: event.t for event in events if isinstance(event, CallStarted)}
    assert starts["turn/1/call/0"] < 5, "a read may start"
    assert starts["turn/1/call/1"] == pytest.approx(5)
    assert (result.status, events[-1].t) == ("done", pytest.approx(10))
    assert told(events) == [("check", "request", "passed", "")] * 2


def test_a_write_of_a_turn_that_a_watcher_refuses_never_runs() -> None:
    async def check(messages: tuple[Message, ...], _: Context) -> Refuse:
        await asyncio.sleep(5)
        return Refuse("No.")

    async def go() -> tuple[Any, list[Any]]:
        model = ScriptedModel([[call("look", order="O1"), call("refund", order="O1")], "Done."])
        return await finish(Agent(model, tools=[look, refund], cache=False, before_request=Watch(check)))

    result, events = run_virtual(go())
    assert result.status == "failed"
    assert not any(isinstance(event, CallStarted | CallFinished) and event.call == "turn/1/call/1" for event in events)
    assert not any(isinstance(event, CallFailed) for event in events)


def test_a_watcher_sees_the_answer_as_it_grows_and_at_its_end_the_whole() -> None:
    seen: list[str] = []

    def check(answer: str, _: Context) -> None:
        seen.append(answer)

    async def go() -> tuple[Any, list[Any]]:
        return await finish(
            Agent(ScriptedModel([[Piece("ab"), 1.0, Piece("cd"), 1.0, Piece("e")]]), after_answer=Watch(check))
        )

    result, events = run_virtual(go())
    assert result.output == "abcde"
    assert seen[0] == "ab"
    assert seen[-1] == "abcde"
    assert told(events) == [("check", "answer", "passed", "")]


def test_a_watcher_stops_an_answer_in_the_middle() -> None:
    def check(answer: str, _: Context) -> Refuse | None:
        return Refuse("No secrets.") if "secret" in answer else None

    async def go() -> tuple[Any, list[Any]]:
        model = ScriptedModel([[Piece("the "), 1.0, Piece("secret"), 1.0, Piece(" is 42")]])
        return await finish(Agent(model, after_answer=Watch(check)))

    result, events = run_virtual(go())
    assert "42" not in "".join(event.text for event in events if isinstance(event, TextDelta))
    assert (result.status, result.text, result.messages) == ("failed", "", (UserMessage("Go"),))


def test_a_watcher_that_fails_or_changes_has_not_passed() -> None:
    def broken(messages: tuple[Message, ...], _: Context) -> None:
        raise OSError("no server")

    def changing(messages: tuple[Message, ...], _: Context) -> Any:
        return list(messages)

    for guard, said in (
        (broken, "OSError: no server"),
        (changing, "it watches, so it returns None or Refuse(…), not list"),
    ):
        result, events = asyncio.run(finish(Agent(ScriptedModel(["ok"]), before_request=Watch(guard))))
        assert (result.status, result.output_or_none) == ("failed", None)
        assert told(events) == [(guard.__name__, "request", "failed", said)]


def test_a_run_that_is_cancelled_stops_its_watchers() -> None:
    stopped: list[str] = []

    async def check(messages: tuple[Message, ...], _: Context) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append("stopped")

    async def go() -> Any:
        run = Agent(ScriptedModel([[Piece("a"), 1000.0, Piece("b")]]), before_request=Watch(check)).start("Go")
        async for event in run:
            if event.type == "text.delta":
                run.cancel()
        return await run.wait()

    result = run_virtual(go())
    assert (result.status, stopped) == ("cancelled", ["stopped"])
    assert result.messages[-1] == AssistantMessage("a")


def test_what_is_no_guard_is_refused_where_the_agent_is_made() -> None:
    with pytest.raises(ConfigurationError, match="before_request is 1, expected a function"):
        Agent(ScriptedModel([]), before_request=1)  # type: ignore[call-overload]  # pyright: ignore
    with pytest.raises(ConfigurationError, match="a call waits for its guards"):
        Agent(ScriptedModel([]), before_call=[Watch(only_own)])  # type: ignore[list-item]  # pyright: ignore


def test_a_guard_that_answers_no_instead_of_refusing_has_not_passed() -> None:
    ran: list[int] = []

    @tool(effect="write")
    async def pay(won: int) -> str:
        """Pay."""
        ran.append(won)
        return "paid"

    def says(answer: object) -> Any:
        def guard(_subject: object, _context: object) -> object:
            return answer

        return guard

    def make(**guards: Any) -> Agent[Any]:
        return Agent(ScriptedModel([[call("pay", won=1)], "Done."]), tools=[pay], **guards)

    result = asyncio.run(finish(make(before_call=says(False))))[0]
    assert result.calls[0].error == "not run: its guard 'guard' failed"
    assert not ran
    for guards, problem in (
        ({"before_request": says("Hello")}, "it returned str, expected None, a list of messages or Refuse(…)"),
        ({"before_request": says(True)}, "it returned True, expected None, a list of messages or Refuse(…)"),
        ({"after_answer": says(False)}, "it returned False, expected None, another answer or Refuse(…)"),
    ):
        with pytest.raises(GuardFailed) as caught:
            make(**guards).run_sync("Go")
        assert problem in str(caught.value)


def test_a_guard_may_change_an_answer_that_is_true_or_false() -> None:
    def deny(_answer: bool, _context: Context) -> bool:
        return False

    agent = Agent(ScriptedModel(["true"]), output_type=bool, after_answer=deny)
    assert agent.run_sync("Is it?").output is False


def test_a_refusal_for_nobody_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="to is 'modl', expected 'model' or 'user'"):
        Refuse("no", to="modl")  # pyright: ignore[reportArgumentType]  # what is wrong is told at run time, too
