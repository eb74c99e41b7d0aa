"""A chat with MCP servers that take their time: a person sees what is waited for, and since when."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")

from tests.test_cli_terminal import Terminal

SERVER = Path(__file__).with_name("mcp_raw_server.py")
APP = """
import sys
from flowkit import Agent, MCPTools, ScriptedModel

slow = MCPTools.stdio(sys.executable, {server!r}, {config!r}, name="slow", mode="legacy")
agent = Agent(ScriptedModel(["Hello at last."]), tools=[slow.tools], name="desk")
"""


def write_server(folder: Path, name: str, starts_after_s: float) -> str:
    config = folder / f"{name}.json"
    pages = [[{"name": name, "inputSchema": {"type": "object"}}]]
    config.write_text(json.dumps({"pages": pages, "starts_after_s": starts_after_s}))
    return str(config)


@pytest.mark.slow
def test_servers_of_the_command_line_are_waited_for_together_and_by_name(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text("from flowkit import Agent, ScriptedModel\n\nagent = Agent(ScriptedModel(['Hello at last.']))\n")
    given = [word for n in "ab" for word in ("--mcp", f"{sys.executable} {SERVER} {write_server(tmp_path, n, 2.5)}")]
    with Terminal("chat", str(app), "Hello?", *given, environment={}) as terminal:
        first = terminal.wait_for("waiting for mcp_raw_server, mcp_raw_server_2, 1 s")
        told = terminal.wait_for("mcp_raw_server: 1 tools: mcp_raw_server_a", since=first)
        told = terminal.wait_for("mcp_raw_server_2: 1 tools: mcp_raw_server_2_b", since=told)
        terminal.wait_for("Hello at last.", since=told)
        assert terminal.wait_ended() == 0


@pytest.mark.slow
def test_an_apps_own_servers_are_waited_for_by_name(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP.format(server=str(SERVER), config=write_server(tmp_path, "a", 2.5)))
    with Terminal("chat", str(app), "Hello?", environment={}) as terminal:
        first = terminal.wait_for("waiting for slow, ")
        later = terminal.wait_for("waiting for slow, 2", since=first)
        terminal.wait_for("Hello at last.", since=later)
        assert terminal.wait_ended() == 0
