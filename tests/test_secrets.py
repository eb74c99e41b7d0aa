"""What a tool or a type calls secret is in clear nowhere but in the function's argument."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, cast

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, Json, Secret, SecretBytes, SecretStr, field_validator
from typing_extensions import TypedDict

from flowkit import events
from flowkit.agent import Agent
from flowkit.cache import DiskCache
from flowkit.codec import JSON, dumps
from flowkit.context import CONTEXT, Context
from flowkit.errors import DefinitionError, InDoubt, RecipeFileError, ToolArgumentsError, ToolError
from flowkit.executor import Approve
from flowkit.journal import Journal
from flowkit.masking import MASK, SecretPlaces, mask_echoes, unmask
from flowkit.models.scripted import ScriptedModel, call
from flowkit.recipes import Recipe, each, recipe, step
from flowkit.recipes.files import load_recipe
from flowkit.references import ToolCall
from flowkit.tools import Tool, tool
from tests.stores import journal_at, opened_journal

SECRET = "hunter2-Geheim-한국"


class Login(BaseModel):
    user: str
    pw: SecretStr


class Nested(BaseModel):
    logins: list[Login] = []
    by_name: dict[str, Login] = {}
    one: Login | None = None
    next: "Nested | None" = None


class Card(BaseModel):
    kind: Literal["card"] = "card"
    number: SecretStr


class Cash(BaseModel):
    kind: Literal["cash"] = "cash"
    amount: int


@dataclass
class Pair:
    name: str
    key: Secret[str]


class Options(TypedDict):
    token: NotRequired[SecretBytes]
    note: str


class Account(BaseModel):
    pw: SecretStr

    @field_validator("pw")
    @classmethod
    def refuse(cls, pw: SecretStr) -> SecretStr:
        raise ValueError(f"{pw.get_secret_value()} is too easy")


class Sent(BaseModel):
    number: int
    pw: SecretStr


seen: list[object] = []


@tool(effect="write")
async def log_in(login: Login) -> str:
    """Log in."""
    seen.append(login.pw.get_secret_value())
    return "ok"


@tool(effect="write")
async def nested(value: Nested) -> str:
    """Take much."""
    return "ok"


@tool(effect="write")
async def pay(by: Annotated[Card | Cash, Field(discriminator="kind")]) -> str:
    """Pay."""
    return "ok"


@tool(effect="write")
async def pair(pair: Pair, options: Options | None = None) -> str:
    """Take a dataclass and a typed dict."""
    return "ok"


@tool(effect="write", secret=("pw",))
async def named(pw: str) -> str:
    """Take a named one."""
    return "ok"


@tool(effect="write")
async def refused(account: Account) -> str:
    """Refuse it, and say why."""
    return "ok"


@tool(effect="write")
async def twice(sent: Sent) -> str:
    """Take what may repeat a secret where none belongs."""
    return "ok"


@tool(effect="write")
async def packed(login: Json[Login]) -> str:
    """Take a text that is JSON."""
    raise InDoubt(f"sent {login.pw.get_secret_value()}, and heard nothing")


@tool(effect="write")
async def bare(pw: SecretStr | None = None, many: dict[str, list[SecretStr]] | None = None) -> str:
    """Take bare ones."""
    return "ok"


def handle(arguments: dict[str, Any]) -> str:
    return "ok"


FOREIGN = Tool.from_schema(
    "foreign",
    "Take what a schema calls secret.",
    {
        "type": "object",
        "properties": {"login": {"$ref": "#/$defs/login"}, "id": {"type": "integer"}},
        "$defs": {
            "login": {
                "type": "object",
                "properties": {
                    "user": {"type": "string"},
                    "pw": {"type": "string", "format": "password"},
                    "more": {"type": "array", "items": {"$ref": "#/$defs/login"}},
                },
            }
        },
    },
    handle,
    effect="write",
)

CALLS: list[tuple[Tool[..., Any], dict[str, Any]]] = [
    (log_in, {"login": {"user": "ann", "pw": SECRET}}),
    (nested, {"value": {"logins": [{"user": "a", "pw": SECRET}], "by_name": {"x": {"user": "a", "pw": SECRET}}}}),
    (nested, {"value": {"next": {"next": {"one": {"user": "a", "pw": SECRET}}}}}),
    (pay, {"by": {"kind": "card", "number": SECRET}}),
    (pair, {"pair": {"name": "a", "key": SECRET}, "options": {"note": "n", "token": SECRET}}),
    (named, {"pw": SECRET}),
    (bare, {"pw": SECRET, "many": {"a": [SECRET]}}),
    (FOREIGN, {"id": 1, "login": {"user": "a", "pw": SECRET, "more": [{"user": "b", "pw": SECRET}]}}),
    # What isn't right is masked where the secret may be.
    (log_in, {"login": {"user": "ann", "PW": SECRET}}),
    (log_in, {"login": f'{{"user": "ann", "pw": "{SECRET}"}}'}),
    (log_in, {"login": SECRET}),
    (pay, {"by": {"kind": "cheque", "number": SECRET}}),
    (FOREIGN, {"id": "x", "login": {"user": 1, "pw": SECRET}}),
    (refused, {"account": {"pw": SECRET}}),
    (twice, {"sent": {"number": SECRET, "pw": SECRET}}),
]


def look(told: object) -> bool:
    """Whether the secret is in there, in any of the ways in which it is written."""
    text = told if isinstance(told, str) else repr(told)
    return any(form in text for form in (SECRET, SECRET.encode("unicode_escape").decode(), ascii(SECRET)[1:-1]))


def scan(folder: Path) -> list[str]:
    """The files below the folder that hold the secret."""
    forms = [SECRET.encode(), SECRET.encode("unicode_escape"), SECRET.encode("utf-16-le")]
    return [
        str(path) for path in folder.rglob("*") if path.is_file() and any(form in path.read_bytes() for form in forms)
    ]


@pytest.mark.parametrize("approval", [False, True])
@pytest.mark.parametrize(("called", "arguments"), CALLS)
def test_secret_at_any_depth_is_in_clear_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, called: Tool[..., Any], arguments: dict[str, Any], approval: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    asked = called
    if called is not FOREIGN:
        secret = called.options.secret
        asked = tool(effect="write", name=called.name, approval=True, secret=secret)(called.function)

    async def go() -> None:
        journal, cache = Journal(tmp_path / "journal.db"), DiskCache(tmp_path / "cache")
        model = ScriptedModel([[call(called.name, **arguments)], "Done."])
        agent = Agent(model, tools=[asked if approval else called], cache=cache, journal=journal)
        run = agent.start("go", run_id="r", user="ann", session="s")
        told = [event.to_json() async for event in run]
        result = await run.wait()
        assert not look(told), [event for event in told if look(event)]
        assert not look(result.calls)
        assert not look(result.pending)
        assert not look(repr(result))
        if result.status == "waiting":
            result = await agent.run(
                run_id="r", user="ann", session="s", decisions={pending.id: Approve() for pending in result.pending}
            )
        assert result.status == "done"
        assert not look(repr(result))
        assert not look(journal.events("r", user="ann", session="s"))
        shown = journal.show("r", user="ann", session="s")
        assert shown is not None
        assert not look(shown)
        assert not look(journal.conversation("s", user="ann"))
        await cache.close()
        journal.close()

    asyncio.run(go())
    assert not look(caplog.text)
    assert scan(tmp_path / "cache") == []
    # The journal keeps what the model wrote as long as the run may go on, apart; then it goes.
    assert scan(tmp_path) == []


def test_secret_inside_json_and_in_what_is_in_doubt_is_masked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def go() -> None:
        journal = Journal(tmp_path / "journal.db")
        script = [[call("packed", login=f'{{"user": "ann", "pw": "{SECRET}"}}')], "Done."]
        run = Agent(ScriptedModel(script), tools=[packed], cache=False, journal=journal).start("go", run_id="r")
        told = [event.to_json() async for event in run]
        assert (await run.wait()).status == "in_doubt"
        assert not look(told), [event for event in told if look(event)]
        shown = journal.show("r")
        assert "heard nothing" in repr(shown)
        assert not look(shown)
        journal.close()

    asyncio.run(go())
    assert not look(caplog.text)


def test_field_that_repeats_the_secret_beside_it_is_masked_and_kept_in_a_decision() -> None:
    sent: list[tuple[str, str]] = []

    @tool(effect="write", approval=True)
    async def enter(login: Login) -> str:
        """Log in."""
        sent.append((login.user, login.pw.get_secret_value()))
        return "ok"

    async def go() -> None:
        script = [[call("enter", login={"user": SECRET, "pw": SECRET})], "Done."]
        agent = Agent(ScriptedModel(script), tools=[enter], cache=False)
        waits = await agent.run("go")
        (pending,) = waits.pending
        assert pending.arguments == {"login": {"user": MASK, "pw": MASK}}
        decision = Approve(pending.arguments)
        assert (await agent.run(history=waits.messages, decisions={pending.id: decision})).status == "done"

    asyncio.run(go())
    assert sent == [(SECRET, SECRET)]


def test_mask_in_a_decision_means_as_it_was() -> None:
    charged: list[tuple[int, str]] = []

    @tool(effect="write", approval=True, secret=("token",))
    async def charge(amount: int, token: str) -> str:
        """Charge."""
        charged.append((amount, token))
        return "ok"

    async def go() -> None:
        agent = Agent(ScriptedModel([[call("charge", amount=5, token=SECRET)], "Done."]), tools=[charge], cache=False)
        waits = await agent.run("go")
        (pending,) = waits.pending
        assert pending.arguments == {"amount": 5, "token": MASK}
        decision = Approve({**pending.arguments, "amount": 6})
        result = await agent.run(history=waits.messages, decisions={pending.id: decision})
        assert result.status == "done"
        assert not look(result.calls)

    asyncio.run(go())
    assert charged == [(6, SECRET)]


def test_mask_for_no_secret_in_a_decision_is_refused() -> None:
    @tool(effect="write", approval=True)
    async def enter(note: str, login: Login | None = None) -> str:
        """Log in."""
        return "ok"

    async def go() -> None:
        agent = Agent(ScriptedModel([[call("enter", note="n")], "Done."]), tools=[enter], cache=False)
        waits = await agent.run("go")
        decision = Approve({"note": "n", "login": {"user": "ann", "pw": MASK}})
        result = await agent.run(history=waits.messages, decisions={waits.pending[0].id: decision})
        assert result.status == "waiting"
        assert isinstance(result.error, ToolArgumentsError)
        assert "stands for no secret" in str(result.error)

    asyncio.run(go())


Names = st.sampled_from(["ann", "bob", "eve"])
Logins = st.lists(st.fixed_dictionaries({"user": Names, "pw": st.text(min_size=1, max_size=8)}), max_size=4)
LOGINS = SecretPlaces(
    (),
    lambda: {
        "type": "object",
        "properties": {
            "logins": {
                "type": "array",
                "items": {"type": "object", "properties": {"user": {"type": "string"}, "pw": {"writeOnly": True}}},
            }
        },
    },
)


@given(Logins, st.data())
def test_for_every_order_of_masked_items_no_secret_reaches_another_item(
    logins: list[dict[str, str]], data: st.DataObject
) -> None:
    shown = LOGINS.mask({"logins": logins})["logins"]
    assert isinstance(shown, list)
    places = data.draw(st.lists(st.sampled_from(range(len(logins))), unique=True) if logins else st.just([]))
    given_back = [shown[place] for place in places]
    try:
        unmasked = cast("list[dict[str, str]]", unmask(given_back, logins, shown))
    except ValueError:
        assert len({login["user"] for login in logins}) < len(logins), "two that look alike can't be told apart"
    else:
        assert [login["user"] for login in unmasked] == [logins[place]["user"] for place in places]
        assert all(login in logins for login in unmasked)


@given(Logins)
def test_for_every_value_unmasking_what_is_shown_gives_it_back(logins: list[dict[str, str]]) -> None:
    shown = LOGINS.mask({"logins": logins})["logins"]
    assert unmask(shown, logins, shown) == logins


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(SECRET),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["pw", "logins", "x"]), inner),
    max_leaves=12,
)
MARKED: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "pw": {"type": "string", "writeOnly": True},
        "logins": {"type": "array", "items": {"$ref": "#"}},
    },
    "additionalProperties": {"$ref": "#"},
}


@given(st.dictionaries(st.sampled_from(["pw", "logins", "x"]), Json))
def test_for_every_value_of_a_schema_that_allows_texts_in_secrets_alone_none_is_shown(value: dict[str, Any]) -> None:
    places = SecretPlaces((), lambda: MARKED)
    assert SECRET not in dumps(places.mask(value)).decode()


def test_result_error_progress_and_log_that_repeat_a_secret_are_masked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @tool(effect="idempotent")
    async def echo(login: Login, ctx: Context[Any] = CONTEXT) -> dict[str, Any]:
        """Repeat."""
        ctx.progress(1, 2, f"with {login.pw.get_secret_value()}")
        return {"said": f"in as {login.pw.get_secret_value()}!", "pw": login.pw}

    @tool(effect="idempotent")
    async def refuse(login: Login) -> str:
        """Refuse."""
        raise ToolError(f"wrong: {login.pw.get_secret_value()}")

    @tool(effect="idempotent")
    async def break_down(login: Login) -> str:
        """Break down."""
        raise RuntimeError(f"broken: {login.pw.get_secret_value()}")

    login = {"user": "ann", "pw": SECRET}

    async def go() -> None:
        journal = Journal(tmp_path / "journal.db")
        script = [[call(name, login=login) for name in ("echo", "refuse", "break_down")], "Done."]
        agent = Agent(ScriptedModel(script), tools=[echo, refuse, break_down], cache=False, journal=journal)
        run = agent.start("go", run_id="r")
        told = [event.to_json() async for event in run]
        result = await run.wait()
        assert result.calls[0].value == {"said": f"in as {MASK}!", "pw": MASK}
        assert not look(told)
        assert not look(result.calls)
        assert not look(journal.show("r"))
        journal.close()

    asyncio.run(go())
    assert "broken" in caplog.text
    assert not look(caplog.text)
    assert scan(tmp_path) == []


def test_short_secret_is_masked_where_it_stands_alone() -> None:
    assert mask_echoes({"pin": "42", "text": "42 things"}, {"42"}) == {"pin": MASK, "text": "42 things"}


def test_secret_in_a_resource_stands_for_its_family() -> None:
    @tool(effect="write", secret=("token",), resource=("account:{token}", "user:{login.user}:{login.pw}"))
    async def use(token: str, login: Login) -> str:
        """Use."""
        return "ok"

    arguments = {"token": SECRET, "login": {"user": "ann", "pw": SECRET}}
    assert use.resources(use.validate(arguments)) == ("account:*", "user:ann:*")
    assert use.resources(arguments) == ("account:*", "user:ann:*")


def test_tool_with_a_secret_streams_no_fragments_and_others_do() -> None:
    @tool(effect="read")
    async def find(word: str) -> str:
        """Find."""
        return word

    async def go() -> list[str]:
        script = [[call("log_in", login={"user": "a", "pw": SECRET}), call("find", word="tea")], "Done."]
        run = Agent(ScriptedModel(script), tools=[log_in, find], cache=False).start("go")
        told = [event async for event in run]
        names = {event.call: event.name for event in told if isinstance(event, events.CallNew)}
        pieces = [event.call for event in told if isinstance(event, events.CallArguments)]
        return [names[piece] for piece in pieces]

    assert set(asyncio.run(go())) == {"find"}


def test_call_of_a_tool_that_is_not_there_is_masked_beside_tools_with_secrets(tmp_path: Path) -> None:
    async def go() -> None:
        journal = Journal(tmp_path / "journal.db")
        agent = Agent(
            ScriptedModel([[call("log_im", pw=SECRET)], "Done."]), tools=[log_in], cache=False, journal=journal
        )
        run = agent.start("go", run_id="r")
        told = [event.to_json() async for event in run]
        assert not look((await run.wait()).calls)
        assert not look(told)
        assert not look(journal.show("r"))
        journal.close()

    asyncio.run(go())
    assert scan(tmp_path) == []


def test_run_that_goes_on_in_another_process_has_its_secrets(tmp_path: Path) -> None:
    got: list[str] = []

    @tool(effect="write", approval=True)
    async def enter(login: Login) -> str:
        """Log in."""
        got.append(login.pw.get_secret_value())
        return "ok"

    script = [[call("enter", login={"user": "ann", "pw": SECRET})], "Done."]

    async def ask() -> None:
        with closing(Journal(tmp_path / "journal.db")) as journal:
            agent = Agent(ScriptedModel(script), tools=[enter], cache=False, journal=journal)
            assert (await agent.run("go", run_id="r")).status == "waiting"
            assert not look(journal.show("r"))

    async def answer() -> None:
        with closing(Journal(tmp_path / "journal.db")) as journal:
            agent = Agent(ScriptedModel(script[1:]), tools=[enter], cache=False, journal=journal)
            shown = journal.show("r")
            assert shown is not None
            (node,) = shown.approvals
            changed = Approve({"login": {"user": "bob", "pw": MASK}})
            assert (await agent.run(run_id="r", decisions={node: changed})).status == "done"

    asyncio.run(ask())
    asyncio.run(answer())
    assert got == [SECRET]
    assert scan(tmp_path) == []


def test_guard_that_fails_with_a_secret_leaves_none_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def look_at(call: ToolCall, context: Context[Any]) -> None:
        login = cast(Login, call.arguments["login"])
        raise ValueError("odd") from RuntimeError(f"was {login.pw.get_secret_value()}")

    async def go() -> None:
        script = [[call("log_in", login={"user": "ann", "pw": SECRET})], "Done."]
        agent = Agent(ScriptedModel(script), tools=[log_in], cache=False, before_call=look_at)
        run = agent.start("go")
        told = [event.to_json() async for event in run]
        assert not look(told)
        assert not look((await run.wait()).calls)

    asyncio.run(go())
    assert "its guard failed" in caplog.text
    assert "RuntimeError: was" in caplog.text
    assert not look(caplog.text)


def test_journal_that_stays_open_has_no_secret_of_a_run_that_is_over(tmp_path: Path) -> None:
    async def go() -> None:
        journal = Journal(tmp_path / "journal.db")
        script = [[call("log_in", login={"user": "ann", "pw": SECRET})], "Done."]
        await Agent(ScriptedModel(script), tools=[log_in], cache=False, journal=journal).run("go", run_id="r")
        assert scan(tmp_path) == []
        journal.close()

    asyncio.run(go())


def test_log_that_somebody_reads_is_emptied_when_the_next_run_ends(tmp_path: Path) -> None:
    @tool(effect="read")
    async def find(word: str) -> str:
        """Find."""
        return word

    async def go() -> None:
        journal = Journal(tmp_path / "journal.db")
        await Agent(ScriptedModel(["Hi."]), cache=False, journal=journal).run("go", run_id="first")
        with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM run").fetchone()
            script = [[call("log_in", login={"user": "ann", "pw": SECRET})], "Done."]
            await Agent(ScriptedModel(script), tools=[log_in], cache=False, journal=journal).run("go", run_id="r")
            assert scan(tmp_path) != [], "whoever reads still sees the log as it was"
            reader.execute("COMMIT")
        await Agent(ScriptedModel(["Hi."]), cache=False, journal=journal).run("go", run_id="last")
        assert scan(tmp_path) == []
        journal.close()

    asyncio.run(go())


def test_run_that_is_removed_before_its_end_leaves_no_secret(tmp_path: Path) -> None:
    @tool(effect="write", approval=True)
    async def enter(login: Login) -> str:
        """Log in."""
        return "ok"

    async def go() -> None:
        journal = Journal(tmp_path / "journal.db")
        script = [[call("enter", login={"user": "ann", "pw": SECRET})]]
        agent = Agent(ScriptedModel(script), tools=[enter], cache=False, journal=journal)
        assert (await agent.run("go", run_id="r")).status == "waiting"
        assert scan(tmp_path) != [], "the run may go on, so its model's call is kept"
        assert journal.delete("r")
        assert scan(tmp_path) == []
        journal.close()

    asyncio.run(go())


def test_secret_in_a_given_history_is_kept_apart_and_goes_with_the_run(tmp_path: Path) -> None:
    got: list[str] = []

    @tool(effect="write", approval=True)
    async def enter(login: Login) -> str:
        """Log in."""
        got.append(login.pw.get_secret_value())
        return "ok"

    async def go() -> None:
        script = [
            [call("log_in", login={"user": "ann", "pw": SECRET})],
            "In.",
            [call("enter", login={"user": "bob", "pw": SECRET})],
        ]
        model = ScriptedModel(script)
        agent = Agent(model, tools=[log_in, enter], cache=False)
        first = await agent.run("go")
        waits = await agent.run("again", history=first.messages)
        assert waits.status == "waiting"

        journal = Journal(tmp_path / "journal.db")
        script = ["Well.", [call("enter", login={"user": "eve", "pw": SECRET})], "Done."]
        model = ScriptedModel(script)
        agent = Agent(model, tools=[log_in, enter], cache=False, journal=journal)
        decisions = {pending.id: Approve() for pending in waits.pending}
        result = await agent.run(history=waits.messages, decisions=decisions, run_id="r")
        assert result.status == "done", result.error
        assert not look(journal.show("r"))
        # The model is told its own words, as it was by the run before.
        assert look(model.requests[0].messages)
        waits = await agent.run("more", history=result.messages, run_id="s")
        assert waits.status == "waiting"
        assert not look(journal.show("s"))
        journal.close()

        journal = Journal(tmp_path / "journal.db")
        model = ScriptedModel(["Done."])
        agent = Agent(model, tools=[log_in, enter], cache=False, journal=journal)
        result = await agent.run(run_id="s", decisions={pending.id: Approve() for pending in waits.pending})
        assert result.status == "done", result.error
        (request,) = model.requests
        assert sum(look(message) for message in request.messages) == 3, "the history is the one that was given"
        assert scan(tmp_path) == []
        journal.close()

    asyncio.run(go())
    assert got == [SECRET, SECRET]


def test_secret_field_of_a_typed_answer_is_masked_while_it_grows() -> None:
    async def go() -> None:
        answer = f'{{"user": "ann", "pw": "{SECRET}"}}'
        run = Agent(ScriptedModel([answer]), output_type=Login, cache=False).start("go")
        told = [event async for event in run]
        partial = [event.to_json() for event in told if isinstance(event, events.OutputPartial)]
        assert partial
        assert not look(partial)
        assert not look(told[-1].to_json())
        assert (await run.wait()).output.pw.get_secret_value() == SECRET

    asyncio.run(go())


def test_secret_in_a_given_history_is_kept_apart_in_postgres_too(postgres_journal: str) -> None:
    @tool(effect="write", approval=True)
    async def enter(login: Login) -> str:
        """Log in."""
        return "ok"

    async def go() -> None:
        script = [[call("log_in", login={"user": "ann", "pw": SECRET})], "In."]
        first = await Agent(ScriptedModel(script), tools=[log_in, enter], cache=False).run("go")
        with closing(Journal(postgres_journal)) as journal:
            model = ScriptedModel([[call("enter", login={"user": "eve", "pw": SECRET})]])
            agent = Agent(model, tools=[log_in, enter], cache=False, journal=journal)
            waits = await agent.run("more", history=first.messages, run_id="r")
            assert waits.status == "waiting"
            assert not look(journal.show("r"))
        with closing(Journal(postgres_journal)) as journal:
            model = ScriptedModel(["Done."])
            agent = Agent(model, tools=[log_in, enter], cache=False, journal=journal)
            result = await agent.run(run_id="r", decisions={pending.id: Approve() for pending in waits.pending})
            assert result.status == "done", result.error
            assert sum(look(message) for message in model.requests[0].messages) == 2
        with closing(psycopg.connect(postgres_journal)) as connection:
            assert connection.execute("SELECT count(*) FROM flowkit.kept").fetchone() == (0,)

    asyncio.run(go())


def forget_reads(path: Path) -> None:
    """Delete what the journal has of reads, as if the process had died before it wrote them."""
    place = journal_at(path)
    if isinstance(place, str):
        with psycopg.connect(place) as connection:
            connection.execute("DELETE FROM flowkit.node WHERE effect = 'read'")
        return
    with closing(sqlite3.connect(place)) as file, file:
        file.execute("DELETE FROM node WHERE effect = 'read'")


def make_payment(tokens: Sequence[str], paid: list[str]) -> Recipe[[], str]:
    """A recipe that pays with a token that it reads: at each reading the next one."""
    left = iter(tokens)

    @tool(effect="read")
    def read_token() -> str:
        """Read the token."""
        return next(left)

    @tool(effect="write", approval=True, secret=("token",))
    def pay_with(token: str) -> str:
        """Pay."""
        paid.append(token)
        return "paid"

    @recipe
    def payment() -> str:
        return step(pay_with, step(read_token))

    return payment


@pytest.mark.parametrize(("tokens", "status"), [((SECRET, SECRET), "done"), ((SECRET, SECRET + "!"), "waiting")])
def test_decision_holds_for_the_secret_that_was_asked_about_and_for_no_other(
    tmp_path: Path, journal_store: str, tokens: tuple[str, str], status: str
) -> None:
    """The read isn't durable: a process that dies may have to read again, and get another token."""
    paid: list[str] = []
    payment = make_payment(tokens, paid)
    with opened_journal(tmp_path / "asked") as journal:
        waiting = payment.options(journal=journal, run_id="r", user="ann").run_sync()
        assert waiting.status == "waiting"
    forget_reads(tmp_path / "asked")
    with opened_journal(tmp_path / "asked") as journal:
        assert journal.decide("r", "pay_with", approved=True, by="kim") is not None
        again = payment.options(journal=journal, run_id="r", user="ann").run_sync()
        assert (again.status, paid) == (status, [SECRET] if status == "done" else [])
        if status == "waiting":
            journal.decide("r", "pay_with", approved=True, by="kim")
            assert payment.options(journal=journal, run_id="r", user="ann").run_sync().status == "done"
            assert paid == [SECRET + "!"]


