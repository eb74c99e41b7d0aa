"""Agents: runs that own their tasks, overrides, identities, and runs that survive their process."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import flowkit
from flowkit import codec
from flowkit.agent import Agent
from flowkit.cache import DiskCache
from flowkit.context import CONTEXT, Context
from flowkit.errors import ConfigurationError, DefinitionError
from flowkit.events import RunStarted
from flowkit.executor import Approve
from flowkit.journal import Done, Journal
from flowkit.journal.unfinished_messages import NOT_KNOWN
from flowkit.messages import AssistantMessage, Image, Message, SystemMessage, Text, ToolMessage, UserMessage
from flowkit.models.scripted import Script, ScriptedModel, call
from flowkit.testing.loop import run_virtual
from flowkit.tools import tool
from flowkit.tools.toolsets import Toolset


@dataclass(frozen=True)
class Shop:
    customer: str


@tool(effect="read")
def look(name: str) -> str:
    """Look something up."""
    return f"seen {name}"


def test_run_sync_gives_the_result() -> None:
    assert Agent(ScriptedModel(["Hi."]), cache=False).run_sync("go").output == "Hi."


def test_the_public_names_are_there() -> None:
    for name in flowkit.__all__:
        assert getattr(flowkit, name) is not None


def test_a_run_goes_on_without_watchers_and_can_be_watched_again() -> None:
    async def go() -> tuple[int, int, str | None]:
        run = Agent(ScriptedModel([["One. ", 1.0, "Two."]]), cache=False).start("go")
        async for event in run:
            if event.type == "text.delta":
                break
        result = await run.wait()
        seqs = [event.seq async for event in run.watch(after=2)]
        return seqs[0], len(seqs), result.output

    first, count, output = run_virtual(go())
    assert (first, output) == (3, "One. Two.")
    assert count > 2


def test_a_running_run_is_joined_by_its_id() -> None:
    async def go() -> bool:
        agent = Agent(ScriptedModel([["One. ", 1.0, "Two."]]), cache=False)
        first = agent.start("go", user="Ann", run_id="r1")
        second = agent.start("go", user="Ann", run_id="r1")
        await first.wait()
        return first is second

    assert run_virtual(go())


def test_another_user_does_not_join_a_running_run() -> None:
    async def go() -> tuple[str | None, str | None]:
        agent = Agent(ScriptedModel([["For Ann. ", 1.0, "Only."], "For Bo."]), cache=False)
        ann = agent.start("go", run_id="r1", user="Ann")
        await asyncio.sleep(0)
        bo = agent.start("go", run_id="r1", user="Bo")
        return (await ann.wait()).output, (await bo.wait()).output

    assert run_virtual(go()) == ("For Ann. Only.", "For Bo.")


def test_cancelling_the_caller_cancels_the_run() -> None:
    async def go() -> bool:
        agent = Agent(ScriptedModel([["One. ", 99.0, "Two."]]), cache=False)
        task = asyncio.create_task(agent.run("go", user="Ann", run_id="r1"))
        await asyncio.sleep(1)
        run = agent.start(user="Ann", run_id="r1", history=[UserMessage("x")], message="x")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return run.is_done

    assert run_virtual(go())


def test_nothing_to_run_is_refused() -> None:
    agent = Agent(ScriptedModel(["Hi."]), cache=False)
    with pytest.raises(ConfigurationError, match="nothing to run"):
        run_virtual(agent.run(history=[{"role": "user", "content": "hm"}, {"role": "assistant", "content": "Hi."}]))


def test_misspelt_option_of_a_run_is_refused() -> None:
    options: Any = {"sesion": "s1"}
    with pytest.raises(TypeError, match=r"a run has no option 'sesion'; did you mean 'session'\?"):
        run_virtual(Agent(ScriptedModel(["Hi."])).run("Hi", **options))


def test_name_of_a_model_is_no_model() -> None:
    name: Any = "gpt-4.1"
    with pytest.raises(ConfigurationError, match=r"such as OpenAIModel\('gpt-4.1'\), not its name"):
        Agent(name)


def test_path_of_a_journal_is_no_journal(tmp_path: Path) -> None:
    path: Any = tmp_path / "runs.db"
    with pytest.raises(ConfigurationError, match=r"such as Journal\('.*runs.db'\), not its path"):
        Agent(ScriptedModel([]), journal=path)


def test_prefetch_takes_calls_and_no_tools() -> None:
    @tool(effect="read")
    def get_order() -> str:
        return "shipped"

    tools: Any = [get_order]
    with pytest.raises(
        DefinitionError, match=r"prefetch takes calls, such as get_order.call\(\), not <tool get_order>"
    ):
        Agent(ScriptedModel([]), tools=tools, prefetch=tools)


def test_a_history_may_end_with_the_new_message() -> None:
    model = ScriptedModel(["Hi."])
    history: list[dict[str, codec.JSON]] = [
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "I am Ann."},
    ]
    result = run_virtual(Agent(model, instructions=lambda ctx: ctx.message, cache=False).run(history=history))
    assert model.requests[0].messages == (
        SystemMessage("I am Ann."),
        AssistantMessage("Hello."),
        UserMessage("I am Ann."),
    )
    assert result.output == "Hi."


def test_a_message_may_be_a_list_of_parts_and_nothing_else() -> None:
    agent = Agent(ScriptedModel(["Tea."]), cache=False)
    parts = [Text("What is this?"), Image("https://example.org/a.png")]
    assert run_virtual(agent.run(parts)).messages[0] == UserMessage(tuple(parts))
    untyped: Any = [{"type": "video"}]
    with pytest.raises(ValueError, match="has type 'video'"):
        run_virtual(agent.run(untyped))


def test_a_message_beside_decisions_is_refused() -> None:
    @tool(approval=True)
    def pay() -> str:
        return "paid"

    async def go() -> None:
        agent = Agent(ScriptedModel([[call("pay")]]), tools=[pay], cache=False)
        waiting = await agent.run("go")
        await agent.run("hurry", history=waiting.messages, decisions={waiting.pending[0].id: Approve()})

    with pytest.raises(ConfigurationError, match="a message denies the calls that wait"):
        run_virtual(go())


def test_model_tools_and_cache_can_be_overridden_for_a_while(tmp_path: Path) -> None:
    @tool(effect="read")
    def fake(name: str) -> str:
        return f"dreamt of {name}"

    agent = Agent(ScriptedModel(["no"]), tools=[look], cache=False)
    with agent.override(model=ScriptedModel([[call("look", name="a")], "yes"]), tools={"look": fake}):
        result = run_virtual(agent.run("go"))
    assert result.output == "yes"
    assert result.calls[0].value == "dreamt of a"
    assert run_virtual(agent.run("go")).output == "no"


def test_overrides_inside_overrides_add_up() -> None:
    @tool(effect="read")
    def fake(name: str) -> str:
        return f"dreamt of {name}"

    @tool(effect="read")
    def find(name: str) -> str:
        return f"found {name}"

    model = ScriptedModel([[call("look", name="a"), call("find", name="b")], "Done."])
    agent = Agent(model, tools=[look, find], cache=False)
    with agent.override(tools={"look": fake}), agent.override(tools={"find": fake}):
        result = run_virtual(agent.run("go"))
    assert [outcome.value for outcome in result.calls] == ["dreamt of a", "dreamt of b"]


def test_overriding_an_unknown_tool_is_an_error() -> None:
    agent = Agent(ScriptedModel(["no"]), tools=[look], cache=False)
    with agent.override(tools={"loook": look}), pytest.raises(DefinitionError, match="loook"):
        run_virtual(agent.run("go"))


def test_two_tools_of_one_name_are_refused_when_the_agent_is_made() -> None:
    @tool(name="look")
    def other(name: str) -> str:
        return name

    with pytest.raises(DefinitionError, match="two tools are called 'look'"):
        Agent(ScriptedModel([]), tools=[look, other])


def test_tools_may_change_between_turns() -> None:
    def source(ctx: Context[list[str]]) -> list[Any]:
        ctx.data.append("asked")
        return [look] if len(ctx.data) > 2 else []

    model = ScriptedModel([[call("look", name="a")], [call("look", name="b")], "Done."])
    result = run_virtual(Agent(model, tools=[Toolset.dynamic(source)], cache=False).run("go", data=[]))
    texts = [message.text for message in result.messages if isinstance(message, ToolMessage)]
    assert texts[0].startswith("there is no tool 'look'")
    assert texts[1] == "seen b"


# Who may share a result


@tool(ttl=300, scope="user")
def latest(ctx: Context[Shop] = CONTEXT) -> str:
    """The latest order."""
    return f"order of {ctx.data.customer}"


def test_a_run_without_the_identity_that_a_tool_needs_is_refused() -> None:
    agent = Agent(ScriptedModel(["Hi."]), tools=[latest], cache=False)
    with pytest.raises(ConfigurationError, match="start the run with user="):
        run_virtual(agent.run("go", data=Shop("Ann")))


def test_two_users_never_see_each_others_result_and_each_gets_their_own_from_the_cache(tmp_path: Path) -> None:
    async def ask(agent: Agent[str], user: str) -> tuple[object, str]:
        result = await agent.run("Where is my order?", data=Shop(user), user=user)
        return result.calls[0].value, result.calls[0].source

    async def go() -> list[tuple[object, str]]:
        cache = DiskCache(tmp_path)
        turns: list[Script] = [[call("latest")], "There."]
        agent = Agent(ScriptedModel(turns * 3), tools=[latest], cache=cache)
        try:
            return [await ask(agent, user) for user in ("Ann", "Bob", "Ann")]
        finally:
            await cache.close()

    assert run_virtual(go()) == [("order of Ann", "run"), ("order of Bob", "run"), ("order of Ann", "cache")]


# The journal

ORDERING = """
import asyncio, os, sys
from pathlib import Path
from flowkit import Agent, Approve, Journal, ScriptedModel, tool
from flowkit.models.scripted import call

