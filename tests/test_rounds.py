"""A run's limits, decisions, retries and endings: whatever ends it, its messages are valid."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from flowkit.agent import Agent, AgentResult
from flowkit.cache import DiskCache
from flowkit.context import CONTEXT, Context
from flowkit.errors import ConfigurationError, DefinitionError, ModelError, ToolError
from flowkit.events import ApprovalAsked, CallStarted, Event, RunFinished, TurnFinished
from flowkit.executor import Approve, Deny
from flowkit.history import mend
from flowkit.journal import Journal
from flowkit.messages import (
    AssistantMessage,
    Image,
    Message,
    RequestedCall,
    SystemMessage,
    Text,
    ToolMessage,
    Usage,
    UserMessage,
)
from flowkit.models.base import Model, NamedTool, RefusalDelta
from flowkit.models.pricing import Price
from flowkit.models.routing import FallbackModel, Router
from flowkit.models.scripted import CUT, Script, ScriptedModel, call
from flowkit.references import ToolCall
from flowkit.runs.limits import Limits, Meter
from flowkit.testing.loop import run_virtual
from flowkit.tools import Needs, tool
from flowkit.web.sse_response import sse


@dataclass(frozen=True)
class Shop:
    customer: str


@tool(effect="read")
async def look(name: str, seconds: float = 0.1) -> str:
    """Look something up."""
    await asyncio.sleep(seconds)
    return f"seen {name}"


def agent_of(turns: Sequence[Script], *tools: Any, price: Price | None = None, **options: Any) -> Agent[str]:
    return Agent(ScriptedModel(turns, price=price), tools=tools, cache=False, **options)


def tool_texts(messages: Sequence[Message]) -> list[str]:
    return [message.text for message in messages if isinstance(message, ToolMessage)]


# Limits


def test_a_limit_on_turns_ends_with_a_valid_history() -> None:
    result = run_virtual(agent_of([[call("look", name="a")]] * 9, look, limits=Limits(turns=2)).run("go"))
    assert (result.status, str(result.error)) == ("limit", "the limit of 2 turns is reached")
    assert tool_texts(result.messages) == ["seen a", "seen a"]
    assert mend(result.messages) == result.messages


def test_an_answer_may_take_what_the_limit_of_the_run_around_leaves() -> None:
    model = ScriptedModel([], price=Price(input=1.0, output=1.0))
    outer = Meter(Limits(tokens=100))
    inner = Meter(Limits(tokens=1000), outer)
    inner.add(model, Usage(30, 10))
    assert inner.get_tokens_left(model) == 60


def test_an_answer_that_broke_off_costs_what_it_said_it_took() -> None:
    model = ScriptedModel([], price=Price(input=1.0, output=1.0))
    meter = Meter(Limits())
    assert meter.add(model, Usage(400_000, 100_000), broke_off=True) == pytest.approx(0.5)  # pyright: ignore[reportUnknownMemberType]  # pytest's own type
    assert meter.add(model, Usage(), broke_off=True) == 0.0


def test_without_a_limit_on_calls_all_are_run() -> None:
    turns: list[Script] = [[call("look", name=str(n)) for n in range(70)], "Done."]
    result = run_virtual(agent_of(turns, look, limits=Limits(calls=None)).run("go"))
    assert tool_texts(result.messages) == [f"seen {n}" for n in range(70)]


def test_calls_over_the_limit_are_not_run() -> None:
    turns: list[Script] = [[call("look", name="a"), call("look", name="b"), call("look", name="c")], "Done."]
    result = run_virtual(agent_of(turns, look, limits=Limits(calls=2)).run("go"))
    assert result.status == "limit"
    assert tool_texts(result.messages) == ["seen a", "seen b", "not run: this run's limit on calls is reached"]


def test_a_limit_on_tokens_shrinks_the_answer_and_then_ends_the_run() -> None:
    model = ScriptedModel([[call("look", name="a"), Usage(60, 10)], [call("look", name="b"), Usage(20, 10)], "Done."])
    result = run_virtual(Agent(model, tools=[look], cache=False, limits=Limits(tokens=100)).run("go"))
    assert result.status == "limit"
    assert [request.max_tokens for request in model.requests] == [100, 30]


def test_a_limit_on_cost_ends_the_run() -> None:
    price = Price(input=1.0, output=1.0)
    turns: list[Script] = [[call("look", name="a"), Usage(600_000, 0)], "Done."]
    result = run_virtual(agent_of(turns, look, price=price, limits=Limits(cost_usd=0.5)).run("go"))
    assert (result.status, result.cost) == ("limit", 0.6)


def test_a_limit_on_cost_shrinks_the_answer_to_what_is_left() -> None:
    model = ScriptedModel([[call("look", name="a"), Usage(0, 3000)], "Done."], price=Price(input=1.0, output=2.0))
    run_virtual(Agent(model, tools=[look], cache=False, limits=Limits(cost_usd=0.01)).run("go"))
    assert [request.max_tokens for request in model.requests] == [5000, 2000]


def test_a_bound_above_what_servers_take_is_not_sent() -> None:
    model = ScriptedModel(["Hi."])
    run_virtual(Agent(model, cache=False, limits=Limits(tokens=200_000)).run("go"))
    assert model.requests[0].max_tokens is None


def test_an_attempt_that_broke_off_without_a_word_on_tokens_leaves_the_cost_known() -> None:
    price = Price(input=1.0, output=1.0)
    broken = ScriptedModel([["Hm", CUT]], name="a", price=price)
    good = ScriptedModel([[call("look", name="a"), Usage(600_000, 0)], "Done."], name="b", price=price)
    agent = Agent(FallbackModel(broken, good), tools=[look], cache=False, limits=Limits(cost_usd=0.5))
    result = run_virtual(agent.run("go"))
    assert (result.status, result.cost) == ("limit", 0.6)


def test_a_limit_on_cost_ends_a_run_whose_cost_is_not_known_any_more() -> None:
    model = ScriptedModel([[call("look", name="a")], "Done."], price=Price(input=1.0, output=1.0))
    agent = Agent(FallbackModel(model), tools=[look], cache=False, limits=Limits(cost_usd=0.5))
    assert "didn't say what it took" in str(run_virtual(agent.run("go")).error)


def test_a_limit_on_cost_is_refused_where_the_price_is_not_known() -> None:
    agent = agent_of(["Hi."], limits=Limits(cost_usd=0.5))
    with pytest.raises(ConfigurationError, match="the price of model 'scripted' isn't known"):
        run_virtual(agent.run("go"))


def test_a_limit_on_time_stops_what_runs() -> None:
    result = run_virtual(
        agent_of([[call("look", name="a", seconds=9)], "Done."], look, limits=Limits(seconds=2)).run("go")
    )
    assert (result.status, str(result.error)) == ("limit", "the limit of 2 seconds is reached")
    assert mend(result.messages) == result.messages
    assert [outcome.state for outcome in result.calls] == ["cancelled"]


# Retries


def test_a_refused_request_is_repeated_after_the_time_that_the_server_asked_for() -> None:
    async def go() -> float:
        loop = asyncio.get_running_loop()
        await agent_of([[ModelError("slow down", status=429, retryable=True, retry_after_s=7)], "Hi."]).run("go")
        return loop.time()

    assert run_virtual(go()) == 7


def test_a_server_that_asks_for_too_long_a_wait_ends_the_run() -> None:
    with pytest.raises(ModelError, match="slow down"):
        run_virtual(agent_of([[ModelError("slow down", retryable=True, retry_after_s=3600)], "Hi."]).run("go"))


def test_an_error_that_will_not_pass_is_raised_at_once_and_leaves_the_conversation_as_it_was() -> None:
    with pytest.raises(ModelError, match="wrong key; the conversation stays as it was") as caught:
        run_virtual(agent_of([[ModelError("wrong key", status=401)], "Hi."]).run("go"))
    result = cast(AgentResult[str], caught.value.result)
    assert result.messages == ()


def test_the_end_of_a_turn_tells_which_model_answered() -> None:
    async def go(model: Model) -> list[str | None]:
        run = Agent(model, cache=False).start("go")
        return [event.model async for event in run if isinstance(event, TurnFinished)]

    busy = ScriptedModel([[ModelError("busy", status=503, retryable=True)]], name="busy")
    broken = ScriptedModel([["Hm", CUT]], name="broken")
    fine = ScriptedModel(["Hi."] * 3, name="fine")
    assert run_virtual(go(fine)) == ["fine"]
    assert run_virtual(go(FallbackModel(busy, fine))) == ["fine"]
    assert run_virtual(go(FallbackModel(broken, Router(lambda messages, data: fine, fine)))) == ["broken", "fine"]


def test_attempts_are_bounded() -> None:
    model = ScriptedModel([["Hi", CUT]] * 9)
    with pytest.raises(ModelError):
        run_virtual(Agent(model, cache=False, attempts=2).run("go"))
    assert len(model.requests) == 2


# What goes into a request


def test_instructions_history_images_and_the_choice_of_tool_reach_the_model() -> None:
    model = ScriptedModel([[call("look", name="a")], "Done."])
    agent = Agent(
        model, tools=[look], cache=False, instructions=lambda ctx: f"Serve {ctx.data}.", tool_choice=NamedTool("look")
    )
    said = (Text("What is this?"), Image("https://example.org/a.png"))
    run_virtual(agent.run(said, data="Ann", history=[{"role": "user", "content": "Hello"}]))
    first, second = model.requests
    assert first.messages == (SystemMessage("Serve Ann."), UserMessage("Hello"), UserMessage(said))
    assert (first.tool_choice, second.tool_choice) == (NamedTool("look"), "auto")


def test_a_hook_may_trim_what_is_sent_and_the_history_stays_whole() -> None:
    model = ScriptedModel([[call("look", name="a")], "Done."])
    agent = Agent(model, tools=[look], cache=False, before_request=lambda messages, _: messages[-2:])
    result = run_virtual(agent.run("go", history=[{"role": "user", "content": str(n)} for n in range(5)]))
    assert [len(request.messages) for request in model.requests] == [2, 2]
    assert len(result.messages) == 9


HALF = "\ud83d"


def test_half_a_character_is_sent_and_kept_as_one_that_stands_for_it(tmp_path: Path) -> None:
    @tool(effect="read", ttl=60)
    def name() -> str:
        return f"file{HALF}"

    @tool(effect="read")
    def names() -> dict[str, str]:
        raise ToolError(f"no {HALF}")

    model = ScriptedModel([[call("name"), call("names")], "Done."])

    async def go() -> tuple[AgentResult[str], list[bytes]]:
        journal, cache = Journal(tmp_path / "runs.db"), DiskCache(tmp_path)
        agent = Agent(model, tools=[name, names], instructions=f"Be {HALF}.", journal=journal, cache=cache)
        run = agent.start(f"go {HALF}", history=[{"role": "user", "content": [{"type": "text", "text": HALF}]}])
        told = [piece async for piece in sse(run)]
        await cache.close()
        journal.close()
        return await run.wait(), told

    result, told = run_virtual(go())
    assert result.output == "Done."
    assert model.requests[1].messages == (
        SystemMessage("Be �."),
        UserMessage((Text("�"),)),
        UserMessage("go �"),
        AssistantMessage(calls=(RequestedCall("call_1", "name", "{}"), RequestedCall("call_2", "names", "{}"))),
        ToolMessage("call_1", "name", "file�"),
        ToolMessage("call_2", "names", "no �", is_error=True),
    )
    assert "file�".encode() in b"".join(told)


def test_a_hook_may_add_instructions() -> None:
    def guard(messages: tuple[Message, ...], _: Context[Any]) -> list[Message]:
        return [SystemMessage("Be kind."), *messages]

    model = ScriptedModel(["Hi."])
    run_virtual(Agent(model, cache=False, before_request=guard).run("go"))
    assert model.requests[0].messages == (SystemMessage("Be kind."), UserMessage("go"))


def test_names_with_a_dot_travel_under_an_alias_and_come_back() -> None:
    @tool(name="calendar.read", effect="read")
    def read() -> str:
        return "free"

    model = ScriptedModel([[call("calendar_read")], "Done."])
    result = run_virtual(Agent(model, tools=[read], cache=False).run("go"))
    assert [spec.name for spec in model.requests[0].tools] == ["calendar_read"]
    assert result.calls[0].call.name == "calendar.read"
    sent = [message for message in model.requests[1].messages if isinstance(message, AssistantMessage)]
    assert sent[0].calls[0].name == "calendar_read"


# Output


class City(BaseModel):
    name: str
    people: int


def test_structured_output_is_validated_and_asked_for_again() -> None:
    model = ScriptedModel(['{"name": "Seoul"}', '```json\n{"name": "Seoul", "people": 9}\n```'])
    result = run_virtual(Agent(model, output_type=City, cache=False).run("go"))
    assert result.output == City(name="Seoul", people=9)
    assert model.requests[0].output_schema is not None
    assert isinstance(asked := model.requests[1].messages[-1], UserMessage)
    assert "people" in str(asked.content)


@pytest.mark.parametrize("answer", ['{"value": [1, 2]}', "[1, 2]", "Here:\n```json\n[1, 2]\n```\nFine?"])
def test_a_type_that_is_no_object_travels_wrapped_and_may_come_bare(answer: str) -> None:
    model = ScriptedModel([answer])
    assert run_virtual(Agent(model, output_type=list[int], cache=False).run("go")).output == [1, 2]
    assert (model.requests[0].output_schema or {})["required"] == ["value"]


def test_an_empty_object_is_no_wrapped_value() -> None:
    model = ScriptedModel(["{}", '{"value": null}'])
    assert run_virtual(Agent(model, output_type=int | None, cache=False).run("go")).output is None
    assert isinstance(asked := model.requests[1].messages[-1], UserMessage)
    assert str(asked.content).endswith('Answer again, only JSON, as {"value": …}.')


def test_a_refusal_is_the_answer_where_text_was_asked_for() -> None:
    assert run_virtual(agent_of([[RefusalDelta("I can't.")]]).run("go")).output == "I can't."


def test_a_refusal_is_not_asked_for_again_as_json() -> None:
    model = ScriptedModel([[RefusalDelta("I can't.")]] * 3)
    with pytest.raises(ModelError, match=r"refused to answer: I can't\."):
        run_virtual(Agent(model, output_type=City, cache=False).run("go"))
    assert len(model.requests) == 1


def test_output_that_stays_invalid_fails_the_run() -> None:
    with pytest.raises(ModelError, match="no valid output after 2 answers"):
        run_virtual(Agent(ScriptedModel(["no"] * 3), output_type=City, cache=False, output_attempts=2).run("go"))


# Approval


@tool(approval=True)
def refund(order_id: str, won: int) -> str:
    """Give money back."""
    return f"refunded {won} for {order_id}"


ASKS: Script = [call("look", name="a"), call("refund", order_id="O1", won=5)]


def test_the_others_run_on_and_the_run_waits_for_a_person() -> None:
    result = run_virtual(agent_of([ASKS], look, refund).run("go"))
    assert result.status == "waiting"
    assert [(p.id, p.name, p.arguments) for p in result.pending] == [
        ("turn/1/call/1", "refund", {"order_id": "O1", "won": 5})
    ]
    assert tool_texts(result.messages) == ["seen a"]


@pytest.mark.parametrize(
    ("decision", "text"),
    [
        (Approve(), "refunded 5 for O1"),
        (
            Approve(arguments={"order_id": "O1", "won": 3}),
            'a person approved this with other arguments, {"order_id":"O1","won":3}:\nrefunded 3 for O1',
        ),
        (Deny("too much"), "too much"),
    ],
)
def test_a_decision_goes_on_from_the_history(decision: Approve | Deny, text: str) -> None:
    async def go() -> AgentResult[str]:
        agent = agent_of([ASKS, "Done."], look, refund)
        waiting = await agent.run("go")
        return await agent.run(history=waiting.messages, decisions={waiting.pending[0].id: decision})

    result = run_virtual(go())
    assert result.output == "Done."
    assert tool_texts(result.messages)[0] == "seen a"
    assert tool_texts(result.messages)[1] == text


def test_a_call_that_was_forced_is_not_forced_again_after_the_decision() -> None:
    model = ScriptedModel([[call("refund", order_id="O1", won=5)], "Done."])
    agent = Agent(model, tools=[refund], cache=False, tool_choice=NamedTool("refund"))

    async def go() -> None:
        waiting = await agent.run("go")
        await agent.run(history=waiting.messages, decisions={waiting.pending[0].id: Approve()})

    run_virtual(go())
    assert [request.tool_choice for request in model.requests] == [NamedTool("refund"), "auto"]


def test_a_call_that_was_forced_is_not_forced_again_after_a_wrong_answer() -> None:
    class City(BaseModel):
        name: str

    model = ScriptedModel([[call("look", name="a")], "Seoul, I think.", '{"name": "Seoul"}'])
    agent = Agent(model, tools=[look], output_type=City, cache=False, tool_choice=NamedTool("look"))
    assert run_virtual(agent.run("go")).output == City(name="Seoul")
    assert [request.tool_choice for request in model.requests] == [NamedTool("look"), "auto", "auto"]


def test_a_decision_with_wrong_arguments_leaves_the_call_waiting_and_the_others_decided() -> None:
    turns: list[Script] = [
        [call("refund", order_id="O1", won=5), call("refund", order_id="O2", won=6)],
        "Done.",
    ]

    async def go() -> tuple[AgentResult[str], AgentResult[str]]:
        agent = agent_of(turns, refund)
        waiting = await agent.run("go")
        first, second = (pending.id for pending in waiting.pending)
        wrong = {first: Approve(arguments={"amount": 3}), second: Approve()}
        still = await agent.run(history=waiting.messages, decisions=wrong)
        return still, await agent.run(history=still.messages, decisions={first: Deny("no")})

    still, done = run_virtual(go())
    assert (still.status, len(still.pending)) == ("waiting", 1)
    assert "'amount'" in str(still.error)
    assert tool_texts(done.messages) == ["no", "refunded 6 for O2"]


def test_a_new_message_denies_what_is_pending() -> None:
    async def go() -> AgentResult[str]:
        agent = agent_of([ASKS, "All right."], look, refund)
        waiting = await agent.run("go")
        return await agent.run("forget it", history=waiting.messages)

    result = run_virtual(go())
    assert result.calls == ()
    assert "denied" in tool_texts(result.messages)[1]


def test_a_decision_can_be_made_while_the_run_goes_on() -> None:
    async def go() -> AgentResult[str]:
        agent = agent_of(
            [[call("look", name="a", seconds=5), call("refund", order_id="O1", won=5)], "Done."], look, refund
        )
        run = agent.start("go")
        async for event in run:
            if isinstance(event, ApprovalAsked):
                run.decide(event.call, Approve(by="Kim"))
        return await run.wait()

    assert run_virtual(go()).output == "Done."


def test_a_rule_asks_only_where_it_says_so() -> None:
    @tool(approval=lambda arguments, _: arguments["won"] > 50_000)
    def pay(won: int) -> str:
        return "paid"

    result = run_virtual(agent_of([[call("pay", won=10), call("pay", won=90_000)]], pay).run("go"))
    assert [pending.arguments for pending in result.pending] == [{"won": 90_000}]
    assert tool_texts(result.messages) == ["paid"]


# Cancellation


def test_cancelling_stops_the_stream_and_the_tools_and_leaves_a_valid_history() -> None:
    async def go() -> tuple[AgentResult[str], list[Event]]:
        run = agent_of([["Let me see. ", call("look", name="a", seconds=60), 30.0, "…"]], look).start("go")
        events: list[Event] = []
        async for event in run:
            events.append(event)
            if isinstance(event, CallStarted):
                run.cancel()
        return await run.wait(), events

    result, events = run_virtual(go())
    assert result.status == "cancelled"
    assert result.messages == (UserMessage("go"), AssistantMessage("Let me see. "))
    assert isinstance(events[-1], RunFinished)
    assert events[-1].t < 0.1


def test_a_write_that_had_started_is_in_doubt() -> None:
    @tool
    async def pay() -> str:
        await asyncio.sleep(60)
        return "paid"

    async def go() -> AgentResult[str]:
        run = agent_of([[call("pay")], "Done."], pay).start("go")
        async for event in run:
            if isinstance(event, CallStarted):
                run.cancel()
        return await run.wait()

    result = run_virtual(go())
    assert result.status == "in_doubt"
    assert "don't repeat it" in tool_texts(result.messages)[0]


def test_leaving_the_stream_cancels_the_run_and_waits_for_it() -> None:
    async def go() -> AgentResult[str]:
        async with agent_of([["Hi. ", 60.0, "…"]]).stream("go") as run:
            async for event in run:
                if event.type == "text.delta":
                    break
        assert run.is_done
        return await run.wait()

    assert run_virtual(go()).status == "cancelled"


@given(st.integers(0, 30))
def test_for_every_moment_of_cancellation_the_history_is_valid(tenths: int) -> None:
    turns: list[Script] = [
        ["Hm. ", 0.3, call("look", name="a", seconds=0.7), call("refund", order_id="O", won=1), 0.2, "…"],
        [call("look", name="b")],
        "Done.",
    ]

    async def go() -> AgentResult[str]:
        run = agent_of(turns, look, refund).start("go")
        asyncio.get_running_loop().call_later(tenths / 10, run.cancel)
        return await run.wait()

    result = run_virtual(go())
    if result.status == "waiting":
        assert [pending.name for pending in result.pending] == ["refund"]
    else:
        assert mend(result.messages) == result.messages


# Needs and prefetch


@tool(effect="read")
async def get_order(order_id: str | None = None, ctx: Context[Shop] = CONTEXT) -> dict[str, str]:
    """Find an order."""
    await asyncio.sleep(1)
    return {"id": order_id or f"latest of {ctx.data.customer}", "city": "Busan"}


@tool(effect="read")
async def quote(express: bool = False, order: dict[str, str] = Needs(get_order)) -> str:
    """Say what shipping costs."""
    return f"{order['id']} to {order['city']}: {5000 if express else 3000}"


def test_what_a_tool_needs_runs_before_it_and_is_hidden_from_the_model() -> None:
    model = ScriptedModel([[call("quote", express=True, order_id="O7")], "Done."])
    result = run_virtual(Agent(model, tools=[quote], cache=False).run("go", data=Shop("Ann")))
    properties: Any = model.requests[0].tools[0].parameters["properties"]
    assert set(properties) == {"express", "order_id"}
    assert tool_texts(result.messages) == ["O7 to Busan: 5000"]


def test_a_prefetched_read_is_joined_by_the_call_that_the_model_makes() -> None:
    async def go() -> tuple[AgentResult[str], float]:
        loop = asyncio.get_running_loop()
        agent = agent_of([[0.8, call("quote")], "Done."], get_order, quote, prefetch=[get_order.call(), look_call()])
        result = await agent.run("go", data=Shop("Ann"))
        return result, loop.time()

    def look_call() -> Any:
        return get_order.call(order_id="never asked for")

    result, seconds = run_virtual(go())
    assert tool_texts(result.messages) == ["latest of Ann to Busan: 3000"]
    assert seconds == pytest.approx(1.0)  # pyright: ignore[reportUnknownMemberType]  # pytest's own type
    assert result.prefetched == (1, 2)


def test_a_prefetch_may_be_a_function_of_context_and_message() -> None:
    def guess(_: Context[Any], message: str) -> list[ToolCall]:
        return [look.call(message.split()[-1])]

    agent = agent_of([[call("look", name="tea")], "Done."], look, prefetch=guess)
    assert run_virtual(agent.run("find tea")).prefetched == (1, 1)


async def guess_slowly(context: Context[Any], message: str) -> list[ToolCall]:
    await asyncio.sleep(1)
    return [look.call(message.split()[-1], seconds=1)]


def test_a_function_that_names_reads_slowly_runs_beside_the_request() -> None:
    async def go() -> tuple[AgentResult[str], float]:
        agent = agent_of([[1.5, call("look", name="tea", seconds=1)], "Done."], look, prefetch=guess_slowly)
        return await agent.run("find tea"), asyncio.get_running_loop().time()

    result, seconds = run_virtual(go())
    assert result.prefetched == (1, 1)
    assert seconds == pytest.approx(2.0)  # pyright: ignore[reportUnknownMemberType]  # pytest's own type


@pytest.mark.parametrize("turn", ["Hi.", [0.5, "Hi."], [1.0, "Hi."], [call("look", name="tea", seconds=3)]])
def test_a_function_that_names_reads_too_late_is_dropped_with_its_turn(turn: Script) -> None:
    result = run_virtual(agent_of([turn, "Hi."], look, prefetch=guess_slowly).run("find milk"))
    assert result.output == "Hi."
    assert result.prefetched[0] == 0


def test_a_function_that_fails_to_name_reads_fails_the_run() -> None:
    async def guess(_: Context[Any], message: str) -> list[ToolCall]:
        raise KeyError(message)

    with pytest.raises(KeyError, match="tea"):
        run_virtual(agent_of([[1.0, "Hi."]], look, prefetch=guess).run("tea"))
    with pytest.raises(ModelError, match="busy"):
        run_virtual(agent_of([[1.0, ModelError("busy")]], look, prefetch=guess).run("tea"))


@given(st.integers(0, 30))
def test_for_every_moment_of_cancellation_the_function_that_names_reads_ends_too(tenths: int) -> None:
    async def go() -> AgentResult[str]:
        run = agent_of([[1.5, call("look", name="tea", seconds=1)], "Done."], look, prefetch=guess_slowly).start("tea")
        asyncio.get_running_loop().call_later(tenths / 10, run.cancel)
        result = await run.wait()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    assert run_virtual(go()).status in ("cancelled", "done")


def test_only_reads_may_be_prefetched() -> None:
    with pytest.raises(DefinitionError, match="prefetch names 'refund'"):
        agent_of(["Hi."], refund, prefetch=[refund.call(order_id="O1", won=1)])


def test_a_function_may_prefetch_only_reads_too() -> None:
    ran: list[str] = []

    @tool
    def order(name: str) -> str:
        ran.append(name)
        return name

    def guess(_: Context[Any], message: str) -> list[ToolCall]:
        return [order.call(message)]

    with pytest.raises(DefinitionError, match="prefetch names 'order'"):
        run_virtual(agent_of([[1.0, "Hi."]], order, prefetch=guess).run("tea"))
    assert ran == []


def test_a_prefetched_call_counts_as_asked_for_when_the_model_spells_its_default() -> None:
    turns: list[Script] = [[call("get_order", order_id=None)], "Done."]
    agent = agent_of(turns, get_order, prefetch=[get_order.call()])
    assert run_virtual(agent.run("go", data=Shop("Ann"))).prefetched == (1, 1)


# Failing tools


def test_a_tool_error_reaches_the_model_word_for_word_and_others_do_not() -> None:
    @tool(effect="read")
    def stock(item: str) -> int:
        if item == "tea":
            raise ToolError("sold out; offer P002")
        raise RuntimeError("password=hunter2")

    result = run_virtual(agent_of([[call("stock", item="tea"), call("stock", item="x")], "Done."], stock).run("go"))
    texts = tool_texts(result.messages)
    assert texts[0] == "sold out; offer P002"
    assert texts[1].startswith("failed (ref ")
    assert "hunter2" not in texts[1]


def test_an_undeclared_effect_is_told_at_the_end_with_what_it_cost() -> None:
    @tool
    def stock(item: str) -> int:
        return len(item)

    result = run_virtual(agent_of([[call("stock", item="tea"), 0.8, "…"], "Done."], stock).run("go"))
    assert result.tips == (
        "stock: its effect isn't declared, so it was treated as a write; as a read it would have started 0.8 s sooner",
    )
