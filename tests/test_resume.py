"""Runs that go on in their journal: what had happened stands, under the names it had."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowkit.agent import Agent, AgentResult
from flowkit.agent.run_record import RunRecord
from flowkit.context import Context
from flowkit.events import EventLog
from flowkit.executor import Approve
from flowkit.journal import Journal
from flowkit.messages import Message, ToolMessage, Usage
from flowkit.models.scripted import CUT, Script, ScriptedModel, call
from flowkit.runs.limits import Limits
from flowkit.testing.loop import run_virtual
from flowkit.tools import Needs, tool
from flowkit.tools.toolsets import Toolset
from tests.stores import journal_at

pytestmark = pytest.mark.usefixtures("journal_store")

Go = Callable[[Journal], Awaitable[AgentResult[str]]]


@tool(effect="read")
def look(name: str) -> str:
    """Look something up."""
    return f"seen {name}"


@tool(approval=True)
def pay(won: int) -> str:
    """Pay."""
    return f"paid {won}"


APPROVED_3 = 'a person approved this with other arguments, {"won":3}:\npaid 3'


def in_journal(folder: Path, go: Go) -> AgentResult[str]:
    async def run() -> AgentResult[str]:
        journal = Journal(journal_at(folder / "runs.db"))
        try:
            return await go(journal)
        finally:
            journal.close()

    return run_virtual(run())


def agent_of(turns: Sequence[Script], *tools: Any, **options: Any) -> Agent[str]:
    return Agent(ScriptedModel(turns), tools=tools, cache=False, **options)


def texts(messages: Sequence[Message]) -> list[str]:
    return [message.text for message in messages if isinstance(message, ToolMessage)]


async def decide_and_go_on(agent: Agent[str], journal: Journal, data: object = None) -> AgentResult[str]:
    """Start a run, approve what waits as another process would, and go on."""
    waiting = await agent.run("go", run_id="r", data=data)
    assert waiting.status == "waiting"
    for pending in waiting.pending:
        journal.decide("r", pending.id, approved=True, by="Kim")
    return await agent.run(run_id="r", data=data)


def test_writes_out_of_a_wrapper_run_once_although_the_run_goes_on(tmp_path: Path) -> None:
    """The wrapper takes the first number of the turn's calls, and is none of them."""
    ran: list[str] = []

    @tool
    def order(name: str) -> str:
        ran.append(name)
        return f"ordered {name}"

    wrapped = [{"recipient_name": "functions.order", "parameters": {"name": name}} for name in ("a", "b")]
    script: list[Script] = [[call("multi_tool_use.parallel", tool_uses=wrapped), call("pay", won=5)], "Done."]

    async def go(journal: Journal) -> AgentResult[str]:
        return await decide_and_go_on(agent_of(script, order, pay, journal=journal), journal)

    result = in_journal(tmp_path, go)
    assert sorted(ran) == ["a", "b"]
    assert sorted(texts(result.messages)) == ["ordered a", "ordered b", "paid 5"]


def test_a_call_of_a_second_attempt_waits_under_the_name_that_the_journal_knows(tmp_path: Path) -> None:
    async def go(journal: Journal) -> AgentResult[str]:
        agent = agent_of([[call("pay", won=5), CUT], [call("pay", won=5)], "Done."], pay, journal=journal)
        return await decide_and_go_on(agent, journal)

    assert in_journal(tmp_path, go).output == "Done."


def test_attempts_after_a_crash_never_share_their_names(tmp_path: Path) -> None:
    async def go() -> list[str]:
        journal = Journal(journal_at(tmp_path / "runs.db"))
        held = await journal.open_run("r", name="agent")
        await held.record("turn/1/call/0", state="finished", value=1, effect="read")
        record = RunRecord(held, EventLog("r", asyncio.get_running_loop().time))
        prefixes = [record.prefix(1, attempt) for attempt in (1, 2, 3)]
        await held.close()
        journal.close()
        return prefixes

    assert run_virtual(go()) == ["turn/1/attempt/2", "turn/1/attempt/3", "turn/1/attempt/4"]


