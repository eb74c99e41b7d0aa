"""Budgets across runs and processes, and what was spent by agent, model, tool and user."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flowkit import (
    Agent,
    Budget,
    ConfigurationError,
    Context,
    Journal,
    Limits,
    ModelError,
    Price,
    Refuse,
    ScriptedModel,
    Watch,
    tool,
)
from flowkit.clock import ManualClock
from flowkit.errors import RunNotDone
from flowkit.events import BudgetChecked
from flowkit.messages import ToolMessage, Usage
from flowkit.models.base import Delta, UsageDelta
from flowkit.models.base import TextDelta as Piece
from flowkit.runs.budgets import BudgetSpent
from flowkit.runs.costs import Cost, sum_costs
from flowkit.testing import call
from tests.command import make_command
from tests.stores import journal_at

MILLION = 1_000_000


@pytest.fixture
def journal(tmp_path: Path) -> Generator[Journal]:
    """A journal in a file."""
    opened = Journal(tmp_path / "runs.sqlite3")
    asyncio.run(opened.read_spent("nothing"))  # its thread runs from here on, so that no test is said to leave it
    yield opened
    opened.close()


@pytest.fixture
def any_journal(tmp_path: Path, journal_store: str) -> Generator[Journal]:
    """A journal in each kind of store."""
    del journal_store
    opened = Journal(journal_at(tmp_path / "runs.sqlite3"))
    asyncio.run(opened.read_spent("nothing"))
    yield opened
    opened.close()


def says(text: str, usd: int = 1) -> list[Delta]:
    """An answer that costs so many dollars."""
    return [Piece(text), UsageDelta(Usage(usd * MILLION, 0))]


def calls(name: str, usd: int = 1, **arguments: Any) -> list[Any]:
    return [call(name, **arguments), UsageDelta(Usage(usd * MILLION, 0))]


def model(*answers: Any, name: str = "m") -> ScriptedModel:
    return ScriptedModel(answers, name=name, price=Price(input=1.0, output=1.0))


async def finish(agent: Agent[Any], **options: Any) -> tuple[Any, list[BudgetChecked], str | None]:
    run = agent.start("Go", **options)
    result = await run.wait()
    events = run.log.events
    return result, [event for event in events if isinstance(event, BudgetChecked)], getattr(events[-1], "notice", None)


@tool(effect="read")
def look() -> str:
    """Look."""
    return "seen"


def test_a_budget_holds_across_runs_and_users_have_their_own(any_journal: Journal) -> None:
    journal = any_journal
    script = model(says("one", 2), says("two", 2), says("other", 2))
    agent = Agent(script, budget=Budget(usd=3, per="user", store=journal))

    async def go() -> None:
        first, checks, _ = await finish(agent, user="a")
        assert (first.output, checks[0].left_usd, checks[0].usd) == ("one", 3, 3)
        second, checks, _ = await finish(agent, user="a")
        assert (second.output, checks[0].left_usd) == ("two", 1)
        third, checks, notice = await finish(agent, user="a")
        assert (third.status, checks[0].left_usd) == ("limit", 0)
        assert str(third.error) == "the budget 'budget' of $3 for user 'a' is spent ($4 by now); it doesn't reset"
        assert notice == "Your budget is spent. It doesn't reset."
        assert isinstance(third.error, BudgetSpent)
        other, _, _ = await finish(agent, user="b")
        assert other.output == "other"

    asyncio.run(go())
    assert len(script.requests) == 3


def test_a_run_that_finds_its_budget_spent_has_no_output(journal: Journal) -> None:
    agent = Agent(model(), budget=Budget(usd=0, per="all", store=journal))
    result, _, _ = asyncio.run(finish(agent))
    assert (result.status, result.output_or_none) == ("limit", None)
    with pytest.raises(RunNotDone, match="is spent"):
        _ = result.output


def test_the_store_of_a_budget_holds_its_sum_and_no_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "runs.sqlite3"

    async def go() -> float:
        journal = Journal(path)
        budget = Budget(usd=9, per="all", store=journal)
        await Agent(model(says("hi", 3)), budget=budget).run("Go")
        spent = (await budget.look()).spent_usd
        journal.close()
        return spent

    assert asyncio.run(go()) == 3
    said = make_command(tmp_path, monkeypatch)("runs", "costs", "--journal", str(path), "--json")
    assert json.loads(said.out) == []


def test_a_budget_is_looked_at_before_each_turn(journal: Journal) -> None:
    script = model(calls("look"), calls("look"), says("never"))
    agent = Agent(script, tools=[look], cache=False, budget=Budget(usd=2, per="all", store=journal))
    result, checks, _ = asyncio.run(finish(agent))
    assert (result.status, [check.left_usd for check in checks]) == ("limit", [2, 1, 0])
    assert [check.turn for check in checks] == [1, 2, 3]
    assert isinstance(result.messages[-1], ToolMessage), "the conversation stays valid"


def test_what_is_left_bounds_the_next_answer(journal: Journal) -> None:
    script = model(says("one", 0))
    budget = Budget(usd=0.01, per="all", store=journal)
    asyncio.run(finish(Agent(script, budget=budget, limits=Limits(tokens=20_000))))
    assert script.requests[0].max_tokens == 10_000


def test_a_budget_says_when_it_resets_and_then_holds_anew(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 11, 30, 22, 30, tzinfo=UTC).timestamp())
    journal = Journal(tmp_path / "runs.sqlite3")
    budget = Budget(usd=1, per="day", store=journal, clock=clock, timezone="Asia/Seoul")

    async def go() -> None:
        await finish(Agent(model(says("one")), budget=budget))
        spent, _, notice = await finish(Agent(model(), budget=budget))
        assert "resets at 2026-12-02 00:00 KST" in str(spent.error)
        assert notice == "Your budget is spent. It resets at 2026-12-02 00:00 KST."
        clock.advance(17 * 3600.0)
        again, checks, _ = await finish(Agent(model(says("two")), budget=budget))
        assert (again.output, checks[0].left_usd) == ("two", 1)
        assert (await budget.look()).spent_usd == 1

    asyncio.run(go())
    journal.close()


@pytest.mark.parametrize(
    ("every", "zone", "ends"),
    [
        ("hour", "Asia/Kolkata", "2026-02-28T13:00:00+00:00"),
        ("day", "UTC", "2026-03-01T00:00:00+00:00"),
        ("week", "UTC", "2026-03-02T00:00:00+00:00"),
        ("month", "UTC", "2026-03-01T00:00:00+00:00"),
        (timedelta(hours=6), "UTC", "2026-02-28T18:00:00+00:00"),
    ],
)
def test_a_period_ends_where_the_next_begins(journal: Journal, every: Any, zone: str, ends: str) -> None:
    clock = ManualClock(datetime(2026, 2, 28, 12, 34, tzinfo=UTC).timestamp())
    budget = Budget(usd=1, per="all", every=every, store=journal, timezone=zone, clock=clock)
    label, resets_at = budget.find_period()
    assert resets_at is not None
    assert datetime.fromtimestamp(resets_at, UTC).isoformat() == ends
    clock.now = resets_at - 1
    assert budget.find_period() == (label, resets_at)
    clock.now = resets_at
    assert budget.find_period()[0] != label


def test_a_function_says_who_shares_and_several_budgets_hold_at_once(journal: Journal) -> None:
    def team(context: Context[Any]) -> str:
        return str(context.data)

    budgets = [Budget(usd=1, per=team, name="team", store=journal), Budget(usd=9, per="all", name="all", store=journal)]

    async def go() -> None:
        await finish(Agent(model(says("one")), budget=budgets), data="red")
        red, _, _ = await finish(Agent(model(), budget=budgets), data="red")
        assert "the budget 'team' of $1 for red is spent" in str(red.error)
        _, checks, _ = await finish(Agent(model(says("one")), budget=budgets), data="blue")
        assert [(check.budget, check.left_usd) for check in checks] == [("team", 1), ("all", 8)]

    asyncio.run(go())


def test_an_agent_that_a_tool_asks_spends_the_outer_budget_once(journal: Journal) -> None:
    budget = Budget(usd=100, per="all", store=journal)
    inner = Agent(model(says("found", 7), name="small"), name="searcher", budget=budget)
    outer = Agent(
        model(calls("search", task="x"), says("done"), name="big"),
        tools=[inner.as_tool(name="search")],
        budget=budget,
        name="desk",
    )

    async def go() -> tuple[Any, float]:
        result, _, _ = await finish(outer, user="a")
        return result, (await budget.look()).spent_usd

    result, spent = asyncio.run(go())
    assert (result.cost, spent) == (9, 9)
    assert [(c.agent, c.model, c.tool, c.user, c.cost_usd, c.answers) for c in result.costs] == [
        ("desk", "big", "", "a", 2, 2),
        ("searcher", "small", "search", "a", 7, 1),
    ]
    assert {name: cost.cost_usd for name, cost in sum_costs(result.costs, "tool").items()} == {"search": 7, "": 2}


def test_a_model_without_a_price_is_refused_before_it_is_asked(journal: Journal) -> None:
    unpriced = ScriptedModel(["one"])
    with pytest.raises(ConfigurationError, match="the budget 'budget' can't be kept: the price of model"):
        asyncio.run(Agent(unpriced, budget=Budget(usd=1, per="all", store=journal)).run("Go"))
    assert unpriced.requests == []


def share_data(context: Context[Any]) -> Any:
    return context.data


def share_nothing(context: Context[Any]) -> str:
    return ""


def share_team(context: Context[Any]) -> str:
    return context.data["team"]


async def look_up(context: Context[Any]) -> str:
    return "team"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"per": "team"}, "per is 'team', expected"),
        ({"usd": -1}, "usd is -1, expected"),
        ({"store": "runs.sqlite3"}, "store is 'runs.sqlite3', expected a journal"),
        ({"per": "day", "every": "hour"}, "leave every= out"),
        ({"timezone": "Mars/Base"}, "timezone is 'Mars/Base'"),
        ({"per": look_up}, "per is an async function, expected a plain one"),
    ],
)
def test_what_a_budget_does_not_take_is_told_where_it_is_made(
    journal: Journal, options: dict[str, Any], said: str
) -> None:
    given: dict[str, Any] = {"usd": 1, "store": journal, **options}
    with pytest.raises(ConfigurationError, match=said):
        Budget(**given)


def test_a_run_of_nobody_has_no_budget_of_its_own(journal: Journal) -> None:
    with pytest.raises(ConfigurationError, match="start the run with user="):
        asyncio.run(Agent(model(), budget=Budget(usd=1, store=journal)).run("Go"))


@pytest.mark.parametrize(
    ("per", "said"),
    [
        (share_data, "per= returned None, expected a text"),
        (share_nothing, "per= returned '', expected a text"),
        (share_team, "per= raised TypeError"),
    ],
)
def test_a_function_that_does_not_say_who_shares_stops_the_run_and_makes_no_account_for_everybody(
    journal: Journal, per: Any, said: str
) -> None:
    script = model(says("never"))
    with pytest.raises(ConfigurationError, match=said):
        asyncio.run(Agent(script, budget=Budget(usd=1, per=per, store=journal)).run("Go"))
    assert script.requests == []


def test_what_an_answer_took_that_a_guard_stopped_is_paid(journal: Journal) -> None:
    """Otherwise a user whose requests are always refused would have no bound."""
    budget = Budget(usd=9, per="all", store=journal)

    def refuse(answer: object, context: Context[Any]) -> Refuse:
        return Refuse("not that")

    async def go() -> tuple[Any, float]:
        script = model([UsageDelta(Usage(2 * MILLION, 0)), Piece("Hi")])
        agent = Agent(script, after_answer=Watch(refuse), budget=budget)
        result, _, _ = await finish(agent)
        return result, (await budget.look()).spent_usd

    result, spent = asyncio.run(go())
    assert (result.status, result.cost_usd, spent) == ("failed", 2, 2)


def test_all_budgets_are_charged_for_an_answer_though_the_run_is_stopped_meanwhile() -> None:
    spent: list[str] = []

    class SlowStore:
        """A store whose first write takes until it is let go."""

        def __init__(self) -> None:
            self.writing, self.may_end = asyncio.Event(), asyncio.Event()

        async def add_spent(self, key: str, usd: float) -> float:
            self.writing.set()
            await self.may_end.wait()
            spent.append(key)
            return usd

        async def read_spent(self, key: str) -> float:
            return 0.0

    async def go() -> str:
        store = SlowStore()
        budgets = [Budget(usd=9, per=per, store=store, name=per) for per in ("all", "user")]
        run = Agent(model(says("one")), budget=budgets).start("Go", user="a")
        await store.writing.wait()
        run.cancel()
        asyncio.get_running_loop().call_soon(store.may_end.set)
        return (await run.wait()).status

    assert asyncio.run(go()) == "cancelled"
    assert len(spent) == 2


def test_what_an_attempt_that_broke_took_is_paid(journal: Journal) -> None:
    broken = [UsageDelta(Usage(MILLION, 0)), ModelError("gone", retryable=True, retry_after_s=0)]
    budget = Budget(usd=9, per="all", store=journal)

    async def go() -> float:
        await finish(Agent(model(broken, says("one")), budget=budget))
        return (await budget.look()).spent_usd

    assert asyncio.run(go()) == 2


SPENDER = """
import asyncio, sys
from pathlib import Path
from flowkit import Agent, Budget, Journal, Price, ScriptedModel, tool
from flowkit.messages import ToolMessage, Usage
from flowkit.models.base import UsageDelta
from flowkit.testing import call

