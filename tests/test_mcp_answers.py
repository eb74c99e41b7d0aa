"""Answers that no client should have to read: each call ends at once, with what is true, and no other call suffers."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")

from flowkit import Agent, ScriptedModel
from flowkit.events import CallProgress
from flowkit.models.scripted import call
from tests.test_mcp_cases import ANYTHING, serve
from tests.test_mcp_tools import ask, count_started, find_servers

NONE = "raw gave a result that isn't one of the protocol"
DONE = "it was done, but its result can't be shown; don't repeat it"
DEEP = '{"jsonrpc":"2.0","id":ID,"result":{"content":[],"structuredContent":' + '{"a":' * 5000 + "1" + "}" * 5000 + "}}"
ANSWERS: dict[str, tuple[str, str | None]] = {
    "no result": ('{"jsonrpc":"2.0","id":ID,"result":null}', None),
    "an empty result": ('{"jsonrpc":"2.0","id":ID,"result":{}}', None),
    "a text for content": ('{"jsonrpc":"2.0","id":ID,"result":{"content":"hi"}}', None),
    "an unknown kind of content": ('{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"hologram"}]}}', None),
    "half a surrogate pair": (
        '{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"text","text":"\\ud800"}]}}',
        None,
    ),
    "nested without end": (DEEP, None),
    "an error that is a text": ('{"jsonrpc":"2.0","id":ID,"error":"boom"}', "an error that can't be read: 'boom'"),
}


def tool_named(name: str) -> dict[str, Any]:
    return {"name": name, "inputSchema": ANYTHING}


@pytest.mark.parametrize("effect", ["read", "write"])
@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_that_is_none_ends_its_call_and_no_other(tmp_path: Path, kind: str, effect: str) -> None:
    line, said = ANSWERS[kind]
    options = {"effects": {"x": effect, "y": "write"}, "timeout": 600}
    small = serve(tmp_path, tool_named("x"), tool_named("y"), lines={"x": line}, options=options)
    result = asyncio.run(ask(small, call("x"), call("y"), call("x")))
    first, other, last = result.calls
    expected = said or (NONE if effect == "read" else DONE)
    assert [(one.state, one.error) for one in (first, last)] == [("failed", expected)] * 2
    assert (other.state, other.value) == ("finished", "y done")
    assert count_started(tmp_path) == 1, "the connection is whole"
    assert find_servers(tmp_path) == []


def test_a_model_reads_no_error_of_a_megabyte(tmp_path: Path) -> None:
    loud = {"code": -32000 - 50, "message": "e" * 1_000_000}
    told = {"content": [{"type": "text", "text": "f" * 1_000_000}], "isError": True}
    small = serve(tmp_path, tool_named("x"), tool_named("y"), results={"x": loud, "y": told})
    result = asyncio.run(ask(small, call("x"), call("y")))
    for one, letter in zip(result.calls, "ef", strict=True):
        assert one.error.startswith(letter * 10_000)
        assert one.error.endswith("… (990,000 characters more)")


def test_a_flood_of_progress_is_thinned_out_and_the_answer_comes(tmp_path: Path) -> None:
    small = serve(tmp_path, tool_named("flood"), tool_named("y"))

    async def go() -> tuple[Any, int]:
        model = ScriptedModel([[call("flood"), call("y")], "done"])
        run = Agent(model, tools=[small.tools], cache=False).start("go")
        result = await run.wait()
        return result, sum(isinstance(event, CallProgress) for event in run.log.events)

    result, told = asyncio.run(go())
    assert [one.value for one in result.calls] == ["flood done", "y done"]
    assert 0 < told < 3000


def test_a_write_whose_server_died_says_once_that_it_may_have_happened(tmp_path: Path) -> None:
    small = serve(tmp_path, tool_named("endless_line"), options={"effects": {}})
    (only,) = asyncio.run(ask(small, call("endless_line"))).calls
    assert only.state == "in_doubt"
    assert only.error.count("it may have happened") == 1


def test_a_tool_without_a_name_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    small = serve(tmp_path, tool_named(""), tool_named("x"))
    assert asyncio.run(ask(small, call("x"))).calls[0].value == "x done"
    assert "its name is empty" in caplog.text
