"""What a tool needs: whose parameters it shows, what runs, and what the whole amounts to."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from flowkit import CONTEXT, Context, DefinitionError, Needs, Reference, Tool, ToolArgumentsError, ToolCall, tool
from flowkit.tools import make_tool
from flowkit.tools.options import Approval, Options


class Order(BaseModel):
    id: str
    total: float


class Quote(BaseModel):
    price: float


ran: list[str] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


@tool(effect="read")
async def get_order(order_id: Annotated[str, "Which order."], archived: bool = False) -> Order:
    ran.append(f"order {order_id}")
    return Order(id=order_id, total=2.0 if archived else 1.0)


@tool(effect="read")
def quote(express: bool = False, order: Order = Needs(get_order)) -> Quote:
    ran.append("quote")
    return Quote(price=order.total * (3 if express else 1))


@tool(effect="read")
def insure(order: Order = Needs(get_order)) -> float:
    ran.append("insure")
    return order.total / 10


@tool(effect="read")
def total(quoted: Quote = Needs(quote), insured: float = Needs(insure), gift: bool = False) -> float:
    ran.append("total")
    return quoted.price + insured + (1 if gift else 0)


def names(made: Tool[..., Any]) -> list[str]:
    return list(made.parameters["properties"])


def test_needed_parameter_is_hidden_and_its_tools_stand_in_its_place() -> None:
    assert names(quote) == ["express", "order_id", "archived"]
    assert quote.parameters["required"] == ["order_id"]
    assert "Which order." in str(quote.parameters["properties"])


def test_chain_and_diamond_run_each_tool_once() -> None:
    assert names(total) == ["express", "order_id", "archived", "gift"]
    assert asyncio.run(total.run({"order_id": "1", "express": True, "gift": True})) == pytest.approx(4.1)
    assert ran == ["order 1", "quote", "insure", "total"]


def test_expanded_calls_refer_to_what_they_need() -> None:
    calls = total.expand(ToolCall("c", "total", {"order_id": "1", "express": True, "gift": False}))

    assert calls == (
        ToolCall("c/quoted/order", "get_order", {"order_id": "1"}),
        ToolCall("c/quoted", "quote", {"express": True, "order": Reference("c/quoted/order")}),
        ToolCall("c/insured", "insure", {"order": Reference("c/quoted/order")}),
        ToolCall("c", "total", {"gift": False, "quoted": Reference("c/quoted"), "insured": Reference("c/insured")}),
    )


def test_call_of_a_tool_that_needs_nothing_stays_as_it_is() -> None:
    call = ToolCall("c", "get_order", {"order_id": "1"})
    assert get_order.expand(call) == (call,)


def test_unknown_argument_stays_with_the_call_that_refuses_it() -> None:
    *_, last = quote.expand(ToolCall("c", "quote", {"order_id": "1", "expres": True}))
    assert last.arguments["expres"] is True


def test_need_that_is_given_is_not_called() -> None:
    call = quote.call(True, order=Reference("earlier"))
    assert quote.expand(call) == (call,)
    read = quote.validate({"express": True}, {"order": {"id": "1", "total": 5}})
    assert quote.invoke(read) == Quote(price=15)


def test_caller_cannot_fill_a_needed_parameter_itself() -> None:
    with pytest.raises(ToolArgumentsError, match="unexpected argument 'order'"):
        quote.validate({"order_id": "1", "order": {"id": "1", "total": 0}})
    with pytest.raises(ToolArgumentsError, match="unexpected argument 'order'"):
        quote.call(order=Order(id="1", total=0))


def test_what_fills_a_need_is_checked_too() -> None:
    with pytest.raises(ToolArgumentsError, match=r"order\.total"):
        quote.validate({}, {"order": {"id": "1"}})


def test_renamed_parameters_keep_two_calls_of_one_tool_apart() -> None:
    @tool(effect="read")
    def compare(
        first: Order = Needs(get_order, order_id="first_id"), second: Order = Needs(get_order, order_id="second_id")
    ) -> list[str]:
        return [first.id, second.id]

    assert names(compare) == ["first_id", "archived", "second_id"]
    assert asyncio.run(compare.run({"first_id": "1", "second_id": "2"})) == ["1", "2"]
    assert ran == ["order 1", "order 2"]


def test_parameters_of_one_name_that_differ_are_refused_with_a_rename() -> None:
    def other_type(order_id: int, order: Order = Needs(get_order)) -> None: ...
    def other_default(order_id: str = "x", order: Order = Needs(get_order)) -> None: ...
    def other_limit(order_id: Annotated[str, Field(min_length=1)], order: Order = Needs(get_order)) -> None: ...

    for function in (other_type, other_default, other_limit):
        with pytest.raises(DefinitionError, match="order_id='other_name'") as caught:
            tool(function)
        assert caught.value.parameter == "order_id"


def test_parameters_that_differ_in_words_alone_are_one() -> None:
    @tool
    def same(order_id: Annotated[str, "Another text."], order: Order = Needs(get_order)) -> str:
        return order_id + order.id

    assert names(same) == ["order_id", "archived"]
    assert asyncio.run(same.run({"order_id": "1"})) == "11"


def test_needed_parameter_called_like_one_of_its_tools_is_refused() -> None:
    @tool(effect="read")
    def find(order: str) -> Order:
        return Order(id=order, total=1)

    def show(order: Order = Needs(find)) -> None: ...

    with pytest.raises(DefinitionError, match="order='order_id'"):
        tool(show)


def test_rename_of_an_unknown_parameter_is_refused() -> None:
    def show(order: Order = Needs(get_order, oder_id="x")) -> None: ...

    with pytest.raises(DefinitionError, match=r"oder_id.*doesn't have; did you mean 'order_id'\?"):
        tool(show)


def find_flat(order: Order) -> str:
    return order.id


def find_any(**words: str) -> str:
    return str(words)


def find_by_alias(start: Annotated[str, Field(alias="from")]) -> str:
    return start


@pytest.mark.parametrize(
    ("needed", "problem"),
    [
        (tool(flatten=True)(find_flat), "'find_flat' can't be needed: flatten hides its 'order'; leave flatten out"),
        (tool(find_any), r"'find_any' can't be needed: its \*\*words has no names to stand here; take a dict"),
        (tool(find_by_alias), "'find_by_alias' can't be needed: its 'start' is called 'from' outside"),
    ],
)
def test_tool_whose_parameters_cannot_stand_in_another_is_not_needed(needed: Tool[..., str], problem: str) -> None:
    def show(found: str = Needs(needed)) -> str:
        return found

    with pytest.raises(DefinitionError, match=f"^tool 'show': {problem}"):
        tool(show)


def test_only_a_tool_can_be_needed() -> None:
    def plain() -> int:
        return 1

    with pytest.raises(DefinitionError, match="@tool"):
        Needs(plain)  # pyright: ignore[reportArgumentType, reportCallIssue]  # the mistake is meant


def test_result_that_is_not_data_cannot_be_needed() -> None:
    class Session:
        pass

    @tool(effect="read")
    def open_session() -> Session:
        return Session()

    def use(session: Session = Needs(open_session)) -> None: ...

    with pytest.raises(DefinitionError, match="session"):
        tool(use)


def test_direct_call_without_what_is_needed_raises() -> None:
    with pytest.raises(TypeError, match="'order'"):
        quote(True)
    assert quote(True, order=Order(id="1", total=1)) == Quote(price=3)


def test_direct_call_without_its_context_raises() -> None:
    @tool
    def who(ctx: Context[str] = CONTEXT) -> str:
        return ctx.data

    @tool
    def maybe(ctx: Context[str] | None = None) -> bool:
        return ctx is None

    with pytest.raises(TypeError, match="'ctx'"):
        who()
    assert who(Context("x")) == "x"
    assert maybe() is True


def test_effect_is_the_strongest_of_all() -> None:
    @tool(effect="idempotent")
    def put() -> int:
        return 1

    @tool(effect="idempotent")
    def use(value: int = Needs(put)) -> None: ...

    @tool
    def unmarked(value: int = Needs(put)) -> None: ...

    assert (quote.effect, use.effect, unmarked.effect) == ("read", "idempotent", "write")
    assert (use.declared_effect, unmarked.declared_effect) == (True, False)


@pytest.mark.parametrize("options", [{"effect": "read"}, {"ttl": 5}], ids=str)
def test_claim_of_a_weaker_effect_is_refused(options: dict[str, Any]) -> None:
    @tool
    def put() -> int:
        return 1

    def use(value: int = Needs(put)) -> None: ...

    with pytest.raises(DefinitionError, match="needs 'put', which is 'write'"):
        tool(**options)(use)


def test_scope_is_the_narrowest_that_is_named() -> None:
    @tool(effect="read", scope="user")
    def mine() -> int:
        return 1

    @tool(effect="read")
    def use(value: int = Needs(mine)) -> None: ...

    @tool(effect="read", scope="run")
    def narrower(value: int = Needs(mine)) -> None: ...

    def wider(value: int = Needs(mine)) -> None: ...

    assert (use.scope, narrower.scope, get_order.scope) == ("user", "run", "all")
    with pytest.raises(DefinitionError, match="needs 'mine', whose scope is 'user'"):
        tool(scope="all")(wider)


def test_tool_with_a_context_must_name_a_scope_to_have_a_ttl() -> None:
    @tool(effect="read")
    def looks(ctx: Context[str] = CONTEXT) -> str:
        return ctx.data

    def directly(ctx: Context[str] = CONTEXT) -> str:
        return ctx.data

    def through_a_need(value: str = Needs(looks)) -> str:
        return value

    assert looks.scope == "run"
    for function in (directly, through_a_need):
        with pytest.raises(DefinitionError, match="scope="):
            make_tool(function, Options(ttl=5))
        assert make_tool(function, Options(ttl=5, scope="user")).scope == "user"


def approve_large(arguments: Mapping[str, Any], context: Context[Any]) -> bool:
    return arguments["order_id"] > "5"


@pytest.mark.parametrize("approval", [True, approve_large])
def test_approval_of_a_need_holds_for_the_whole(approval: Approval) -> None:
    @tool(effect="read", approval=approval)
    def guarded(order_id: str) -> int:
        return 1

    @tool(effect="read")
    def use(value: int = Needs(guarded, order_id="number")) -> None: ...

    def denies(value: int = Needs(guarded)) -> None: ...

    asked = use.approval if isinstance(use.approval, bool) else use.approval({"number": "7"}, Context[Any](None))
    assert asked is True
    with pytest.raises(DefinitionError, match="needs 'guarded', which must be approved"):
        tool(approval=False)(denies)


def test_rule_of_a_need_sees_its_own_names() -> None:
    @tool(effect="read", approval=approve_large)
    def guarded(order_id: str) -> int:
        return 1

    @tool(approval=lambda arguments, context: arguments["loud"])
    def use(loud: bool = False, value: int = Needs(guarded, order_id="number")) -> None: ...

    rule = use.approval
    assert isinstance(rule, Callable)
    context = Context[Any](None)
    assert [rule({"loud": loud, "number": number}, context) for loud in (False, True) for number in "17"] == [
        False,
        True,
        True,
        True,
    ]


def test_secret_of_a_need_stays_secret() -> None:
    @tool(effect="read", secret=("pin",))
    def unlock(pin: str) -> int:
        return 1

    @tool(effect="read")
    def use(value: int = Needs(unlock, pin="code")) -> None: ...

    assert use.secrets == {"code"}
    assert use.validate({"code": "1234"}).shown == {"code": "**********"}


def test_two_needed_tools_of_one_name_are_refused() -> None:
    def make(value: int) -> Tool[[], int]:
        @tool(effect="read")
        def find() -> int:
            return value

        return find

    one, two = make(1), make(2)

    def use(a: int = Needs(one), b: int = Needs(two)) -> None: ...

    with pytest.raises(DefinitionError, match="two tools that are called 'find'"):
        tool(use)


def test_needed_methods_are_bound_with_the_object() -> None:
    class Desk:
        def __init__(self, rate: float) -> None:
            self.rate = rate

        @tool(effect="read")
        def base(self, weight: float) -> float:
            return weight * self.rate

        @tool(effect="read")
        async def price(self, express: bool = False, cost: float = Needs(base)) -> float:
            return cost * (2 if express else 1)

    slow, fast = Desk(1), Desk(10)
    assert names(fast.price) == ["express", "weight"]
    assert asyncio.run(fast.price.run({"weight": 2, "express": True})) == 40
    assert asyncio.run(slow.price.run({"weight": 2})) == 2
    assert fast.price.identity == fast.price.identity != slow.price.identity


def test_foreign_tool_whose_property_refers_to_definitions_is_refused_as_a_need() -> None:
    place = {"type": "object", "properties": {"city": {"type": "string"}}}
    schema = {"type": "object", "properties": {"place": {"$ref": "#/$defs/Place"}}, "$defs": {"Place": place}}
    find = Tool.from_schema("find", "Find.", schema, str, effect="read")

    def read(text: str = Needs(find)) -> None: ...

    with pytest.raises(DefinitionError, match=r"'find' can't be needed: the schema of its 'place' refers to others"):
        tool(read)


def test_needs_of_foreign_tools_are_checked_by_their_schema() -> None:
    def twice(arguments: dict[str, str]) -> str:
        return arguments["url"] * 2

    fetch = Tool.from_schema(
        "fetch",
        "Fetch.",
        {"type": "object", "properties": {"url": {"type": "string", "minLength": 3}}, "required": ["url"]},
        twice,
        effect="read",
    )

    @tool(effect="read")
    def read(text: str = Needs(fetch)) -> str:
        return text

    assert names(read) == ["url"]
    assert asyncio.run(read.run({"url": "abc"})) == "abcabc"
    with pytest.raises(ToolArgumentsError, match="url"):
        read.validate({"url": "a"})
