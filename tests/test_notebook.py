"""What a notebook shows, and the tutorial in a real kernel."""

import asyncio
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flowkit import Agent, RecipeResult, ScriptedModel, each, recipe, step, tool
from flowkit.errors import DefinitionError
from flowkit.runs.live_view import LiveView, show_live
from flowkit.testing import call, run_virtual
from tests.extra_packages import NEEDS_ALL

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial.md"


@tool(effect="read")
async def get_note(order_id: str) -> str:
    """Get the note on an order."""
    return "<script>alert(1)</script>"


@recipe
def look(order_id: str) -> str:
    return step(get_note, order_id)


def show(value: Any) -> dict[str, str]:
    return value._repr_mimebundle_()


def test_graph_and_recipe_are_pictures() -> None:
    for shown in (show(look), show(look.graph())):
        assert shown["image/svg+xml"].startswith("<svg")
        assert "get_note" in shown["text/plain"]


def test_tool_and_agent_say_what_they_are() -> None:
    agent = Agent(ScriptedModel(["Hello."]), tools=[get_note], name="support")
    assert "Get the note on an order." in show(get_note)["text/html"]
    assert "get_note" in show(agent)["text/plain"]


def test_tool_shows_its_parameters_in_words() -> None:
    @tool
    def find(words: str, limit: int = 10) -> str:
        """Find pages."""
        return words * limit

    shown = find._repr_mimebundle_()["text/plain"]  # pyright: ignore[reportPrivateUsage] (the protocol's name)

    assert "\n  words: string" in shown
    assert "\n  limit?: integer, default 10" in shown


def test_run_is_a_timeline_and_result_has_its_calls_and_nothing_of_them_is_markup() -> None:
    async def go() -> tuple[dict[str, str], dict[str, str]]:
        agent = Agent(ScriptedModel([[call("get_note", order_id="1")], "<b>Done</b>"]), tools=[get_note])
        run = agent.start("Hello?")
        result = await run.wait()
        return show(run), show(result)

    run, result = asyncio.run(go())

    assert "get_note" in run["text/plain"]
    assert "get_note  finished" in result["text/plain"]
    assert "<script" not in run["text/html"] + result["text/html"]
    assert "<b>Done" not in result["text/html"]


def test_result_that_cost_nothing_shows_no_cost() -> None:
    result = look_often.run_sync(2)

    assert result.cost_usd == 0
    assert "cost" not in show(result)["text/plain"]


@tool(effect="read")
async def list_orders(count: int) -> list[str]:
    """List orders."""
    return [f"O{number}" for number in range(count)]


@recipe
def look_often(count: int) -> list[str]:
    return each(step(list_orders, count), lambda order: step(get_note, order), at_once=20)


class Pictures:
    """What a notebook was told to show, one picture after another."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def update(self, view: LiveView) -> None:
        self.shown.append(show(view))


def test_live_picture_of_200_steps_stays_small_and_ends_with_the_whole_count() -> None:
    pictures = Pictures()

    async def go() -> RecipeResult[list[str]]:
        run = look_often.start({"count": 200}, cache=False)
        return await show_live(run, pictures)

    result = run_virtual(go())

    last = pictures.shown[-1]
    assert len(result.output) == 200
    assert last["text/plain"].startswith("look_often: done, 201 of 201 steps done")
    assert "… 189 more" in last["text/plain"]
    assert len(last["text/plain"].splitlines()) < 16
    assert "<script" not in last["text/html"]


def test_live_picture_is_replaced_while_a_call_runs() -> None:
    pictures = Pictures()

    @tool(effect="read")
    async def wait_long() -> str:
        """Wait."""
        await asyncio.sleep(1)
        return "<b>late</b>"

    async def go() -> str:
        agent = Agent(ScriptedModel([["I look. ", call("wait_long")], "<i>Done</i>"]), tools=[wait_long], cache=False)
        run = agent.start("Hello?")
        return (await show_live(run, pictures)).output

    assert run_virtual(go()) == "<i>Done</i>"
    during = [picture["text/plain"] for picture in pictures.shown[:-1]]
    assert len(during) >= 4
    assert all("0 of 1 steps done, 1 running" in text and "I look." in text for text in during[:4])
    assert "1 of 1 steps done" in pictures.shown[-1]["text/plain"]
    assert "&lt;i&gt;Done" in pictures.shown[-1]["text/html"]


def test_interrupted_cell_cancels_its_run() -> None:
    async def go() -> str:
        agent = Agent(ScriptedModel([[60.0, "late"]]), cache=False)
        run = agent.start("Hello?")
        cell = asyncio.create_task(run.display())
        await asyncio.sleep(1)
        cell.cancel()
        with suppress(asyncio.CancelledError):
            await cell
        return run.status

    assert run_virtual(go()) == "cancelled"


LIVE_CELLS = [
    """from flowkit import Agent, ScriptedModel, tool
