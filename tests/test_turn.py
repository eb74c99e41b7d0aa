"""What runs while the model still speaks, and what has to wait."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from flowkit.agent import Agent, AgentResult
from flowkit.errors import ModelError
from flowkit.events import (
    CallCancelled,
    CallDenied,
    CallFailed,
    CallFinished,
    CallInDoubt,
    CallNew,
    CallSkipped,
    CallStarted,
    CallVoid,
    Event,
    TextDelta,
    ThinkingDelta,
    TurnStarted,
)
from flowkit.messages import AssistantMessage, ToolMessage
from flowkit.models.base import CallDelta, CallDone
from flowkit.models.scripted import CUT, Script, ScriptedModel, call, finish, raw_call, thinking
from flowkit.testing.loop import run_virtual
from flowkit.tools import tool


@tool(effect="read")
async def look(name: str, seconds: float = 0.3) -> str:
    """Look something up."""
    await asyncio.sleep(seconds)
    return f"seen {name}"


def run(
    turns: Sequence[Script], tools: Sequence[Callable[..., Any]], **options: Any
) -> tuple[AgentResult[str], list[Event]]:
    """The result and the events of one run in virtual time."""

    async def go() -> tuple[AgentResult[str], list[Event]]:
        agent = Agent(ScriptedModel(turns), tools=tools, cache=False, **options)
        started = agent.start("go")
        seen = [event async for event in started]
        return await started.wait(), seen

    return run_virtual(go())


def started_at(events: Sequence[Event]) -> dict[str, float]:
    return {event.call: round(event.t, 3) for event in events if isinstance(event, CallStarted)}


def test_a_read_starts_when_its_arguments_close_not_when_the_turn_ends() -> None:
    result, events = run(
        [
            [
                "One moment.",
                call("look", name="a"),
                0.15,
                call("look", name="b"),
                0.15,
                call("look", name="c"),
                0.5,
                "…",
            ],
            "Done.",
        ],
        [look],
    )
    assert started_at(events) == {"turn/1/call/0": 0.0, "turn/1/call/1": 0.15, "turn/1/call/2": 0.3}
    assert all(outcome.early for outcome in result.calls)
    assert events[-1].t == pytest.approx(0.8)  # pyright: ignore[reportUnknownMemberType]  # pytest's own type


def test_nothing_starts_early_when_that_is_turned_off() -> None:
    _, events = run([[call("look", name="a"), 0.5, "…"], "Done."], [look], early=False)
    assert started_at(events) == {"turn/1/call/0": 0.5}


def test_a_write_waits_for_the_end_of_the_turn() -> None:
    @tool
    def order(name: str) -> str:
        return name

    _, events = run([[call("order", name="a"), call("look", name="b"), 0.4, "…"], "Done."], [order, look])
    assert started_at(events) == {"turn/1/call/1": 0.0, "turn/1/call/0": 0.4}


def test_a_read_does_not_overtake_an_earlier_write_on_its_resource() -> None:
    order: list[str] = []

    @tool(resource="stock:{item}")
    def take(item: str) -> str:
        order.append("take")
        return item

    @tool(effect="read", resource="stock:{item}")
    def count(item: str) -> str:
        order.append("count")
        return item

    run([[call("take", item="tea"), call("count", item="tea"), 0.4, "…"], "Done."], [take, count])
    assert order == ["take", "count"]


def test_a_read_overtakes_an_earlier_write_on_another_resource() -> None:
    order: list[str] = []

    @tool(resource="stock:{item}")
    def take(item: str) -> str:
        order.append("take")
        return item

    @tool(effect="read", resource="price:{item}")
    def price(item: str) -> str:
        order.append("price")
        return item

    run([[call("take", item="tea"), call("price", item="tea"), 0.4, "…"], "Done."], [take, price])
    assert order == ["price", "take"]


def test_results_stand_in_the_order_of_the_calls_whichever_ended_first() -> None:
    result, _ = run([[call("look", name="a", seconds=0.9), call("look", name="b", seconds=0.1)], "Done."], [look])
    assert [message.text for message in result.messages if isinstance(message, ToolMessage)] == ["seen a", "seen b"]


def test_two_rounds_of_calls_and_then_an_answer() -> None:
    result, events = run([[call("look", name="a")], ["So… ", call("look", name="b")], "Done."], [look])
    assert result.output == "Done."
    assert [event.turn for event in events if isinstance(event, TurnStarted)] == [1, 2, 3]
    assert [outcome.value for outcome in result.calls] == ["seen a", "seen b"]


def test_an_unknown_tool_and_wrong_arguments_are_results_and_the_run_goes_on() -> None:
    result, _ = run(
        [
            [call("lok", name="a"), call("look", nam="b"), raw_call("look", '{"name": '), call("look", name="c")],
            "Done.",
        ],
        [look],
    )
    texts = [message.text for message in result.messages if isinstance(message, ToolMessage)]
    assert texts[0] == "there is no tool 'lok'; did you mean 'look'?"
    assert "did you mean 'name'?" in texts[1]
    assert texts[2].startswith("not run: ")
    assert texts[3] == "seen c"
    assert result.status == "done"
    asked = next(message for message in result.messages if isinstance(message, AssistantMessage))
    assert asked.calls[2].arguments == "{}"


def test_an_early_run_is_dropped_when_the_sealed_arguments_differ() -> None:
    ran: list[str] = []

    @tool(effect="read")
    async def find(name: str) -> str:
        ran.append(name)
        await asyncio.sleep(0.3)
        return name

    # The placeholder looks complete; the wire's own word then says something else.
    wire = [CallDelta(0, id="a", name="find", arguments='{"name": "x"}'), 0.1, CallDone(0, '{"name": "y"}')]
    result, _ = run([wire, "Done."], [find])
    assert ran == ["x", "y"]
    assert [outcome.value for outcome in result.calls] == ["y"]


def test_a_broken_stream_is_asked_for_again_and_keeps_what_its_reads_found() -> None:
    runs: list[str] = []

    @tool(effect="read")
    async def find(name: str) -> str:
        runs.append(name)
        await asyncio.sleep(0.1)
        return f"found {name}"

    result, events = run([["Let me see", call("find", name="a"), 0.2, CUT], [call("find", name="a")], "Done."], [find])
    assert result.output == "Done."
    assert runs == ["a"]
    assert [event.attempt for event in events if isinstance(event, TurnStarted)] == [1, 2, 1]
    assert [event.call for event in events if isinstance(event, CallVoid)] == ["turn/1/call/0"]
    assert [m.text for m in result.messages if isinstance(m, AssistantMessage)] == ["", "Done."]


def test_a_broken_stream_never_starts_a_write() -> None:
    written: list[str] = []

    @tool
    def order(name: str) -> str:
        written.append(name)
        return name

    with pytest.raises(ModelError):
        run_virtual(Agent(ScriptedModel([[call("order", name="a"), CUT]] * 3), tools=[order], cache=False).run("go"))
    assert written == []


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_calls_of_a_turn_that_was_cut_off_are_void(reason: Any) -> None:
    result, events = run([[call("look", name="a"), finish(reason)]], [look])
    assert [event.call for event in events if isinstance(event, CallVoid)] == ["turn/1/call/0"]
    assert not [event for event in events if isinstance(event, CallFinished)]
    assert result.status in ("limit", "failed")


def test_text_and_thinking_are_told_the_moment_they_arrive() -> None:
    _, events = run([[thinking("hm"), 0.2, "One. ", 0.2, "Two."]], [])
    texts = [(round(event.t, 3), event.text) for event in events if isinstance(event, TextDelta)]
    assert texts == [(0.2, "One. "), (0.4, "Two.")]


def test_thinking_between_tags_is_thinking_when_asked_for() -> None:
    turns: list[Script] = [["<thi", "nk>hm</think>", "Hello."]]
    result, events = run(turns, [], think_tags=True)
    assert result.output == "Hello."
    assert [event.text for event in events if isinstance(event, ThinkingDelta)] == ["hm"]
    assert run(turns, [])[0].output == "<think>hm</think>Hello."


def test_every_call_that_was_opened_is_closed_before_the_end() -> None:
    for turns in (
        [[call("look", name="a"), call("nope"), call("look", name="b")], "Done."],
        [[call("look", name="a"), CUT], [call("look", name="b")], "Done."],
        [[call("look", name="a"), finish("length")]],
    ):
        _, events = run(turns, [look])
        opened = {event.call for event in events if isinstance(event, CallNew)}
        ends = (CallFinished, CallFailed, CallSkipped, CallDenied, CallCancelled, CallVoid, CallInDoubt)
        closed = [event.call for event in events if isinstance(event, ends)]
        assert sorted(closed) == sorted(opened)


def test_one_call_refers_to_another_of_the_same_turn() -> None:
    @tool(effect="read")
    def get_order(order_id: str) -> dict[str, dict[str, str]]:
        return {"address": {"city": f"Busan for {order_id}"}}

    @tool(effect="read")
    def quote(city: str) -> str:
        return f"3000 to {city}"

    turns: list[Script] = [
        [
            call("get_order", order_id="O1"),
            call("quote", city={"from_call": "get_order", "path": "/address/city"}),
            call("get_order", order_id="O2"),
            call("quote", city={"from_call": "get_order_2", "path": "/address/city"}),
            call("quote", city={"from_call": "quote_3"}),
            call("quote", city={"literal": "Seoul"}),
        ],
        "Done.",
    ]
    result, _ = run(turns, [get_order, quote], references=True)
    texts = [message.text for message in result.messages if isinstance(message, ToolMessage)]
    assert texts[1] == "3000 to Busan for O1"
    assert texts[3] == "3000 to Busan for O2"
    assert "this call itself" in texts[4]
    assert texts[5] == "3000 to Seoul"


def test_a_path_that_a_result_cannot_have_is_told_before_anything_runs() -> None:
    @dataclass
    class Order:
        city: str

    @tool(effect="read")
    def get_order() -> Order:
        return Order("Busan")

    turns: list[Script] = [[call("get_order"), call("look", name={"from_call": "get_order", "path": "/town"})], "Done."]
    result, _ = run(turns, [get_order, look], references=True)
    texts = [message.text for message in result.messages if isinstance(message, ToolMessage)]
    assert "'town'" in texts[1]
    assert "'city'" in texts[1]
    assert result.calls[1].started_s is None


def test_a_result_that_looks_like_a_reference_stays_data() -> None:
    @tool(effect="read")
    def trick() -> dict[str, str]:
        return {"from_call": "trick", "path": ""}

    @tool(effect="read")
    def show(value: dict[str, str]) -> str:
        return str(value)

    result, _ = run(
        [[call("trick"), call("show", value={"from_call": "trick"})], "Done."], [trick, show], references=True
    )
    texts = [message.text for message in result.messages if isinstance(message, ToolMessage)]
    assert texts[1] == "{'from_call': 'trick', 'path': ''}"


def test_a_long_result_is_cut_and_can_be_read_on() -> None:
    @tool(effect="read", max_result_chars=100)
    def log() -> str:
        return "line " * 100

    turns: list[Script] = [[call("log")], [call("read_result", id="call_1", offset=100)], "Done."]
    result, _ = run(turns, [log])
    texts = [message.text for message in result.messages if isinstance(message, ToolMessage)]
    assert "read_result" in texts[0]
    assert texts[1].startswith("line line")
    assert result.status == "done"


def test_a_page_of_a_long_result_is_not_cut_again() -> None:
    @tool(effect="read")
    def log() -> str:
        return "x" * 50_000

    turns: list[Script] = [[call("log")], [call("read_result", id="call_1", offset=20_000)], "Done."]
    result, _ = run(turns, [log])
    texts = [message.text for message in result.messages if isinstance(message, ToolMessage)]
    assert texts[1].endswith(
        '[cut: characters 20000 to 40000 of 50000; continue with read_result(id="call_1", offset=40000), if you have that tool]'
    )


def test_a_sealed_read_of_a_broken_turn_that_nobody_asks_for_again_is_stopped_with_the_turn() -> None:
    wire = [CallDelta(0, id="a", name="look"), CallDone(0, '{"name": "a", "seconds": 60}'), 0.1, CUT]
    _, events = run([wire, [call("look", name="b")], [1.0, "Done."]], [look])
    assert [event.reason for event in events if isinstance(event, CallCancelled)] == ["its turn broke off"]


def test_a_sealed_read_of_a_broken_turn_is_joined_when_it_is_asked_for_again() -> None:
    runs: list[str] = []

    @tool(effect="read")
    async def find(name: str) -> str:
        runs.append(name)
        await asyncio.sleep(3)
        return name

    wire = [CallDelta(0, id="a", name="find"), CallDone(0, '{"name": "a"}'), 0.1, CUT]
    result, _ = run([wire, [call("find", name="a")], "Done."], [find])
    assert (result.output, runs) == ("Done.", ["a"])
