"""References: their spellings, where they lead, and the rules that hold for what a model writes."""

import asyncio
import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from flowkit.cache import DiskCache
from flowkit.codec import JSON
from flowkit.context import CONTEXT, Context
from flowkit.errors import CycleError, GraphError, ResolutionError, ToolArgumentsError, ToolError
from flowkit.events import EventLog
from flowkit.executor import Executor, Outcome
from flowkit.graph import Graph, Step, sort_nodes
from flowkit.identity import RunIdentity
from flowkit.references import (
    Path,
    Reference,
    ToolCall,
    find_references,
    format_expression,
    format_pointer,
    lookup,
    parse_expression,
    parse_pointer,
    read_model_references,
    resolve,
)
from flowkit.schema_paths import find_subschemas
from flowkit.testing.loop import run_virtual
from flowkit.tools import tool
from tests.executing import AnyTool, Shelf, execute

json_values: st.SearchStrategy[JSON] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_pointer_without_end_is_refused() -> None:
    with pytest.raises(GraphError, match="of 5001 characters: expected at most 1000"):
        parse_pointer("/" + "9" * 5000)


@given(st.lists(st.text() | st.text("~/01"), max_size=4))
def test_pointer_reads_as_it_was_written(keys: list[str]) -> None:
    assert parse_pointer(format_pointer(tuple(keys))) == tuple(keys)


@given(
    st.text(st.characters(categories=["L"]), min_size=1),
    st.lists(st.text() | st.text("\"'\\]") | st.integers(), max_size=4),
)
def test_expression_reads_as_it_was_written(first: str, rest: list[str | int]) -> None:
    path: Path = ("steps", first, *rest)
    assert parse_expression(format_expression(path)) == path


@pytest.mark.parametrize(
    "text", ["${{ }}", "${{ a b }}", "x ${{ a }}", "${{ a }} ${{ b }}", "${{ [0] }}", "${{ a. }}", "${{ a[x] }}"]
)
def test_expression_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(GraphError):
        parse_expression(text)


def test_names_of_any_language_are_names() -> None:
    assert parse_expression("${{ steps.주문.도시 }}") == ("steps", "주문", "도시")
    assert format_expression(("steps", "주문", "도시 이름")) == '${{ steps.주문["도시 이름"] }}'


def test_text_without_an_expression_is_none() -> None:
    assert parse_expression("costs $12 or ${12}") is None


@given(json_values, st.data())
def test_every_place_of_a_value_is_found_by_its_path(value: JSON, data: st.DataObject) -> None:
    path: list[str | int] = []
    place = value
    while isinstance(place, (dict, list)) and place and data.draw(st.booleans()):
        if isinstance(place, dict):
            key = data.draw(st.sampled_from(sorted(place)))
            path.append(key)
            place = place[key]
        else:
            index = data.draw(st.integers(0, len(place) - 1))
            path.append(index)
            place = place[index]
    assert lookup(value, tuple(path)) == place
    if all(isinstance(key, str) for key in path):
        assert lookup(value, parse_pointer(format_pointer(tuple(path)))) == place


def test_star_is_a_legal_key() -> None:
    assert lookup({"*": 1}, ("*",)) == 1


@pytest.mark.parametrize("key", ["00", "-0", "1.0", "²", ""])
def test_only_plain_numbers_are_indices(key: str) -> None:
    with pytest.raises(ResolutionError):
        lookup([1, 2], (key,))


# The rules of the executor, one test each


class Address(BaseModel):
    city: str
    lines: list[str] = []


@tool(effect="read")
async def get_address(value: Any = None) -> Address:
    """Give an address."""
    return Address(city="Busan", lines=["1 Haeundae"])


@tool(effect="read")
async def echo(value: Any = None) -> Any:
    """Give back what came in."""
    return value


@tool(effect="read")
async def count(number: int) -> int:
    """Take a number."""
    return number


@tool
async def fail(value: Any = None) -> str:
    """Fail."""
    raise ToolError("no")


TOOLS: list[AnyTool] = [get_address, echo, count, fail]


@given(json_values)
def test_rule_1_what_is_put_in_is_never_looked_at_again(value: JSON) -> None:
    made = {"from_call": "other", "path": "/x", "literal": value, "price": "$12", "text": "${{ steps.x }} $1 $var1.f$"}
    assert resolve([Reference("a")], {"a": made}.__getitem__) == [made]


def test_rule_1_result_that_is_a_reference_stays_data() -> None:
    @tool(effect="read")
    async def confuse() -> Any:
        return {"from_call": "a", "path": "/value"}

    nodes = [
        ToolCall("a", "confuse"),
        ToolCall("b", "echo", {"value": Reference("a")}),
        ToolCall("c", "echo", {"value": [Reference("b")]}),
    ]
    ran = execute([*TOOLS, confuse], nodes)
    assert ran["c"].value == [{"from_call": "a", "path": "/value"}]


@pytest.mark.parametrize("price", ["$12", "$1", "$var1.total$", "{{price}}", "${a.b}"])
def test_rule_1_prices_in_results_are_prices(price: str) -> None:
    ran = execute(TOOLS, [ToolCall("a", "echo", {"value": price}), ToolCall("b", "echo", {"value": Reference("a")})])
    assert ran["b"].value == price


