"""A recipe whose process is killed goes on: items that ended don't run again, writes run once or are in doubt."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from flowkit.journal import Journal
from flowkit.recipes import Recipe, RecipeResult, each, recipe, step
from flowkit.tools import tool

COUNT = 30


def make_report(log: Path, pause_s: float = 0.0) -> Recipe[[], list[str]]:
    @tool(effect="read")
    async def list_orders() -> list[dict[str, str]]:
        """List the orders."""
        return [{"id": f"ORD-{number}"} for number in range(COUNT)]

    @tool(effect="write")
    async def judge(order_id: str) -> str:
        """Judge an order, and say so outside."""
        with log.open("a") as file:
            file.write(f"{order_id}\n")
        print(order_id, flush=True)
        await asyncio.sleep(pause_s)
        return f"{order_id} is fine"

    @recipe
    def report() -> list[str]:
        orders = step(list_orders)
        return each(orders, lambda order: step(judge, order["id"]), at_once=2, key=lambda order: order["id"])

    return report


async def drive(folder: Path, pause_s: float) -> RecipeResult[list[str]]:
    journal = Journal(folder / "runs.sqlite3")
    try:
        return await make_report(folder / "log", pause_s).start(journal=journal, run_id="night").wait()
    finally:
        journal.close()


def test_killed_recipe_goes_on_where_it_stood(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, __file__, str(tmp_path)]
    with subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for _ in range(COUNT // 2):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
    before = log.read_text().splitlines()
    assert COUNT // 2 <= len(before) < COUNT

    result = asyncio.run(drive(tmp_path, 0.0))
    after = log.read_text().splitlines()
    assert len(after) == len(set(after))
    in_doubt = {call.call.id for call in result.calls if call.state == "in_doubt"}
    if in_doubt:
        assert result.status == "in_doubt"
        assert len(in_doubt) <= 2
    else:
        assert result.output == [f"ORD-{number} is fine" for number in range(COUNT)]
    assert len(after) == COUNT


def test_cancelled_recipe_goes_on_where_it_stood(tmp_path: Path) -> None:
    async def stop_half_way() -> str:
        journal = Journal(tmp_path / "runs.sqlite3")
        try:
            run = make_report(tmp_path / "log", 0.01).start(journal=journal, run_id="night")
            async for event in run:
                if event.type == "call.finished" and getattr(event, "call", "") == "each/ORD-9/judge":
                    run.cancel()
            return (await run.wait()).status
        finally:
            journal.close()

    assert asyncio.run(stop_half_way()) == "cancelled"
    before = (tmp_path / "log").read_text().splitlines()
    result = asyncio.run(drive(tmp_path, 0.0))
    after = (tmp_path / "log").read_text().splitlines()
    assert 10 <= len(before) < COUNT
    assert len(after) == len(set(after)) == COUNT
    assert result.status in ("done", "in_doubt")


if __name__ == "__main__":
    asyncio.run(drive(Path(sys.argv[1]), 0.02))
