"""Servers that are killed, stopped, rude or slow: no call hangs, none is answered twice, no process is left.

The process table is looked at after each test, and every wait has an end.
"""

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")

from mcp.client import session

from flowkit import Agent, ConfigurationError, Context, MCPTools, ScriptedModel
from flowkit.models.scripted import call
from flowkit.tools.toolsets import lower_tool
from tests.test_mcp_cases import ANYTHING, SERVER, give, serve
from tests.test_mcp_tools import ask, count_started, find_servers, is_running, list_names, read_lines, until


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """Look at the process table when a test has ended, however it did."""
    yield
    left = find_servers(tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def tool_named(name: str) -> dict[str, Any]:
    return {"name": name, "inputSchema": ANYTHING}


def hear(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read_lines(folder, "heard")]


# Eras


def test_a_server_that_ignores_the_newer_era_is_waited_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "DISCOVER_TIMEOUT_SECONDS", 0.2)
    tools = serve(tmp_path, tool_named("x"), ignores_discover=True)
    for _ in range(3):
        result = asyncio.run(ask(tools, call("x")))
        assert result.calls[0].value == "x done"
    assert len([heard for heard in hear(tmp_path) if "ignored" in heard]) == 1
    legacy = serve(tmp_path, tool_named("x"), ignores_discover=True, options={"mode": "legacy"})
    asyncio.run(ask(legacy, call("x")))
    assert len([heard for heard in hear(tmp_path) if "ignored" in heard]) == 1


def test_what_is_known_of_a_server_is_forgotten_when_it_is_no_longer_true(tmp_path: Path) -> None:
    tools = serve(tmp_path, tool_named("x"))
    asyncio.run(ask(tools, call("x")))
    (tmp_path / "server.json").write_text(json.dumps({"pages": [[]], "version": "1999-01-01"}))
    with pytest.raises(ConfigurationError, match="1999-01-01"):
        asyncio.run(list_names(tools))
    assert count_started(tmp_path) == 3, "once as it was known, and once as a server that nobody knows"


# Killed and stopped


@pytest.mark.slow
@pytest.mark.parametrize("state", ["initialize", "tools/list", "tools/call"])
def test_a_server_killed_while_it_is_waited_for_is_an_error_at_once(tmp_path: Path, state: str) -> None:
    async def go() -> None:
        tools = serve(tmp_path, tool_named("x"), hangs_at=state, options={"mode": "legacy", "effects": {"*": "write"}})
        asking = asyncio.create_task(ask(tools, call("x")))
        await until(lambda: {"hangs": state} in hear(tmp_path))
        (pid,) = find_servers(tmp_path)
        os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(20):
            if state == "tools/call":
                assert [outcome.state for outcome in (await asking).calls] == ["in_doubt"]
            elif state == "initialize":
                with pytest.raises(ConfigurationError, match="can't be reached"):
                    await asking
            else:
                # It was restarted, hangs again, and the run is stopped in the middle of that.
                await until(lambda: len([heard for heard in hear(tmp_path) if "hangs" in heard]) == 2)
                asking.cancel()
                await asyncio.wait([asking])

    asyncio.run(go())


@pytest.mark.slow
def test_a_server_that_stands_still_is_given_up_and_ended(tmp_path: Path) -> None:
    async def go() -> None:
        options = {"timeout": 0.5, "effects": {"write": "write", "*": "read"}}
        async with serve(tmp_path, tool_named("read"), tool_named("write"), options=options) as tools:
            await ask(tools, call("read"))
            (pid,) = find_servers(tmp_path)
            os.kill(pid, signal.SIGSTOP)
            result = await ask(tools, call("write"))
            assert result.calls[0].state == "in_doubt"
            # It doesn't take its input either: more than a pipe and a buffer hold.
            long = "x" * 400_000
            result = await ask(tools, call("write", text=long), call("write", text=long), call("write", text=long))
            assert {outcome.state for outcome in result.calls} == {"in_doubt"}
        assert not is_running(pid)

    asyncio.run(go())


