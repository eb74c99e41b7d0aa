"""Hosts of `flowkit mcp` over stdio that write what is no message, or vanish: runs stop, and nobody reads a traceback."""

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")

APP = """
import asyncio
from pathlib import Path

from flowkit import Agent, ScriptedModel, tool


@tool(effect="read")
async def wait() -> str:
    "Wait for long."
    print("began", flush=True)
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        Path("stopped").touch()
        raise
    return "waited"


agent = Agent(ScriptedModel(["hello"]), tools=[wait], name="desk")
"""
NO_MESSAGES = ("{bad json", "[]", "null", "{}", '{"jsonrpc":"2.0","id":5}', '{"a":' * 3000 + "1" + "}" * 3000)


@contextmanager
def open_host(folder: Path, version: str = "2025-11-25") -> Generator[subprocess.Popen[str]]:
    """A host that has shaken hands; the process must have ended when the block is left."""
    (folder / "app.py").write_text(APP)
    words = ["-c", "from flowkit.cli import main; main()", "mcp", "app.py", "--tool", "wait", "--journal", "j.sqlite3"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, *words], stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=folder
    ) as host:
        try:
            about = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "h", "version": "1"}}
            answer = ask(host, 0, "initialize", about)
            assert "serverInfo" in answer["result"]
            write(host, json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            yield host
        finally:
            if host.stdin is not None and not host.stdin.closed:
                host.stdin.close()
            host.wait(60)


def write(host: subprocess.Popen[str], line: str) -> None:
    assert host.stdin is not None
    host.stdin.write(line + "\n")
    host.stdin.flush()


def ask(host: subprocess.Popen[str], number: int, method: str, params: Any) -> Any:
    write(host, json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
    assert host.stdout is not None
    answer = json.loads(host.stdout.readline())
    assert answer["id"] == number
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("version", ["2024-11-05", "2025-06-18", "1999-01-01"])
def test_a_host_of_an_old_or_unknown_version_that_writes_no_messages_is_answered_on(
    tmp_path: Path, version: str
) -> None:
    with open_host(tmp_path, version) as host:
        for line in NO_MESSAGES:
            write(host, line)
        listed = ask(host, 1, "tools/list", {})
        assert [one["name"] for one in listed["result"]["tools"]] == ["desk", "wait"]
        refused = ask(host, 2, "tools/call", {"name": "nothing", "arguments": {}})
        assert "there is no tool 'nothing'" in refused["error"]["message"]
    assert host.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("way", ["it closes its side", "it hears no more"])
def test_a_host_that_vanishes_stops_its_run_without_a_traceback(tmp_path: Path, way: str) -> None:
    with open_host(tmp_path) as host:
        params: dict[str, Any] = {"name": "wait", "arguments": {}}
        write(host, json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}))
        assert host.stderr is not None
        assert host.stdout is not None
        assert host.stdin is not None
        assert host.stderr.readline() == "began\n"  # what an app prints goes there
        if way == "it hears no more":
            host.stdout.close()
        host.stdin.close()
        assert "Traceback" not in host.stderr.read()
    assert host.returncode == 0
    assert (tmp_path / "stopped").exists()
