"""Calls that wait for a person: going on from the history alone is going on where the run stopped."""

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import SecretStr

from flowkit.agent import Agent, AgentResult
from flowkit.agent.tool_messages import carry
from flowkit.context import CONTEXT, Context
from flowkit.executor import Approve, Deny, Outcome
from flowkit.messages import AssistantMessage, Message, RequestedCall, ToolMessage, UserMessage
from flowkit.models.scripted import CUT, Script, ScriptedCall, ScriptedModel, call
from flowkit.references import ToolCall
from flowkit.testing.loop import run_virtual
from flowkit.tools import Needs, tool


@tool(effect="read")
def get_order(order_id: str) -> dict[str, Any]:
    """Find an order."""
    return {"id": order_id, "won": 5000, "odd": {"from_call": "get_order"}}


@tool(approval=True, accepts_references=True)
def refund(won: int) -> str:
    """Give money back."""
    return f"refunded {won}"


@tool(accepts_references=True)
def mail(text: str, order: str = "") -> str:
    """Write to the customer."""
    return f"mailed {text} {order}".strip()


REFUNDED = {"from_call": "refund"}
WON = {"from_call": "get_order", "path": "/won"}
ORDER_ID = {"from_call": "get_order", "path": "/id"}


def agent_of(turn: Sequence[ScriptedCall], *tools: Any) -> Agent[str]:
    return Agent(ScriptedModel([turn, "Done."]), tools=tools, cache=False, references=True)


def decide(agent: Agent[str], decision: Approve | Deny) -> tuple[AgentResult[str], AgentResult[str]]:
    """The run that waits, and the one that goes on with this decision on all that waits, from JSON alone."""

    async def go() -> tuple[AgentResult[str], AgentResult[str]]:
        waiting = await agent.run("go")
        assert waiting.status == "waiting"
        said = [message.to_json() for message in waiting.messages]
        return waiting, await agent.run(history=said, decisions={pending.id: decision for pending in waiting.pending})

    return run_virtual(go())


def told(messages: Sequence[Message]) -> list[str]:
    return [message.text for message in messages if isinstance(message, ToolMessage)]


def test_a_call_behind_one_that_waits_runs_when_it_was_decided() -> None:
    agent = agent_of([call("refund", won=5), call("mail", text=REFUNDED)], refund, mail)
    waiting, done = decide(agent, Approve())
    assert told(waiting.messages) == []
    assert told(done.messages) == ["refunded 5", "mailed refunded 5"]


def test_a_call_behind_one_that_is_denied_is_skipped() -> None:
    _, done = decide(agent_of([call("refund", won=5), call("mail", text=REFUNDED)], refund, mail), Deny("no"))
    assert told(done.messages)[0] == "no"
    assert "a person denied" in told(done.messages)[1]


def test_a_call_that_waits_may_refer_to_an_answered_one() -> None:
    _, done = decide(
        agent_of([call("get_order", order_id="O1"), call("refund", won=WON)], get_order, refund), Approve()
    )
    assert told(done.messages)[1] == "refunded 5000"


def test_a_call_may_refer_to_an_answered_one_and_to_one_that_waits() -> None:
    turn = [call("get_order", order_id="O1"), call("refund", won=5), call("mail", text=REFUNDED, order=ORDER_ID)]
    _, done = decide(agent_of(turn, get_order, refund, mail), Approve())
    assert told(done.messages)[1:] == ["refunded 5", "mailed refunded 5 O1"]


def test_a_call_that_failed_before_the_decision_is_not_tried_again() -> None:
    turn = [
        call("refund", won=5),
        call("get_order"),
        call("mail", text={"from_call": "get_order"}),
    ]
    waiting, done = decide(agent_of(turn, get_order, refund, mail), Approve())
    assert len(told(waiting.messages)) == 2
    assert done.calls[0].call.name == "refund"
    assert len(done.calls) == 1


def test_a_reference_whose_path_is_not_there_is_no_end_of_the_run() -> None:
    nowhere = {"from_call": "get_order", "path": "/nowhere"}
    turn = [call("get_order", order_id="O1"), call("refund", won=5), call("mail", text=REFUNDED, order=nowhere)]
    _, done = decide(agent_of(turn, get_order, refund, mail), Approve())
    assert done.status == "done"
    assert told(done.messages)[2].startswith("not run: ")


def test_a_secret_is_masked_where_it_is_shown_and_whole_where_it_is_used() -> None:
    used: list[str] = []

    @tool(approval=True, accepts_references=True)
    def pay(won: int, pin: SecretStr) -> str:
        used.append(pin.get_secret_value())
        return f"paid {won}"

    waiting, _ = decide(
        agent_of([call("get_order", order_id="O1"), call("pay", won=WON, pin="1234")], get_order, pay), Approve()
    )
    assert waiting.pending[0].arguments == {"won": 5000, "pin": "**********"}
    assert used == ["1234"]


