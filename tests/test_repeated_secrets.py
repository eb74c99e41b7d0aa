"""A secret that a model repeats where none belongs: in another argument, in another call, in an inner run."""

import asyncio
import json
import logging
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from flowkit import Agent, Context, ScriptedModel, ToolError, recipe, step, tool
from flowkit.cache import DiskCache
from flowkit.codec import JSON, dumps
from flowkit.context import CONTEXT
from flowkit.errors import ToolArgumentsError
from flowkit.executor import Approve, Executor
from flowkit.exports.recorded_run import read_run
from flowkit.graph.pictures.gantt import draw_timeline
from flowkit.known_secrets import KnownSecrets, MaskedStream
from flowkit.masking import MASK, SecretPlaces, unmask
from flowkit.messages import AssistantMessage
from flowkit.models.base import ModelRequest
from flowkit.references import ToolCall
from flowkit.testing import call
from tests.stores import opened_journal

CARD = "4929-1234-한글-5678"
seen: list[object] = []


class Order(BaseModel):
    note: str
    lines: list[str] = []


@tool(effect="write", resource="note:{note}")
async def pay(card: SecretStr, note: str = "", order: Order | None = None, by_name: dict[str, str] = {}) -> str:  # noqa: B006
    """Pay."""
    seen.append((card.get_secret_value(), note, order, by_name))
    return f"paid with {card.get_secret_value()}, {note}"


@tool(effect="write", approval=True)
async def pay_asking(card: SecretStr, note: str = "") -> str:
    """Pay, when a person has agreed."""
    seen.append((card.get_secret_value(), note))
    return "paid"


@tool(effect="write")
async def write_note(text: str, number: float = 0) -> str:
    """Write a note."""
    seen.append(text)
    raise ToolError(f"the note {text!r} is too long")


@tool(effect="write")
async def keep(text: str) -> str:
    """Keep a note."""
    seen.append(text)
    return "kept"


@tool(effect="write", approval=True)
async def send(text: str) -> str:
    """Send a note, when a person has agreed."""
    seen.append(text)
    return "sent"


@tool(effect="write")
async def crash(text: str) -> str:
    """Fail with a note."""
    raise RuntimeError(f"no room for {text}")


@tool(ttl=300, scope="user", resource="shop:{shop}")
async def look_up(card: SecretStr, shop: str, ctx: Context[Any] = CONTEXT) -> str:
    """Look up a card."""
    return f"known as {card.get_secret_value()} in {shop}"


def shout(value: object) -> str:
    """All that somebody could read of it."""
    return repr(value) + str(value)


def read_files(folder: Path) -> bytes:
    return b"\0".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def forms_of(secret: str) -> list[bytes]:
    return [secret.encode(), dumps(secret)[1:-1]]


SAME = call("pay", card=CARD, note=f"card {CARD}", order={"note": CARD, "lines": [f"<{CARD}>"]}, by_name={CARD: CARD})
LATER = [call("pay", card=CARD), call("write_note", text=f"card is {CARD}."), call("crash", text=CARD)]
NEXT_TURN = [[call("pay", card=CARD)], [call("write_note", text=f"card is {CARD}."), call("crash", text=CARD)]]


@pytest.mark.parametrize("turns", [[[SAME]], [LATER], NEXT_TURN], ids=["same call", "same turn", "next turn"])
def test_secret_that_is_repeated_is_in_clear_nowhere_but_in_the_functions_arguments(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, turns: list[Any]
) -> None:
    seen.clear()
    told: list[JSON] = []
    with opened_journal(tmp_path / "journal" / "j") as journal:
        agent = Agent(ScriptedModel([*turns, "Done."]), tools=[pay, write_note, crash], cache=False, journal=journal)

        async def go() -> Any:
            run = agent.start("Pay.", user="ann", run_id="r")
            async for event in run:
                told.append(event.to_json())
            return await run.wait(), draw_timeline(run.log.events).plain

        with caplog.at_level(logging.DEBUG, logger="flowkit"), closing_loop() as loop:
            result, picture = loop.run_until_complete(go())
        details = journal.show("r", user="ann")
        recorded = shout(details) + shout(journal.conversation("s", user="ann"))
    assert result.status == "done"
    assert CARD in repr(seen), "the functions have it"
    for place, text in {
        "events": dumps(told).decode(),
        "calls": shout(result.calls),
        "result": shout(result),
        "picture": picture,
        "journal": recorded,
        "log": caplog.text,
    }.items():
        assert CARD not in text, place
    assert "card" in dumps(told).decode()
    stored = read_files(tmp_path)
    assert not any(form in stored for form in forms_of(CARD)), "nothing of it is on the disk when the run is over"


def closing_loop() -> Any:
    return closing(asyncio.new_event_loop())


