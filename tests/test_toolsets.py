"""A set of tools: unique names, prefixes, filters, aliases, tools that change between turns."""

import asyncio
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.agent import Agent
from flowkit.codec import JSON
from flowkit.context import Context
from flowkit.errors import DefinitionError, ToolArgumentsError
from flowkit.mcp_client import MCPTools
from flowkit.targets import find_violations
from flowkit.testing import ScriptedModel, call, run_virtual
from flowkit.tools import Tool, tool
from flowkit.tools.schema.aliases import make_alias, make_aliases
from flowkit.tools.toolsets import ToolLike, Toolset


@tool(effect="read")
def get_order(order_id: str) -> dict[str, int]:
    """Look an order up."""
    return {order_id: 1}


@tool(effect="read")
def search(words: str = "all", weights: dict[str, float] | None = None) -> list[str]:
    """Find products."""
    return [words, *(weights or {})]


@tool
def refund(order_id: str) -> str:
    """Give the money back."""
    return order_id


def test_tools_are_found_by_name_in_their_order() -> None:
    tools = Toolset(get_order, refund)
    assert tools.names == ("get_order", "refund")
    assert tools.get("refund") is refund
    assert tools.get("search") is None


def test_plain_function_becomes_a_tool() -> None:
    def greet(name: str) -> str:
        return f"hello {name}"

    found = Toolset(greet).get("greet")
    assert found is not None
    assert found.parameters["required"] == ["name"]


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (Agent(ScriptedModel([]), name="helper"), "tools=[….as_tool()]"),
        (MCPTools.stdio("server", name="shop"), "tools=[….tools]"),
    ],
)
def test_what_has_tools_is_told_how_to_give_them(given: Any, written: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(written)):
        Toolset(given)


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(DefinitionError, match="two tools are called 'get_order'"):
        Toolset(get_order, tool(name="get_order")(lambda: 1))


def test_one_tool_may_come_twice() -> None:
    assert len(Toolset(get_order, Toolset(get_order, refund), get_order)) == 2


def test_prefix_keeps_equal_names_apart() -> None:
    tools = Toolset(Toolset(get_order, prefix="shop_"), Toolset(get_order, prefix="store_"))
    assert tools.names == ("shop_get_order", "store_get_order")
    renamed = tools.get("shop_get_order")
    assert renamed is not None
    assert renamed.name == "shop_get_order"
    assert get_order.name == "get_order"


def test_errors_tell_the_name_with_its_prefix() -> None:
    schema: dict[str, JSON] = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
    foreign = Tool.from_schema("foreign", "", schema, print)
    for plain in (get_order, foreign):
        prefixed = Toolset(plain, prefix="shop.").get(f"shop.{plain.name}")

        assert prefixed is not None
        for made in (prefixed, plain):
            with pytest.raises(ToolArgumentsError, match=f"^tool '{made.name}': .* is missing"):
                made.validate({})
            with pytest.raises(ToolArgumentsError, match=f"^tool '{made.name}': "):
                made.call()


def test_filter_keeps_what_it_is_true_for() -> None:
    assert Toolset(get_order, refund, search, filter=lambda each: each.effect == "read").names == (
        "get_order",
        "search",
    )


def test_name_with_a_dot_travels_under_an_alias_and_comes_back() -> None:
    tools = Toolset(get_order, prefix="shop.")
    assert [spec.name for spec in tools.specs()] == ["shop_get_order"]
    assert tools.resolve("shop_get_order") is tools.get("shop.get_order")
    assert tools.resolve("nothing") is None


def test_names_that_would_travel_as_one_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"'shop\.get_order' and 'shop_get_order' would both travel"):
        Toolset(Toolset(get_order, prefix="shop."), Toolset(get_order, prefix="shop_"))


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=90)


@given(NAMES)
def test_every_alias_travels(name: str) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", make_alias(name))


@given(
    st.lists(NAMES | st.sampled_from(["a.b", "a_b", "a-b", "a b", "가.나", "가나", "x" * 64, "x" * 65]), unique=True)
)
def test_aliases_lead_back_to_every_name_or_the_set_is_refused(names: list[str]) -> None:
    try:
        aliases = make_aliases(names)
    except DefinitionError:
        assert len({make_alias(name) for name in names}) < len(names)
        return
    assert [aliases[make_alias(name)] for name in names] == names


