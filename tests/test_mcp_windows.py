"""The way of Windows to a server's process (C39), taken on this machine: the platform is an argument.

There the `mcp` package starts the process: it finds `npx.cmd` for `npx`, and ends the tree by a job object. What can't
be seen here is the job object.
"""

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")

from mcp.os.win32.utilities import get_windows_executable_command

from flowkit import MCPTools
from flowkit.mcp_client.transports import StdioServer
from flowkit.models.scripted import call
from tests.test_mcp_tools import ask, find_servers

SERVER = Path(__file__).with_name("mcp_raw_server.py")
TOOL: dict[str, Any] = {"name": "say", "inputSchema": {"type": "object"}}


def serve(folder: Path, **odd: Any) -> MCPTools:
    config = folder / "server.json"
    config.write_text(json.dumps({"pages": [[TOOL, {**TOOL, "name": "noise"}]], **odd}))
    logger = logging.getLogger("flowkit.mcp.raw")
    server = StdioServer(sys.executable, (str(SERVER), str(config)), logger, platform="win32")
    return MCPTools(lambda _: server, name="raw", prefix="", effects={"*": "read"}, mode="legacy")


def test_a_command_that_is_a_script_there_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "npx.cmd"
    script.write_text("")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert get_windows_executable_command("npx") == str(script)


def test_a_call_has_its_value_in_every_script_and_no_process_is_left(tmp_path: Path) -> None:
    said = {"content": [{"type": "text", "text": "서울 → 부산, 2 kg"}]}
    result = asyncio.run(ask(serve(tmp_path, results={"say": said}), call("say")))
    assert result.calls[0].value == "서울 → 부산, 2 kg"
    assert find_servers(tmp_path) == []


def test_noise_is_one_warning_without_a_traceback(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = asyncio.run(ask(serve(tmp_path), call("noise")))
    assert result.calls[0].value == "noise done"
    told = [record for record in caplog.records if "no message of the protocol" in record.getMessage()]
    assert told
    assert all(record.levelname == "WARNING" and record.exc_info is None for record in told)


def test_a_process_that_ends_at_once_is_one_sentence_with_its_last_line(tmp_path: Path) -> None:
    logger = logging.getLogger("flowkit.mcp.raw")
    words = ("-c", "raise SystemExit('give it a folder')")
    server = StdioServer(sys.executable, words, logger, platform="win32")
    with pytest.raises(Exception, match="it said: give it a folder"):
        asyncio.run(ask(MCPTools(lambda _: server, name="raw"), call("say")))
