"""What a recipe may not do with values of its run raises at decoration, with the line and what to write instead."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from flowkit.errors import DefinitionError
from flowkit.recipes import Ref, build, each, finally_, is_none, recipe, step, when
from flowkit.tools import tool


@dataclass(frozen=True)
class Order:
    id: str
    status: str
    weight: float
    lines: list[str]
    items: list[str]
    keys: str
    symbol: str


@tool(effect="read")
def get_order(order_id: str) -> Order:
    """Find an order."""
    raise AssertionError("nothing runs while tracing")


@tool(effect="read")
def show(text: Any) -> str:
    """Show a value."""
    return str(text)


def uses_is(order_id: str) -> Any:
    order = step(get_order, order_id)
    return step(show, order.status is None)  # pyright: ignore[reportUnnecessaryComparison]  # what is tested


def uses_not(order_id: str) -> Any:
    order = step(get_order, order_id)
    return when(not order.status, lambda: step(show, "x"))


def uses_and(order_id: str) -> Any:
    order = step(get_order, order_id)
    return when(order.status == "a" and order.weight > 1, lambda: step(show, "x"))


def uses_or_in_lambda(order_id: str) -> Any:
    order = step(get_order, order_id)
    return each(order.lines, lambda line: step(show, line or "none"))


def uses_match(order_id: str) -> Any:
    order = step(get_order, order_id)
    match order.status:
        case "paid":
            return step(show, "paid")
        case _:
            return step(show, "other")


def uses_isinstance(order_id: str) -> Any:
    order = step(get_order, order_id)
    kind = "text" if isinstance(order.status, str) else "other"  # pyright: ignore  # what is tested
    return step(show, kind)


def uses_repr_in_f_string(order_id: str) -> Any:
    order = step(get_order, order_id)
    return step(show, f"order {order.id!r}")


def uses_f_string_of_a_list(order_id: str) -> Any:
    orders = [step(get_order, order_id)]
    return step(show, f"orders {orders}")


def uses_f_string(order_id: str) -> Any:
    order = step(get_order, order_id)
    return step(show, f"order {order.id}")


def uses_chain(order_id: str) -> Any:
    order = step(get_order, order_id)
    return when(1 < order.weight < 5, lambda: step(show, "x"))


def uses_in(order_id: str) -> Any:
    order = step(get_order, order_id)
    return when(order.status in ("a", "b"), lambda: step(show, "x"))


def uses_if(order_id: str) -> Any:
    order = step(get_order, order_id)
    if order.status == "paid":
        return step(show, "paid")
    return None


def uses_loop(order_id: str) -> Any:
    order = step(get_order, order_id)
    return [step(show, line) for line in order.lines]


def uses_length(order_id: str) -> Any:
    order = step(get_order, order_id)
    return step(show, len(order.lines))


def uses_sum(order_id: str) -> Any:
    order = step(get_order, order_id)
    return step(show, order.weight * 2)


def uses_text(order_id: str) -> Any:
    order = step(get_order, order_id)
    return step(show, str(order.id))


def uses_method(order_id: str) -> Any:
    order = step(get_order, order_id)
    return step(show, order.status.upper())


def uses_negative_index(order_id: str) -> Any:
    order = step(get_order, order_id)
    return step(show, order.lines[-1])


def uses_key(order_id: str) -> Any:
    order = step(get_order, order_id)
    return step(show, {order.id: 1})


def uses_assignment(order_id: str) -> Any:
    order = step(get_order, order_id)
    order.status = "paid"  # type: ignore[misc]  # pyright: ignore  # what is tested
    return order


def uses_unknown_field(order_id: str) -> Any:
    order: Any = step(get_order, order_id)
    return step(show, order.statsu)


def uses_unknown_field_of_an_item(order_id: str) -> Any:
    order = step(get_order, order_id)
    return each(order.lines, lambda line: step(show, line.lenght))  # type: ignore  # pyright: ignore  # what is tested


@pytest.mark.parametrize(
    ("function", "instead"),
    [
        (uses_is, "is_none(order.status)"),
        (uses_not, "not_(order.status)"),
        (uses_and, "(order.status == 'a') & (order.weight > 1)"),
        (uses_or_in_lambda, "(line) | ('none')"),
        (uses_match, "when("),
        (uses_isinstance, "when("),
        (uses_repr_in_f_string, "ask(model"),
        (uses_f_string_of_a_list, "ask(model"),
        (uses_f_string, "ask(model"),
        (uses_chain, "joined by &"),
        (uses_in, "is_in(order.status, ('a', 'b'))"),
        (uses_if, "when("),
        (uses_loop, "each("),
        (uses_length, "let a tool count"),
        (uses_sum, "let a tool compute"),
        (uses_text, "ask(model"),
        (uses_method, "it has no 'upper'"),
        (uses_negative_index, "indices from 0"),
        (uses_key, "no key of a dict"),
        (uses_assignment, "can't be changed"),
        (uses_unknown_field, "did you mean 'status'?"),
        (uses_unknown_field_of_an_item, "'lenght'"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_misuse_raises_at_decoration_with_its_line(function: Callable[..., Any], instead: str) -> None:
    lines, first = inspect.getsourcelines(function)
    with pytest.raises(DefinitionError) as caught:
        recipe(function)
    message = str(caught.value)
    assert instead in message
    place, line, _ = message.split(":", 2)
    assert place == __file__
    assert first < int(line) < first + len(lines)


def test_list_of_refs_may_be_looped_over_and_asked_for_its_truth() -> None:
    @recipe
    def several(first: str) -> Any:
        orders = [step(get_order, order_id) for order_id in (first, "fixed")]
        texts = [step(show, order.id) for order in orders] if orders else []
        for number, order in enumerate(orders):
            texts.append(step(show, f"{number}") if number else step(show, order.status))
        return texts

    assert len(several.graph()) == 6


def test_no_attribute_of_ref_hides_a_field() -> None:
    seen: list[str] = []

    @recipe
    def look(order_id: str) -> Any:
        order = step(get_order, order_id)
        seen.extend(map(repr, (order.items, order.keys, order.symbol)))
        return order.id

    assert seen == [f"<Ref get_order.{name}>" for name in ("items", "keys", "symbol")]
    assert [name for name in vars(Ref) if not name.startswith("_")] == []
    assert len(look.graph()) == 1


@pytest.mark.parametrize("probe", [vars, next, iter, hash, bool, int, float, bytes, round])
def test_probing_a_ref_raises(probe: Callable[[Any], Any]) -> None:
    def function(order_id: str) -> Any:
        order = step(get_order, order_id)
        return probe(order)

    with pytest.raises((DefinitionError, AttributeError, TypeError)):
        recipe(function)


def test_ref_belongs_to_its_body() -> None:
    def leaks(order_id: str) -> Any:
        held: list[Any] = []
        order = step(get_order, order_id)
        each(order.lines, lambda line: held.append(line))
        return step(show, held[0])

    with pytest.raises(DefinitionError, match="inside of an each"):
        recipe(leaks)


def test_ref_belongs_to_its_recipe() -> None:
    held: list[Any] = []

    @recipe
    def first(order_id: str) -> Any:
        held.append(step(get_order, order_id))
        return held[0]

    def second() -> Any:
        return step(show, held[0])

    with pytest.raises(DefinitionError, match="another recipe"):
        recipe(second)
    assert first.name == "first"


def test_steps_outside_of_a_recipe_raise() -> None:
    with pytest.raises(DefinitionError, match="under @recipe"):
        step(get_order, "1")


def test_wrong_arguments_raise_with_their_line() -> None:
    def wrong_name(order_id: str) -> Any:
        return step(get_order, oder_id=order_id)  # type: ignore  # pyright: ignore  # what is tested

    def wrong_type() -> Any:
        return step(get_order, 3)  # type: ignore  # pyright: ignore  # what is tested

    cases: list[tuple[Callable[..., Any], str]] = [(wrong_name, "oder_id"), (wrong_type, "order_id")]
    for function, part in cases:
        with pytest.raises(DefinitionError, match=part) as caught:
            recipe(function)
        assert __file__ in str(caught.value)


def test_plain_function_is_no_step() -> None:
    def plain(order_id: str) -> Any:
        return step(len, order_id)  # type: ignore  # pyright: ignore  # what is tested

    with pytest.raises(DefinitionError, match="write @tool above it"):
        recipe(plain)


def test_build_checks_the_fields() -> None:
    def missing(order_id: str) -> Any:
        return build(Order, id=order_id)  # type: ignore  # pyright: ignore  # what is tested

    with pytest.raises(DefinitionError, match="missing a required argument: 'status'"):
        recipe(missing)


def test_async_function_is_no_recipe() -> None:
    async def later(order_id: str) -> Any:
        return order_id

    with pytest.raises(DefinitionError, match="a plain function"):
        recipe(later)


def test_secret_or_collecting_inputs_are_refused() -> None:
    def collects(*order_ids: str) -> Any:
        return order_ids

    with pytest.raises(DefinitionError, match="collects many"):
        recipe(collects)


def test_taken_id_raises() -> None:
    def twice(order_id: str) -> Any:
        step.options(id="a")(get_order, order_id)
        return step.options(id="a")(get_order, order_id)

    with pytest.raises(DefinitionError, match="'a' is taken"):
        recipe(twice)


def test_nothing_but_final_steps_refers_to_a_final_step() -> None:
    def late(order_id: str) -> Any:
        held: list[Any] = []
        finally_(lambda: held.append(step(show, "end")))
        return when(is_none(order_id), lambda: step(show, held[0]))

    with pytest.raises(DefinitionError, match="show"):
        recipe(late)