def test_a_server_that_was_stopped_and_goes_on_is_still_used(tmp_path: Path) -> None:
    async def go() -> None:
        async with serve(tmp_path, tool_named("x"), options={"timeout": 30}) as tools:
            await ask(tools, call("x"))
            (pid,) = find_servers(tmp_path)
            os.kill(pid, signal.SIGSTOP)
            long = "x" * 400_000
            asking = asyncio.create_task(ask(tools, call("x", text=long), call("x", text=long)))
            for _ in range(200):
                await asyncio.sleep(0)  # the pipe fills meanwhile, or the machine is slow: both must do
            os.kill(pid, signal.SIGCONT)
            assert [outcome.value for outcome in (await asking).calls] == ["x done"] * 2
            assert find_servers(tmp_path) == [pid]

    asyncio.run(go())


@pytest.mark.slow
def test_a_wrapper_that_is_killed_leaves_no_server(tmp_path: Path) -> None:
    """`npx` starts a server as its child: when `npx` is killed, the child ends too, though it ignores SIGTERM."""
    config = tmp_path / "server.json"
    config.write_text(json.dumps({"pages": [[tool_named("x")]], "stubborn": True}))
    command = shlex.join([sys.executable, str(SERVER), str(config)])

    async def go() -> None:
        async with MCPTools.stdio("sh", "-c", f"echo $$ >{tmp_path}/wrapper; {command}; true", name="raw") as tools:
            await ask(tools, call("raw_x"))
            wrapper = int((tmp_path / "wrapper").read_text())
            assert find_servers(tmp_path) != [wrapper]
            os.kill(wrapper, signal.SIGKILL)
            await until(lambda: not is_running(wrapper))
            assert (await ask(tools, call("raw_x"))).calls[0].value == "x done"

    asyncio.run(go())


# Rude


def test_junk_before_an_answer_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = asyncio.run(ask(serve(tmp_path, tool_named("junk")), call("junk")))
    assert result.calls[0].value == "junk done"
    assert "no message of the protocol" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.slow
