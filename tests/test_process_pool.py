"""Tools in processes of this machine: real processes that are killed, and looked for in the process table."""

import asyncio
import importlib
import json
import linecache
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowkit import Executor, Journal, Outcome, ToolCall, each, recipe, step
from flowkit.events import CallStarted, Event
from flowkit.journal import Done, Retry
from flowkit.pools.opened_pools import close_pools, open_processes
from flowkit.recipes.files import load_recipe
from tests.executing import run_calls
from tests.pooled_tools import (
    add,
    die_once,
    hang,
    hang_writing,
    make_text,
    measure,
    note,
    refuse,
    spin,
    where,
    where_later,
    write,
    write_and_die,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def _pool() -> Iterator[None]:
    yield
    pids = open_processes().pids
    close_pools()
    assert not [pid for pid in pids if is_alive(pid)]


@pytest.fixture(autouse=True)
def _full_pool(_pool: None) -> None:  # pyright: ignore[reportUnusedFunction]
    """Start what the pool may have before the test, which may leave no thread behind that it has started."""
    pool = open_processes()
    while len(pool.pids) < pool.size:
        calls = [ToolCall(f"spin/{number}", "spin", {"ms": 100 + number}) for number in range(pool.size)]
        run_calls(*calls, tools=[spin])


def is_alive(pid: int) -> bool:
    """Whether a process is in the table, and not only its remains."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def wait_until_gone(pid: int) -> None:
    """Wait until a process has gone from the table."""
    until = time.monotonic() + 60
    while is_alive(pid):
        assert time.monotonic() < until, f"{pid} is still there"
        time.sleep(0.01)


async def wait_for(file: Path) -> str:
    """Wait until a tool has written a file."""
    return await asyncio.to_thread(read_when_there, file)


def read_when_there(file: Path) -> str:
    """The text of a file that a tool writes, once it is there."""
    until = time.monotonic() + 60
    while not file.exists() or not file.read_text():
        assert time.monotonic() < until, f"nobody has written {file.name}"
        time.sleep(0.01)
    return file.read_text()


def test_functions_run_in_other_processes_which_stay_for_the_next_run() -> None:
    first = run_calls(ToolCall("a", "where", {}), ToolCall("b", "where_later", {}), tools=[where, where_later])
    second = run_calls(ToolCall("a", "where", {}), tools=[where])

    pids = {int(str(outcome.value)) for outcome in [*first.values(), *second.values()]}
    assert os.getpid() not in pids
    assert pids <= set(open_processes().pids)


def test_processes_work_at_once() -> None:
    calls = [ToolCall(f"spin/{number}", "spin", {"ms": 300 + number}) for number in range(4)]

    outcomes = run_calls(*calls, tools=[spin])

    size = open_processes().size
    assert len({str(outcome.value) for outcome in outcomes.values()}) == min(size, 4)


def test_a_read_whose_process_is_killed_runs_again(tmp_path: Path) -> None:
    mark = tmp_path / "pid"

    ended = run_calls(ToolCall("a", "die_once", {"mark": str(mark)}), tools=[die_once])["a"]

    assert ended.state == "finished"
    assert ended.attempt == 2
    assert ended.value != int(mark.read_text())


def test_a_write_whose_process_is_killed_is_in_doubt_and_stays_so(tmp_path: Path) -> None:
    mark, journal = tmp_path / "mark", Journal(tmp_path / "journal")
    call = ToolCall("a", "write_and_die", {"mark": str(mark)})

    ended = run_calls(call, tools=[write_and_die], journal=journal, run_id="one")["a"]
    again = run_calls(call, tools=[write_and_die], journal=journal, run_id="one")["a"]

    assert ended.state == again.state == "in_doubt"
    assert "the process that ran it ended (signal 9): it may have happened" in (ended.error or "")
    assert mark.read_text() == "written\n"
    journal.close()


def test_a_process_killed_from_outside_is_one_lost_call(tmp_path: Path) -> None:
    mark = tmp_path / "pid"

    async def kill(graph: Executor) -> None:
        os.kill(int(await wait_for(mark)), signal.SIGKILL)

    ended = run_calls(ToolCall("a", "hang_writing", {"mark": str(mark)}), tools=[hang_writing, where], drive=kill)["a"]

    assert ended.state == "in_doubt"
    assert run_calls(ToolCall("b", "where", {}), tools=[where])["b"].state == "finished"


def test_a_call_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    mark = tmp_path / "pids"

    ended = run_calls(ToolCall("a", "hang", {"mark": str(mark)}), tools=[hang])["a"]

    assert ended.error == "no answer within 0.5 s"
    for pid in mark.read_text().split():
        wait_until_gone(int(pid))


def test_a_call_that_is_cancelled_is_ended_at_once(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    pids: list[int] = []

    async def cancel(graph: Executor) -> None:
        pids.append(int(await wait_for(mark)))
        graph.cancel("a", "not wanted any more")

    ended = run_calls(ToolCall("a", "hang_writing", {"mark": str(mark)}), tools=[hang_writing], drive=cancel)["a"]

    assert ended.state == "in_doubt"
    assert "not wanted any more" in (ended.error or "")
    # Its process had gone before that was told.
    assert not is_alive(pids[0])


def test_a_write_that_waits_for_a_process_and_is_cancelled_has_not_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_pools()
    monkeypatch.setenv("FLOWKIT_POOL_SIZE", "1")
    busy, mark = tmp_path / "busy", tmp_path / "mark"

    async def cancel(graph: Executor) -> None:
        await wait_for(busy)
        # Past the run's own limit, which would hold it back before.
        async with Executor(tools=[write]) as other:
            started = asyncio.Event()
            other.log.listen(lambda event: started.set() if event.type == "call.started" else None)
            other.add(ToolCall("b", "write", {"mark": str(mark)}))
            await started.wait()
            other.cancel("b", "not wanted")
            await other.wait()
        assert other.outcomes["b"].state == "cancelled"
        graph.cancel("a", "enough")

    run_calls(ToolCall("a", "hang_writing", {"mark": str(busy)}), tools=[hang_writing], drive=cancel)

    assert not mark.exists()
    close_pools()


@pytest.mark.parametrize("seed", range(6))
def test_whenever_pooled_writes_are_cancelled_each_happens_once_or_is_in_doubt(tmp_path: Path, seed: int) -> None:
    chance, mark, names = random.Random(seed), tmp_path / "mark", [f"w{number}" for number in range(6)]
    calls = [ToolCall(name, "note", {"mark": str(mark), "name": name}) for name in names]

    def count() -> Counter[str]:
        return Counter(mark.read_text().split() if mark.exists() else [])

    async def go(journal: Journal, *, cancels: bool) -> dict[str, Outcome]:
        begun = chance.randrange(1, len(names))
        have_begun = asyncio.Event()
        async with Executor(tools=[note], journal=journal, run_id="r") as graph:
            started: set[str] = set()

            def look(event: Event) -> None:
                if isinstance(event, CallStarted):
                    started.add(event.call)
                if len(started) >= begun:
                    have_begun.set()

            graph.log.listen(look)
            for call in calls:
                graph.add(call)
            if cancels:
                await have_begun.wait()
                await asyncio.sleep(chance.uniform(0, 0.02))
                for name in chance.sample(names, chance.randrange(1, len(names) + 1)):
                    graph.cancel(name, "not wanted any more")
            await graph.wait()
        return dict(graph.outcomes)

    for again in range(10):
        journal = Journal(tmp_path / "j")
        ended = asyncio.run(go(journal, cancels=again == 0))
        written = count()
        for name, outcome in ended.items():
            match outcome.state:
                case "finished":
                    assert written[name] == 1
                case "cancelled":
                    assert written[name] == 0, "it had begun, and nobody was told"
                case state:
                    assert state == "in_doubt"
                    assert written[name] <= 1
                    happened = Done(name) if written[name] else Retry()
                    journal.resolve("r", name, happened, by="ada")
        journal.close()
        if {outcome.state for outcome in ended.values()} == {"finished"}:
            break
    assert count() == Counter(names)


def test_the_executors_own_end_leaves_nothing_running(tmp_path: Path) -> None:
    mark = tmp_path / "pid"

    async def go() -> int:
        async with Executor(tools=[hang_writing]) as graph:
            graph.add(ToolCall("a", "hang_writing", {"mark": str(mark)}))
            return int(await wait_for(mark))

    assert not is_alive(asyncio.run(go()))


def test_large_values_go_both_ways() -> None:
    big = "ß" * 10_000_000

    outcomes = run_calls(
        ToolCall("a", "make_text", {"size": 50_000_000}),
        ToolCall("b", "measure", {"text": big}),
        tools=[make_text, measure],
    )

    assert len(str(outcomes["a"].value)) == 50_000_000
    assert outcomes["b"].value == len(big)


CHANGING = """
from flowkit import tool
@tool(effect="read", pool="process")
def tell() -> int:
    return {number}
"""


def test_a_module_that_was_loaded_anew_is_loaded_anew_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "changing_tools.py"
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two changes within a second have one date
    file.write_text(CHANGING.format(number=1))
    module = importlib.import_module("changing_tools")
    before = run_calls(ToolCall("a", "tell", {}), tools=[module.tell])["a"]

    file.write_text(CHANGING.format(number=22))
    linecache.checkcache()
    importlib.reload(module)
    after = run_calls(ToolCall("a", "tell", {}), tools=[module.tell])["a"]
    file.write_text(CHANGING.format(number=333))
    stale = [run_calls(ToolCall("a", "tell", {}), tools=[module.tell])["a"] for _ in range(2 * open_processes().size)]
    del sys.modules["changing_tools"]

    assert before.value == 1
    assert after.value == 22
    assert {outcome.state for outcome in stale} <= {"finished", "failed"}
    for outcome in stale:
        assert outcome.value == 22 or "the code of changing_tools.tell differs" in (outcome.error or "")


def test_the_log_has_the_traceback_of_the_other_process(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        ended = run_calls(ToolCall("a", "refuse", {"how": "else"}), tools=[refuse])["a"]

    assert ended.error is not None
    assert ended.error.startswith("failed (ref ")
    assert 'raise ValueError("deep inside")' in caplog.text


@recipe
def add_all(numbers: list[int]) -> list[int]:
    """Add one to each number, in other processes."""
    return each(numbers, lambda number: step(add, number, 1))


def test_an_each_of_ten_thousand_items_stays_within_its_window() -> None:
    items = 10_000
    waiting: list[int] = []
    pool = open_processes()
    submit = pool.submit

    def count(job: Any) -> None:
        waiting.append(pool.queued)
        submit(job)

    pool.submit = count  # type: ignore[method-assign]
    try:
        result = add_all.run_sync(list(range(items)))
    finally:
        del pool.submit  # type: ignore[method-assign]

    assert result.output == list(range(1, items + 1))
    assert len(waiting) == items
    assert max(waiting) <= pool.size


def test_a_write_is_claimed_and_recorded_in_the_journal(tmp_path: Path) -> None:
    mark, journal = tmp_path / "mark", Journal(tmp_path / "journal")
    call = ToolCall("a", "write", {"mark": str(mark)})

    first = run_calls(call, tools=[write], journal=journal, run_id="one")["a"]
    again = run_calls(call, tools=[write], journal=journal, run_id="one")["a"]

    assert first.value == again.value
    assert mark.read_text() == "written\n"
    journal.close()


PROGRAM = """
import asyncio, os, sys
from flowkit import Executor, ToolCall, tool
from tests.pooled_tools import hang_writing, where

@tool(effect="read", pool="process")
def double(number: int) -> int:
    print("double", flush=True)
    return 2 * number

async def main():
    async with Executor(tools=[double, where, hang_writing]) as graph:
        for number in range(4):
            graph.add(ToolCall(f"d/{number}", "double", {"number": number}))
        await graph.wait()
        print([outcome.value for outcome in graph.outcomes.values()], flush=True)
        from flowkit.pools.opened_pools import open_processes
        print(*open_processes().pids, flush=True)
        if sys.argv[1] == "hang":
            graph.add(ToolCall("h", "hang_writing", {"mark": sys.argv[2]}))
            await graph.wait()

if __name__ == "__main__":
    asyncio.run(main())
"""


def start_program(tmp_path: Path, *arguments: str) -> "subprocess.Popen[str]":
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FLOWKIT_POOL_SIZE": "2"}
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(script), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_script_ends_with_its_pool(tmp_path: Path) -> None:
    said, errors = start_program(tmp_path, "end").communicate(timeout=120)

    lines = said.splitlines()
    assert lines.count("double") == 4
    assert "[0, 2, 4, 6]" in lines
    assert errors == ""
    pids = [int(pid) for pid in lines[-1].split()]
    assert pids
    assert not [pid for pid in pids if is_alive(pid)]


def test_what_a_tool_prints_goes_where_its_parent_prints(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    # As a server of MCP does, which speaks by its standard output.
    script.write_text(PROGRAM.replace("async def main():", "sys.stdout = sys.stderr\n\nasync def main():"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FLOWKIT_POOL_SIZE": "1"}

    done = subprocess.run([sys.executable, str(script), "end"], env=environment, capture_output=True, text=True)

    assert done.stdout == ""
    assert done.stderr.splitlines().count("double") == 4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_no_process_outlives_a_parent_that_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    mark = tmp_path / "pid"
    with start_program(tmp_path, "hang", str(mark)) as program:
        assert program.stdout is not None
        lines: list[str] = []
        while not lines or not lines[-1].replace(" ", "").strip().isdigit():
            lines.append(program.stdout.readline())
            assert lines[-1], program.stderr and program.stderr.read()
        busy = int(read_when_there(mark))
        pids = {busy, *map(int, lines[-1].split())}

        program.send_signal(number)
        program.communicate(timeout=60)

    for pid in pids:
        wait_until_gone(pid)


def test_a_fork_has_pools_of_its_own() -> None:
    run_calls(ToolCall("a", "where", {}), tools=[where])
    program = """
import asyncio, json, os, sys
from flowkit import Executor, ToolCall
from tests.pooled_tools import where

async def main():
    async with Executor(tools=[where]) as graph:
        graph.add(ToolCall("a", "where", {}))
        await graph.wait()
    return graph.outcomes["a"].value

first = asyncio.run(main())
read, write = os.pipe()
if os.fork() == 0:
    code = 1
    try:
        os.write(write, json.dumps(asyncio.run(main())).encode())
        from flowkit.pools.opened_pools import close_pools
        close_pools()
        code = 0
    finally:
        os._exit(code)
os.close(write)
second = os.read(read, 100)
os.wait()
print(json.dumps([first, json.loads(second), asyncio.run(main())]))
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "FLOWKIT_POOL_SIZE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stderr
    first, second, third = json.loads(done.stdout)
    assert first == third != second


def test_a_recipe_of_yaml_uses_the_tools_pool(tmp_path: Path) -> None:
    file = tmp_path / "add_all.yaml"
    file.write_text(add_all.to_yaml())

    loaded = load_recipe(file, tools=[add])

    assert loaded.run_sync(numbers=[1, 2, 3]).output == [2, 3, 4]
