"""What nobody declared a secret is kept as it was given."""

import asyncio
from contextlib import closing
from pathlib import Path

from pydantic import BaseModel, SecretStr

from flowkit.agent import Agent
from flowkit.cache import DiskCache
from flowkit.errors import InDoubt
from flowkit.journal import Done, Journal
from flowkit.models.scripted import ScriptedModel, call
from flowkit.recipes import recipe, step
from flowkit.tools import tool

WORDS = "hunter2, said by nobody to be a secret"


class Login(BaseModel):
    user: str
    pw: SecretStr


@tool(effect="write", approval=True)
async def note(text: str) -> str:
    """Write a note."""
    return f"noted: {text}"


@tool(effect="read")
async def repeat(words: str) -> str:
    """Say it again."""
    return words


@recipe
def keep(words: str) -> str:
    return step(repeat, words)


def test_what_a_user_a_model_a_tool_or_a_person_says_is_kept_as_it_was_said(tmp_path: Path) -> None:
    async def go() -> None:
        with closing(Journal(tmp_path / "j")) as journal:
            script = [[f"I'll note {WORDS}.", call("note", text="it"), call("repeat", words=WORDS)], "Well."]
            agent = Agent(ScriptedModel(script), tools=[note, repeat], journal=journal, cache=False)
            waits = await agent.run(f"My word is {WORDS}.", run_id="r", user="ann", session="s")
            (pending,) = waits.pending
            journal.decide("r", pending.id, user="ann", session="s", approved=False, by="kim", reason=f"not {WORDS}")
            assert (await agent.run(run_id="r", user="ann", session="s")).status == "done"
            shown = journal.show("r", user="ann", session="s")
            assert shown is not None
            said = str(journal.conversation("s", user="ann"))
            assert f"My word is {WORDS}." in said
            assert f"I'll note {WORDS}." in said
            assert [record.value for record in shown.nodes.values() if record.tool == "repeat"] == [WORDS]
            assert [asked.decision.reason for asked in shown.approvals.values() if asked.decision] == [f"not {WORDS}"]

    asyncio.run(go())


def test_inputs_of_a_recipe_are_kept_as_they_were_given(tmp_path: Path) -> None:
    async def go() -> None:
        with closing(Journal(tmp_path / "j")) as journal:
            await keep.start({"words": WORDS}, journal=journal, cache=False, run_id="r").wait()
            shown = journal.show("r")
            assert shown is not None
            assert shown.inputs == {"words": WORDS}

    asyncio.run(go())


def test_text_of_a_typed_answer_with_a_secret_is_kept_as_the_model_wrote_it(tmp_path: Path) -> None:
    answer = '{"user": "ann", "pw": "hunter2-Geheim"}'
    with closing(Journal(tmp_path / "j")) as journal:
        agent = Agent(ScriptedModel([answer]), output_type=Login, journal=journal, cache=False)
        agent.run_sync("Who?", run_id="r", user="ann", session="s")
        shown = journal.show("r", user="ann", session="s")
        assert shown is not None
        assert "hunter2" not in str(shown.output)
        assert "hunter2-Geheim" in str(journal.conversation("s", user="ann"))


def test_settling_a_write_in_a_program_ends_the_reads_in_its_own_cache(tmp_path: Path) -> None:
    balances = [100, 60]

    @tool(ttl=300, resource="account:{n}")
    async def get_balance(n: int) -> int:
        """Look at an account."""
        return balances[0]

    @tool(effect="write", resource="account:{n}")
    async def pay(n: int) -> str:
        """Pay, and don't know whether it was done."""
        raise InDoubt("the bank didn't answer")

    @recipe
    def look() -> int:
        return step(get_balance, 1)

    @recipe
    def send() -> str:
        return step(pay, 1)

    async def go() -> None:
        cache = DiskCache(tmp_path / "cache")
        with closing(Journal(tmp_path / "j")) as journal:
            assert (await send.start(run_id="r", journal=journal, cache=cache).wait()).status == "in_doubt"
            assert (await look.start(cache=cache).wait()).output == 100
            balances.pop(0)
            assert (await look.start(cache=cache).wait()).output == 100
            settled = journal.resolve("r", "pay", Done("paid"), by="kim")
            assert settled.resources == ("account:1",)
            await cache.bump(settled.resources)
            assert (await look.start(cache=cache).wait()).output == 60
        await cache.close()

    asyncio.run(go())