from flowkit.testing import call

@tool(effect="read")
async def get_note(order_id: str) -> str:
    "Get a note."
    return "<script>alert(1)</script>"
""",
    """agent = Agent(ScriptedModel([[call("get_note", order_id="1")], "All good."]), tools=[get_note], cache=False)
result = await agent.start("Hello?").display()
print(result.output)
""",
]


@pytest.mark.slow
def test_live_picture_is_shown_in_a_kernel() -> None:
    nbclient = pytest.importorskip("nbclient", reason=NEEDS_ALL)
    nbformat = pytest.importorskip("nbformat", reason=NEEDS_ALL)
    pytest.importorskip("ipykernel", reason=NEEDS_ALL)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in LIVE_CELLS])
    nbclient.NotebookClient(notebook, timeout=120).execute()

    outputs = notebook.cells[1].outputs
    (picture,) = [output for output in outputs if output.get("output_type") == "display_data"]
    assert "agent: done, 1 of 1 steps done" in picture["data"]["text/plain"]
    assert "All good." in picture["data"]["text/html"]


@pytest.mark.slow
def test_table_as_a_result_is_refused_when_it_is_defined() -> None:
    pandas = pytest.importorskip("pandas", reason=NEEDS_ALL)

    async def load() -> object:
        """Load sales."""
        return pandas.DataFrame()

    for annotation in (pandas.DataFrame, pandas.DataFrame | None, list[pandas.DataFrame]):
        load.__annotations__["return"] = annotation
        with pytest.raises(DefinitionError, match=r'return table\.to_dict\("records"\) as list\[dict\[str, Any\]\]'):
            tool(effect="read")(load)


@pytest.mark.slow
def test_tutorial_runs_in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every program of the page, its own event loop left out as the page says, in one notebook after another."""
    nbclient = pytest.importorskip("nbclient", reason=NEEDS_ALL)
    nbformat = pytest.importorskip("nbformat", reason=NEEDS_ALL)
    pytest.importorskip("ipykernel", reason=NEEDS_ALL)
    monkeypatch.setenv("FLOWKIT_JOURNAL", str(tmp_path / "journal.sqlite3"))
    blocks = re.findall(r"^```python[^\n]*\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    cells = [nbformat.v4.new_code_cell(_for_a_cell(block)) for block in blocks]
    notebook = nbformat.v4.new_notebook(cells=cells)

    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()

    assert len(cells) >= 7
    for block, cell in zip(blocks, notebook.cells, strict=True):
        expected = [line.removeprefix("#> ") for line in block.splitlines() if line.startswith("#> ")]
        printed = "".join(output.get("text", "") for output in cell.outputs if output.get("name") == "stdout")
        for line in expected:
            assert line.strip() in printed


def _for_a_cell(program: str) -> str:
    """What a program says, as the notebooks' page writes it in a cell."""
    program = re.sub(r"asyncio\.run\((\w+\(\))\)", r"await \1", program)
    arguments = r"((?:[^()]|\([^()]*\))*)"
    return re.sub(rf"(\w+|Agent\(model, tools=\[\w+\]\))\.run_sync\({arguments}\)", r"(await \1.run(\2))", program)