def test_a_long_result_is_read_on_after_the_run_goes_on(tmp_path: Path) -> None:
    @tool(effect="read", max_result_chars=50)
    def log() -> str:
        return "word " * 100

    before: Script = [call("read_result", id="call_1", offset=50)]
    after: Script = [call("read_result", id="call_1", offset=100)]

    async def go(journal: Journal) -> AgentResult[str]:
        agent = agent_of([[call("log")], before, [call("pay", won=5)], after, "Done."], log, pay, journal=journal)
        return await decide_and_go_on(agent, journal)

    told = texts(in_journal(tmp_path, go).messages)
    assert "[cut: characters 0 to 50" in told[0]
    assert told[1].startswith("word word")
    assert told[3].startswith("word word")


def test_a_run_that_goes_on_asks_the_model_for_no_turn_again(tmp_path: Path) -> None:
    said: Script = [call("look", name="a"), call("pay", won=5)]
    later = ScriptedModel(["Done."])

    async def go(journal: Journal) -> AgentResult[str]:
        waits = await agent_of([said], look, pay, journal=journal).run("go", run_id="r")
        agent = Agent(later, tools=[look, pay], cache=False, journal=journal)
        return await agent.run(run_id="r", decisions={waits.pending[0].id: Approve()})

    assert texts(in_journal(tmp_path, go).messages) == ["seen a", "paid 5"]
    assert [request.turn for request in later.requests] == [2]


def test_results_of_tools_that_are_gone_by_now_stand(tmp_path: Path) -> None:
    def source(context: Context[dict[str, list[Any]]]) -> list[Any]:
        return context.data["tools"]

    data: dict[str, list[Any]] = {"tools": [look, pay]}

    async def go(journal: Journal) -> AgentResult[str]:
        agent = agent_of(
            [[call("look", name="a")], [call("pay", won=5)], "Done."], Toolset.dynamic(source), journal=journal
        )
        waiting = await agent.run("go", run_id="r", data=data)
        data["tools"] = [pay]
        return await agent.run(run_id="r", data=data, decisions={waiting.pending[0].id: Approve()})

    assert texts(in_journal(tmp_path, go).messages) == ["seen a", "paid 5"]


def test_a_write_that_was_unknown_then_does_not_run_because_it_is_known_now(tmp_path: Path) -> None:
    ran: list[str] = []

    @tool
    def order(name: str) -> str:
        ran.append(name)
        return name

    async def go(journal: Journal) -> AgentResult[str]:
        script: list[Script] = [[call("order", name="tea")], [call("pay", won=5)], "Done."]
        await agent_of(script, pay, journal=journal).run("go", run_id="r")
        return await agent_of(["Done."], order, pay, journal=journal).run(
            run_id="r", decisions={"turn/2/call/0": Approve()}
        )

    told = texts(in_journal(tmp_path, go).messages)
    assert ran == []
    assert told[0].startswith("there is no tool 'order'")


@pytest.mark.parametrize(("limit", "status"), [(3, "limit"), (4, "done")])
def test_calls_of_an_earlier_process_count_towards_the_limit(tmp_path: Path, limit: int, status: str) -> None:
    script: list[Script] = [
        [call("look", name="a"), call("look", name="b")],
        [call("pay", won=5)],
        [call("look", name="c")],
        "Done.",
    ]

    async def go(journal: Journal) -> AgentResult[str]:
        agent = agent_of(script, look, pay, journal=journal, limits=Limits(calls=limit))
        return await decide_and_go_on(agent, journal)

    assert in_journal(tmp_path, go).status == status


def test_all_that_was_spent_before_counts_when_the_run_goes_on(tmp_path: Path) -> None:
    """By an attempt that broke, and by an agent that a tool asked after its turn was written down."""
    clerk = agent_of([["There.", Usage(300, 3)]])

    @tool
    async def ask(task: str) -> str:
        return (await clerk.run(task)).output or ""

    broken: Script = ["Hm", Usage(20, 0), CUT]
    asks: Script = [call("ask", task="find tea"), call("pay", won=5), Usage(1000, 10)]

    async def go(journal: Journal) -> AgentResult[str]:
        agent = agent_of([broken, asks, ["Done.", Usage(4000, 40)]], ask, pay, journal=journal)
        return await decide_and_go_on(agent, journal)

    assert in_journal(tmp_path, go).usage == Usage(5320, 53)


