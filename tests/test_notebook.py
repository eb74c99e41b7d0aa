"""What a notebook shows, and the tutorial in a real kernel."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from flowkit import Agent, ScriptedModel, recipe, step, tool
from flowkit.errors import DefinitionError
from flowkit.testing import call

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


def test_table_as_a_result_is_refused_when_it_is_defined() -> None:
    pandas = pytest.importorskip("pandas")

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
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
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