def test_fragments_of_a_later_call_hold_no_known_secret() -> None:
    agent = Agent(ScriptedModel([[call("pay", card=CARD)], LATER[1:2], "Done."]), tools=[pay, write_note], cache=False)
    streamed: dict[str, str] = {}
    sealed: dict[str, JSON] = {}

    async def go() -> None:
        async for event in agent.start("Pay."):
            data = event.to_json()
            if data["type"] == "call.arguments":
                streamed[str(data["call"])] = streamed.get(str(data["call"]), "") + str(data["fragment"])
            elif data["type"] == "call.sealed":
                sealed[str(data["call"])] = data["arguments"]

    with closing_loop() as loop:
        loop.run_until_complete(go())
    assert list(streamed) == ["turn/2/call/0"], "a tool with a secret streams nothing, another goes on streaming"
    assert MASK in streamed["turn/2/call/0"]
    assert CARD not in streamed["turn/2/call/0"]
    assert sealed["turn/2/call/0"] == {"text": f"card is {MASK}."}


@given(
    st.lists(st.text(alphabet='ab"\\한1', min_size=6, max_size=9), min_size=1, max_size=3),
    st.lists(st.one_of(st.integers(0, 2), st.text(alphabet='ab"\\한1', max_size=5)), max_size=6),
    st.lists(st.integers(0, 200), max_size=20),
)
def test_for_every_cut_of_a_stream_no_known_secret_is_shown_and_the_rest_is(
    secrets: list[str], parts: list[int | str], cuts: list[int]
) -> None:
    known = KnownSecrets()
    known.learn(secrets)
    text = dumps("".join(secrets[part % len(secrets)] if isinstance(part, int) else part for part in parts)).decode()
    stream, shown, places = MaskedStream(known), "", sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    for start, end in pairwise(places):
        shown += stream.feed(text[start:end])
    shown += stream.end()
    assert not any(dumps(secret).decode()[1:-1] in shown for secret in secrets)
    if not any(
        form in text for secret in secrets for form in (secret, repr(secret)[1:-1], dumps(secret).decode()[1:-1])
    ):
        assert shown == text


def test_inner_runs_know_the_secrets_of_the_runs_around_them_and_give_them_theirs() -> None:
    def answer(request: ModelRequest) -> Any:
        return "ok" if request.turn > 1 else [call("write_note", text=f"for {CARD}")]

    clerk = Agent(ScriptedModel(answer), tools=[write_note], cache=False, name="clerk")

    @recipe
    def settle(text: str) -> str:
        return step(keep, text)

    turns = [[call("pay", card=CARD)], [call("clerk", task="x"), call("settle", text=f"of {CARD}")], "Done."]
    agent = Agent(ScriptedModel(turns), tools=[pay, clerk.as_tool(), settle.as_tool()], cache=False)
    told: list[JSON] = []

    async def go() -> None:
        async for event in agent.start("Pay."):
            told.append(event.to_json())

    seen.clear()
    with closing_loop() as loop:
        loop.run_until_complete(go())
    assert {f"for {CARD}", f"of {CARD}"} <= set(map(str, seen))
    assert CARD not in dumps(told).decode()


async def decide(name: str, first: Any, shown: dict[str, JSON], changed: dict[str, Any]) -> Any:
    """Approve a call with these changed arguments; the person is shown those."""
    async with Executor(tools=[pay, pay_asking, send]) as graph:
        graph.add(ToolCall("first", "pay", {"card": CARD}))
        await graph.wait("first")
        graph.add(ToolCall("asks", name, first))
        await graph.wait("asks")
        (pending,) = graph.pending
        assert pending.arguments == shown
        graph.decide("asks", Approve(changed))
        await graph.wait("asks")
        return graph.outcome("asks")


@pytest.mark.parametrize(
    ("name", "given", "shown"),
    [
        ("pay_asking", {"card": CARD, "note": f"by {CARD}"}, {"card": MASK, "note": f"by {MASK}"}),
        ("send", {"text": f"by {CARD}"}, {"text": f"by {MASK}"}),
    ],
)
def test_masked_repetition_comes_back_in_a_decision_as_it_was(
    name: str, given: dict[str, Any], shown: dict[str, Any]
) -> None:
    seen.clear()
    with closing_loop() as loop:
        outcome = loop.run_until_complete(decide(name, given, shown, shown))
        assert outcome.state == "finished", outcome.error
        assert f"by {CARD}" in repr(seen[-1])
        with pytest.raises(ToolArgumentsError, match="inside of a text that was changed"):
            loop.run_until_complete(decide(name, given, shown, {**shown, [*shown][-1]: f"with {MASK}"}))


def test_decision_on_a_masked_repetition_holds_for_that_value_alone(tmp_path: Path) -> None:
    with opened_journal(tmp_path / "j") as journal:
        for text in (f"by {CARD}", f"by {CARD[::-1]}"):
            turns = [[call("pay", card=CARD), call("pay", card=CARD[::-1])], [call("send", text=text)], "Done."]
            agent = Agent(ScriptedModel(turns), tools=[pay, send], cache=False, journal=journal)
            result = agent.run_sync("Pay.", user="ann", run_id=f"r-{text}")
            assert [pending.arguments for pending in result.pending] == [{"text": f"by {MASK}"}]