def test_a_message_without_end_closes_the_connection(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def go() -> None:
        effects = {"endless_line": "write", "*": "read"}
        async with serve(tmp_path, tool_named("endless_line"), tool_named("x"), options={"effects": effects}) as tools:
            result = await ask(tools, call("endless_line"))
            assert result.calls[0].state == "in_doubt"
            assert (await ask(tools, call("x"))).calls[0].value == "x done"

    asyncio.run(go())
    assert "larger than" in caplog.text
    assert count_started(tmp_path) == 2


@pytest.mark.slow
def test_a_result_of_nine_megabytes_comes_whole(tmp_path: Path) -> None:
    text = "x" * 9_000_000
    tools = serve(tmp_path, tool_named("x"), results={"x": give({"type": "text", "text": text})})
    result = asyncio.run(ask(tools, call("x"), call("x")))
    assert [outcome.value == text for outcome in result.calls] == [True, True]


def test_the_first_of_several_answers_counts(tmp_path: Path) -> None:
    async def go() -> None:
        async with serve(tmp_path, tool_named("twice"), tool_named("x")) as tools:
            result = await ask(tools, call("twice"), call("x"), call("twice"))
            assert [outcome.value for outcome in result.calls] == ["first", "x done", "first"]

    asyncio.run(go())


def test_a_tool_that_changes_during_its_call_is_another_in_the_next_turn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tools = serve(tmp_path, {**tool_named("change"), "description": "One."}, tool_named("x"))
    model = ScriptedModel([[call("change"), call("x")], [call("x"), call("change")], "done"])
    result = asyncio.run(Agent(model, tools=[tools.tools], cache=False).run("go"))
    assert [outcome.state for outcome in result.calls] == ["finished", "finished", "failed", "finished"]
    assert "there is no tool" in str(result.calls[2].error)
    assert "One." in [spec.description for spec in model.requests[0].tools]
    assert [spec.description for spec in model.requests[1].tools] == ["Another."]
    assert "tool change changed its definition" in caplog.text


@pytest.mark.slow
def test_schemas_of_eighty_kilobytes_are_left_out_and_those_below_the_bound_are_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def schema(count: int) -> dict[str, Any]:
        return {"type": "object", "properties": {f"field_{n}": {"type": "string"} for n in range(count)}}

    large = {"name": "large", "inputSchema": schema(2800)}
    small = {"name": "small", "inputSchema": schema(1300)}
    assert len(json.dumps(large)) > 80_000
    assert asyncio.run(list_names(serve(tmp_path, large, small))) == ["small"]
    assert "its schema has" in caplog.text


# Moments


@pytest.mark.slow
def test_a_run_stopped_in_any_moment_of_a_call_leaves_the_connection_whole(tmp_path: Path) -> None:
    """From before it was sent until after its answer came: the next call gets its own answer."""

    async def go() -> None:
        results = {"x": give({"type": "text", "text": "of x"}), "y": give({"type": "text", "text": "of y"})}
        options = {"effects": {"x": "write", "*": "read"}}
        async with serve(tmp_path, tool_named("x"), tool_named("y"), results=results, options=options) as tools:
            seen: set[str] = set()
            for moment in range(61):
                run = Agent(ScriptedModel([[call("x")], "done"]), tools=[tools.tools], cache=False).start("go")
                if moment == 60:
                    await run.wait()
                for _ in range(moment if moment % 2 else moment * 20):
                    await asyncio.sleep(0)
                run.cancel()
                result = await run.wait()
                seen |= {outcome.state for outcome in result.calls}
                assert all(outcome.value in (None, "of x") for outcome in result.calls)
                assert [outcome.value for outcome in (await ask(tools, call("y"))).calls] == ["of y"]
            assert {"in_doubt", "finished"} <= seen <= {"finished", "cancelled", "in_doubt", "void", "skipped"}
            assert find_servers(tmp_path), "the server wasn't lost over it"
            assert count_started(tmp_path) == 1

    asyncio.run(go())


def test_two_loops_have_a_connection_each_and_a_shared_one_is_refused_in_the_other(tmp_path: Path) -> None:
    async def go() -> None:
        tools = serve(tmp_path, tool_named("x"))
        own = [asyncio.to_thread(lambda: asyncio.run(ask(tools, call("x")))) for _ in range(2)]
        for result in await asyncio.gather(*own):
            assert result.calls[0].value == "x done"
        async with tools:
            elsewhere = await asyncio.to_thread(lambda: asyncio.run(find_problem(tools)))
            assert "another event loop" in elsewhere
            assert (await ask(tools, call("x"))).calls[0].value == "x done"

    asyncio.run(go())


async def find_problem(tools: MCPTools) -> str:
    with pytest.raises(ConfigurationError) as raised:
        await tools.tools.current(Context(None, run_id="elsewhere"))
    return str(raised.value)


def test_a_tool_that_stays_in_a_new_list_is_the_same_object_with_its_lowered_schema(tmp_path: Path) -> None:
    async def go() -> None:
        tools = serve(tmp_path, tool_named("grow"))
        async with tools:
            context = Context[Any](None)
            before = await tools.tools.current(context)
            grow = before.get("grow")
            assert grow is not None
            lowered = lower_tool(grow, "openai")
            assert await tools.tools.current(context) is before
            await grow.run({}, context=context)
            after = before
            async with asyncio.timeout(60):
                while "grown" not in after:
                    after = await tools.tools.current(context)
            assert after.get("grow") is grow
            assert lower_tool(grow, "openai") is lowered

    asyncio.run(go())


@pytest.mark.parametrize("way", ["a run is stopped", "entering is stopped"])
def test_what_is_stopped_while_it_connects_does_not_wait_for_the_server(tmp_path: Path, way: str) -> None:
    async def enter(tools: MCPTools) -> None:
        async with tools:
            raise AssertionError("it was never ready")

    async def go() -> None:
        tools = serve(tmp_path, tool_named("x"), starts_after_s=600, options={"connect_timeout": 600})
        async with asyncio.timeout(60):
            if way == "a run is stopped":
                run = Agent(ScriptedModel([[call("x")], "done"]), tools=[tools.tools], cache=False).start("go")
                await until(lambda: count_started(tmp_path) == 1)
                run.cancel()
                assert (await run.wait()).status == "cancelled"
            else:
                entering = asyncio.create_task(enter(tools))
                await until(lambda: count_started(tmp_path) == 1)
                entering.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await entering
        assert find_servers(tmp_path) == []

    asyncio.run(go())
