"""Tools on a Dask cluster: a real scheduler and real workers, killed and replaced."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, cast

import pytest

from flowkit import Executor, Journal, Tool, ToolCall, each, recipe, step
from flowkit.pools.opened_pools import close_pools, open_cluster
from tests.executing import run_calls
from tests.extra_packages import NEEDS_ALL
from tests.pooled_tools import (
    add_far,
    die_once_far,
    make_text_far,
    measure_far,
    put_and_die_far,
    put_text_far,
    refuse_far,
    wait_again_far,
    wait_far,
    wait_for_file_far,
    where_far,
)
from tests.servers.dask import ROOT, DaskCluster

pytest.importorskip("distributed", reason=NEEDS_ALL)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskCluster]:
    """A cluster with a worker that nobody kills."""
    with DaskCluster(workers=1) as running:
        yield running
        close_pools()


@pytest.fixture(autouse=True)
def _connected(cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """Connect before the test, which may leave no thread behind that it has started."""
    monkeypatch.setenv("FLOWKIT_DASK", cluster.address)
    # Large enough that Dask reads it in a thread of its own, which stays.
    large = ToolCall("b", "make_text_far", {"size": 11_000_000})
    ended = run_calls(ToolCall("a", "add_far", {"first": 1, "second": 2}), large, tools=[add_far, make_text_far])
    assert ended["a"].value == 3
    assert ended["b"].state == "finished"


@pytest.fixture
def own() -> Iterator[DaskCluster]:
    """A cluster that a test may ruin."""
    with DaskCluster(workers=0) as running:
        yield running


async def wait_for(file: Path) -> str:
    """Wait until a tool has written a file."""

    def read() -> str:
        until = time.monotonic() + 60
        while not file.exists() or not file.read_text():
            assert time.monotonic() < until, f"nobody has written {file.name}"
            time.sleep(0.01)
        return file.read_text()

    return await asyncio.to_thread(read)


def read_peak_mib(pid: int) -> float:
    """The most memory that a process has had."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def test_functions_run_on_the_workers(cluster: DaskCluster) -> None:
    ended = run_calls(
        ToolCall("a", "where_far", {}),
        ToolCall("b", "refuse_far", {"how": "tool"}),
        ToolCall("c", "refuse_far", {"how": "else"}),
        tools=[where_far, refuse_far],
    )

    assert ended["a"].value == cluster.workers[0].pid
    assert ended["b"].error == "sold out"
    assert (ended["c"].error or "").startswith("failed (ref ")


def test_large_values_go_past_the_scheduler(cluster: DaskCluster) -> None:
    before_mib = read_peak_mib(cluster.scheduler.pid)

    ended = run_calls(
        ToolCall("a", "make_text_far", {"size": 50_000_000}),
        ToolCall("b", "measure_far", {"text": "x" * 50_000_000}),
        tools=[make_text_far, measure_far],
    )

    assert len(str(ended["a"].value)) == ended["b"].value == 50_000_000
    assert read_peak_mib(cluster.scheduler.pid) - before_mib < 40


def test_a_large_result_is_a_blob_in_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    call = ToolCall("a", "put_text_far", {"size": 50_000_000})

    run_calls(call, tools=[put_text_far], journal=journal, run_id="one")
    again = run_calls(call, tools=[put_text_far], journal=journal, run_id="one")["a"]
    journal.close()

    assert again.source == "journal"
    assert len(str(again.value)) == 50_000_000
    assert max(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) >= 50_000_000