@tool(effect="read")
def look() -> str:
    "Look."
    return "seen"

async def main() -> None:
    journal = Journal(sys.argv[1])
    turn = [call("look"), UsageDelta(Usage(1_000_000, 0))]
    model = ScriptedModel([turn] * 50, price=Price(input=1.0, output=1.0))
    agent = Agent(model, tools=[look], cache=False, budget=Budget(usd=10, per="all", store=journal))
    print("ready", flush=True)
    sys.stdin.readline()
    result = await agent.run("Go", limits=__import__("flowkit").Limits(turns=100, calls=100))
    print(result.status, len(model.requests), result.error, flush=True)
    journal.close()

asyncio.run(main())
"""


@pytest.mark.slow
def test_two_processes_that_spend_one_budget_go_beyond_it_by_a_turn_each_at_most(
    tmp_path: Path, journal_store: str
) -> None:
    del journal_store
    path = str(journal_at(tmp_path / "runs.sqlite3"))
    Journal(path).close()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SPENDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=120)[0].split(maxsplit=2) for process in processes]
    assert [status for status, _, _ in ends] == ["limit", "limit"]
    assert all("the budget 'budget' of $10 is spent" in error for _, _, error in ends)
    turns = sum(int(count) for _, count, _ in ends)
    assert 10 <= turns <= 12

    async def look_at_it() -> float:
        journal = Journal(path)
        state = await Budget(usd=10, per="all", store=journal).look()
        journal.close()
        return state.spent_usd

    assert asyncio.run(look_at_it()) == turns, "nothing that was spent is lost"


# What it took, by whom


def test_costs_survive_the_process_and_are_listed_by_agent_tool_model_user_and_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.sqlite3"
    run = make_command(tmp_path, monkeypatch)

    async def go() -> None:
        journal = Journal(path)
        inner = Agent(model(says("found", 7), name="small"), name="searcher")
        search = inner.as_tool(name="search")
        outer = Agent(
            model(calls("search", task="x"), says("done"), name="big"), tools=[search], journal=journal, name="desk"
        )
        await outer.run("Go", user="a", run_id="r1")
        await Agent(model(says("hi", 3), name="big"), journal=journal, name="greeter").run("Go", user="b", run_id="r2")
        again = await Agent(model(name="big"), journal=journal, name="desk").run(run_id="r1", user="a")
        assert sum_costs(again.costs, "model")["small"].cost_usd == 7
        journal.close()

    asyncio.run(go())

    def ask(*arguments: str) -> dict[str, float]:
        said = run("runs", "costs", "--journal", str(path), "--json", *arguments)
        assert said.code == 0, said
        return {next(iter(row.values())): row["cost_usd"] for row in json.loads(said.out)}

    assert ask() == {"searcher": 7, "greeter": 3, "desk": 2}
    assert ask("--by", "tool") == {"search": 7, "": 5}
    assert ask("--by", "model") == {"small": 7, "big": 5}
    assert ask("--by", "user") == {"a": 9, "b": 3}
    assert ask("--by", "run") == {"r1": 9, "r2": 3}
    assert ask("--by", "model", "--user", "b") == {"big": 3}
    assert list(ask("--by", "day").values()) == [12]
    assert ask("--since", "2999-01-01") == {}
    (tmp_path / "keys.py").write_text("def team(run):\n    return {'a': 'red', 'b': 'blue'}[run.user]\n")
    assert ask("--by", "keys.py:team") == {"red": 9, "blue": 3}
    for by, told in (("team", "none of agent, tool"), ("keys.py:group", "has no function 'group'")):
        ended = run("runs", "costs", "--journal", str(path), "--by", by)
        assert (ended.code, told in ended.err) == (2, True), ended.err
    (tmp_path / "keys.py").write_text("def team(run):\n    return run.session\n")
    ended = run("runs", "costs", "--journal", str(path), "--by", "keys.py:team")
    assert "--by keys.py:team returned None for run" in ended.err


def test_unknown_costs_are_told_and_not_added() -> None:
    sums = sum_costs(
        [Cost("a", "m", cost_usd=None), Cost("a", "m", cost_usd=1.0), Cost("b", "m", cost_usd=1.0)], "agent"
    )
    assert {name: cost.cost_usd for name, cost in sums.items()} == {"a": None, "b": 1.0}
