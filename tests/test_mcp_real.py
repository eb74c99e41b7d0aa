"""Servers and hosts that people have: the reference servers of npm and PyPI, the hosts of fastmcp and of the npm SDK."""

import asyncio
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")

from flowkit import Agent, MCPTools, ScriptedModel
from flowkit.media import read_media
from flowkit.models.scripted import call
from tests.extra_packages import NEEDS_ALL
from tests.node import WIRES, find_node, run_client
from tests.test_mcp_tools import ask

pytestmark = pytest.mark.slow

APP = '''
from flowkit import Agent, Image, ScriptedModel, recipe, step, tool
from flowkit.models.scripted import call


@tool(effect="read")
def get_price(product: str) -> int:
    """Get the price of a product, in won."""
    print("looking", product)
    return 9000


@tool(approval=True)
def refund(amount: int) -> str:
    """Pay money back."""
    return f"paid {amount}"


@tool(effect="read")
def draw() -> Image:
    """Draw a picture."""
    return Image.of(b"PNG")


@recipe
def look_up(product: str) -> int:
    """The price of a product."""
    return step(get_price, product)


model = ScriptedModel([[call("refund", amount=5)], "It is done."])
agent = Agent(model, name="desk", tools=[get_price, refund, draw], cache=False)
'''


def flowkit_server(folder: Path) -> tuple[str, list[str]]:
    """The command of `flowkit mcp` with a small app."""
    (folder / "app.py").write_text(APP)
    journal = str(folder / "journal.sqlite3")
    words = ["mcp", str(folder / "app.py"), "--journal", journal, "--tool", "draw", "--tool", "refund"]
    return sys.executable, ["-c", "from flowkit.cli import main; main()", *words]


def npm_server(name: str, *words: str, **options: Any) -> MCPTools:
    """A reference server of npm, as `npm ci` has put it into `tests/wires`."""
    node = find_node()
    program = WIRES / "node_modules" / "@modelcontextprotocol" / f"server-{name}" / "dist" / "index.js"
    if node is None or not program.exists():
        pytest.skip("no packages of npm: run `npm ci` in tests/wires/")
    return MCPTools.stdio(node, str(program), *words, name=name, **options)


def python_server(package: str, *words: str, **options: Any) -> MCPTools:
    """A reference server of PyPI."""
    if find_spec(package) is None:
        pytest.skip(f"{package} isn't installed")
    name = package.removeprefix("mcp_server_")
    return MCPTools.stdio(sys.executable, "-m", package, *words, name=name, **options)


def test_real_filesystem_server_writes_and_reads(tmp_path: Path) -> None:
    files = npm_server("filesystem", str(tmp_path), effects={"read_*": "read", "list_*": "read"})

    async def go() -> Any:
        async with files:
            path = str(tmp_path / "note.txt")
            model = ScriptedModel(
                [
                    [call("filesystem_write_file", path=path, content="hello from the disk")],
                    [call("filesystem_read_text_file", path=path)],
                    "done",
                ]
            )
            return await Agent(model, tools=[files.tools], cache=False).run("go")

    written, read = asyncio.run(go()).calls
    assert written.state == "finished"
    assert "hello from the disk" in str(read.value)
    assert (tmp_path / "note.txt").read_text() == "hello from the disk"


def test_real_everything_server_gives_pictures_progress_and_structures() -> None:
    everything = npm_server("everything", effects={"*": "read"})

    async def go() -> Any:
        async with everything:
            model = ScriptedModel(
                [
                    [
                        call("everything_echo", message="007"),
                        call("everything_get-sum", a=1, b=2),
                        call("everything_get-tiny-image"),
                        call("everything_get-structured-content", location="New York"),
                        call("everything_trigger-long-running-operation", duration=1, steps=2),
                    ],
                    "done",
                ]
            )
            run = Agent(model, tools=[everything.tools], cache=False).start("go")
            seen = [event async for event in run]
            return await run.wait(), seen, model.requests[1]

    result, seen, request = asyncio.run(go())
    echo, total, image, structured, _ = result.calls
    assert {outcome.state for outcome in result.calls} == {"finished"}
    assert echo.value == "Echo: 007"
    assert "3" in str(total.value)
    assert isinstance(structured.value, dict)
    blocks = cast(list[Any], image.value)
    (picture,) = [media for block in blocks if (media := read_media(block)) is not None]
    assert picture.data.startswith(b"\x89PNG")
    shown = [media for message in request.messages for media in getattr(message, "media", ())]
    assert [media.media_type for media in shown] == ["image/png"]
    assert any(event.type == "call.progress" for event in seen)


