"""MCP servers as tools: real processes, over standard input and output, with faults."""

import asyncio
import base64
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("mcp", reason="the extra `mcp` isn't installed")

from flowkit import (
    Agent,
    ConfigurationError,
    Context,
    DefinitionError,
    MCPTools,
    Needs,
    ScriptedModel,
    Toolset,
    recipe,
    step,
    tool,
)
from flowkit.mcp_client.transports import StdioServer
from flowkit.media import read_media
from flowkit.models.scripted import call
from flowkit.tools import Tool

PIXEL = "iVBORw0KGgo="
SERVER = Path(__file__).with_name("mcp_server.py")


def make_tools(folder: Path, *words: str, **options: Any) -> MCPTools:
    return MCPTools.stdio(sys.executable, str(SERVER), str(folder), *words, **cast(Any, {"name": "small", **options}))


def read_lines(folder: Path, name: str) -> list[str]:
    path = folder / name
    return path.read_text().splitlines() if path.exists() else []


def is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    with suppress(FileNotFoundError, ProcessLookupError):
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def find_servers(folder: Path) -> list[int]:
    """The servers that were started in this folder and still run."""
    return [pid for pid in (int(path.name[4:]) for path in folder.glob("pid-*")) if is_running(pid)]


def count_started(folder: Path) -> int:
    """How many servers were started in this folder."""
    return len(list(folder.glob("pid-*")))


async def ask(tools: MCPTools, *calls: Any, answer: str = "done", **options: Any) -> Any:
    return await Agent(ScriptedModel([[*calls], answer]), tools=[tools.tools], cache=False, **options).run("go")


async def list_names(tools: MCPTools) -> list[str]:
    """The names of the tools as a run sees them."""
    async with tools.tools.opened(_context()):
        return [one.name for one in await tools.tools.current(_context())]


def _context() -> Any:
    from flowkit.context import Context

    return Context(None, run_id="run-of-the-test")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_calls_of_both_eras_give_their_values(tmp_path: Path, mode: str) -> None:
    tools = make_tools(tmp_path, mode=mode)
    result = asyncio.run(
        ask(
            tools,
            call("small_echo", text="007"),
            call("small_add", pair=[1, 2.5]),
            call("small_blocks"),
            call("small_fail"),
            call("small_echo"),
        )
    )
    values = {outcome.call.name: outcome for outcome in result.calls}
    echo, add, blocks, fail, wrong = result.calls
    assert echo.value == "007"
    assert add.value == {"sum": 3.5}
    image = read_media(blocks.value[1])
    assert image is not None
    assert (image.media_type, image.data) == ("image/png", base64.b64decode(PIXEL))
    assert blocks.value == [
        "007",
        {**image.to_json(), "media_type": "image/png", "size_bytes": 8},
        {"type": "resource_link", "uri": "file:///page", "name": "page"},
        {"type": "resource", "uri": "file:///t", "text": "inside"},
    ]
    assert (fail.state, fail.error) == ("failed", "no such shelf")
    assert wrong.state == "failed"
    assert "text" in str(wrong.error)
    assert values["small_echo"]
    assert find_servers(tmp_path) == []


@pytest.mark.slow
def test_a_server_not_entered_lives_as_long_as_each_run_and_an_entered_one_is_shared(tmp_path: Path) -> None:
    async def go() -> None:
        tools = make_tools(tmp_path)
        await ask(tools, call("small_echo", text="a"))
        await ask(tools, call("small_echo", text="b"))
        assert count_started(tmp_path) == 2
        assert find_servers(tmp_path) == []
        async with tools:
            await asyncio.gather(*(ask(tools, call("small_echo", text=str(number))) for number in range(5)))
            assert len(find_servers(tmp_path)) == 1
            assert count_started(tmp_path) == 3
            # Listed once for the shared connection, since nothing changed.
            assert len(read_lines(tmp_path, "lists")) == 3
        assert find_servers(tmp_path) == []

    asyncio.run(go())