@pytest.mark.parametrize("path", [None, 0, ["city"]])
def test_path_that_is_no_text_is_refused_in_words_for_the_model(path: JSON) -> None:
    with pytest.raises(ToolArgumentsError, match=r"'to': path is .*, expected a JSON pointer such as '/address/city'"):
        read_model_references("ship", {"to": {"from_call": "get", "path": path}}, {"get": "call-1"})


def test_rule_2_literal_that_looks_like_a_reference_is_written_so() -> None:
    read = read_model_references(
        "t", {"x": {"literal": {"from_call": "get", "path": ""}}, "y": {"literal": 1, "z": 2}}, {}
    )
    assert read == {"x": {"from_call": "get", "path": ""}, "y": {"literal": 1, "z": 2}}


def test_rule_2_parameter_that_takes_no_reference_keeps_its_object() -> None:
    given_object: dict[str, JSON] = {"x": {"from_call": "get"}}
    assert read_model_references("t", given_object, {}, offered=()) == given_object


def test_rule_3_path_is_checked_against_the_schema_at_the_seal() -> None:
    async def drive(executor: Executor) -> None:
        executor.seal(ToolCall("bad", "echo", {"value": Reference("a", ("town",))}))
        outcome = executor.outcome("bad")
        assert outcome is not None, "known before anything has run"
        assert outcome.error == "'get_address' has no 'town'; there is 'city', 'lines'"

    ran = execute(TOOLS, [ToolCall("a", "get_address")], drive)
    assert ran["bad"].started_s is None


def test_rule_3_type_is_checked_against_the_parameter_at_the_seal() -> None:
    async def drive(executor: Executor) -> None:
        executor.seal(ToolCall("bad", "count", {"number": Reference("a")}))
        outcome = executor.outcome("bad")
        assert outcome is not None, "known before anything has run"
        assert outcome.error == "tool 'count': 'number': 'get_address' is object, expected integer"
        executor.seal(ToolCall("list", "count", {"number": Reference("a", ("lines",))}))
        outcome = executor.outcome("list")
        assert outcome is not None
        assert outcome.error == "tool 'count': 'number': 'get_address' at /lines is array, expected integer"

    execute(TOOLS, [ToolCall("a", "get_address")], drive)


def test_rule_3_value_is_checked_when_it_is_there() -> None:
    nodes = [ToolCall("a", "get_address"), ToolCall("b", "count", {"number": Reference("a", ("city",))})]
    ran = execute(TOOLS, nodes)
    assert ran["b"].error == "not run: tool 'count': 'number' is 'Busan', expected an integer"


@pytest.mark.parametrize(
    ("path", "types"),
    [
        (("city",), ["string"]),
        (("lines", 0), ["string"]),
        (("lines", "0"), ["string"]),
        ((), ["object"]),
    ],
)
def test_rule_3_schema_at_a_path(path: Path, types: list[str]) -> None:
    assert get_address.result_schema is not None
    assert [found.get("type") for found in find_subschemas(get_address.result_schema, path)] == types


def test_rule_3_unions_definitions_and_open_objects() -> None:
    schema: dict[str, JSON] = {
        "anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}],
        "$defs": {
            "A": {
                "type": "object",
                "properties": {"b": {"$ref": "#/$defs/A"}},
                "additionalProperties": {"type": "integer"},
            }
        },
    }
    assert find_subschemas(schema, ("b", "b", "other")) == [{"type": "integer"}]
    assert find_subschemas({}, ("any", "thing")) == [{}]
    with pytest.raises(ResolutionError, match="is a list: expected an index"):
        find_subschemas({"type": "array", "items": {"type": "object"}}, ("id",))


@pytest.mark.parametrize("target", ["a", "b", "get_address_2"])
def test_rule_4_self_forward_and_unknown_labels_are_errors_at_once(target: str) -> None:
    with pytest.raises(ToolArgumentsError, match=r"expected the label of an earlier call of this turn: 'get_address'"):
        read_model_references("echo", {"value": {"from_call": target}}, {"get_address": "n1"})


def test_rule_4_circle_through_three_nodes_names_them() -> None:
    nodes = [
        ToolCall(name, "echo", {"value": Reference(other)}) for name, other in (("a", "b"), ("b", "c"), ("c", "a"))
    ]
    with pytest.raises(CycleError) as caught:
        sort_nodes(nodes)
    assert set(caught.value.members) == {"a", "b", "c"}


def test_rule_4_circle_through_a_resource_names_its_members() -> None:
    @tool(resource="order:{order_id}")
    async def pay(order_id: str) -> str:
        return order_id

    @tool(resource="order:{order_id}")
    async def settle(order_id: str, ctx: Context[Any] = CONTEXT) -> str:
        return await ctx.call(pay, order_id)

    ran = execute([pay, settle], [ToolCall("s", "settle", {"order_id": "1"})])
    assert ran["s/pay"].error == "not run: a circle: s/pay -> s -> s/pay"


