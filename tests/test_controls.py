"""Controls: each, when, groups, fallbacks and steps that ask a model; conditions; what each does when something fails."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.codec import JSON
from flowkit.errors import GraphError, ToolError
from flowkit.executor import Approve, Executor
from flowkit.graph import Body, Each, Fallback, Graph, Group, ModelStep, Node, Step, When, index_id, item_id, nest
from flowkit.graph.conditions import Both, Compare, Condition, Either, IsIn, IsNone, IsTrue, Not
from flowkit.references import Reference, ToolCall
from flowkit.tools import tool
from tests.executing import AnyTool, Ran, execute


@tool(effect="read", retries=0)
async def work(value: Any = None, seconds: float = 1) -> Any:
    """Take a while; fails for "bad"."""
    await asyncio.sleep(seconds)
    if value == "bad":
        raise ToolError("bad item")
    return value


@tool
async def save(value: Any = None) -> Any:
    """Write something down."""
    await asyncio.sleep(1)
    return f"saved {value}"


TOOLS: list[AnyTool] = [work, save]
ITEM = Reference(item_id("each"))


def each(over: object, **options: Any) -> Each:
    body = Body((ToolCall("each/work", "work", {"value": ITEM}),), Reference("each/work"))
    return Each("each", over, body, **options)


def run_each(items: list[JSON], **options: Any) -> Ran:
    return execute(TOOLS, [each(items, **options)])


def test_each_runs_its_body_for_every_item_in_order() -> None:
    ran = run_each(["a", "b", "c"])
    assert ran["each"].value == ["a", "b", "c"]
    assert ran.makespan == 1
    assert ran["each/1/work"].parent == "each"


def test_each_of_a_result_waits_for_it() -> None:
    ran = execute(TOOLS, [ToolCall("list", "work", {"value": [1, 2]}), each(Reference("list"))])
    assert ran["each"].value == [1, 2]
    assert ran["each"].started_s == 1


def test_each_of_nothing_is_an_empty_list() -> None:
    assert run_each([])["each"].value == []


def test_each_bounds_how_many_items_are_at_work() -> None:
    assert run_each([1, 2, 3, 4, 5], at_once=2).makespan == 3


def test_each_refuses_more_items_than_it_takes_and_what_is_no_list() -> None:
    assert run_each([1, 2, 3], at_most=2)["each"].error == "3 items, at most 2"
    ran = execute(TOOLS, [ToolCall("one", "work", {"value": "text"}), each(Reference("one"))])
    assert ran["each"].error == "expected a list to go through, got 'text'"


MISSING = [
    Reference("list", (9,)),
    Reference("list", ("name",)),
    Reference("list", (0, "name")),
    Reference("list", (-4,)),
]


ANYWHERE: Mapping[str, Callable[[object], Node]] = {
    "list": each,
    "item": lambda missing: each([missing]),
    "key": lambda missing: each([1], key=missing),
    "condition": lambda missing: When("each", IsTrue(missing), Body((), 1)),
    "value": lambda missing: Group("each", Body((), missing)),
    "tries": lambda missing: Fallback("each", (Body((), missing), Body((), missing))),
}


@pytest.mark.parametrize("missing", MISSING, ids=str)
@pytest.mark.parametrize("make", ANYWHERE.values(), ids=ANYWHERE)
def test_control_with_a_part_that_is_not_there_fails_alone(make: Callable[[object], Node], missing: Reference) -> None:
    behind = ToolCall("behind", "work", {"value": Reference("each")})
    other = ToolCall("other", "work", {"value": Reference("list", (0,))})

    ran = execute(TOOLS, [ToolCall("list", "work", {"value": [1, 2]}), make(missing), behind, other])

    assert ran.states() == {"list": "finished", "each": "failed", "behind": "skipped", "other": "finished"}
    assert str(ran["each"].error).startswith("'work'")


def test_each_names_its_nodes_by_key() -> None:
    ran = run_each([{"id": "a/b"}, {"id": 7}], key=Reference(item_id("each"), ("id",)))
    assert ran["each/a~1b/work"].value == {"id": "a/b"}
    assert ran["each/7/work"].value == {"id": 7}


def test_each_refuses_two_items_of_one_key() -> None:
    assert run_each(["x", "x"], key=ITEM)["each"].error == "two items have the key 'x'"


@pytest.mark.parametrize(
    ("on_error", "state", "value", "ended"),
    [
        ("fail", "failed", None, 2),
        ("stop", "failed", None, 1),
        ("skip", "finished", ["a", "c"], 2),
        ("null", "finished", ["a", None, "c"], 2),
    ],
)
def test_failed_item_does_what_it_was_told(on_error: str, state: str, value: JSON, ended: float) -> None:
    seconds = {"a": 1, "bad": 1, "c": 2}
    body = Body(
        (
            ToolCall(
                "each/work",
                "work",
                {"value": Reference(item_id("each"), ("v",)), "seconds": Reference(item_id("each"), ("s",))},
            ),
        ),
        Reference("each/work"),
    )
    items: list[JSON] = [{"v": name, "s": took} for name, took in seconds.items()]
    ran = execute(TOOLS, [Each("each", items, body, on_error=on_error)])  # pyright: ignore[reportArgumentType]  # a parameter of the test
    assert (ran["each"].state, ran["each"].value, ran["each"].ended_s) == (state, value, ended)
    if state == "failed":
        assert "item 1: 'work' (each/1/work): bad item" in (ran["each"].error or "")


def test_each_in_each_gives_lists_of_lists() -> None:
    inner = Each(
        "outer/inner",
        Reference(item_id("outer")),
        Body(
            (ToolCall("outer/inner/w", "work", {"value": Reference(item_id("outer/inner"))}),),
            [Reference("outer/inner/w"), Reference(index_id("outer/inner")), Reference(index_id("outer"))],
        ),
    )
    ran = execute(TOOLS, [Each("outer", [[1, 2], [3]], Body((inner,), Reference("outer/inner")))])
    assert ran["outer"].value == [[[1, 0, 0], [2, 1, 0]], [[3, 0, 1]]]


def test_many_items_that_end_at_once_do_not_nest() -> None:
    body = Body((), {"item": ITEM})
    ran = execute(TOOLS, [Each("each", list(range(5000)), body, at_once=1)])
    assert ran["each"].value == [{"item": number} for number in range(5000)]


def when(condition: Condition) -> list[Node]:
    return [
        ToolCall("order", "work", {"value": {"status": "open", "won": 10, "note": None, "paid": True}}),
        When(
            "refund",
            condition,
            Body((ToolCall("refund/yes", "save", {"value": "yes"}),), Reference("refund/yes")),
            Body((ToolCall("refund/no", "save", {"value": "no"}),), Reference("refund/no")),
        ),
        ToolCall("mail", "work", {"value": Reference("refund")}),
    ]


STATUS, WON, NOTE, PAID = (Reference("order", (name,)) for name in ("status", "won", "note", "paid"))


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        (Compare(STATUS, "==", "open"), True),
        (Compare(STATUS, "!=", "open"), False),
        (Compare(WON, "<", 11), True),
        (Compare(WON, ">=", 10.5), False),
        (Compare(STATUS, ">", "oak"), True),
        (Compare(PAID, "==", 1), False),
        (IsIn(STATUS, ("open", "new")), True),
        (IsNone(NOTE), True),
        (IsTrue(PAID), True),
        (Not(IsTrue(PAID)), False),
        (Both(IsTrue(PAID), IsNone(STATUS)), False),
        (Either(IsNone(STATUS), IsTrue(PAID)), True),
    ],
    ids=str,
)
def test_when_takes_one_branch_and_tells_of_the_other(condition: Condition, holds: bool) -> None:
    ran = execute(TOOLS, when(condition))
    taken, left = ("yes", "no") if holds else ("no", "yes")
    assert ran["mail"].value == f"saved {taken}"
    assert ran[f"refund/{left}"].state == "skipped"
    assert ran[f"refund/{left}"].started_s is None


@pytest.mark.parametrize(
    "condition", [Compare(STATUS, "<", 1), Compare(NOTE, "<", 1), IsTrue(STATUS), IsIn(STATUS, WON)], ids=str
)
def test_condition_without_an_answer_fails_and_runs_neither_branch(condition: Condition) -> None:
    ran = execute(TOOLS, when(condition))
    assert ran["refund"].state == "failed"
    assert ran["mail"].state == "skipped"
    assert "refund/yes" not in ran.states()


@given(st.integers() | st.text() | st.booleans() | st.none(), st.integers() | st.text() | st.booleans() | st.none())
def test_every_comparison_has_an_opposite(left: JSON, right: JSON) -> None:
    def holds(condition: Condition) -> bool | None:
        try:
            return condition.evaluate(lambda value: value)
        except ToolError:
            return None

    for operator, opposite in (("==", "!="), ("<", ">="), (">", "<=")):
        first = holds(Compare(left, operator, right))  # pyright: ignore[reportArgumentType]  # pairs of the closed set
        second = holds(Not(Compare(left, opposite, right)))  # pyright: ignore[reportArgumentType]  # as above
        assert first == second


def test_when_without_a_branch_is_null() -> None:
    ran = execute(
        TOOLS,
        [
            When("w", Compare(1, "==", 2), Body((ToolCall("w/x", "save"),), Reference("w/x"))),
            ToolCall("m", "work", {"value": Reference("w")}),
        ],
    )
    assert ran["m"].state == "finished"
    assert ran["m"].value is None


def test_group_holds_no_slot_and_gives_its_value() -> None:
    recipe = Body(
        (
            ToolCall("a", "work", {"value": Reference("inputs", ("x",))}),
            ToolCall("b", "work", {"value": Reference("a")}),
        ),
        {"b": Reference("b"), "y": Reference("inputs", ("deep", "y"))},
    )
    inner = Group("outer/inner", nest(recipe, "outer/inner", {"x": 5, "deep": {"y": 6}}))
    outer = Group("outer", Body((inner,), Reference("outer/inner", ("b",))))
    ran = execute(TOOLS, [outer], slots=1)
    assert ran["outer"].value == 5
    assert ran["outer/inner"].value == {"b": 5, "y": 6}


def test_nested_recipes_and_followers_of_a_flight_end_with_one_slot() -> None:
    def recipe(name: str) -> Group:
        inner = Group(f"{name}/inner", Body((ToolCall(f"{name}/inner/w", "work", {"value": "same"}),), None))
        last = ToolCall(f"{name}/last", "work", {"value": Reference(f"{name}/inner"), "seconds": 2})
        return Group(name, Body((inner, last), Reference(f"{name}/last")))

    ran = execute(TOOLS, [recipe(f"g{number}") for number in range(4)], slots=1)
    assert {outcome.state for outcome in ran.executor.outcomes.values()} == {"finished"}
    assert [ran[f"g{number}/inner/w"].source for number in range(4)] == ["run", "flight", "flight", "flight"]
    assert ran.makespan == 1 + 2


def test_input_that_is_a_reference_goes_on_from_there() -> None:
    body = nest(Body((), Reference("inputs", ("order", "city"))), "g", {"order": Reference("order", ("address",))})
    ran = execute(TOOLS, [ToolCall("order", "work", {"value": {"address": {"city": "Busan"}}}), Group("g", body)])
    assert ran["g"].value == "Busan"


OUTER = Reference("outer")


@pytest.mark.parametrize(
    ("control", "value"),
    [
        (Group("c", Body((), OUTER)), "late"),
        (
            Each("c", [1, 2], Body((ToolCall("c/w", "work", {"value": 3}),), [Reference("c/w"), OUTER])),
            [[3, "late"]] * 2,
        ),
        (Each("c", [1], Body((ToolCall("c/w", "work"),), Reference("c/w")), key=OUTER), [None]),
        (When("c", Compare(1, "==", 1), Body((), OUTER), Body((), None)), "late"),
        (Fallback("c", (Body((ToolCall("c/w", "work", {"value": "bad"}),), None), Body((), OUTER))), "late"),
    ],
)
def test_value_of_a_control_may_come_from_outside_it(control: Node, value: JSON) -> None:
    ran = execute(TOOLS, [ToolCall("outer", "work", {"value": "late", "seconds": 5}), control])
    assert ran["c"].value == value


def test_control_whose_value_needs_what_failed_is_skipped() -> None:
    ran = execute(TOOLS, [ToolCall("outer", "work", {"value": "bad"}), Group("c", Body((), [OUTER]))])
    assert ran["c"].state == "skipped"


def test_group_fails_with_its_nodes_and_says_which() -> None:
    body = Body(
        (ToolCall("g/a", "work", {"value": "bad"}), ToolCall("g/b", "work", {"value": Reference("g/a")})),
        Reference("g/b"),
    )
    ran = execute(TOOLS, [Group("g", body), ToolCall("after", "work", {"value": Reference("g")})])
    assert ran["g"].error == "'work' (g/a): bad item"
    assert ran["after"].state == "skipped"


def test_finish_of_a_body_may_refuse_its_value() -> None:
    def finish(value: object) -> object:
        raise ToolError(f"{value!r} is no Support")

    assert execute(TOOLS, [Group("g", Body((), 1, finish))])["g"].error == "1 is no Support"


@pytest.mark.parametrize(("values", "result"), [(["a", "b"], "a"), (["bad", "b"], "b"), (["bad", "bad"], None)])
def test_fallback_takes_the_first_that_does_not_fail(values: list[str], result: str | None) -> None:
    tries = tuple(
        Body((ToolCall(f"f/{n}", "work", {"value": value}),), Reference(f"f/{n}")) for n, value in enumerate(values)
    )
    ran = execute(
        TOOLS,
        [
            Fallback("f", tries),
            Fallback("g", (Body((ToolCall("g/x", "work", {"value": "bad"}),), None),), optional=True),
        ],
    )
    assert ran["f"].value == result
    assert ran["f"].state == ("finished" if result else "failed")
    assert (ran["g"].state, ran["g"].value) == ("finished", None)


def test_finally_runs_after_failures_too() -> None:
    body = Body((ToolCall("end/save", "save"),), None)
    ran = execute(TOOLS, [ToolCall("a", "work", {"value": "bad"}), Group("end", body, after=("a",))])
    assert ran["end"].state == "finished"
    assert ran["end"].started_s == 1


def test_cancelling_a_control_cancels_what_it_holds() -> None:
    async def drive(executor: Executor) -> None:
        await asyncio.sleep(0.5)
        executor.cancel("each", "enough")

    ran = execute(TOOLS, [each([1, 2, 3], at_once=1)], drive)
    assert ran.states() == {"each": "cancelled", "each/0/work": "cancelled"}
    assert ran.makespan == 0.5


def test_model_step_is_asked_with_values_and_takes_a_slot() -> None:
    async def ask(step: ModelStep, arguments: Mapping[str, JSON]) -> JSON:
        await asyncio.sleep(1)
        return f"{step.request}: {arguments['note']}"

    nodes = [ToolCall("n", "work", {"value": {"text": "hi"}})]
    nodes += [ModelStep(f"ask{k}", {"note": Reference("n", ("text",))}, request="sum up") for k in range(2)]
    ran = execute(TOOLS, nodes, run_model_step=ask, slots={"all": 9, "model": 1})
    assert ran["ask1"].value == "sum up: hi"
    assert ran.makespan == 3


def test_model_step_without_a_model_fails() -> None:
    assert execute(TOOLS, [ModelStep("m")])["m"].error == "this run has no model to ask"


def test_failing_optional_step_fails_no_group() -> None:
    body = Body((Step("g/a", "work", {"value": "bad"}, optional=True),), {"a": Reference("g/a")})
    assert execute(TOOLS, [Group("g", body)])["g"].value == {"a": None}


@pytest.mark.parametrize(
    "node",
    [
        Group("g", Body((ToolCall("other", "work"),), None)),
        Group("g", Body((), Reference("g/missing"))),
        Group("g", Body((ToolCall("g/a", "work", {"value": Reference("g/b")}), ToolCall("g/b", "work")), None)),
        Each("g", [1], Body((), Reference("h/item"))),
    ],
)
def test_graph_checks_bodies(node: Node) -> None:
    with pytest.raises(GraphError):
        Graph([node])


def test_graph_looks_as_it_was_made() -> None:
    graph = Graph(when(IsTrue(PAID)))
    assert list(graph) == ["order", "refund", "mail"]
    assert graph.dependencies("refund") == ("order",)
    assert graph.dependents("refund") == ("mail",)
    assert graph.layers() == [["order"], ["refund"], ["mail"]]
    assert graph.critical_path({"order": 5}) == ["order", "refund", "mail"]


@tool(approval=True)
async def sign(value: Any = None) -> str:
    """Wait for a person."""
    return f"signed {value}"


def test_run_waits_for_a_person_only_when_nothing_else_of_a_control_runs() -> None:
    steps = (ToolCall("g/sign", "sign"), ToolCall("g/first", "work"), Step("g/then", "save", after=("g/first",)))
    needs_person = Compare(ITEM, "==", "sign")
    asks = Body((ToolCall("each/when/sign", "sign", {"value": ITEM}),), Reference("each/when/sign"))
    works = Body((ToolCall("each/when/save", "save", {"value": ITEM}),), Reference("each/when/save"))
    body = Body((When("each/when", needs_person, asks, works),), Reference("each/when"))

    async def drive(executor: Executor) -> None:
        await executor.wait()
        assert executor.now() == 3
        for call in executor.pending:
            executor.decide(call.id, Approve())

    nodes = [Group("g", Body(steps)), Each("each", ["sign", "a", "b", "c", "d", "e", "f"], body, at_once=3)]
    ran = execute([*TOOLS, sign], nodes, drive)
    assert ran["each"].value == ["signed sign", *(f"saved {name}" for name in "abcdef")]
    assert ran["g"].state == "finished"


def test_followers_of_a_failed_read_end_once_when_the_first_of_them_stops_the_rest() -> None:
    inner = Each("o/i", [0, 0], Body((ToolCall("o/i/w", "work", {"value": "bad"}),), []))
    ran = execute(TOOLS, [Each("o", [0, 0], Body((inner,), []), on_error="stop")], slots=1)
    assert ran["o"].state == "failed"
    assert [ran[f"o/{item}/i/{place}/w"].state for item in (0, 1) for place in (0, 1)] == [
        "failed",
        "failed",
        "cancelled",
        "cancelled",
    ]