def test_real_memory_server_keeps_its_state_between_runs(tmp_path: Path) -> None:
    memory = npm_server("memory", env={"MEMORY_FILE_PATH": str(tmp_path / "memory.jsonl")})
    entity = {"name": "Ann", "entityType": "person", "observations": ["likes tea"]}
    asyncio.run(ask(memory, call("memory_create_entities", entities=[entity])))
    result = asyncio.run(ask(memory, call("memory_search_nodes", query="Ann")))
    assert "likes tea" in json.dumps(result.calls[0].value)


def test_real_time_server_of_the_newest_era() -> None:
    time = python_server("mcp_server_time", "--local-timezone=Asia/Seoul", effects={"*": "read"})
    asked = {"source_timezone": "Asia/Seoul", "time": "12:00", "target_timezone": "UTC"}
    result = asyncio.run(ask(time, call("time_convert_time", **asked)))
    assert "03:00" in str(result.calls[0].value)


def test_real_git_server_reads_a_repository(tmp_path: Path) -> None:
    import subprocess

    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "new.txt").write_text("x")
    git = python_server("mcp_server_git", effects={"git_status": "read"})
    result = asyncio.run(ask(git, call("git_git_status", repo_path=str(tmp_path))))
    assert "new.txt" in str(result.calls[0].value)


def test_five_servers_are_connected_at_once_and_all_are_gone_afterwards(tmp_path: Path) -> None:
    command, arguments = flowkit_server(tmp_path)
    servers = [MCPTools.stdio(command, *arguments, name=f"s{number}", effects={"*": "read"}) for number in range(5)]
    model = ScriptedModel([[call(f"s{number}_look_up", product="tea") for number in range(5)], "done"])
    result = asyncio.run(Agent(model, tools=[server.tools for server in servers], cache=False).run("go"))
    assert [outcome.value for outcome in result.calls] == [{"result": 9000}] * 5


def test_fastmcps_client_is_a_host(tmp_path: Path) -> None:
    pytest.importorskip("fastmcp", reason=NEEDS_ALL)
    from fastmcp import Client
    from fastmcp.client.transports import StdioTransport

    command, arguments = flowkit_server(tmp_path)
    asked: list[str] = []

    async def answer(message: str, response_type: Any, params: Any, context: Any) -> Any:
        asked.append(message)
        return {"approved": True}

    async def go() -> None:
        client: Any = Client(StdioTransport(command, arguments, keep_alive=False), elicitation_handler=answer)
        async with client:
            names = [tool.name for tool in await client.list_tools()]
            assert names == ["desk", "look_up", "draw", "refund"]
            priced = await client.call_tool("look_up", {"product": "tea"})
            assert priced.structured_content == {"result": 9000}
            drawn = await client.call_tool("draw", {})
            assert [block.type for block in drawn.content] == ["text", "image"]
            done = await client.call_tool("desk", {"task": "money back"})
            assert done.structured_content["output"] == "It is done."
            paid = await client.call_tool("refund", {"amount": 7})
            assert paid.structured_content == {"result": "paid 7"}

    asyncio.run(go())
    assert len(asked) == 2
    assert '"amount":7' in asked[1].replace(" ", "")


@pytest.mark.parametrize("approves", [True, False])
def test_the_npm_sdks_client_is_a_host(tmp_path: Path, approves: bool) -> None:
    command, arguments = flowkit_server(tmp_path)
    calls: list[Any] = [["look_up", {"product": "tea"}], ["draw", {}], ["refund", {"amount": 7}], ["look_up", {}]]
    told = run_client("mcp_host.mjs", command=command, args=arguments, calls=calls, approve=approves)
    assert told["tools"] == ["desk", "look_up", "draw", "refund"]
    priced, drawn, refunded, wrong = told["results"]
    assert priced["structuredContent"] == {"result": 9000}
    assert drawn["content"][1] == {"type": "image", "data": "UE5H", "mimeType": "image/png"}
    assert (refunded.get("isError", False), len(told["asked"])) == (not approves, 1)
    assert wrong["isError"]
    assert "product" in wrong["content"][0]["text"]