def test_rule_4_circle_by_after_is_one_too() -> None:
    with pytest.raises(CycleError):
        sort_nodes([Step("a", "echo", after=("b",)), ToolCall("b", "echo", {"value": Reference("a")})])


def test_rule_5_pointer_through_a_list_needs_an_index() -> None:
    value: JSON = {"hotels": [{"id": 7}, {"id": 8}]}
    nodes = [
        ToolCall("search", "echo", {"value": value}),
        ToolCall("b", "echo", {"value": Reference("search", ("hotels", "id"))}),
    ]
    ran = execute(TOOLS, nodes)
    expected = "not run: 'echo' has a list of 2 at /hotels: expected an index before 'id', such as /hotels/0/id or /hotels/1/id"
    assert ran["b"].error == expected


def test_rule_5_ordinal_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(ResolutionError, match="a list of 1: there is no index 3"):
        lookup({"hotels": [1]}, ("hotels", "3"))


def test_rule_6_diamond_whose_top_fails_has_one_result_for_each() -> None:
    nodes = [
        ToolCall("top", "fail"),
        ToolCall("left", "echo", {"value": Reference("top")}),
        ToolCall("right", "echo", {"value": Reference("top")}),
        ToolCall("bottom", "echo", {"value": [Reference("left"), Reference("right")]}),
    ]
    ran = execute(TOOLS, nodes)
    assert ran.states() == {"top": "failed", "left": "skipped", "right": "skipped", "bottom": "skipped"}
    assert "'fail' (top)" in (ran["bottom"].error or "")


def test_reference_to_a_cached_call_takes_its_value_at_once(tmp_path: pathlib.Path) -> None:
    @tool(effect="read", ttl=60)
    async def find(city: str) -> dict[str, str]:
        await asyncio.sleep(5)
        return {"city": city}

    nodes = [
        ToolCall("a", "find", {"city": "Busan"}),
        ToolCall("b", "echo", {"value": Reference("a", ("city",))}),
    ]

    async def run_twice() -> list[Outcome]:
        cache = DiskCache(tmp_path)
        outcomes: list[Outcome] = []
        for _ in range(2):
            log = EventLog("r", asyncio.get_running_loop().time)
            async with Executor(Shelf([*TOOLS, find]), log, cache=cache, identity=RunIdentity(run_id="r")) as executor:
                for node in nodes:
                    executor.add(node)
                await executor.wait()
                outcomes = list(executor.outcomes.values())
        await cache.close()
        return outcomes

    found, echoed = run_virtual(run_twice())
    assert (found.source, found.started_s, echoed.value) == ("cache", None, "Busan")


def test_rule_7_writes_wait_for_the_end_of_the_stream() -> None:
    async def drive(executor: Executor) -> None:
        executor.announce("w", "fail")
        assert not executor.start_early(ToolCall("w", "fail", {"value": 1}))
        await asyncio.sleep(5)
        executor.seal(ToolCall("w", "fail", {"value": 1}))

    assert execute(TOOLS, [], drive).started() == {"w": 5}


def test_rule_8_orphan_of_a_broken_stream_is_cancelled() -> None:
    stopped: list[float] = []

    @tool(effect="read")
    async def slow(n: int) -> int:
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            stopped.append(asyncio.get_running_loop().time())
            raise
        return n

    async def drive(executor: Executor) -> None:
        executor.announce("r", "slow")
        assert executor.start_early(ToolCall("r", "slow", {"n": 1}))
        await asyncio.sleep(2)
        executor.void("r", "the stream broke")

    assert execute([slow], [], drive)["r"].state == "void"
    assert stopped == [2]


def test_rule_9_references_select_and_never_judge() -> None:
    # There is no word for "the cheapest": what isn't a key or an index is refused.
    with pytest.raises(ResolutionError, match="expected an index"):
        lookup([{"price": 2}, {"price": 1}], ("cheapest",))


def test_rule_10_policy_sees_each_value_that_goes_from_call_to_call() -> None:
    seen: list[tuple[str, str, JSON]] = []

    def look(call: ToolCall, reference: Reference, value: JSON) -> None:
        seen.append((call.name, reference.call_id, value))
        if value == "secret":
            raise ToolError("this value may not leave its tool")

    nodes = [
        ToolCall("a", "echo", {"value": {"open": "x", "closed": "secret"}}),
        ToolCall("b", "echo", {"value": Reference("a", ("open",))}),
        ToolCall("c", "echo", {"value": Reference("a", ("closed",))}),
    ]
    ran = execute(TOOLS, nodes, look_at_reference=look)
    assert ("echo", "a", "x") in seen
    assert ran["c"].error == "not run: this value may not leave its tool"


def test_references_are_found_in_lists_and_dicts_in_order() -> None:
    value = {"a": [Reference("x"), 1, {"b": (Reference("y"),)}], "c": Reference("z")}
    assert [reference.call_id for reference in find_references(value)] == ["x", "y", "z"]


def test_graph_refuses_what_is_not_there_and_offers_what_is() -> None:
    with pytest.raises(GraphError, match="did you mean 'order'"):
        Graph([ToolCall("order", "echo"), ToolCall("b", "echo", {"value": Reference("ordr")})])
