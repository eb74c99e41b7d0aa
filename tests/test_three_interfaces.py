"""What an agent does is the same over Chat Completions, Responses and Messages: one set of tests for all three.

Each runs against a scripted server of its own process, whose bodies are written by hand in the API's own events.
"""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from flowkit import (
    Agent,
    AnthropicModel,
    Audio,
    Budget,
    ConfigurationError,
    Context,
    File,
    GuardRefused,
    Image,
    Journal,
    Message,
    OpenAIModel,
    Price,
    Refuse,
    Text,
    ToolCall,
    Watch,
    tool,
)
from flowkit.codec import JSON
from flowkit.events import CallStarted, GuardDecided, OutputPartial, TextDelta
from flowkit.messages import ToolMessage
from tests.bodies import DONE, chunk, event
from tests.server import Reply, ScriptedServer

PNG = "data:image/png;base64,iVBORw0KGgo="
PDF = "data:application/pdf;base64,JVBERi0="
Model = OpenAIModel | AnthropicModel
PRICE = Price(input=1.0, output=1.0)


@dataclass(frozen=True)
class Interface:
    """One API: a model that speaks it, and bodies in it."""

    name: str
    make: Callable[[str], Model]
    text: Callable[[Sequence[str]], list[bytes]]
    """The events of an answer in these pieces; each costs 1,000,000 tokens in all."""
    call: Callable[[str, Sequence[str]], list[bytes]]
    """The events of a call, its arguments in these pieces."""
    said: Callable[[dict[str, Any]], Any]
    """What the last message of the user says in a request."""
    schema: Callable[[dict[str, Any]], Any]
    """The schema of the answer in a request."""


def _chat_call(name: str, pieces: Sequence[str]) -> list[bytes]:
    head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
    return [
        chunk({"tool_calls": [head]}),
        *(chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in pieces),
        chunk({}, "tool_calls", usage={"prompt_tokens": 1_000_000, "completion_tokens": 0}),
        DONE,
    ]


def _chat_text(pieces: Sequence[str]) -> list[bytes]:
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0}
    return [*(chunk({"content": piece}) for piece in pieces), chunk({}, "stop", usage=usage), DONE]


def _responses_end() -> bytes:
    usage = {"input_tokens": 1_000_000, "output_tokens": 0}
    response: dict[str, Any] = {"status": "completed", "output": [], "usage": usage}
    return event({"type": "response.completed", "response": response})


def _responses_text(pieces: Sequence[str]) -> list[bytes]:
    item: dict[str, JSON] = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
    part = {"output_index": 0, "item_id": "msg_1", "content_index": 0}
    whole = {**item, "content": [{"type": "output_text", "text": "".join(pieces)}]}
    return [
        event({"type": "response.output_item.added", "output_index": 0, "item": item}),
        *(event({"type": "response.output_text.delta", **part, "delta": piece}) for piece in pieces),
        event({"type": "response.output_item.done", "output_index": 0, "item": whole}),
        _responses_end(),
    ]