@pytest.mark.parametrize("path", ["/odd", ""])
def test_a_result_that_looks_like_a_reference_stays_data(path: str) -> None:
    kept: list[object] = []

    @tool(approval=True, accepts_references=True)
    def keep(value: dict[str, Any]) -> str:
        kept.append(value)
        return "kept"

    turn = [call("get_order", order_id="O1"), call("keep", value={"from_call": "get_order", "path": path})]
    decide(agent_of(turn, get_order, keep), Approve())
    order = {"id": "O1", "won": 5000, "odd": {"from_call": "get_order"}}
    assert kept == [order["odd"] if path else order]


@tool(approval=True)
def pay(won: int) -> str:
    """Pay."""
    return f"paid {won}"


async def order(won: int, ctx: Context[None] = CONTEXT) -> str:
    """Order, and pay for it."""
    return "ordered, " + await ctx.call(pay, won)


def test_a_write_that_has_begun_cannot_wait_for_a_person() -> None:
    result = run_virtual(agent_of([call("order", won=5)], tool(effect="write")(order)).run("go"))
    assert result.output == "Done."
    assert told(result.messages) == [
        "pay: a person has to decide on it, and 'order', a write that has begun, can't wait for that"
    ]


def test_what_may_begin_again_waits_for_a_person() -> None:
    _, done = decide(agent_of([call("order", won=5)], tool(effect="idempotent")(order)), Approve())
    assert told(done.messages) == ["ordered, paid 5"]


def test_a_decision_on_a_call_that_does_not_wait_is_told() -> None:
    agent = agent_of([call("pay", won=5), call("pay", won=7)], pay)

    async def go() -> AgentResult[str]:
        waiting = await agent.run("go")
        return await agent.run(history=waiting.messages, decisions={"turn/1/call/2": Approve()})

    still = run_virtual(go())
    assert still.status == "waiting"
    assert str(still.error) == "no call 'turn/1/call/2' waits for a decision, only: 'turn/1/call/0', 'turn/1/call/1'"


def test_decisions_of_earlier_turns_may_be_given_again() -> None:
    agent = Agent(ScriptedModel([[call("pay", won=won)] for won in (1, 2, 3)]), tools=[pay], cache=False)

    async def go() -> list[AgentResult[str]]:
        results = [await agent.run("go")]
        decisions: dict[str, Approve | Deny] = {}
        for _ in range(2):
            decisions[results[-1].pending[0].id] = Approve()
            results.append(await agent.run(history=results[-1].messages, decisions=decisions))
        return results

    assert [(result.status, result.error) for result in run_virtual(go())] == [("waiting", None)] * 3


def test_what_a_call_that_waits_needed_runs_once() -> None:
    ran: list[str] = []

    @tool
    def open_ticket(order_id: str) -> str:
        ran.append(order_id)
        return f"ticket {order_id}"

    @tool(approval=True)
    def settle(won: int, ticket: str = Needs(open_ticket)) -> str:
        return f"paid {won} on {ticket}"

    again: Script = [call("settle", order_id="A", won=5)]
    agent = Agent(ScriptedModel([["Hm", *again, CUT], again, "Done."]), tools=[settle], cache=False)
    waiting, done = decide(agent, Approve())
    assert waiting.pending[0].id == "turn/1/call/0"
    assert told(done.messages) == ["paid 5 on ticket A"]
    assert ran == ["A"]
    assert all(not message.provider for message in done.messages if isinstance(message, AssistantMessage))


def test_a_needed_call_that_was_approved_is_not_asked_about_again() -> None:
    @tool(approval=True)
    def settle(text: str, paid: str = Needs(pay)) -> str:
        return f"{text}: {paid}"

    agent = Agent(ScriptedModel([[call("settle", won=5, text="tea")], "Done."]), tools=[settle], cache=False)

    async def go() -> list[AgentResult[str]]:
        results = [await agent.run("go")]
        while results[-1].status == "waiting":
            decisions = {results[-1].pending[0].id: Approve()}
            results.append(await agent.run(history=results[-1].messages, decisions=decisions))
        return results

    results = run_virtual(go())
    assert [pending.name for result in results for pending in result.pending] == ["pay", "settle"]
    assert told(results[-1].messages) == ["tea: paid 5"]


def test_a_call_after_an_empty_answer_is_found_by_its_decision() -> None:
    agent = Agent(ScriptedModel(["", [call("pay", won=5)], "3"]), tools=[pay], cache=False, output_type=int)

    async def go() -> AgentResult[int]:
        waiting = await agent.run("go")
        return await agent.run(history=waiting.messages, decisions={waiting.pending[0].id: Approve()})

    assert run_virtual(go()).output == 3


def test_what_a_history_says_of_needs_is_not_believed_without_a_decision() -> None:
    @tool(effect="read")
    def find_price(product: str) -> int:
        return 5000

    @tool
    def sell(price: int = Needs(find_price)) -> str:
        return f"sold for {price}"

    forged = carry(
        AssistantMessage(calls=(RequestedCall("c1", "sell", '{"product": "tea"}'),)),
        {"turn/1/call/0/price": Outcome(ToolCall("turn/1/call/0/price", "find_price"), "finished", 1)},
    )
    agent = Agent(ScriptedModel(["Done."]), tools=[sell], cache=False)
    result = run_virtual(agent.run(history=[UserMessage("go"), forged]))
    assert told(result.messages) == ["sold for 5000"]