folder = Path(sys.argv[1])
dies_in = sys.argv[2]

def note(text):
    with (folder / "effects").open("a") as file:
        file.write(text + "\\n")

@tool(effect="read")
def look(name: str) -> str:
    note(f"look {name}")
    return f"seen {name}"

@tool
def order(name: str) -> str:
    note(f"order {name}")
    if dies_in == "order":
        os._exit(9)
    return f"ordered {name}"

@tool(approval=True)
def pay(won: int) -> str:
    note(f"pay {won}")
    return f"paid {won}"

def answer(request):
    if request.turn == 2 and dies_in == "turn 2":
        os._exit(9)
    if request.turn == 1:
        asked = [call("look", name="tea"), call("order", name="tea")]
        return asked + [call("pay", won=5)] if dies_in == "approval" else asked
    return "It is ordered."

agent = Agent(ScriptedModel(answer), tools=[look, order, pay], cache=False, journal=Journal(folder / "runs.db"))
result = agent.run_sync("go" if "first" in sys.argv else None, run_id="r1", session="s1", user="Ann")
print(result.status, result.output_or_none, [o.source for o in result.calls], len(result.messages), sep="|")
"""


def in_a_process(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run the script above in a process of its own: its exit code, and the last line that it printed."""
    done = subprocess.run(
        [sys.executable, "-c", ORDERING, str(folder), *arguments], capture_output=True, text=True, check=False
    )
    return done.returncode, (done.stdout.splitlines() or [done.stderr[-500:]])[-1]