@tool(effect="write", secret=("pw",))
def log_in_with(pw: str, more: Login | None = None) -> str:
    """Log in."""
    return "ok"


def test_input_of_a_recipe_that_becomes_a_secret_is_refused_when_the_recipe_is_made() -> None:
    def direct(pw: str) -> str:
        return step(log_in_with, pw)

    def of_each(found: list[str]) -> list[str]:
        return each(found, lambda one: step(log_in_with, one))

    def below(login: dict[str, str]) -> str:
        return step(log_in_with, "x", more=cast(Any, login))

    cases: list[tuple[Callable[..., Any], str]] = [
        (direct, "'pw' becomes the secret 'pw'"),
        (of_each, "'found' becomes"),
        (below, "'login'"),
    ]
    for made, named in cases:
        with pytest.raises(DefinitionError, match=named):
            recipe(made)

    @recipe
    def from_a_step(user: str) -> str:
        return step(log_in_with, step(find_password, user))

    assert from_a_step.run_sync("ann").output == "ok"


@tool(effect="read")
def find_password(user: str) -> str:
    """Find it."""
    return SECRET


@pytest.mark.parametrize(
    ("inputs", "used", "refused"),
    [
        ("pw: {type: string}", "{tool: log_in_with, with: {pw: X}}", r"login.yaml:4:.*'pw' becomes the secret 'pw'"),
        ("pw: {type: string, format: password}", "{tool: find_password, with: {user: X}}", r"login.yaml:2:.*a secret"),
        ("pw: {type: string, writeOnly: true}", "{tool: find_password, with: {user: X}}", r"login.yaml:2:.*a secret"),
    ],
)
def test_input_of_a_recipe_file_that_is_or_becomes_a_secret_is_refused_with_its_place(
    tmp_path: Path, inputs: str, used: str, refused: str
) -> None:
    file = tmp_path / "login.yaml"
    used = used.replace("X", '"${{ inputs.pw }}"')
    file.write_text(f"recipe: login\ninputs: {{{inputs}}}\nsteps:\n  a: {used}\n")
    with pytest.raises(RecipeFileError, match=refused):
        load_recipe(file, tools=[log_in_with, find_password])


class TypedExtra(BaseModel):
    __pydantic_extra__: dict[str, SecretStr]  # pyright: ignore[reportIncompatibleVariableOverride]
    model_config = ConfigDict(extra="allow")


@pytest.mark.parametrize(
    ("annotation", "value"), [(dict[SecretStr, int], {"hunter2-한글": 1}), (TypedExtra, {"any": "hunter2-한글"})]
)
def test_secret_names_of_a_dict_and_typed_extra_fields_are_masked_where_they_are_repeated(
    annotation: Any, value: JSON
) -> None:
    async def keep(entry: Any) -> str:
        """Keep an entry."""
        return f"kept {value}"

    keep.__annotations__["entry"] = annotation
    keeping = tool(effect="write")(keep)
    agent = Agent(ScriptedModel([[call("keep", entry=value)], "Done."]), tools=[keeping], cache=False)
    result = agent.run_sync("Go.")
    assert result.calls[0].state == "finished"
    assert "hunter2-한글" not in repr(result.calls)
