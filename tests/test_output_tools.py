"""A tool whose result is the answer, over every interface alike."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flowkit import (
    Agent,
    AnthropicModel,
    Approve,
    ConfigurationError,
    DefinitionError,
    Journal,
    ModelError,
    OpenAIModel,
    ScriptedModel,
    ToolError,
    tool,
)
from flowkit.messages import AssistantMessage, ToolMessage
from flowkit.testing import call
from tests import bodies
from tests.bodies import anthropic, chat, responses
from tests.server import ScriptedServer, replay

Make = Callable[..., OpenAIModel | AnthropicModel]


@dataclass(frozen=True)
class Refund:
    """What goes back to a customer."""

    order: str
    won: int


@tool(effect="read")
async def refund(order: str, won: int) -> Refund:
    """Say what goes back for an order."""
    if won > 9000:
        raise ToolError("at most 9000 won")
    return Refund(order, won)


@tool(effect="read")
def get_price(order: str) -> int:
    """Say what an order cost."""
    return 9000


def chat_model(base_url: str) -> OpenAIModel:
    return OpenAIModel("m", base_url=base_url, api_key="sk-1", max_retries=0)


def responses_model(base_url: str) -> OpenAIModel:
    return OpenAIModel("m", base_url=base_url, api_key="sk-1", max_retries=0, api="responses")


def anthropic_model(base_url: str) -> AnthropicModel:
    return AnthropicModel("claude-x", base_url=base_url, api_key="sk-1", max_retries=0)


def chat_body(arguments: str) -> bytes:
    return chat(bodies.calls(bodies.call(arguments, name="refund", id="call_1")))


def responses_body(arguments: str) -> bytes:
    item: dict[str, Any] = {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "call_1",
        "name": "refund",
        "arguments": "",
    }
    return responses(
        ("output_item.added", {"output_index": 0, "item": item}),
        ("function_call_arguments.delta", {"output_index": 0, "item_id": "fc_1", "delta": arguments}),
        ("output_item.done", {"output_index": 0, "item": {**item, "arguments": arguments}}),
    )


def anthropic_body(arguments: str) -> bytes:
    start: dict[str, Any] = {"type": "tool_use", "id": "call_1", "name": "refund", "input": {}}
    return anthropic({"type": "input_json_delta", "partial_json": arguments}, stop="tool_use", start=start)


for_each_interface = pytest.mark.parametrize(
    ("make", "body"),
    [(chat_model, chat_body), (responses_model, responses_body), (anthropic_model, anthropic_body)],
    ids=["chat", "responses", "anthropic"],
)


@for_each_interface
def test_the_tools_result_is_the_answer_and_no_further_request_goes_out(
    make: Make, body: Callable[[str], bytes]
) -> None:
    replies = [replay(body('{"order": "O1", "won": 9999}')), replay(body('{"order": "O1", "won": 9000}'))]
    with ScriptedServer(replies) as server:
        result = Agent(make(server.base_url), output_tool=refund).run_sync("It broke.")
        assert result.output == Refund("O1", 9000)
        assert len(server.requests) == 2, "a call that failed is no answer, and none is asked for after the answer"
    assert isinstance(result.messages[-1], ToolMessage)
    assert not any(isinstance(m, AssistantMessage) and m.text for m in result.messages)


@for_each_interface
def test_a_conversation_goes_on_after_such_an_answer(make: Make, body: Callable[[str], bytes]) -> None:
    replies = [replay(body('{"order": "O1", "won": 1}')), replay(body('{"order": "O1", "won": 2}'))]
    with ScriptedServer(replies) as server:
        agent = Agent(make(server.base_url), output_tool=refund)
        first = agent.run_sync("It broke.")
        assert agent.run_sync("Twice.", history=first.messages).output == Refund("O1", 2)


def test_words_are_no_answer_and_the_model_is_told_which_tool_to_call() -> None:
    model = ScriptedModel(["9000 won.", [call("refund", order="O1", won=9000)]])
    assert Agent(model, output_tool=refund).run_sync("Hi").output == Refund("O1", 9000)
    assert "by calling refund" in str(model.requests[1].messages[-1])
    with pytest.raises(ModelError, match="no valid output after 2 answers"):
        Agent(ScriptedModel(["No."] * 2), output_tool=refund, output_attempts=2).run_sync("Hi")


def test_other_tools_are_called_before_and_beside_it() -> None:
    both = [call("get_price", order="O2"), call("refund", order="O1", won=1), call("refund", order="O2", won=2)]
    model = ScriptedModel([[call("get_price", order="O1")], both])
    result = Agent(model, tools=[get_price, refund], output_tool=refund).run_sync("Hi")
    assert result.output == Refund("O1", 1), "the first in the order of the calls"
    assert [message.text for message in result.messages if isinstance(message, ToolMessage)][:2] == ["9000", "9000"]
    assert len([message for message in result.messages if isinstance(message, ToolMessage)]) == 4


def test_a_result_of_none_is_an_answer() -> None:
    @tool(effect="read")
    def close() -> None:
        """End the talk."""

    result = Agent(ScriptedModel([[call("close")]]), output_tool=close).run_sync("Bye")
    assert (result.status, result.output) == ("done", None)


def test_an_answer_that_a_person_approves_ends_the_run_that_goes_on() -> None:
    @tool(effect="write", approval=True)
    def pay(won: int) -> int:
        """Pay."""
        return won

    model = ScriptedModel([[call("pay", won=5)]])
    agent = Agent(model, output_tool=pay)
    waiting = agent.run_sync("Pay me.")
    assert waiting.status == "waiting"
    decided = {waiting.pending[0].id: Approve()}
    assert agent.run_sync(history=waiting.messages, decisions=decided).output == 5
    assert len(model.requests) == 1


def test_an_ended_run_in_the_journal_gives_its_answer_again(tmp_path: Path) -> None:
    paid: list[int] = []

    @tool(effect="write")
    def pay(won: int) -> Refund:
        """Pay."""
        paid.append(won)
        return Refund("O1", won)

    async def run_twice() -> list[Any]:
        journal = Journal(tmp_path / "runs.db")
        agent = Agent(ScriptedModel([[call("pay", won=5)]]), output_tool=pay, journal=journal)
        try:
            return [(await agent.run("Pay me.", run_id="r")).output, (await agent.run(run_id="r")).output]
        finally:
            journal.close()

    assert asyncio.run(run_twice()) == [Refund("O1", 5)] * 2
    assert paid == [5]


def test_what_fits_no_tool_is_refused_when_the_agent_is_made() -> None:
    with pytest.raises(DefinitionError, match="leave output_type= out"):
        Agent(ScriptedModel([]), output_type=Refund, output_tool=refund)  # pyright: ignore[reportCallIssue, reportArgumentType]
    with pytest.raises(ConfigurationError, match="output_tool"):
        Agent(ScriptedModel([]), output_tool="refund")  # pyright: ignore[reportCallIssue, reportArgumentType]
    other = refund.renamed("get_price")
    with pytest.raises(DefinitionError, match="get_price"):
        Agent(ScriptedModel([]), tools=[get_price], output_tool=other)