def _responses_call(name: str, pieces: Sequence[str]) -> list[bytes]:
    item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": name, "arguments": ""}
    delta = {"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "fc_1"}
    whole = {**item, "arguments": "".join(pieces)}
    return [
        event({"type": "response.output_item.added", "output_index": 0, "item": item}),
        *(event({**delta, "delta": piece}) for piece in pieces),
        event({"type": "response.output_item.done", "output_index": 0, "item": whole}),
        _responses_end(),
    ]


def _anthropic(block: dict[str, Any], deltas: Sequence[dict[str, Any]], stop: str) -> list[bytes]:
    message: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "usage": {"input_tokens": 1_000_000},
    }
    return [
        event({"type": "message_start", "message": message}),
        event({"type": "content_block_start", "index": 0, "content_block": block}),
        *(event({"type": "content_block_delta", "index": 0, "delta": delta}) for delta in deltas),
        event({"type": "content_block_stop", "index": 0}),
        event({"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 0}}),
        event({"type": "message_stop"}),
    ]


def _anthropic_text(pieces: Sequence[str]) -> list[bytes]:
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return _anthropic({"type": "text", "text": ""}, deltas, "end_turn")


def _anthropic_call(name: str, pieces: Sequence[str]) -> list[bytes]:
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    return _anthropic({"type": "tool_use", "id": "call_1", "name": name, "input": {}}, deltas, "tool_use")


def _openai(api: Any) -> Callable[[str], Model]:
    return lambda url: OpenAIModel("m", base_url=url, api_key="sk-1", max_retries=0, api=api, price=PRICE)


INTERFACES = [
    Interface(
        "chat",
        _openai("chat"),
        _chat_text,
        _chat_call,
        lambda body: body["messages"][-1]["content"],
        lambda body: body["response_format"]["json_schema"]["schema"],
    ),
    Interface(
        "responses",
        _openai("responses"),
        _responses_text,
        _responses_call,
        lambda body: body["input"][-1]["content"],
        lambda body: body["text"]["format"]["schema"],
    ),
    Interface(
        "anthropic",
        lambda url: AnthropicModel("claude-sonnet-4-5", base_url=url, api_key="sk-1", max_retries=0, price=PRICE),
        _anthropic_text,
        _anthropic_call,
        lambda body: body["messages"][-1]["content"],
        lambda body: body["output_config"]["format"]["schema"],
    ),
]
for_each_interface = pytest.mark.parametrize("api", INTERFACES, ids=[interface.name for interface in INTERFACES])


def reply(pieces: Sequence[bytes | float]) -> Reply:
    return Reply(tuple(pieces))


def cut(text: str, size: int = 4) -> list[str]:
    return [text[place : place + size] for place in range(0, len(text), size)]


async def follow(agent: Agent[Any], message: Any = "Go", **options: Any) -> tuple[Any, list[Any]]:
    run = agent.start(message, **options)
    return await run.wait(), run.log.events


def get_partials(events: Sequence[Any]) -> list[JSON]:
    return [event.output for event in events if isinstance(event, OutputPartial)]


@tool(effect="read")
async def look(order: str) -> str:
    """Look an order up."""
    return f"order {order}"


@tool(effect="write")
async def refund(order: str) -> str:
    """Give money back."""
    return f"money back for {order}"


class Line(BaseModel):
    name: str
    won: int


class Bill(BaseModel):
    title: str
    lines: list[Line] = []


class Question(BaseModel):
    text: str


# Media


@for_each_interface
def test_images_and_files_go_out_as_the_api_takes_them(api: Interface) -> None:
    said = [Text("What is this?"), Image(PNG), Image("https://example.com/cup.png"), File("bill.pdf", data_url=PDF)]
    with ScriptedServer([reply(api.text(["A cup."]))]) as server:
        result, _ = asyncio.run(follow(Agent(api.make(server.base_url)), said))
        sent = api.said(server.requests[0].body)
    assert result.output == "A cup."
    kinds = {
        "chat": ["text", "image_url", "image_url", "file"],
        "responses": ["input_text", "input_image", "input_image", "input_file"],
        "anthropic": ["text", "image", "image", "document"],
    }
    assert [part["type"] for part in sent] == kinds[api.name]
    text = json.dumps(sent)
    assert "iVBORw0KGgo=" in text
    assert "https://example.com/cup.png" in text
    assert "JVBERi0=" in text


@for_each_interface
def test_sound_goes_where_it_is_heard_and_is_refused_by_name_elsewhere(api: Interface) -> None:
    said = [Text("Listen."), Audio.of(b"RIFF....WAVE")]
    with ScriptedServer([reply(api.text(["A bell."]))] * 2) as server:
        agent = Agent(api.make(server.base_url))
        if api.name == "chat":
            assert agent.run_sync(said).output == "A bell."
            assert api.said(server.requests[0].body)[1]["input_audio"]["format"] == "wav"
        else:
            with pytest.raises(ConfigurationError, match=r"audio/wav can't be sent: .*api='chat'"):
                agent.run_sync(said)
            assert server.requests == []


@for_each_interface
def test_what_an_image_is_asked_with_stays_in_the_conversation(api: Interface) -> None:
    with ScriptedServer([reply(api.text(["A cup."])), reply(api.text(["Blue."]))]) as server:
        agent = Agent(api.make(server.base_url))
        first = agent.run_sync([Text("What is this?"), Image(PNG)])
        agent.run_sync("What colour?", history=first.messages)
        assert "iVBORw0KGgo=" in json.dumps(server.requests[1].body)


# Partial answers, output tools, several outputs


@for_each_interface
def test_a_typed_answer_grows_and_ends_as_the_whole(api: Interface) -> None:
    text = '{"title": "Café", "lines": [{"name": "cup", "won": 9000}, {"name": "pot", "won": 12000}]}'
    with ScriptedServer([reply(api.text(cut(text)))]) as server:
        result, events = asyncio.run(follow(Agent(api.make(server.base_url), output_type=Bill)))
        assert api.schema(server.requests[0].body)["properties"].keys() == {"title", "lines"}
    told = get_partials(events)
    assert result.output.lines[1].won == 12000
    assert told[-1] == result.output.model_dump()
    assert {"title": "Café"} in told
    shown = [line.get("won") for partial in told for line in read_lines(partial)]
    assert set(shown) <= {None, 9000, 12000}, "a number that still grows is never shown"


def read_lines(partial: JSON) -> list[dict[str, JSON]]:
    lines = partial.get("lines") if isinstance(partial, dict) else None
    return [line for line in lines if isinstance(line, dict)] if isinstance(lines, list) else []


@for_each_interface
def test_fences_and_thinking_around_a_typed_answer_are_passed_over(api: Interface) -> None:
    text = '<think>a bill, {maybe}</think>\nHere:\n```json\n{"title": "Tea", "lines": []}\n```'
    with ScriptedServer([reply(api.text(cut(text)))]) as server:
        result, events = asyncio.run(follow(Agent(api.make(server.base_url), output_type=Bill)))
    assert result.output == Bill(title="Tea")
    told = get_partials(events)
    assert told[-1] == {"title": "Tea", "lines": []}
    titles = [partial["title"] for partial in told if isinstance(partial, dict) and "title" in partial]
    assert all("Tea".startswith(str(title)) for title in titles)


@for_each_interface
def test_an_output_tools_arguments_grow_and_its_result_ends_the_run(api: Interface) -> None:
    @tool(effect="read")
    async def bill(title: str, won: int) -> Line:
        """Write the bill."""
        return Line(name=title.upper(), won=won)

    with ScriptedServer([reply(api.call("bill", cut('{"title": "tea set", "won": 9000}')))]) as server:
        result, events = asyncio.run(follow(Agent(api.make(server.base_url), output_tool=bill)))
        assert len(server.requests) == 1
    assert result.output == Line(name="TEA SET", won=9000)
    told = get_partials(events)
    assert {"title": "tea set"} in told
    assert told[-1] == {"title": "tea set", "won": 9000}


@for_each_interface
@pytest.mark.parametrize(
    ("text", "output"),
    [
        ('{"value": {"bill": {"title": "Tea", "lines": []}}}', Bill(title="Tea")),
        ('{"value": {"question": {"text": "Which?"}}}', Question(text="Which?")),
    ],
)
def test_the_model_chooses_between_outputs_by_name(api: Interface, text: str, output: BaseModel) -> None:
    with ScriptedServer([reply(api.text(cut(text)))]) as server:
        agent = Agent(api.make(server.base_url), output_type={"bill": Bill, "question": Question})
        result, events = asyncio.run(follow(agent))
        schema = json.dumps(api.schema(server.requests[0].body))
        assert '"bill"' in schema
        assert '"question"' in schema
    assert (result.output, result.output_name) == (output, type(output).__name__.lower())
    assert get_partials(events)[-1] == {result.output_name: output.model_dump()}


# Guards


@for_each_interface
def test_a_request_is_refused_before_it_goes_out_and_an_answer_is_changed(api: Interface) -> None:
    def polite(messages: tuple[Message, ...], _: Context) -> Refuse | None:
        return Refuse("Please be polite.") if "idiot" in str(messages[-1]) else None

    def hide(answer: str, _: Context) -> str:
        return answer.replace("4242", "****")

    with ScriptedServer([reply(api.text(["It ends in 4242."]))]) as server:
        agent = Agent(api.make(server.base_url), before_request=polite, after_answer=hide)
        with pytest.raises(GuardRefused, match="Please be polite"):
            agent.run_sync("You idiot.")
        assert server.requests == []
        assert agent.run_sync("Which card?").output == "It ends in ****."


@for_each_interface
def test_a_call_is_refused_or_changed_and_the_model_reads_it(api: Interface) -> None:
    def own(call: ToolCall, context: Context) -> Refuse | dict[str, object] | None:
        return Refuse("not this customer's") if call.arguments["order"] == "O2" else {"order": "O1-a"}

    script = [
        reply(api.call("refund", cut('{"order": "O2"}'))),
        reply(api.call("refund", cut('{"order": "O1"}'))),
        reply(api.text(["Done."])),
    ]
    with ScriptedServer(script) as server:
        result, events = asyncio.run(follow(Agent(api.make(server.base_url), tools=[refund], before_call=own)))
        assert "refused: not this customer's" in json.dumps(server.requests[1].body)
    assert [message.text for message in result.messages if isinstance(message, ToolMessage)] == [
        "refused: not this customer's",
        "money back for O1-a",
    ]
    verdicts = [event.verdict for event in events if isinstance(event, GuardDecided)]
    assert verdicts == ["refused", "changed"]
    assert len([event for event in events if isinstance(event, CallStarted)]) == 1


@for_each_interface
def test_a_watcher_stops_an_answer_where_it_is(api: Interface) -> None:
    def quiet(answer: str, _: Context) -> Refuse | None:
        return Refuse("No.") if "secret" in answer else None

    pieces = api.text(["the ", "secret", " is 42"])
    place = next(place for place, piece in enumerate(pieces) if b" is 42" in piece)
    with ScriptedServer([reply([*pieces[:place], 30.0, *pieces[place:]])]) as server:
        result, events = asyncio.run(follow(Agent(api.make(server.base_url), after_answer=Watch(quiet))))
    said = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert (result.status, said) == ("failed", "the secret")
    assert result.error.reason == "No."


@for_each_interface
def test_a_write_waits_for_the_watchers_of_its_request(api: Interface) -> None:
    passed = asyncio.Event()

    async def slow(messages: tuple[Message, ...], _: Context) -> None:
        await passed.wait()

    async def go(url: str) -> tuple[Any, list[str]]:
        order: list[str] = []
        agent = Agent(api.make(url), tools=[look, refund], cache=False, before_request=Watch(slow))
        run = agent.start("Go")
        async for told in run:
            order.append(told.type)
            if told.type == "call.arguments":  # the turn itself ends only when the watchers have passed
                passed.set()
        return await run.wait(), order

    script = [reply(api.call("refund", ['{"order": "O1"}'])), reply(api.text(["Done."]))]
    with ScriptedServer(script) as server:
        result, order = asyncio.run(go(server.base_url))
    assert result.output == "Done."
    assert order.index("guard.decided") < order.index("call.started")


# Budgets


@for_each_interface
def test_a_budget_ends_the_run_before_the_turn_that_it_does_not_pay(api: Interface, tmp_path: Path) -> None:
    script = [reply(api.call("look", ['{"order": "O1"}'])), reply(api.text(["Done."])), reply(api.text(["More."]))]

    async def go(url: str) -> tuple[Any, Any, Any]:
        journal = Journal(tmp_path / "runs.sqlite3")
        budget = Budget(usd=1.5, per="user", store=journal)
        agent = Agent(api.make(url), tools=[look], cache=False, budget=budget)
        first = await agent.run("Go", user="kim")
        second = await agent.run("Go", user="kim")
        state = await budget.look(user="kim")
        journal.close()
        return first, second, state

    with ScriptedServer(script) as server:
        first, second, state = asyncio.run(go(server.base_url))
        assert len(server.requests) == 2
    assert (first.status, first.cost, state.spent_usd) == ("done", 2.0, 2.0)
    assert second.status == "limit"
    assert "the budget 'budget' of $1.5 for user 'kim' is spent ($2 by now)" in str(second.error)
    assert [(cost.model, cost.user, cost.answers) for cost in first.costs] == [(first.costs[0].model, "kim", 2)]