def effects(folder: Path) -> list[str]:
    return (folder / "effects").read_text().splitlines()


@pytest.mark.slow
def test_a_run_killed_between_turns_goes_on_and_repeats_no_write(tmp_path: Path) -> None:
    assert in_a_process(tmp_path, "turn 2", "first")[0] == 9
    code, line = in_a_process(tmp_path, "nowhere")
    # A read is recorded soon, and not waited for: the kill may come before that, and then it runs again.
    assert code == 0
    assert line in (f"done|It is ordered.|['{look}', 'journal']|5" for look in ("journal", "run"))
    assert effects(tmp_path).count("order tea") == 1
    assert in_a_process(tmp_path, "nowhere")[1].startswith("done|It is ordered.|")
    assert effects(tmp_path).count("order tea") == 1


@pytest.mark.slow
def test_a_run_killed_inside_a_write_is_in_doubt_until_a_person_decides(tmp_path: Path) -> None:
    assert in_a_process(tmp_path, "order", "first")[0] == 9
    assert in_a_process(tmp_path, "nowhere")[1].startswith("in_doubt|None|")
    journal = Journal(tmp_path / "runs.db")
    journal.resolve("r1", "turn/1/call/1", Done("ordered, says Kim"), by="Kim")
    journal.close()
    assert in_a_process(tmp_path, "nowhere")[1].startswith("done|It is ordered.|")
    assert effects(tmp_path).count("order tea") == 1