def test_calls_that_a_run_began_with_are_told_as_they_ended_when_it_goes_on(tmp_path: Path) -> None:
    script: list[Script] = [[call("pay", won=5)], [call("pay", won=7)], "Done."]

    async def go(journal: Journal) -> AgentResult[str]:
        agent = agent_of(script, pay)
        began = await agent.run("go")
        with agent.override(journal=journal):
            await agent.run(history=began.messages, decisions={"turn/1/call/0": Approve()}, run_id="r")
            return await agent.run(run_id="r", decisions={"turn/2/call/0": Approve()})

    assert texts(in_journal(tmp_path, go).messages) == ["paid 5", "paid 7"]


def test_what_was_needed_before_a_run_began_does_not_run_again_when_it_goes_on(tmp_path: Path) -> None:
    ran: list[str] = []

    @tool
    def open_ticket(order_id: str) -> str:
        ran.append(order_id)
        return f"ticket {order_id}"

    @tool(approval=True)
    def refund(ticket: str = Needs(open_ticket)) -> str:
        return f"refunded on {ticket}"

    async def go(journal: Journal) -> AgentResult[str]:
        agent = agent_of([[call("refund", order_id="A")], [call("pay", won=7)], "Done."], refund, pay)
        began = await agent.run("go")
        with agent.override(journal=journal):
            await agent.run(history=began.messages, decisions={"turn/1/call/0": Approve()}, run_id="r")
            journal.decide("r", "turn/2/call/0", approved=True, by="Kim")
            return await agent.run(run_id="r")

    assert texts(in_journal(tmp_path, go).messages) == ["refunded on ticket A", "paid 7"]
    assert ran == ["A"]


def test_a_decision_of_another_process_with_wrong_arguments_is_asked_for_again(tmp_path: Path) -> None:
    async def go(journal: Journal) -> AgentResult[str]:
        agent = agent_of([[call("pay", won=5)], "Done."], pay, journal=journal)
        await agent.run("go", run_id="r")
        journal.decide("r", "turn/1/call/0", approved=True, by="Kim", arguments={"amount": 3})
        assert (await agent.run(run_id="r")).status == "waiting"
        journal.decide("r", "turn/1/call/0", approved=True, by="Kim", arguments={"won": 3})
        return await agent.run(run_id="r")

    assert texts(in_journal(tmp_path, go).messages) == [APPROVED_3]


def test_arguments_that_a_person_changed_are_told_again_after_a_crash(tmp_path: Path) -> None:
    script: list[Script] = [[call("pay", won=5)], [call("pay", won=7)], "Done."]

    async def go(journal: Journal) -> AgentResult[str]:
        agent = agent_of(script, pay, journal=journal)
        await agent.run("go", run_id="r")
        first = await agent.run(run_id="r", decisions={"turn/1/call/0": Approve(arguments={"won": 3}, by="Kim")})
        assert first.calls[0].decision == Approve({"won": 3}, "Kim")
        return await agent.run(run_id="r", decisions={"turn/2/call/0": Approve()})

    result = in_journal(tmp_path, go)
    assert texts(result.messages) == [APPROVED_3, "paid 7"]
    assert result.calls[0].call.arguments == {"won": 3}
    assert result.calls[0].source == "journal"


# Blocking calls


def test_one_journal_serves_loops_one_after_another_side_by_side_and_in_a_forked_process(tmp_path: Path) -> None:
    """Each `run_sync` has a loop of its own; the journal's writer belongs to none."""

    def go(number: int) -> str:
        agent = agent_of([[call("note", text=f"{number}")], "Noted."], note, journal=journal)
        return str(agent.run_sync("go", run_id=f"r{number}", session=f"s{number}").output)

    @tool(effect="write")
    async def note(text: str) -> str:
        """Note something."""
        await asyncio.sleep(0)
        return text

    with closing(Journal(journal_at(tmp_path / "runs.db"))) as journal:
        assert [go(1), go(2)] == ["Noted."] * 2
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(go, range(3, 11))) == ["Noted."] * 8
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if go(11) == "Noted." else 1)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        assert go(12) == "Noted."
        later = agent_of(["Indeed."], journal=journal).run_sync("And?", run_id="r1b", session="s1")
        assert len(later.messages) == 6, "behind the four of the session's first run"
        found = {run.run_id: run.status for run in journal.runs()}
        assert found == dict.fromkeys([*(f"r{number}" for number in range(1, 13)), "r1b"], "done")
        for number in range(1, 13):
            details = journal.show(f"r{number}")
            assert details is not None
            assert [node.state for node in details.nodes.values() if node.tool == "note"] == ["finished"]
