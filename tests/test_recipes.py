"""Recipes: tracing, running, and what a run leaves."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from pydantic import BaseModel, model_validator

from flowkit.context import CONTEXT, Context
from flowkit.errors import ConfigurationError, DefinitionError, ToolArgumentsError, ToolError
from flowkit.events import CallFinished, RunFinished
from flowkit.executor import Approve, Deny
from flowkit.graph import Each, Fallback, Group, Step, When
from flowkit.journal import Journal
from flowkit.recipes import Recipe, RecipeResult, ask, build, each, finally_, is_in, is_none, recipe, step, when
from flowkit.recipes.options import RecipeRunOptions
from flowkit.references import Reference
from flowkit.testing.loop import run_virtual
from flowkit.tools import Needs, tool


@dataclass(frozen=True)
class Item:
    name: str
    price: int


@dataclass(frozen=True)
class Order:
    id: str
    status: str
    items: list[Item]
    note: str | None = None


@dataclass(frozen=True)
class Support:
    order: Order
    offers: list[list[str]]
    refund: str | None


ran: list[str] = []


@pytest.fixture(autouse=True)
def forget_what_ran() -> None:
    ran.clear()


@tool(effect="read")
async def get_order(order_id: str) -> Order:
    """Find an order."""
    ran.append(f"get_order {order_id}")
    status = "cancelled" if order_id.startswith("C") else "paid"
    return Order(order_id, status, [Item("pen", 1), Item("ink", 2)], note="fragile")


@tool(effect="read")
def search(name: str, limit: int = 2) -> list[str]:
    """Find offers."""
    return [f"{name} {number}" for number in range(limit)]


@tool
def refund(order_id: str) -> str:
    """Give the money back."""
    ran.append(f"refund {order_id}")
    return f"refunded {order_id}"


@tool(effect="read", retries=0)
def fail(text: str = "no") -> str:
    """Always fail."""
    ran.append("fail")
    raise ToolError(text)


@recipe
def support(order_id: str, limit: int = 2) -> Support:
    """Status and offers for an order."""
    order = step(get_order, order_id)
    offers = each(order.items, lambda item: step(search, item.name, limit=limit), at_once=2)
    back = when(order.status == "cancelled", lambda: step(refund, order.id), otherwise=None)
    return build(Support, order=order, offers=offers, refund=back)


def test_recipe_gives_its_output_as_its_type() -> None:
    result = support.run_sync("C-1")
    assert result.status == "done"
    assert result.output == Support(
        Order("C-1", "cancelled", [Item("pen", 1), Item("ink", 2)], "fragile"),
        [["pen 0", "pen 1"], ["ink 0", "ink 1"]],
        "refunded C-1",
    )


def test_misspelt_option_of_a_run_is_refused() -> None:
    options: Any = {"jurnal": "runs.sqlite3"}

    @recipe
    def same(number: int) -> int:
        return number

    with pytest.raises(TypeError, match=r"a run of a recipe has no option 'jurnal'; did you mean 'journal'\?"):
        same.options(**options)


def test_step_of_the_other_branch_is_skipped() -> None:
    result = support.run_sync("P-1")
    states = {outcome.call.id: outcome.state for outcome in result.calls}
    assert result.output is not None
    assert result.output.refund is None
    assert states["when/then/refund"] == "skipped"
    assert "refund P-1" not in ran


def test_equal_reads_of_a_recipe_run_once_unless_a_write_has_ended_between_them() -> None:
    @recipe
    def twice() -> list[Order]:
        return [step(get_order, "1"), step(get_order, "1")]

    @recipe
    def around() -> list[Any]:
        first = step(get_order, "1")
        paid_back = step.options(after=[first])(refund, "1")
        return [first, paid_back, step.options(after=[paid_back])(get_order, "1")]

    run_virtual(twice.run())
    assert ran == ["get_order 1"]
    ran.clear()
    run_virtual(around.run())
    assert ran == ["get_order 1", "refund 1", "get_order 1"]


def test_function_runs_once_at_decoration() -> None:
    traced: list[object] = []

    @recipe
    def once(order_id: str) -> Order:
        traced.append(order_id)
        return step(get_order, order_id)

    once.run_sync("1")
    once.run_sync("2")
    assert len(traced) == 1


def test_nodes_are_named_after_their_tools() -> None:
    @recipe
    def two(order_id: str) -> list[Order]:
        first = step(get_order, order_id)
        second = step.options(id="again")(get_order, first.id)
        third = step(get_order, second.id)
        return [first, second, third]

    graph = two.graph()
    assert list(graph) == ["get_order", "again", "get_order_2"]
    assert graph["again"] == Step("again", "get_order", {"order_id": Reference("get_order", ("id",))})


def test_controls_hold_their_bodies() -> None:
    graph = support.graph()
    loop, choice = graph["each"], graph["when"]
    assert isinstance(loop, Each)
    assert isinstance(choice, When)
    assert [node.id for node in loop.body.nodes] == ["each/search"]
    assert [node.id for node in choice.then.nodes] == ["when/then/refund"]
    assert loop.at_once == 2


@pytest.mark.parametrize(("value", "problem"), [({"order_id": 3}, "order_id"), ({}, "order_id"), ({"x": 1}, "x")])
def test_inputs_are_checked(value: Mapping[str, object], problem: str) -> None:
    with pytest.raises(ToolArgumentsError, match=problem):
        support.read_inputs(value)


class Strict(BaseModel):
    count: int

    @model_validator(mode="after")
    def look_up(self) -> Self:
        raise KeyError("unknown")


def test_output_whose_own_check_raises_fails_its_step_alone() -> None:
    @tool(effect="read")
    def one() -> int:
        """Give one."""
        return 1

    @recipe
    def inner() -> Strict:
        return build(Strict, count=step(one))

    @recipe
    def outer() -> int:
        step(inner)
        return step(one)

    with pytest.raises(ToolError, match=r"step 'inner' failed: .* a check of its type failed: KeyError: 'unknown'"):
        asyncio.run(outer.run())


def test_output_that_does_not_fit_fails_the_run() -> None:
    @tool(effect="read")
    def anything() -> object:
        """Give what no one expects."""
        return "text"

    @recipe
    def wrong() -> int:
        return step(anything)  # type: ignore[return-value]  # pyright: ignore[reportReturnType]  # what is tested

    with pytest.raises(ToolError, match="its output doesn't fit") as caught:
        wrong.run_sync()
    assert isinstance(caught.value.result, RecipeResult)


def test_failed_step_fails_the_recipe_and_skips_what_needs_it() -> None:
    @recipe
    def broken() -> list[str]:
        text = step(fail, "sold out")
        return step(search, text)

    with pytest.raises(ToolError, match="step 'fail' failed: sold out") as caught:
        broken.run_sync()
    result = caught.value.result
    assert isinstance(result, RecipeResult)
    assert [outcome.state for outcome in result.calls] == ["failed", "skipped"]


def test_optional_step_gives_none() -> None:
    @recipe
    def lenient() -> tuple[str | None, str]:
        note = step.options(optional=True)(fail)
        return (note, step(refund, "1"))

    assert lenient.run_sync().output == (None, "refunded 1")


def test_fallback_stands_in() -> None:
    @recipe
    def careful(name: str) -> list[str] | str:
        return step.options(fallback=lambda: step(search, name, limit=1), id="quote")(fail)

    node = careful.graph()["quote"]
    assert isinstance(node, Fallback)
    assert careful.run_sync("pen").output == ["pen 0"]


def test_retries_and_timeout_are_the_steps_own() -> None:
    attempts: list[int] = []

    @tool(effect="read", retries=0)
    async def flaky() -> int:
        """Work at the third try."""
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError("not yet")
        await asyncio.sleep(1)
        return len(attempts)

    @recipe
    def patient() -> int:
        return step.options(retries=2, timeout=2)(flaky)

    @tool(effect="idempotent")
    async def sleep() -> int:
        """Take long."""
        await asyncio.sleep(100)
        return 1

    @recipe
    def hasty() -> int:
        return step.options(timeout=0.5)(sleep)

    assert run_virtual(patient.run()).output == 3
    with pytest.raises(ToolError, match=r"0\.5"):
        run_virtual(hasty.run())


@pytest.mark.parametrize("order_id", ["P-1", "C-1"])
def test_finally_runs_whatever_became_of_the_others(order_id: str) -> None:
    @tool(effect="idempotent")
    def unlock(lock: str) -> str:
        """Open the lock."""
        ran.append(f"unlock {lock}")
        return lock

    @recipe
    def locked(order_id: str) -> str:
        order = step(get_order, order_id)
        finally_(lambda: step(unlock, order.id))
        return when(order.status == "paid", lambda: step(refund, order.id), otherwise=lambda: step(fail))

    async def main() -> RecipeResult[str]:
        return await locked.start({"order_id": order_id}).wait()

    result = asyncio.run(main())
    assert result.status == ("done" if order_id == "P-1" else "failed")
    assert ran[-1] == f"unlock {order_id}"


def test_conditions_join() -> None:
    @recipe
    def judge(order_id: str, urgent: bool) -> str | None:
        order = step(get_order, order_id)
        test = (is_in(order.status, ("paid", "sent")) & ~is_none(order.note)) | urgent
        return when(test & (order.items[0].price < 5), lambda: step(refund, order.id))

    assert judge.run_sync("P-1", urgent=False).output == "refunded P-1"
    assert judge.run_sync("C-1", urgent=False).output is None
    assert judge.run_sync("C-1", urgent=True).output == "refunded C-1"


def test_each_keeps_order_and_nests() -> None:
    @recipe
    def many(order_ids: list[str]) -> list[list[str]]:
        def one(order_id: str) -> list[str]:
            order = step(get_order, order_id)
            return each(order.items, lambda item: step(refund, item.name), key=lambda item: item.name)

        return each(order_ids, one, at_once=1)

    result = many.run_sync(["a", "b"])
    assert result.output == [["refunded pen", "refunded ink"]] * 2
    assert "each/1/each/ink/refund" in {outcome.call.id for outcome in result.calls}


@pytest.mark.parametrize(("on_error", "expected"), [("skip", ["refunded b"]), ("null", [None, "refunded b"])])
def test_failed_item_as_on_error_says(on_error: str, expected: list[str | None]) -> None:
    @tool
    def refund_all_but_a(order_id: str) -> str:
        """Refuse a."""
        if order_id == "a":
            raise ToolError("not a")
        return f"refunded {order_id}"

    if on_error == "skip":

        @recipe
        def some(ids: list[str]) -> list[str]:
            return each(ids, lambda order_id: step(refund_all_but_a, order_id), on_error="skip")

        assert some.run_sync(["a", "b"]).output == expected
    else:

        @recipe
        def holes(ids: list[str]) -> list[str | None]:
            return each(ids, lambda order_id: step(refund_all_but_a, order_id), on_error="null")

        assert holes.run_sync(["a", "b"]).output == expected


def test_more_items_than_at_most_fail() -> None:
    @recipe
    def few(ids: list[str]) -> list[str]:
        return each(ids, lambda order_id: step(refund, order_id), at_most=1)

    with pytest.raises(ToolError, match="at most 1"):
        few.run_sync(["a", "b"])
    assert ran == []


def test_recipe_in_a_recipe_is_one_graph() -> None:
    @recipe
    def both(first: str, second: str) -> list[Support]:
        return [step(support, first), step(support, second, limit=1)]

    group = both.graph()["support_2"]
    assert isinstance(group, Group)
    result = both.run_sync("P-1", "C-2")
    assert result.output is not None
    assert [found.offers[0] for found in result.output] == [["pen 0", "pen 1"], ["pen 0"]]
    assert "support_2/when/then/refund" in {outcome.call.id for outcome in result.calls}


def test_context_and_needs_work_in_steps() -> None:
    @tool(effect="read")
    def who(ctx: Context[str] = CONTEXT) -> str:
        """Say who runs."""
        return f"{ctx.user} {ctx.data}"

    @tool(effect="read")
    def count(order: Order = Needs(get_order)) -> int:
        """Count the items."""
        return len(order.items)

    @recipe
    def mixed(order_id: str) -> tuple[str, int, int]:
        order = step(get_order, order_id)
        return (step(who), step(count, order=order), step(count, order_id=order_id))  # pyright: ignore  # the need's own parameter

    result = mixed.options(data="data", user="u-1").run_sync("P-1")
    assert result.output == ("u-1 data", 2, 2)


def test_methods_are_steps() -> None:
    class Shop:
        def __init__(self, name: str) -> None:
            self.name = name

        @tool(effect="read")
        def greet(self, guest: str) -> str:
            """Greet a guest."""
            return f"{self.name} greets {guest}"

    shop = Shop("Corner")

    @recipe
    def welcome(guest: str) -> str:
        return step(shop.greet, guest)

    assert welcome.run_sync("Mina").output == "Corner greets Mina"


def test_events_tell_the_run() -> None:
    async def main() -> list[object]:
        async with support.stream({"order_id": "P-1"}) as run:
            return [event async for event in run]

    seen = asyncio.run(main())
    last = seen[-1]
    assert isinstance(last, RunFinished)
    assert last.status == "done"
    assert {event.call for event in seen if isinstance(event, CallFinished)} >= {"get_order", "each", "each/0/search"}


def test_run_without_the_identity_a_scope_needs_is_refused() -> None:
    @tool(ttl=60, scope="user")
    def mine(ctx: Context[None] = CONTEXT) -> str | None:
        """Say whose it is."""
        return ctx.user

    @recipe
    def own() -> str | None:
        return step(mine)

    with pytest.raises(ConfigurationError, match="user="):
        own.run_sync()


@tool(approval=True)
def pay(amount: int) -> str:
    """Pay."""
    ran.append(f"pay {amount}")
    return f"paid {amount}"


@recipe
def buy(order_id: str) -> str:
    """Pay for an order."""
    order = step(get_order, order_id)
    return step(pay, order.items[1].price)


def test_step_that_needs_approval_waits() -> None:
    result = buy.run_sync("P-1")
    assert result.status == "waiting"
    assert [(call.id, call.arguments) for call in result.pending] == [("pay", {"amount": 2})]


def test_misspelt_option_of_a_step_is_named() -> None:
    for make in (step, ask):
        options: Any = make.options
        with pytest.raises(TypeError, match="a step has no option 'retrys'; did you mean 'retries'"):
            options(retrys=2)


def test_run_that_waited_goes_on_with_its_result_and_repeats_nothing() -> None:
    waiting = buy.run_sync("P-1")
    ran.clear()
    result = buy.options(resume=waiting, decisions={"pay": Approve(by="me")}).run_sync("P-1")
    assert (result.output, result.run_id) == ("paid 2", waiting.run_id)
    assert ran == ["pay 2"]
    assert [(call.call.id, call.source) for call in result.calls] == [("get_order", "journal"), ("pay", "run")]


def test_run_goes_on_through_several_decisions_in_bodies() -> None:
    @tool
    async def note(number: int) -> int:
        """Write a number down."""
        ran.append(f"note {number}")
        return number

    @recipe
    def buy_all(orders: list[int]) -> list[str]:
        def buy_one(number: int) -> str:
            return step(pay, step(note, number))

        return each(orders, buy_one)

    result = buy_all.run_sync([1, 2, 3])
    for number in (1, 2, 3):
        decisions = {result.pending[0].id: Approve({"amount": number * 10})}
        result = buy_all.options(resume=result, decisions=decisions).run_sync([1, 2, 3])

    assert result.output == ["paid 10", "paid 20", "paid 30"]
    assert sorted(ran) == ["note 1", "note 2", "note 3", "pay 10", "pay 20", "pay 30"]
    shown = [call.call.arguments for call in result.calls if call.call.name == "pay"]
    assert shown == [{"amount": 10}, {"amount": 20}, {"amount": 30}]


def test_denied_call_stays_denied_when_the_run_goes_on() -> None:
    @recipe
    def buy_two() -> list[str | None]:
        return [step.options(optional=True, id="first")(pay, 1), step(pay, 2)]

    first = buy_two.run_sync()
    denied, open_one = [pending.id for pending in first.pending]
    second = buy_two.options(resume=first, decisions={denied: Deny("no")}).run_sync()
    third = buy_two.options(resume=second, decisions={open_one: Approve()}).run_sync()

    assert [pending.id for pending in second.pending] == [open_one]
    assert third.output == [None, "paid 2"]


def test_run_that_would_repeat_what_was_done_is_refused() -> None:
    waiting = buy.run_sync("P-1")
    done = buy.options(resume=waiting, decisions={"pay": Approve()}).run_sync("P-1")
    refused: list[tuple[RecipeRunOptions, str]] = [
        ({"decisions": {"pay": Approve()}}, "decisions are for a resumed run"),
        ({"resume": buy.run_sync("P-2")}, "began with other inputs"),
        ({"resume": done}, "a run that is done can't be resumed"),
    ]
    for options, said in refused:
        with pytest.raises(ConfigurationError, match=said):
            buy.options(**options).run_sync("P-1")


def test_run_goes_on_where_it_stood(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "runs.sqlite3")
    try:
        durable: Recipe[..., str] = buy.options(journal=journal, run_id="r-1")
        assert durable.run_sync("P-1").status == "waiting"
        ran.clear()
        result = durable.options(decisions={"pay": Approve(by="me")}).run_sync("P-1")
        assert result.output == "paid 2"
        assert ran == ["pay 2"]
        assert durable.run_sync("P-1").output == "paid 2"
        assert ran == ["pay 2"]
    finally:
        journal.close()


def test_limit_of_seconds_ends_the_run() -> None:
    @tool(effect="read")
    async def sleep() -> None:
        """Take long."""
        await asyncio.sleep(100)

    @recipe
    def slow() -> None:
        return step(sleep)

    result = run_virtual(slow.options(timeout=5).run())
    assert result.status == "limit"


def test_cancelled_run_ends_with_its_caller() -> None:
    async def main() -> str:
        started = asyncio.Event()

        @tool(effect="read")
        async def sleep() -> None:
            """Take long."""
            started.set()
            await asyncio.sleep(100)

        @recipe
        def slow() -> None:
            return step(sleep)

        run = slow.start()
        await started.wait()
        run.cancel()
        return (await run.wait()).status

    assert asyncio.run(main()) == "cancelled"


def test_recipe_is_not_called() -> None:
    with pytest.raises(DefinitionError, match="isn't called"):
        support("P-1")


def test_effect_is_the_strongest_of_the_steps() -> None:
    assert support.effect == "write"


def test_option_among_the_inputs_is_told_where_it_goes() -> None:
    @tool(effect="read")
    def twice(x: int) -> int:
        return 2 * x

    @recipe
    def double(x: int) -> int:
        return step(twice, x)

    with pytest.raises(ConfigurationError, match=r"no input 'user'; as an option: await double.options\(user=…\).run"):
        double.run_sync(1, user="ann")  # pyright: ignore[reportCallIssue]  # that is the point