@pytest.mark.slow
def test_users_with_one_run_id_have_a_server_each(tmp_path: Path) -> None:
    """Each has credentials of its own: nobody's call may go over the connection of another."""

    def of_user(context: Context[Any] | None) -> StdioServer:
        assert context is not None
        folder = tmp_path / str(context.user)
        folder.mkdir(exist_ok=True)
        return StdioServer(sys.executable, (str(SERVER), str(folder)), logging.getLogger("small"))

    async def go() -> None:
        tools = MCPTools(of_user, name="small", per_user=True, effects={"*": "read"})
        both = asyncio.Barrier(2)

        @tool(effect="read", scope="run")
        async def meet() -> None:
            """Wait until both runs are connected."""
            await both.wait()

        async def run(user: str) -> None:
            model = ScriptedModel([[call("meet")], [call("small_echo", text=user)], "done"])
            await Agent(model, tools=[meet, tools.tools]).run("Go.", user=user, run_id="r")

        await asyncio.gather(run("ann"), run("bob"))

    asyncio.run(go())
    assert [len(read_lines(tmp_path / user, "calls")) for user in ("ann", "bob")] == [1, 1]
    assert not find_servers(tmp_path / "ann") + find_servers(tmp_path / "bob")


def test_a_tool_that_cannot_be_used_is_left_out_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = asyncio.run(list_names(make_tools(tmp_path)))
    assert "small_echo" in names
    assert "small_remote" not in names
    assert "small_a name/with things" in names
    assert "'remote' of small is left out" in caplog.text


@pytest.mark.slow
def test_effects_come_from_the_user_and_hints_only_when_trusted(tmp_path: Path) -> None:
    async def find_effects(**options: Any) -> dict[str, Tool[..., Any]]:
        tools = make_tools(tmp_path, **options)
        async with tools.tools.opened(_context()):
            return {one.name: one for one in await tools.tools.current(_context())}

    async def go() -> None:
        plain = await find_effects()
        assert {one.effect for one in plain.values()} == {"write"}
        trusted = await find_effects(trust_hints=True, approval="destructive")
        assert trusted["small_echo"].effect == "read"
        assert not trusted["small_echo"].approval
        assert trusted["small_add"].approval is True
        named = await find_effects(effects={"ec*": "read", "*": "idempotent"}, approval="destructive", prefix="")
        assert (named["echo"].effect, named["add"].effect) == ("read", "idempotent")
        assert not named["echo"].approval
        assert named["add"].approval is True

    asyncio.run(go())


@pytest.mark.parametrize(
    ("effect", "state", "calls"),
    [("write", "in_doubt", 1), pytest.param("read", "finished", 2, marks=pytest.mark.slow)],
)
def test_a_crash_in_a_call_repeats_a_read_and_leaves_a_write_in_doubt(
    tmp_path: Path, effect: str, state: str, calls: int
) -> None:
    async def go() -> None:
        tools = make_tools(tmp_path, effects={"*": effect})
        async with tools:
            result = await ask(tools, call("small_die"))
            (outcome,) = result.calls
            assert outcome.state == state
            assert read_lines(tmp_path, "calls") == ["die"] * calls
            # The connection is made again for the next call, whatever became of the one before.
            after = await ask(tools, call("small_echo", text="still here"))
            assert after.calls[0].value == "still here"
            assert len(find_servers(tmp_path)) == 1
        assert find_servers(tmp_path) == []

    asyncio.run(go())


@pytest.mark.slow
def test_a_crash_ends_all_calls_in_flight_and_one_reconnect_serves_them(tmp_path: Path) -> None:
    async def go() -> None:
        async with make_tools(tmp_path, effects={"*": "write"}) as tools:
            slow = [asyncio.create_task(ask(tools, call("small_slow"))) for _ in range(2)]
            await until(lambda: read_lines(tmp_path, "calls").count("slow") == 2)
            died = await ask(tools, call("small_die"))
            results = [*await asyncio.gather(*slow), died]
            assert [result.calls[0].state for result in results] == ["in_doubt"] * 3
            again = await asyncio.gather(*(ask(tools, call("small_echo", text=str(n))) for n in range(3)))
            assert [result.calls[0].value for result in again] == ["0", "1", "2"]
            assert count_started(tmp_path) == 2

    asyncio.run(go())