@pytest.mark.slow
def test_an_approval_can_be_decided_in_another_process(tmp_path: Path) -> None:
    assert in_a_process(tmp_path, "approval", "first")[1].startswith("waiting|None|")
    journal = Journal(tmp_path / "runs.db")
    journal.decide("r1", "turn/1/call/2", approved=True, by="Kim")
    journal.close()
    assert in_a_process(tmp_path, "approval")[1].startswith("done|It is ordered.|")
    # The read and the write run at the same time, each in a thread: either may be first.
    assert sorted(effects(tmp_path)) == ["look tea", "order tea", "pay 5"]


def test_a_conversation_goes_on_in_its_session(tmp_path: Path) -> None:
    async def go() -> list[int]:
        journal = Journal(tmp_path / "runs.db")
        model = ScriptedModel(["Hello Ann.", "Ann, you said."])
        agent = Agent(model, cache=False, journal=journal)
        await agent.run("I am Ann.", session="s1", user="Ann")
        await agent.run("Who am I?", session="s1", user="Ann")
        journal.close()
        return [len(request.messages) for request in model.requests]

    assert run_virtual(go()) == [1, 3]


@pytest.mark.parametrize(
    ("dies_in", "order_says"), [("turn 2", "ordered tea"), ("order", "it may have happened; don't repeat it")]
)
@pytest.mark.slow
def test_what_was_said_in_a_run_that_was_killed_is_not_lost(tmp_path: Path, dies_in: str, order_says: str) -> None:
    assert in_a_process(tmp_path, dies_in, "first")[0] == 9

    async def go() -> Sequence[Message]:
        journal = Journal(tmp_path / "runs.db")
        model = ScriptedModel(["I see."])
        await Agent(model, cache=False, journal=journal).run("Well?", session="s1", user="Ann")
        journal.close()
        return model.requests[0].messages

    first, asked, look, order, last = run_virtual(go())
    assert first == UserMessage("go")
    assert isinstance(asked, AssistantMessage)
    assert [call.name for call in asked.calls] == ["look", "order"]
    # The read may not have been written down before the kill.
    assert look in (ToolMessage("call_1", "look", "seen tea"), ToolMessage("call_1", "look", NOT_KNOWN, is_error=True))
    assert isinstance(order, ToolMessage)
    assert order.text.endswith(order_says)
    assert last == UserMessage("Well?")


def test_a_conversation_is_not_stored_anew_with_each_of_its_runs(tmp_path: Path) -> None:
    async def go() -> None:
        journal = Journal(tmp_path / "runs.db")
        agent = Agent(ScriptedModel(["Yes."] * 3), cache=False, journal=journal)
        sizes: list[int] = []
        for number in range(3):
            await agent.run("x" * 10_000, session="s1", run_id=f"r{number}")
            found = journal.show(f"r{number}")
            assert found is not None
            sizes.append(len(codec.dumps(found.inputs)))
        assert len(set(sizes)) == 1
        journal.close()

    run_virtual(go())


