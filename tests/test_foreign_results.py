"""What tools of other frameworks give: media as media, and calls of their oldest and strictest tools."""
# pyright: basic, reportMissingImports=false
# The packages needn't be there where this is checked.

import asyncio
import base64
from typing import Any

import pytest

from flowkit import Agent, Image, ScriptedModel, Tool
from flowkit.media import File
from flowkit.messages import ToolMessage
from flowkit.targets import lower
from flowkit.testing import call
from tests.extra_packages import NEEDS_ALL

pytestmark = pytest.mark.slow  # the packages belong to the extra `test-all`

PNG = b"\x89PNG\r\n"


def ask(one: Tool[..., Any], **arguments: Any) -> ToolMessage:
    """What a model reads of this call."""
    model = ScriptedModel([[call(one.name, **arguments)], "done"])
    asyncio.run(Agent(model, tools=[one], cache=False).run("go"))
    return next(message for message in model.requests[1].messages if isinstance(message, ToolMessage))


def test_images_and_files_of_pydantic_ai_reach_the_model_as_such() -> None:
    pydantic_ai = pytest.importorskip("pydantic_ai", reason=NEEDS_ALL)

    def draw() -> Any:
        """Draw."""
        return [
            "a cup",
            pydantic_ai.BinaryContent(data=PNG, media_type="image/png"),
            pydantic_ai.ImageUrl(url="https://example.com/cup.png"),
            pydantic_ai.BinaryContent(data=b"%PDF", media_type="application/pdf"),
            pydantic_ai.DocumentUrl(url="https://example.com/a/bill.pdf?x=1"),
        ]

    media = ask(Tool.from_pydantic_ai(pydantic_ai.Tool(draw), effect="read")).media
    assert [type(one) for one in media] == [Image, Image, File, File]
    assert (media[0].data, media[2].data) == (PNG, b"%PDF")
    assert isinstance(media[3], File)
    assert media[3].name == "bill.pdf"


def test_images_files_and_texts_of_the_agents_sdk_reach_the_model_as_such() -> None:
    agents = pytest.importorskip("agents", reason=NEEDS_ALL)
    encoded = base64.b64encode(PNG).decode()

    @agents.function_tool
    def draw() -> Any:
        """Draw."""
        return [
            agents.ToolOutputText(text="a cup"),
            agents.ToolOutputImage(image_url=f"data:image/png;base64,{encoded}", detail="low"),
            agents.ToolOutputFileContent(file_data=encoded, filename="cup.png"),
        ]

    told = ask(Tool.from_openai_agents(draw, effect="read"))
    assert "a cup" in told.text
    assert encoded not in told.text
    assert [type(one) for one in told.media] == [Image, File]
    assert [one.data for one in told.media] == [PNG, PNG]
    assert isinstance(told.media[0], Image)
    assert told.media[0].detail == "low"


def test_the_oldest_tools_of_langchain_take_one_text() -> None:
    tools = pytest.importorskip("langchain_core.tools", reason=NEEDS_ALL)
    taken = Tool.from_langchain(tools.Tool(name="shout", func=str.upper, description="Shout."), effect="read")
    assert taken.parameters["required"] == ["tool_input"]
    assert ask(taken, tool_input="tea").text == "TEA"


def test_a_strict_tool_of_the_agents_sdk_has_its_defaults() -> None:
    """Its schema requires all; so a model that isn't held to it leaves out what its function doesn't need."""
    agents = pytest.importorskip("agents", reason=NEEDS_ALL)

    @agents.function_tool
    def add(x: int, y: int = 3) -> int:
        """Add."""
        return x + y

    taken = Tool.from_openai_agents(add, effect="read")
    assert ask(taken, x=1).text == "4"
    assert ask(taken, x=1, y=1).text == "2"
    assert lower(taken.parameters).strict
    assert lower(taken.parameters).schema["required"] == ["x", "y"]
