"""Runs that ended otherwise than with an answer of an agent alone, as tests: denied, failed, limited, nested, with media."""

import asyncio
import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowkit import Approve, Deny, Image, Limits
from flowkit.agent import Agent
from flowkit.apps import load_app
from flowkit.errors import ModelError
from flowkit.exports import replay_run
from flowkit.journal import Journal
from flowkit.measure.cases import load_cases
from flowkit.testing import ScriptedModel, call
from tests.command import Command, make_command
from tests.test_exports import run_pytest

APP = '''
from flowkit import Agent, DefaultModel, Image, recipe, step, tool

@tool(effect="read")
def get_order(order_id: str) -> str:
    """Look an order up."""
    return f"{order_id} is sent"

@tool(approval=True)
def refund(order_id: str) -> str:
    """Give the money back."""
    return "refunded"

@tool(effect="read")
def draw(name: str) -> dict[str, Image | str]:
    """Draw a picture."""
    return {"name": name, "picture": Image.of(b"\\x89PNG" + name.encode(), "image/png")}

@tool(effect="read")
def break_down(reason: str) -> str:
    """Fail."""
    raise RuntimeError(reason)

clerk = Agent(DefaultModel(), tools=[get_order], name="clerk")
desk = Agent(
    DefaultModel(), tools=[clerk.as_tool(description="Ask the clerk."), get_order, refund, draw, break_down], name="desk"
)

@recipe
def check(order_id: str) -> str:
    """Check an order."""
    return step(get_order, order_id)
'''
PICTURE = Image.of(b"\x89PNG asked", "image/png")

ASKED: Mapping[str, tuple[list[list[Any]], Any, Limits | None]] = {
    "nested": ([[call("clerk", message="Where is A1?")], ["It is sent."]], "Where is A1?", None),
    "approved": ([[call("refund", order_id="A1"), call("get_order", order_id="A1")], ["Done."]], "Refund A1", None),
    "denied": ([[call("refund", order_id="A1"), call("get_order", order_id="A1")], ["I may not."]], "Refund A1", None),
    "media": ([[call("draw", name="cat")], ["A cat."]], ["What is it?", PICTURE], None),
    "broken": ([[call("break_down", reason="no")], ["It broke."]], "Break", None),
    "failed": ([[call("get_order", order_id="A1")], [ModelError("the server is gone")]], "Where is A1?", None),
    "refused": ([[ModelError("the server is gone")]], "Hello?", None),
    "limited": (
        [[call("get_order", order_id="A1")], [call("get_order", order_id="A2")], ["Never."]],
        "Where are they?",
        Limits(turns=2),
    ),
}  # fmt: skip
ENDS = {"failed": ("failed", None), "refused": ("failed", None), "limited": ("limit", None)}


async def ask(desk: Agent[Any], clerk: Agent[Any], kind: str, journal: Journal) -> None:
    turns, message, limits = ASKED[kind]
    with (
        desk.override(model=ScriptedModel(turns)),
        clerk.override(model=ScriptedModel([[call("get_order", order_id="A1")], ["A1 is sent."]])),
    ):
        result = await desk.start(message, journal=journal, run_id=kind, limits=limits).wait()
        if result.pending:
            decision = Approve() if kind == "approved" else Deny("not today")
            decisions = {pending.id: decision for pending in result.pending}
            await desk.start(message, journal=journal, run_id=kind, decisions=decisions).wait()


@pytest.fixture
def flowkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    (tmp_path / "desk.py").write_text(APP)
    return make_command(tmp_path, monkeypatch)


def run_it(folder: Path, *kinds: str) -> None:
    app = load_app(str(folder / "desk.py"))
    with closing(Journal(folder / "journal.sqlite3")) as journal:
        for kind in kinds:
            asyncio.run(ask(app.agents["desk"], app.agents["clerk"], kind, journal))


@pytest.mark.parametrize("kind", list(ASKED))
def test_a_run_of_this_kind_becomes_a_test_that_replays_it(flowkit: Command, tmp_path: Path, kind: str) -> None:
    run_it(tmp_path, kind)
    ended = flowkit("runs", "export", kind, "--test", "--app", "desk.py", "--out", f"test_{kind}.py")
    assert ended.code == 0, ended.err
    replay = replay_run(tmp_path / f"test_{kind}.jsonl", tmp_path / "desk.py")
    asked = [
        made.name
        for turn in ASKED[kind][0][: 2 if kind == "limited" else None]
        for made in turn
        if hasattr(made, "name")
    ]
    assert [name for name, _ in replay.calls] == asked
    assert (replay.status, replay.output) == ENDS.get(kind, ("done", ASKED[kind][0][-1][0]))
    assert "blob:" not in (tmp_path / f"test_{kind}.jsonl").read_text(encoding="utf-8")
    assert flowkit("runs", "export", kind, "--case", "--app", "desk.py").code == 0


@pytest.mark.slow
def test_the_tests_pass_in_a_fresh_folder_on_a_machine_that_never_saw_the_runs(
    flowkit: Command, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_it(tmp_path, *ASKED)
    for kind in ASKED:
        assert flowkit("runs", "export", kind, "--test", "--app", "desk.py", "--out", f"test_{kind}.py").code == 0
    fresh = tmp_path_factory.mktemp("fresh")
    for path in (*tmp_path.glob("test_*"), tmp_path / "desk.py"):
        shutil.copy(path, fresh)
    monkeypatch.setenv("XDG_STATE_HOME", str(fresh / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(fresh / "cache"))
    monkeypatch.delenv("FLOWKIT_JOURNAL")
    ended = run_pytest(fresh)
    assert ended.returncode == 0, ended.stdout
    assert f"{len(ASKED)} passed" in ended.stdout


def test_a_run_that_fails_otherwise_than_recorded_isn_t_the_same(flowkit: Command, tmp_path: Path) -> None:
    run_it(tmp_path, "failed")
    assert flowkit("runs", "export", "failed", "--test", "--app", "desk.py", "--out", "test_failed.py").code == 0
    path = tmp_path / "test_failed.jsonl"
    header, *exchanges = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([header, *(line.replace("server is gone", "key is wrong") for line in exchanges)]))
    with pytest.raises(ModelError, match="the key is wrong"):
        replay_run(path, tmp_path / "desk.py")


def test_a_run_that_waits_and_a_case_of_a_recipe_are_refused_with_a_reason(flowkit: Command, tmp_path: Path) -> None:
    app = load_app(str(tmp_path / "desk.py"))
    with closing(Journal(tmp_path / "journal.sqlite3")) as journal:

        async def run() -> None:
            with app.agents["desk"].override(model=ScriptedModel([[call("refund", order_id="A1")]])):
                await app.agents["desk"].start("Refund A1", journal=journal, run_id="waits").wait()
            await app.recipes["check"].start({"order_id": "A1"}, journal=journal, run_id="recipe").wait()

        asyncio.run(run())
    for run_id, form, told in (("waits", "--test", "hasn't ended"), ("recipe", "--case", "is of a recipe")):
        ended = flowkit("runs", "export", run_id, form, "--app", "desk.py")
        assert (ended.code, told in ended.err) == (2, True), ended.err


def test_a_case_keeps_the_images_of_the_message(flowkit: Command, tmp_path: Path) -> None:
    run_it(tmp_path, "media")
    ended = flowkit("runs", "export", "media", "--case", "--app", "desk.py", "--out", "cases.yaml")
    assert ended.code == 0, ended.err
    [case] = load_cases(tmp_path / "cases.yaml").cases
    assert [part for part in case.parts if isinstance(part, Image)] == [PICTURE]
    assert case.message == "What is it?"