def test_quick_calls_of_other_runs_pass_a_slow_one_and_its_end_is_its_own(tmp_path: Path) -> None:
    """Seven runs share a connection; the one that is stopped takes no other along."""

    async def go() -> None:
        async with make_tools(tmp_path, effects={"*": "read"}) as tools:
            slow = Agent(ScriptedModel([[call("small_slow")], "done"]), tools=[tools.tools], cache=False).start("go")
            await until(lambda: "slow" in read_lines(tmp_path, "calls"))
            quick = await asyncio.gather(*(ask(tools, call("small_echo", text=str(n))) for n in range(5)))
            assert [result.calls[0].value for result in quick] == [str(n) for n in range(5)]
            late = asyncio.create_task(ask(tools, call("small_echo", text="late")))
            slow.cancel()
            assert [outcome.state for outcome in (await slow.wait()).calls] == ["cancelled"]
            assert (await late).calls[0].value == "late"
            assert count_started(tmp_path) == 1

    asyncio.run(go())


@pytest.mark.slow
def test_two_servers_with_the_same_tools_are_told_apart(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    one, two = (make_tools(folder, name=folder.name, effects={"*": "read"}) for folder in folders)
    model = ScriptedModel([[call("one_echo", text="a"), call("two_echo", text="b")], "done"])
    result = asyncio.run(Agent(model, tools=[one.tools, two.tools], cache=False).run("go"))
    assert [outcome.value for outcome in result.calls] == ["a", "b"]
    assert [read_lines(folder, "calls") for folder in folders] == [["echo"], ["echo"]]


@pytest.mark.slow
def test_a_server_killed_while_idle_is_started_again(tmp_path: Path) -> None:
    async def go() -> None:
        async with make_tools(tmp_path, effects={"*": "read"}) as tools:
            await ask(tools, call("small_echo", text="one"))
            (pid,) = find_servers(tmp_path)
            os.kill(pid, 9)
            await until(lambda: not is_running(pid))
            result = await ask(tools, call("small_echo", text="two"))
            assert result.calls[0].value == "two"

    asyncio.run(go())


@pytest.mark.slow
def test_a_stopped_run_stops_its_call_in_the_server(tmp_path: Path) -> None:
    async def go() -> None:
        async with make_tools(tmp_path) as tools:
            agent = Agent(ScriptedModel([[call("small_slow")], "done"]), tools=[tools.tools])
            run = agent.start("go")
            await until(lambda: "slow" in read_lines(tmp_path, "calls"))
            run.cancel()
            result = await run.wait()
            assert result.calls[0].state == "in_doubt"
            await until(lambda: (tmp_path / "stopped").exists())

    asyncio.run(go())


@pytest.mark.slow
def test_progress_of_a_server_is_the_calls(tmp_path: Path) -> None:
    async def go() -> None:
        async with make_tools(tmp_path, timeout=1.0) as tools:
            agent = Agent(ScriptedModel([[call("small_slow")], "done"]), tools=[tools.tools])
            run = agent.start("go")
            seen = [event.to_json() async for event in run]
            (progress,) = [event for event in seen if event["type"] == "call.progress"]
            assert (progress["done"], progress["total"], progress["note"]) == (1, 2, "half")
            # No answer in time: the server was told to stop, and a write may have happened.
            assert [event["type"] for event in seen if event["type"] == "call.in_doubt"] == ["call.in_doubt"]
            await until(lambda: (tmp_path / "stopped").exists())

    asyncio.run(go())


@pytest.mark.slow
def test_a_changed_listing_is_read_before_the_next_turn(tmp_path: Path) -> None:
    async def go() -> None:
        async with make_tools(tmp_path) as tools:
            before = [one.name for one in await tools.tools.current(_context())]
            (tmp_path / "more").touch()
            assert [one.name for one in await tools.tools.current(_context())] == before
            shared = tools._shared  # pyright: ignore[reportPrivateUsage]  # as the server's notification does
            assert shared is not None
            shared.version += 1
            after = [one.name for one in await tools.tools.current(_context())]
            assert after == [*before, "small_more"]

    asyncio.run(go())


@pytest.mark.slow
def test_an_idempotent_call_carries_its_key_and_a_write_none(tmp_path: Path) -> None:
    async def go() -> None:
        tools = make_tools(tmp_path, effects={"echo": "idempotent"})
        await ask(tools, call("small_echo", text="a"), call("small_blocks"))
        first, second = sorted(read_lines(tmp_path, "calls"))
        assert first == "blocks"
        assert len(second.split()) == 2

    asyncio.run(go())


def test_a_needed_tool_may_come_from_a_server(tmp_path: Path) -> None:
    async def go() -> None:
        async with make_tools(tmp_path, effects={"*": "read"}) as tools:
            add = next(one for one in await tools.tools.current(_context()) if one.name == "small_add")

            @tool(effect="read")
            def double(total: dict[str, float] = Needs(add)) -> float:
                """Double a sum."""
                return total["sum"] * 2

            agent = Agent(ScriptedModel([[call("double", pair=[1, 2])], "done"]), tools=[double])
            result = await agent.run("go")
            values = {outcome.call.name: outcome.value for outcome in result.calls}
            assert values == {"small_add": {"sum": 3}, "double": 6}

    asyncio.run(go())


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("no-such-command-of-flowkit", (), "can't be reached"),
        (sys.executable, ("-c", "pass"), "can't be reached"),
        (sys.executable, (str(SERVER), "FOLDER", "mute"), "said nothing for 1 s"),
    ],
)
def test_a_server_that_cannot_be_reached_is_one_sentence(
    tmp_path: Path, command: str, arguments: tuple[str, ...], said: str
) -> None:
    given = [str(tmp_path) if argument == "FOLDER" else argument for argument in arguments]
    tools = MCPTools.stdio(command, *given, name="small", connect_timeout=1.0)
    with pytest.raises(ConfigurationError) as raised:
        asyncio.run(ask(tools))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert find_servers(tmp_path) == []