@pytest.mark.parametrize("turns", [[[SAME]], NEXT_TURN], ids=["same call", "next turn"])
def test_traces_hold_no_repeated_secret(turns: list[Any]) -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from flowkit.telemetry import instrument

    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    stop = instrument(tracer_provider=provider, content=True)
    try:
        agent = Agent(ScriptedModel([*turns, "Done."]), tools=[pay, write_note, crash], cache=False)
        agent.run_sync("Pay.", user="ann")
    finally:
        stop()
    told = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "pay" in told
    assert not any(form.decode() in told for form in (*forms_of(CARD), json.dumps(CARD)[1:-1].encode()))


def test_cache_key_file_and_resource_of_a_read_hold_no_repeated_secret(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    turns = [[call("look_up", card=CARD, shop=f"of {CARD}")], "Done."]
    agent = Agent(ScriptedModel(turns), tools=[look_up], cache=cache)
    result = agent.run_sync("Look.", user="ann")
    assert result.calls[0].value == f"known as {MASK} in of {MASK}"
    assert look_up.resources({"card": SecretStr(CARD), "shop": f"of {CARD}"}) == ("shop:*",)
    assert look_up.resources({"card": SecretStr(CARD), "shop": "b"}) == ("shop:b",)
    asyncio.run(cache.close())
    stored = read_files(tmp_path)
    assert stored
    assert not any(form in stored for form in forms_of(CARD))


def test_run_that_goes_on_elsewhere_has_the_repeated_secret_and_shows_none(tmp_path: Path) -> None:
    """The model's own message goes back unchanged, and the second process masks what the first did."""
    seen.clear()
    turns = [[call("pay", card=CARD)], [call("send", text=f"by {CARD}")]]
    with opened_journal(tmp_path / "j") as journal:
        agent = Agent(ScriptedModel(turns), tools=[pay, send], cache=False, journal=journal)
        assert agent.run_sync("Pay.", user="ann", run_id="r").status == "waiting"
        assert CARD not in shout(journal.show("r", user="ann"))
    asked: list[ModelRequest] = []

    def answer(request: ModelRequest) -> Any:
        asked.append(request)
        return "Done."

    with opened_journal(tmp_path / "j") as journal:
        agent = Agent(ScriptedModel(answer), tools=[pay, send], cache=False, journal=journal)
        result = agent.run_sync(user="ann", run_id="r", decisions={"turn/2/call/0": Approve({"text": f"by {MASK}"})})
        assert result.status == "done"
        assert CARD not in shout(journal.show("r", user="ann"))
        assert CARD not in shout(read_run(journal, "r"))
    assert seen[-1] == f"by {CARD}"
    said = [message for message in asked[0].messages if isinstance(message, AssistantMessage)]
    assert f"by {CARD}" in said[1].calls[0].arguments


def test_short_secrets_are_masked_only_where_the_schema_says_so() -> None:
    @tool(effect="write")
    async def open_door(pin: SecretStr, note: str, amount: int = 0, other: int = 0) -> None:
        """Open it."""

    places = open_door.secrets
    assert places.mask({"pin": "12345", "note": "at 12345"}) == {"pin": MASK, "note": "at 12345"}
    assert places.mask({"pin": "123456", "note": "at 123456"}) == {"pin": MASK, "note": f"at {MASK}"}
    assert places.mask({"pin": "123456", "amount": 123456, "other": 1}) == {"pin": MASK, "amount": MASK, "other": 1}


TEXTS = st.text(alphabet="ab1", min_size=6, max_size=8)


@given(TEXTS, st.dictionaries(st.sampled_from("xyz"), st.recursive(TEXTS, lambda part: st.lists(part, max_size=3))))
def test_for_every_value_a_decision_that_changes_nothing_gives_it_back(secret: str, others: dict[str, Any]) -> None:
    before = {"pin": secret, **others, "note": f"it is {secret}"}
    shown = SecretPlaces(["pin"]).mask(before)
    assert secret not in dumps(shown).decode()
    assert unmask(shown, before, shown) == before


def test_progress_of_a_later_call_holds_no_known_secret() -> None:
    @tool(effect="write")
    async def send_slowly(text: str, ctx: Context[Any] = CONTEXT) -> str:
        """Send a note in two steps."""
        ctx.progress(1, 2, f"sending <{text}>")
        await asyncio.to_thread(ctx.progress, 2, 2, f"sent {text!r}")
        return "sent"

    turns = [[call("pay", card=CARD)], [call("send_slowly", text=f"by {CARD}")], "Done."]
    agent = Agent(ScriptedModel(turns), tools=[pay, send_slowly], cache=False)
    notes: list[str] = []

    async def go() -> None:
        async for event in agent.start("Pay."):
            data = event.to_json()
            if data["type"] == "call.progress":
                notes.append(str(data["note"]))

    with closing_loop() as loop:
        loop.run_until_complete(go())
    assert notes
    assert all(MASK in note and CARD not in note for note in notes)