def test_names_in_other_scripts_stay_apart() -> None:
    assert make_alias("주문_조회") != make_alias("주문_취소")


def test_dynamic_tools_are_asked_for_before_each_turn() -> None:
    async def tools_for(context: Context[Any]) -> list[ToolLike]:
        return [refund] if context.user == "clerk" else []

    tools = Toolset(get_order, Toolset(Toolset.dynamic(tools_for), prefix="desk_"))
    assert tools.names == ("get_order",)
    assert asyncio.run(tools.current(Context(None, user="guest"))).names == ("get_order",)
    assert asyncio.run(tools.current(Context(None, user="clerk"))).names == ("get_order", "desk_refund")


def test_dynamic_tools_pass_the_filters_around_them() -> None:
    tools = Toolset(Toolset.dynamic(lambda _: [refund, search]), filter=lambda each: each.effect == "read")
    assert asyncio.run(tools.current(Context(None))).names == ("search",)


def test_a_filter_is_asked_before_each_turn_though_the_source_names_the_same() -> None:
    is_open = True
    tools = Toolset(Toolset.dynamic(lambda _: [refund, search]), filter=lambda each: is_open or each.effect == "read")
    first = asyncio.run(tools.current(Context(None)))
    assert first.names == ("refund", "search")
    assert asyncio.run(tools.current(Context(None))) is first
    is_open = False
    assert asyncio.run(tools.current(Context(None))).names == ("search",)


def test_dynamic_set_that_is_unpacked_is_an_error_and_not_an_agent_without_tools() -> None:
    server = MCPTools.stdio("a-server", name="shop")
    for source in (Toolset.dynamic(lambda _: [refund]), server.tools):
        with pytest.raises(DefinitionError, match=r"give the set itself, tools=\[server.tools\]"):
            Agent(ScriptedModel([]), tools=[*source])
    assert Agent(ScriptedModel([]), tools=[get_order, server.tools]).tools.names == ("get_order",)


def test_set_without_dynamic_tools_is_its_own_current() -> None:
    tools = Toolset(get_order)
    assert asyncio.run(tools.current(Context(None))) is tools


def test_replaced_tool_keeps_the_name() -> None:
    def fake(order_id: str) -> dict[str, int]:
        return {order_id: 0}

    tools = Toolset(get_order, refund).replacing({"get_order": fake})
    found = tools.get("get_order")
    assert tools.names == ("get_order", "refund")
    assert found is not None
    assert found.name == "get_order"
    assert found("x") == {"x": 0}


def test_a_function_replaces_every_tool_also_those_of_a_dynamic_source() -> None:
    def loud(name: str) -> str:
        return name.upper()

    def change(one: Tool[..., Any]) -> Tool[..., Any]:
        return one if one.effect == "read" else tool(name=one.name, effect="read")(loud)

    @tool(effect="read")
    def quiet(name: str) -> str:
        return name

    @tool
    def shout(name: str) -> str:
        return name

    inner = Toolset(quiet, Toolset.dynamic(lambda _: [shout]))
    changed = Toolset(inner, prefix="my.").replacing(change)
    now = asyncio.run(changed.current(Context(None)))

    assert [(one.name, one.effect) for one in now] == [("my.quiet", "read"), ("my.shout", "read")]
    assert [one.effect for one in asyncio.run(inner.current(Context(None)))] == ["read", "write"]
    agent = Agent(
        ScriptedModel([[call("my_shout", name="a")], "done"]), tools=[Toolset(inner, prefix="my.")], cache=False
    )
    with agent.override(tools=change):
        assert [one.value for one in asyncio.run(agent.run("go")).calls] == ["A"]


def test_unknown_tool_cannot_be_replaced() -> None:
    with pytest.raises(DefinitionError, match="no tool 'ship' to replace; there is 'get_order'"):
        Toolset(get_order).replacing({"ship": refund})


def test_strict_specs_and_the_way_back_belong_together() -> None:
    tools = Toolset(search, target="openai-strict")
    (spec,) = tools.specs()
    assert spec.strict
    assert find_violations(spec.parameters) == ()
    written: dict[str, JSON] = {"words": None, "weights": [{"key": "red", "value": 0.5}]}
    assert tools.raise_arguments("search", written) == {"weights": {"red": 0.5}}
    assert tools.lower_arguments("search", {"weights": {"red": 0.5}}) == written