@pytest.mark.slow
def test_keys_of_this_program_stay_here_and_env_reaches_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    caplog.set_level("INFO", "flowkit.mcp.small")
    tools = make_tools(tmp_path, "noisy", env={"GIVEN": "yes"})
    result = asyncio.run(ask(tools, call("small_environment")))
    names = result.calls[0].value.split()
    assert "GIVEN" in names
    assert "OPENAI_API_KEY" not in names
    assert "a word to the operator" in caplog.text
    assert "Traceback" not in caplog.text
    assert "GIVEN" not in repr(tools)


def test_options_that_would_share_what_is_not_shared_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="needs a scope"):
        MCPTools.stdio("x", name="s", ttl={"a": 60})
    with pytest.raises(ConfigurationError, match="headers of his own"):
        MCPTools.http("http://x.example", name="s", headers=lambda _: {}, ttl={"a": 60}, scope="all")
    with pytest.raises(ConfigurationError, match="expected read"):
        MCPTools.stdio("x", name="s", effects={"a": "reed"})  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_a_connection_of_another_loop_is_refused(tmp_path: Path) -> None:
    async def make() -> MCPTools:
        tools = make_tools(tmp_path)
        return await tools.__aenter__()

    async def use(tools: MCPTools) -> None:
        with pytest.raises(ConfigurationError, match="another event loop"):
            await tools.tools.current(_context())

    async def go() -> None:
        tools = await make()
        await asyncio.to_thread(lambda: asyncio.run(use(tools)))
        await tools.__aexit__(None, None, None)

    asyncio.run(go())


async def until(is_true: Callable[[], bool]) -> None:
    """Wait until something outside this process has happened."""
    async with asyncio.timeout(60):
        while not is_true():  # noqa: ASYNC110  # another process sets no event here
            await asyncio.sleep(0.02)


