"""MCP servers in recipe files and on the command line, and what a run holds open for its tools."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")

from flowkit import Agent, ConfigurationError, Context, MCPTools, ScriptedModel, load_recipe, recipe, step, tool
from flowkit.errors import RecipeFileError
from flowkit.mcp_client.entries import read_command, read_entry
from flowkit.models.scripted import call
from flowkit.tools.lives import open_lives
from tests.command import Command
from tests.server import ScriptedServer, chat
from tests.server import call as sent
from tests.test_mcp_tools import count_started, find_servers

SERVER = Path(__file__).with_name("mcp_server.py")

RECIPE = """
recipe: add
mcp:
  small:
    command: [{python}, {server}, {folder}]
    effects: {{"*": read}}
    env: {{GIVEN: "${{GIVEN_HERE}}"}}
inputs:
  a: number
steps:
  total:
    tool: small_add
    with: {{pair: ["${{{{ inputs.a }}}}", 2]}}
  who:
    tool: small_environment
output: ["${{{{ steps.total.sum }}}}", "${{{{ steps.who }}}}"]
"""


def write_recipe(folder: Path, old: str = "", new: str = "") -> Path:
    path = folder / "add.yaml"
    text = RECIPE.format(python=sys.executable, server=SERVER, folder=folder).lstrip()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def test_a_recipe_file_names_the_servers_whose_tools_it_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIVEN_HERE", "yes")
    loaded = load_recipe(write_recipe(tmp_path))
    assert loaded.plan.effect == "read"
    total, names = cast(list[Any], loaded.run_sync(a=1).output)
    assert total == 3
    assert "GIVEN" in names.split()
    # One process to learn what the tools are, one for the run; none is left.
    assert count_started(tmp_path) == 2
    assert find_servers(tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("command:", "comand:", "add.yaml:4:5: mcp.small: unknown key 'comand'; did you mean 'command'?"),
        ('"*": read', '"*": reed', "add.yaml:5:20: mcp.small.effects.*: 'reed' isn't known"),
        (sys.executable, "no-such-command-here", "add.yaml:3:3: mcp.small: the MCP server 'small'"),
        (
            str(SERVER),
            "-c, \"raise SystemExit('no key is set')\"",
            "can't be reached: Connection closed; it said: no key",
        ),
        ("${GIVEN_HERE}", "${NOT_SET_HERE}", "the environment variable NOT_SET_HERE isn't set"),
        ("small_add", "small_ad", "there is no tool 'small_ad'; did you mean 'small_add'?"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said_at_load_time_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, said: str
) -> None:
    monkeypatch.setenv("GIVEN_HERE", "yes")
    with pytest.raises(RecipeFileError) as raised:
        load_recipe(write_recipe(tmp_path, old, new))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert find_servers(tmp_path) == []


def test_an_entry_needs_a_command_or_an_address() -> None:
    served = read_entry("shop", {"url": "https://${HOST}/mcp", "headers": {"X": "${KEY}"}}, {"HOST": "a.b", "KEY": "k"})
    assert served.where == "https://a.b/mcp"
    assert "k" not in repr(served)
    with pytest.raises(ConfigurationError, match="its command is empty"):
        read_entry("shop", {"command": " "}, {})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("npx -y @modelcontextprotocol/server-memory", "memory"),
        ("uvx mcp-server-git --repository .", "git"),
        (f"{sys.executable} {SERVER} folder", "mcp_server"),
        ("http://127.0.0.1:8765/mcp", "localhost_8765"),
        ("http://localhost:8765/mcp", "localhost_8765"),
        ("http://[::1]:8765/mcp/", "localhost_8765"),
        ("http://10.0.0.5:80/mcp", "10_0_0_5_80"),
        ("https://user:key@mcp.shop.example/mcp?key=s3cret", "shop"),
        ("https://api.shop.example/v1/mcp", "shop"),
        ("https://tools.example/crm/mcp", "crm"),
        ("http://box:9000/mcp", "box_9000"),
        ("/opt/shop.venv/bin/flowkit mcp app.py", "app"),
    ],
)
def test_a_server_on_a_command_line_is_called_after_its_package(text: str, name: str) -> None:
    assert read_command(text).name == name


@pytest.mark.parametrize("text", ["http://[::1", "http://a:port/mcp", "http://a:99999/mcp"])
def test_an_address_that_is_none_is_one_sentence(text: str) -> None:
    with pytest.raises(ConfigurationError, match="address of an MCP server can't be read"):
        read_command(text)


@pytest.mark.slow
def test_a_loaded_tool_is_a_step_and_its_server_lives_as_long_as_the_run(tmp_path: Path) -> None:
    small = MCPTools.stdio(sys.executable, str(SERVER), str(tmp_path), name="small", effects={"*": "read"})
    echo = small.load().get("small_echo")
    assert echo is not None
    assert echo.origin == f"MCP server small ({sys.executable})"

    @recipe
    def say(text: str) -> str:
        return step(echo, text=text)

    @tool(effect="read")
    def shout(text: str) -> str:
        return text.upper()

    assert say.run_sync(text="hi").output == "hi"
    model = ScriptedModel([[call("small_echo", text="a"), call("shout", text="b")], "done"])
    result = Agent(model, tools=[echo, shout], cache=False).run_sync("go")
    assert [outcome.value for outcome in result.calls] == ["a", "B"]
    assert count_started(tmp_path) == 3
    assert find_servers(tmp_path) == []


APP = """
import sys
from flowkit import Agent, DefaultModel, MCPTools, tool
small = MCPTools.stdio(sys.executable, {server!r}, {folder!r}, name="small", effects={{"echo": "read"}}, prefix="s.")
agent = Agent(DefaultModel(), tools=[small.tools])
"""


@pytest.mark.slow
def test_the_command_lists_a_servers_tools_with_effect_and_origin(flowkit: Command, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP.format(server=str(SERVER), folder=str(tmp_path)))
    shown = flowkit("tools", "app.py")
    assert shown.code == 0, shown.err
    lines = " ".join(shown.out.split())
    assert f"s.echo read, from MCP server small ({sys.executable})" in lines
    assert "s.add write (not declared), from MCP server small" in lines
    assert find_servers(tmp_path) == []


@pytest.mark.slow
def test_a_server_is_tried_in_a_chat_without_an_app(
    flowkit: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedServer([chat(sent("mcp_server_echo", text="it works")), chat("It said so.")]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        said = flowkit("chat", "what can you do?", "--mcp", f"{sys.executable} {SERVER} {tmp_path}")
        assert said.code == 0, said.err
        assert "It said so." in said.out
        assert "mcp_server_echo" in said.err
        told = server.requests[1].body["messages"][-1]["content"]
        assert told == "it works"
    assert find_servers(tmp_path) == []


def test_a_server_that_cannot_be_tried_is_one_line(flowkit: Command) -> None:
    said = flowkit("chat", "hi", "--mcp", f"{sys.executable} -c 'raise SystemExit(\"give it a folder\")'")
    assert said.code == 2
    assert said.err.strip().endswith("it said: give it a folder")
    assert "Traceback" not in said.err
    alone = flowkit("chat")
    assert alone.code == 2
    assert "name an app to talk to" in alone.err


def test_several_lives_are_opened_and_closed_at_once_and_an_error_closes_all() -> None:
    async def go() -> list[str]:
        told: list[str] = []
        both, gone = asyncio.Barrier(2), asyncio.Barrier(2)

        def make(name: str, *, fails: bool = False) -> Any:
            @asynccontextmanager
            async def live(context: Context[Any]) -> AsyncGenerator[None]:
                # Neither gets further before both are here: one after the other would wait for ever.
                await both.wait()
                if fails:
                    raise ConfigurationError(f"{name} is down")
                told.append(f"{name} opened")
                try:
                    yield
                finally:
                    await gone.wait()
                    told.append(f"{name} closed")

            return live

        async with asyncio.timeout(60):
            async with open_lives([make("a"), None, make("b")], Context(None)):
                told.append("run")
            gone = asyncio.Barrier(1)
            with pytest.raises(ConfigurationError, match="b is down"):
                async with open_lives([make("a"), make("b", fails=True)], Context(None)):
                    told.append("never")
        return told

    told = asyncio.run(go())
    assert sorted(told[:2]) == ["a opened", "b opened"]
    assert told[2] == "run"
    assert sorted(told[3:5]) == ["a closed", "b closed"]
    assert "never" not in told


def test_a_cancelled_run_closes_what_it_held() -> None:
    closed: list[str] = []

    def make(name: str) -> Any:
        @asynccontextmanager
        async def live(context: Context[Any]) -> AsyncGenerator[None]:
            try:
                yield
            finally:
                await asyncio.sleep(0)
                closed.append(name)

        return live

    async def go() -> None:
        inside = asyncio.Event()

        async def run() -> None:
            async with open_lives([make("a"), make("b")], Context(None)):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(run())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())
    assert sorted(closed) == ["a", "b"]
