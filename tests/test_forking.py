"""Forks: a new run that begins with what another had come to, in a program, at the command line, over HTTP."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from flowkit import Agent, ConfigurationError, Journal, ScriptedModel, tool
from flowkit.errors import RunError
from flowkit.messages import AssistantMessage, ToolMessage, UserMessage
from flowkit.models.scripted import Script
from flowkit.testing import call
from tests.command import make_command
from tests.stores import opened_journal

DONE: list[str] = []


@tool(effect="read")
async def look_up(word: str) -> str:
    """Look a word up."""
    DONE.append(f"look_up {word}")
    return word.upper()


@tool(effect="write")
async def pay(won: int) -> str:
    """Pay."""
    DONE.append(f"pay {won}")
    return f"paid {won}"


@tool(approval=True)
async def ask_first() -> str:
    """Ask."""
    return "asked"


SCRIPT: Sequence[Script] = [[call("look_up", word="tea")], [call("pay", won=5)], "All paid."]


def make_agent(journal: Journal, script: Sequence[Script]) -> Agent[str]:
    DONE.clear()
    return Agent(ScriptedModel(script), name="shop", tools=[look_up, pay, ask_first], journal=journal, cache=False)


@pytest.fixture
def journal(tmp_path: Path, journal_store: str) -> Iterator[Journal]:
    with opened_journal(tmp_path / "journal.sqlite3") as opened:
        opened.prune(0)  # its thread has begun, so that it is known to be the fixture's
        yield opened


def run_first(journal: Journal, script: Sequence[Script] | None = None) -> None:
    agent = make_agent(journal, script or SCRIPT)
    asyncio.run(agent.run("Buy tea", run_id="run-1", user="ann", session="today"))
    DONE.clear()


def test_fork_takes_messages_and_results_over_and_repeats_nothing(journal: Journal) -> None:
    run_first(journal)
    model = ScriptedModel(["Anything else?"])
    agent = make_agent(journal, [])

    result = asyncio.run(agent.run(fork="run-1", at="turn/3", user="ann", model=model))

    assert result.output == "Anything else?"
    assert DONE == []
    kinds = [type(message) for message in model.requests[0].messages]
    assert kinds == [UserMessage, AssistantMessage, ToolMessage, AssistantMessage, ToolMessage]
    assert result.run_id != "run-1"
    first = journal.show("run-1", user="ann")
    assert first is not None
    assert first.output == "All paid."
    assert journal.conversation("today", user="ann") == list(first.messages), "a fork is no part of the session"


def test_fork_says_another_message_with_another_result(journal: Journal) -> None:
    run_first(journal)
    model = ScriptedModel(["No tea, then."])

    asyncio.run(
        make_agent(journal, []).run(
            "And coffee?", fork="run-1", at="turn/2", results={"turn/1/call/0": {"found": 0}}, user="ann", model=model
        )
    )

    messages = model.requests[0].messages
    assert [message.text for message in messages if isinstance(message, ToolMessage)] == ['{"found":0}']
    assert isinstance(messages[-1], UserMessage)
    assert messages[-1].content == "And coffee?"
    assert DONE == []


def test_fork_at_the_first_turn_says_the_message_again(journal: Journal) -> None:
    run_first(journal)
    result = asyncio.run(make_agent(journal, ["Hello."]).run(fork="run-1", at="turn/1", user="ann"))
    assert [message.to_json()["role"] for message in result.messages] == ["user", "assistant"]


def test_fork_goes_on_after_a_crash_like_any_run(journal: Journal) -> None:
    run_first(journal)
    agent = make_agent(journal, [[call("ask_first")], "Asked."])

    async def go() -> None:
        waiting = await agent.run(fork="run-1", at="turn/2", user="ann", run_id="run-2")
        assert (waiting.status, waiting.pending[0].name) == ("waiting", "ask_first")
        journal.decide("run-2", "turn/2/call/0", approved=True, by="ann", user="ann")
        done = await agent.run(run_id="run-2", user="ann")
        assert (done.status, done.output) == ("done", "Asked.")
        assert DONE == []

    asyncio.run(go())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fork": "run-1", "at": "turn/9"}, "has come to turn/4"),
        ({"fork": "run-1", "at": "2"}, "as in 'turn/2'"),
        ({"fork": "run-9", "at": "turn/1"}, "there is no run"),
        ({"fork": "run-1", "at": "turn/2", "results": {"turn/2/call/0": 1}}, "has no call"),
        ({"fork": "run-1", "at": "turn/2", "user": "bob"}, "there is no run"),
    ],
)
def test_fork_of_nothing_is_refused(options: dict[str, object], said: str, journal: Journal) -> None:
    run_first(journal)

    async def go() -> None:
        run = make_agent(journal, []).start(**{"user": "ann", **options})  # type: ignore[arg-type]
        result = await run.wait()
        assert (result.status, type(result.error)) == ("failed", RunError)
        assert said in str(result.error)

    asyncio.run(go())


def test_of_two_runs_with_one_id_the_one_of_the_same_session_is_forked(journal: Journal) -> None:
    agent = make_agent(journal, ["Good.", "Bad.", "Which?"])
    for session in ("today", "tomorrow"):
        asyncio.run(agent.run(f"How is {session}?", run_id="run-1", user="ann", session=session))

    result = asyncio.run(agent.run(fork="run-1", at="turn/2", user="ann", session="tomorrow"))

    assert [message.content for message in result.messages if isinstance(message, UserMessage)] == ["How is tomorrow?"]
    with pytest.raises(RunError, match="name the user and the session"):
        asyncio.run(agent.run(fork="run-1", at="turn/2", user="ann"))
    with pytest.raises(RunError, match="name the user and the session"):
        journal.last_seq("run-1", user="ann")
    assert journal.last_seq("run-1", user="ann", session="today") > 0


def test_a_fork_waits_for_its_journal_beside_the_loop(postgres_journal: str) -> None:
    import psycopg

    async def go() -> None:
        journal = await asyncio.to_thread(Journal, postgres_journal)
        agent = make_agent(journal, ["All is well.", "Still."])
        await agent.run("How is it?", run_id="run-1")
        with psycopg.connect(postgres_journal) as connection:
            connection.execute("LOCK TABLE flowkit.run IN ACCESS EXCLUSIVE MODE")
            run = agent.start(fork="run-1", at="turn/2")
            for _ in range(20):
                await asyncio.sleep(0)
            assert not run.is_done
        assert (await run.wait()).output == "Still."
        await asyncio.to_thread(journal.close)

    asyncio.run(go())


def test_run_that_waits_is_forked_before_its_question_only(journal: Journal) -> None:
    run_first(journal, [[call("look_up", word="tea")], [call("ask_first")]])
    agent = make_agent(journal, ["Fine."])

    with pytest.raises(RunError, match="waits for a person"):
        asyncio.run(agent.run(fork="run-1", at="turn/3", user="ann"))
    assert asyncio.run(agent.run(fork="run-1", at="turn/2", user="ann")).output == "Fine."


def test_place_or_result_without_a_fork_is_a_mistake(journal: Journal) -> None:
    with pytest.raises(ConfigurationError, match="give fork="):
        asyncio.run(make_agent(journal, []).run("Hi", at="turn/2"))
    with pytest.raises(ConfigurationError, match="needs the journal"):
        asyncio.run(Agent(ScriptedModel([])).run("Hi", fork="run-1", at="turn/2"))


def test_fork_at_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "app.py").write_text(
        "from flowkit import Agent, ScriptedModel\nagent = Agent(ScriptedModel(['Again.']), name='shop')\n"
    )
    command = make_command(tmp_path, monkeypatch)
    path = tmp_path / "journal.sqlite3"
    journal = Journal(path)
    agent = make_agent(journal, SCRIPT)
    asyncio.run(agent.run("Buy tea", run_id="run-1"))
    journal.close()

    ended = command("runs", "fork", "run-1", "app.py", "--at", "turn/2", "--result", 'turn/1/call/0="NONE"')

    assert (ended.code, "Again." in ended.out) == (0, True), ended.err
    assert "is forked from run-1 before turn/2" in ended.err
    wrong = command("runs", "fork", "run-1", "app.py", "--at", "turn/9")
    assert (wrong.code, "has come to turn/4" in wrong.err) == (1, True)