MISTAKES: list[tuple[Callable[[], Any], str]] = [
    (lambda: Agent(ScriptedModel(["x"]), tools=[cast(Any, MCPTools.stdio("x", name="x"))]), "write tools=[….tools]"),
    (lambda: cast(Any, MCPTools)("npx", name="x"), "write MCPTools.stdio(…) for a command"),
    (lambda: MCPTools.stdio("npx -y a-package", name="x"), "MCPTools.stdio('npx', '-y', 'a-package', name='x')"),
    (lambda: MCPTools.stdio(cast(Any, ["npx", "-y"]), name="x"), "each word on its own"),
    (lambda: MCPTools.stdio("npx", cast(Any, ["-y"]), name="x"), "each word on its own"),
    (lambda: cast(Any, MCPTools.stdio)("npx", args=["-y"], name="x"), "write the arguments after the command"),
    (lambda: cast(Any, MCPTools.stdio)("npx", timout=3, name="x"), "did you mean 'timeout'?"),
    (lambda: cast(Any, MCPTools.stdio)("npx", headers={}, name="x"), "its keys go into env="),
    (lambda: cast(Any, MCPTools.http)("http://x", env={}, name="x"), "its keys go into headers="),
    (lambda: MCPTools.stdio("http://127.0.0.1/mcp", name="x"), "write MCPTools.http(…)"),
    (lambda: MCPTools.http("127.0.0.1/mcp", name="x"), "must begin with http:// or https://"),
    (lambda: MCPTools.stdio("x", name=""), "needs a name"),
    (lambda: MCPTools.stdio("x", name="x", effects=cast(Any, "read")), "effects={'*': 'read'}"),
    (lambda: MCPTools.stdio("x", name="x", effects={"*": cast(Any, "readonly")}), "expected read, idempotent or write"),
    (lambda: MCPTools.stdio("x", name="x", approval=cast(Any, "always")), "expected True, False or 'destructive'"),
    (lambda: MCPTools.stdio("x", name="x", mode=cast(Any, "modern")), "expected 'auto' or 'legacy'"),
    (lambda: MCPTools.stdio("x", name="x", timeout=0), "timeout is 0, expected a number above 0"),
    (lambda: MCPTools.stdio("x", name="x", env=cast(Any, {"KEY": 1})), "env has 'KEY' with a value of int"),
]


@pytest.mark.parametrize(("make", "said"), MISTAKES, ids=[said for _, said in MISTAKES])
def test_a_mistake_is_told_where_it_stands_with_what_to_write(make: Callable[[], Any], said: str) -> None:
    with pytest.raises((ConfigurationError, DefinitionError, TypeError)) as raised:
        make()
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("target", "said"), [(None, "was it found"), (MCPTools.stdio("x", name="x"), ".load().get("), (Toolset(), ".get(")]
)
def test_a_step_of_a_server_says_how_to_take_one_of_its_tools(target: Any, said: str) -> None:
    with pytest.raises(DefinitionError) as raised:

        @recipe
        def wrong() -> str:
            return step(target)

    assert said in str(raised.value)


WITHOUT = """
import sys
sys.modules["mcp"] = sys.modules["opentelemetry"] = None
from flowkit import Agent, ConfigurationError, MCPTools, ScriptedModel, mcp_app
for use in (
    lambda: MCPTools.stdio("x", name="x"),
    lambda: mcp_app([Agent(ScriptedModel(["x"]), name="a")], get_user=lambda _: "ann"),
    lambda: __import__("flowkit.telemetry"),
):
    try:
        use()
    except ConfigurationError as error:
        print(error)
"""


@pytest.mark.slow
def test_without_an_extra_the_error_names_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=120, check=True)
    assert [line.partition("pip install ")[2] for line in done.stdout.splitlines()] == [
        "'flowkit-agents[mcp]'",
        "'flowkit-agents[mcp]'",
        "'flowkit-agents[otel]'",
    ]
