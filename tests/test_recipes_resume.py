"""A recipe whose process is killed goes on: items that ended don't run again, writes run once or are in doubt."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

from flowkit.context import CONTEXT, Context
from flowkit.journal import Done, Journal
from flowkit.recipes import Recipe, RecipeResult, each, recipe, step
from flowkit.tools import tool

COUNT = 30
STUCK = (20, 21)
"""The orders at which the process that gets killed stays."""


def make_report(log: Path, *, gets_stuck: bool) -> Recipe[[], list[str]]:
    @tool(effect="read")
    async def list_orders() -> list[dict[str, int]]:
        """List the orders."""
        return [{"number": number} for number in range(COUNT)]

    @tool(effect="write", version="1")
    async def judge(number: int) -> str:
        """Judge an order, and say so outside."""
        with log.open("a") as file:
            file.write(f"{number}\n")
        print(number, flush=True)
        if gets_stuck and number in STUCK:
            await asyncio.sleep(3600)
        return f"{number} is fine"

    @recipe
    def report() -> list[str]:
        """Judge every order."""
        orders = step(list_orders)
        return each(orders, lambda order: step(judge, order["number"]), at_once=2, key=lambda order: order["number"])

    return report


async def drive(folder: Path, *, gets_stuck: bool = False) -> RecipeResult[list[str]]:
    journal = Journal(folder / "runs.sqlite3")
    try:
        made = make_report(folder / "log", gets_stuck=gets_stuck)
        return await made.start(journal=journal, run_id="night").wait()
    finally:
        journal.close()


def test_recipe_goes_on_in_the_session_in_which_it_began(tmp_path: Path) -> None:
    @tool(approval=True)
    def note(ctx: Context[None] = CONTEXT) -> str | None:
        """Note the session."""
        return ctx.session

    @recipe
    def noted() -> str | None:
        """Note the session."""
        return step(note)

    journal = Journal(tmp_path / "runs.sqlite3")
    waiting = noted.options(journal=journal, run_id="r", session="s1").run_sync()
    journal.decide("r", waiting.pending[0].id, approved=True, by="Kim")

    assert noted.options(journal=journal, run_id="r").run_sync().output == "s1"
    journal.close()


def test_killed_recipe_goes_on_where_it_stood(tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path)]
    with subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        seen = [int(child.stdout.readline()) for _ in range(STUCK[-1] + 1)]
        child.send_signal(signal.SIGKILL)
    assert sorted(seen) == list(range(STUCK[-1] + 1))

    doubtful = asyncio.run(drive(tmp_path))
    assert doubtful.status == "in_doubt"
    assert {call.call.id for call in doubtful.calls if call.state == "in_doubt"} == {
        f"each/{number}/judge" for number in STUCK
    }

    journal = Journal(tmp_path / "runs.sqlite3")
    for number in STUCK:
        journal.resolve("night", f"each/{number}/judge", Done(f"{number} was fine"), by="me")
    journal.close()
    result = asyncio.run(drive(tmp_path))
    expected = [f"{number} {'was' if number in STUCK else 'is'} fine" for number in range(COUNT)]
    assert result.output == expected
    assert sorted(map(int, (tmp_path / "log").read_text().split())) == list(range(COUNT))


def test_cancelled_recipe_goes_on_where_it_stood(tmp_path: Path) -> None:
    async def stop_half_way() -> str:
        journal = Journal(tmp_path / "runs.sqlite3")
        try:
            run = make_report(tmp_path / "log", gets_stuck=True).start(journal=journal, run_id="night")
            async for event in run:
                if event.type == "call.started" and getattr(event, "call", "") == f"each/{STUCK[-1]}/judge":
                    run.cancel()
            return (await run.wait()).status
        finally:
            journal.close()

    assert asyncio.run(stop_half_way()) == "cancelled"
    result = asyncio.run(drive(tmp_path))
    judged = list(map(int, (tmp_path / "log").read_text().split()))
    assert len(judged) == len(set(judged))
    assert result.status == "in_doubt"
    assert set(range(COUNT)) - set(judged) <= set(STUCK)


if __name__ == "__main__":
    asyncio.run(drive(Path(sys.argv[1]), gets_stuck=True))