def test_plain_specs_carry_the_faithful_schema() -> None:
    (spec,) = Toolset(search).specs()
    assert not spec.strict
    assert spec.parameters == search.parameters


def test_target_of_a_request_goes_before_the_sets_own() -> None:
    assert Toolset(search).specs("openai-strict")[0].strict


def test_set_of_sets_has_the_target_of_the_first() -> None:
    assert Toolset(get_order, Toolset(search, target="openai-strict")).target == "openai-strict"
    assert Toolset(Toolset(search, target="openai-strict"), target="openai").target == "openai"
    assert Toolset(search).target == "openai"


def test_tools_own_wish_goes_before_the_target() -> None:
    def lenient(words: str) -> str:
        return words

    tools = Toolset(tool(strict=False)(lenient), tool(strict=True, name="firm")(lenient))
    assert [spec.strict for spec in tools.specs("openai-strict")] == [False, True]
    assert [spec.strict for spec in tools.specs("openai")] == [False, True]


@pytest.mark.parametrize("target", ["openai", "openai-strict"])
def test_references_are_offered_to_reads_and_told_where_they_may_point(target: Any) -> None:
    tools = Toolset(search, refund)
    offered, withheld = tools.specs(target, references=True)
    properties: Any = offered.parameters["properties"]
    assert all({"$ref": "#/$defs/Reference"} in item["anyOf"] for item in properties.values())
    assert "Reference" not in str(withheld.parameters)


def test_write_takes_references_when_its_author_says_so() -> None:
    ship = tool(accepts_references=True, name="ship")(refund.function)
    (spec,) = Toolset(ship).specs(references=True)
    assert "Reference" in str(spec.parameters)


def test_unknown_names_arguments_stay_as_they_are() -> None:
    assert Toolset(search).raise_arguments("nothing", {"a": None}) == {"a": None}


def test_method_without_its_object_is_refused() -> None:
    class Shop:
        @tool
        def get_order(self, order_id: str) -> str:
            return order_id

    with pytest.raises(DefinitionError, match="tool 'get_order': it is a method: give that of an object"):
        Toolset(Shop.get_order)
    assert Toolset(Shop().get_order).names == ("get_order",)


def test_tools_of_an_object_are_bound() -> None:
    class Shop:
        @tool(effect="read")
        def count(self, word: str) -> int:
            return len(word)

    bound: Tool[..., int] = Shop().count
    assert Toolset(bound, prefix="shop_").names == ("shop_count",)


def test_agent_brings_back_what_a_strict_server_made_the_model_write() -> None:
    asked = call("shop_search", words=None, weights=[{"key": "red", "value": 0.5}])
    model = ScriptedModel([[asked], "Done."])
    tools = Toolset(search, prefix="shop.", target="openai-strict")
    result = run_virtual(Agent(model, tools=[tools], cache=False).run("Search."))
    assert [outcome.value for outcome in result.calls] == [["all", "red"]]
    assert [(spec.name, spec.strict) for spec in model.requests[0].tools] == [("shop_search", True)]


def test_a_dynamic_tool_that_can_not_be_one_is_left_out_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    def broken(*items: Context[None]) -> str:
        return ""

    named: list[ToolLike] = [broken, refund.renamed("search"), refund]
    tools = Toolset(search, Toolset.dynamic(lambda _: named))
    now = asyncio.run(tools.current(Context(None)))
    assert now.names == ("search", "refund")
    assert now.get("search") is search
    assert "a tool is left out: tool 'broken'" in caplog.text
    assert "tool 'search' is left out: two tools are called 'search'" in caplog.text


def test_dynamic_names_that_would_travel_as_one_get_a_mark() -> None:
    named = [refund.renamed(name) for name in ("a.b", "a_b", "a b")]
    now = asyncio.run(Toolset(Toolset.dynamic(lambda _: named)).current(Context(None)))
    first, second, third = now.aliases
    assert (first, now.aliases[first]) == ("a_b", "a.b")
    assert second.startswith("a_b_")
    assert third.startswith("a_b_")
    assert {now.resolve(alias) for alias in now.aliases} == set(now)


def test_dynamic_tools_that_stay_the_same_are_not_made_again() -> None:
    tools = Toolset(Toolset.dynamic(lambda _: [search, refund]), prefix="desk_")
    first, second = (asyncio.run(tools.current(Context(None))) for _ in range(2))
    assert first is second