def test_a_read_whose_worker_is_killed_runs_on_another(
    own: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.add_worker()
    own.add_worker()
    monkeypatch.setenv("FLOWKIT_DASK", own.address)
    mark = tmp_path / "pid"

    ended = run_calls(ToolCall("a", "die_once_far", {"mark": str(mark)}), tools=[die_once_far])["a"]
    close_pools()

    assert ended.state == "finished"
    assert ended.attempt == 2
    assert {int(str(ended.value)), int(mark.read_text())} == {worker.pid for worker in own.workers}


def test_an_idempotent_call_whose_worker_is_killed_has_failed(
    own: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.add_worker()
    monkeypatch.setenv("FLOWKIT_DASK", own.address)
    mark = tmp_path / "mark"

    ended = run_calls(ToolCall("a", "put_and_die_far", {"mark": str(mark)}), tools=[put_and_die_far])["a"]
    close_pools()

    # It isn't tried again unless its author asks for that, as anywhere.
    assert (ended.state, ended.attempt) == ("failed", 1)
    assert ended.error == "the Dask cluster has lost it: its worker ended"
    assert mark.read_text() == "put"


def test_a_run_goes_on_here_when_the_scheduler_is_killed(
    own: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    own.add_worker()
    monkeypatch.setenv("FLOWKIT_DASK", own.address)
    mark, awaited = tmp_path / "mark", tmp_path / "awaited"

    async def kill(graph: Executor) -> None:
        await wait_for(mark)
        own.scheduler.kill()
        own.scheduler.wait()
        awaited.touch()
        await graph.wait()
        graph.add(ToolCall("b", "where_far", {}))

    call = ToolCall("a", "wait_again_far", {"mark": str(mark), "awaited": str(awaited)})
    ended = run_calls(call, tools=[wait_again_far, where_far], drive=kill)
    close_pools()

    assert (ended["a"].state, ended["a"].attempt) == ("finished", 2)
    assert ended["b"].state == "finished"
    assert not {int(str(ended[name].value)) for name in "ab"} & {os.getpid(), own.workers[0].pid}
    assert "its calls run in processes of this machine" in caplog.text


TOOLS = """
from pathlib import Path
from flowkit import tool
@tool(effect="idempotent", pool="dask")
def mark_far(path: str) -> int:
    Path(path).write_text("done")
    return {number}
"""


def load_far_tools(folder: Path, name: str, number: int) -> Tool[..., Any]:
    """The tool of a module that was written now."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.py"
    file.write_text(TOOLS.format(number=number))
    spec = spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.mark_far


@pytest.mark.parametrize("what", ["code", "version", "nothing"])
def test_other_code_or_another_version_is_refused_before_the_claim(
    what: str, own: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"far_tools_{what}"
    theirs = tmp_path / "theirs"
    load_far_tools(theirs, name, 2 if what == "code" else 1)
    made = load_far_tools(tmp_path / "ours", name, 1)
    if what == "version":
        information = theirs / "flowkit_agents-9.9.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: flowkit-agents\nVersion: 9.9\n")
    own.add_worker({"PYTHONPATH": os.pathsep.join([str(theirs), *sys.path])})
    monkeypatch.setenv("FLOWKIT_DASK", own.address)
    mark, journal = tmp_path / "mark", Journal(tmp_path / "journal")

    ended = run_calls(ToolCall("a", "mark_far", {"path": str(mark)}), tools=[made], journal=journal, run_id="one")["a"]
    close_pools()
    details = journal.show("one")
    journal.close()
    del sys.modules[name]

    if what == "nothing":
        assert (ended.state, mark.read_text()) == ("finished", "done")
        return
    assert ended.state == "failed"
    assert (ended.error or "").startswith("not run: ")
    assert ("the code of" if what == "code" else "flowkit 9.9 there") in (ended.error or "")
    assert not mark.exists()
    assert details is not None
    assert not details.nodes


@recipe
def find_all(numbers: list[int]) -> list[int]:
    """Add one to each number, on the cluster."""
    return each(numbers, lambda number: step(add_far, number, 1))


def test_an_each_over_many_items_stays_within_its_window() -> None:
    items, seen = 1000, [0]
    pool = open_cluster()
    submit = pool.submit

    def look(job: Any) -> None:
        seen.append(pool.in_flight)
        submit(job)

    pool.submit = look  # type: ignore[method-assign]
    try:
        result = find_all.run_sync(list(range(items)))
    finally:
        del pool.submit  # type: ignore[method-assign]

    assert result.output == list(range(1, items + 1))
    assert 1 < max(seen) <= 200
    assert pool.in_flight == 0


def test_a_time_out_counts_from_where_the_function_starts() -> None:
    # One worker with one thread: the last waits longer than its time-out for its turn.
    calls = [ToolCall(f"w/{number}", "wait_far", {"seconds": 0.2 + number / 1000}) for number in range(5)]

    ended = run_calls(*calls, ToolCall("slow", "wait_far", {"seconds": 3}), tools=[wait_far])

    assert {outcome.state for name, outcome in ended.items() if name != "slow"} == {"finished"}
    assert ended["slow"].error == "no answer within 0.5 s"


def test_a_call_that_is_cancelled_gives_its_place_back(cluster: DaskCluster, tmp_path: Path) -> None:
    mark, awaited = tmp_path / "mark", tmp_path / "awaited"

    async def cancel(graph: Executor) -> None:
        await wait_for(mark)
        graph.cancel("a", "not wanted any more")
        await graph.wait()
        # What runs there is only asked to stop, and has the worker's thread until it ends.
        awaited.touch()
        graph.add(ToolCall("b", "where_far", {}))

    call = ToolCall("a", "wait_for_file_far", {"mark": str(mark), "awaited": str(awaited)})
    ended = run_calls(call, tools=[wait_for_file_far, where_far], drive=cancel)

    assert (ended["a"].state, ended["a"].error) == ("cancelled", "not wanted any more")
    assert ended["b"].value == cluster.workers[0].pid
    assert open_cluster().in_flight == 0


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (None, "pool='dask' needs the address of a scheduler: set FLOWKIT_DASK"),
        ("tcp://10.0.0.3:8786", "is neither on this machine nor tls://"),
        ("tcp://127.0.0.1:9", "no Dask scheduler answers at tcp://127.0.0.1:9"),
        ("nonsense://x:y", "is neither on this machine nor tls://"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_one_clear_error(
    address: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLOWKIT_DASK")
    if address is not None:
        monkeypatch.setenv("FLOWKIT_DASK", address)

    ended = run_calls(ToolCall("a", "add_far", {"first": 1, "second": 2}), tools=[add_far])["a"]
    close_pools()

    assert ended.state == "failed"
    assert (ended.error or "").startswith("not run: ")
    assert said in (ended.error or "")


def test_a_cluster_with_certificates_is_used_by_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography", reason="certificates are made with cryptography")
    from dask import config
    from distributed import security

    made = cast(Any, security).Security.temporary()
    files: dict[str, str] = {}
    for name, text in {
        "ca-file": made.tls_ca_file,
        "cert": made.tls_scheduler_cert,
        "key": made.tls_scheduler_key,
    }.items():
        path = tmp_path / f"{name}.pem"
        path.write_text(str(text))
        files[name] = str(path)
    options = ("--tls-ca-file", files["ca-file"], "--tls-cert", files["cert"], "--tls-key", files["key"])
    ours: Mapping[str, Any] = {
        "distributed.comm.tls.ca-file": files["ca-file"],
        "distributed.comm.tls.client.cert": files["cert"],
        "distributed.comm.tls.client.key": files["key"],
        "distributed.comm.require-encryption": True,
    }
    with DaskCluster(workers=1, options=options, protocol="tls") as secure, config.set(ours):
        monkeypatch.setenv("FLOWKIT_DASK", secure.address)
        ended = run_calls(
            ToolCall("a", "where_far", {}),
            ToolCall("b", "make_text_far", {"size": 2_000_000}),
            tools=[where_far, make_text_far],
        )
        close_pools()

    assert secure.address.startswith("tls://")
    assert ended["a"].value == secure.workers[0].pid
    assert len(str(ended["b"].value)) == 2_000_000


def test_a_local_cluster_of_dask_is_used_like_any_other(tmp_path: Path) -> None:
    program = """
import asyncio, os
from distributed import LocalCluster
from flowkit import Executor, ToolCall
from tests.pooled_tools import where_far

async def main():
    async with Executor(tools=[where_far]) as graph:
        graph.add(ToolCall("a", "where_far", {}))
        await graph.wait()
    return graph.outcomes["a"]

if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        os.environ["FLOWKIT_DASK"] = cluster.scheduler_address
        outcome = asyncio.run(main())
        assert outcome.state == "finished", outcome.error
        print(outcome.value != os.getpid())
        from flowkit.pools.opening import close_pools
        close_pools()
"""
    script = tmp_path / "local.py"
    script.write_text(program)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=300)

    assert done.stdout == "True\n", done.stderr