def test_a_run_goes_on_in_its_session_and_with_its_message(tmp_path: Path) -> None:
    seen: list[tuple[str | None, str]] = []

    def instruct(ctx: Context[None]) -> str:
        seen.append((ctx.session, ctx.message))
        return ""

    async def go() -> str | None:
        journal = Journal(tmp_path / "runs.db")

        @tool(approval=True)
        def pay(won: int) -> str:
            return f"paid {won}"

        model = ScriptedModel([[call("pay", won=5)], "It is paid."])
        agent = Agent(model, tools=[pay], instructions=instruct, cache=False, journal=journal)
        waiting = await agent.run("Pay 5 won.", session="s1", run_id="r")
        journal.decide("r", waiting.pending[0].id, approved=True, by="Kim")
        run = agent.start(run_id="r")
        started = await anext(run.watch())
        await run.wait()
        journal.close()
        return started.session if isinstance(started, RunStarted) else None

    assert run_virtual(go()) == "s1"
    assert seen == [("s1", "Pay 5 won.")] * 2


def test_a_run_goes_on_with_what_was_said_before_it_and_not_after(tmp_path: Path) -> None:
    def said(messages: Sequence[Message]) -> list[object]:
        return [message.content for message in messages if isinstance(message, UserMessage)]

    async def go() -> list[list[object]]:
        journal = Journal(tmp_path / "runs.db")

        @tool(approval=True)
        def pay(won: int) -> str:
            return f"paid {won}"

        model = ScriptedModel(["Hello Ann.", [call("pay", won=5)], "You're welcome.", "It is paid."])
        agent = Agent(model, tools=[pay], cache=False, journal=journal)
        await agent.run("I am Ann.", session="s1", user="Ann")
        waiting = await agent.run("Pay 5 won.", session="s1", user="Ann", run_id="r")
        await agent.run("Thanks.", session="s1", user="Ann")
        journal.decide("r", waiting.pending[0].id, approved=True, by="Kim")
        await agent.run(run_id="r", user="Ann")
        journal.close()
        return [said(request.messages) for request in model.requests]

    assert run_virtual(go())[2:] == [["I am Ann.", "Pay 5 won.", "Thanks."], ["I am Ann.", "Pay 5 won."]]


def test_threads_share_an_agent_with_its_cache_and_its_journal(tmp_path: Path) -> None:
    asked: list[str] = []

    @tool(ttl=60)
    async def price(product: str) -> int:
        asked.append(product)
        await asyncio.sleep(0.02)
        return 5

    cache, journal = DiskCache(tmp_path / "cache"), Journal(tmp_path / "runs.db")
    model = ScriptedModel(lambda request: "It costs 5." if request.turn == 2 else [call("price", product="tea")])
    agent = Agent(model, tools=[price], cache=cache, journal=journal)
    try:
        with ThreadPoolExecutor(8) as threads:
            started = [threads.submit(agent.run_sync, "go", run_id=f"r{number}") for number in range(8)]
            results = [run.result() for run in started]
        assert [result.output for result in results] == ["It costs 5."] * 8
        assert asked == ["tea"]
        assert {run.run_id: run.status for run in journal.runs()} == {f"r{number}": "done" for number in range(8)}
    finally:
        asyncio.run(cache.close())
        journal.close()


def test_a_prefetch_that_is_dropped_before_it_has_started_is_only_dropped(caplog: pytest.LogCaptureFixture) -> None:
    ran: list[int] = []

    @tool(ttl=60)
    async def get_it(number: int) -> int:
        """Get it."""
        ran.append(number)
        return number

    agent = Agent(ScriptedModel(["Hello"]), tools=[get_it], prefetch=[get_it.call(number=1)], cache=False)
    result = agent.run_sync("hi")
    assert (result.status, [outcome.state for outcome in result.calls], ran) == ("done", ["cancelled"], [])
    assert not caplog.records
