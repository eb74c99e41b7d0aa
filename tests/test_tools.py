"""`@tool` and `Tool`: options, calls in Python, results, resources, tools of other kinds."""

import asyncio
import datetime
import functools
import json
from collections import ChainMap
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy
import pytest
from pydantic import BaseModel

from flowkit import Context, DefinitionError, Reference, Tool, ToolArgumentsError, ToolCall, tool
from flowkit.codec import JSON
from flowkit.context import CONTEXT
from flowkit.errors import ToolError, ToolResultError
from flowkit.executor import Executor
from flowkit.graph import Step
from flowkit.testing import run_virtual
from flowkit.tools import make_tool
from flowkit.tools.options import Options
from tests.executing import execute


@tool
def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


def test_tool_is_called_as_the_function_was() -> None:
    assert add(1, b=2) == 3
    assert add.__name__ == add.name == "add"
    assert add.__doc__ == "Add two numbers."
    assert repr(add) == "<tool add>"


def test_options_are_read_in_their_units() -> None:
    @tool(ttl=timedelta(minutes=5), timeout=2, retries=3, slot="db", version="7", name="find", max_result_chars=9)
    def f() -> None: ...

    assert (f.ttl_s, f.timeout_s, f.retries, f.slot, f.version, f.name, f.max_result_chars) == (
        300,
        2,
        3,
        "db",
        "7",
        "find",
        9,
    )


def test_effect_left_out_counts_as_a_write_and_a_ttl_as_a_read() -> None:
    @tool(ttl=5)
    def kept() -> None: ...

    assert (add.effect, add.declared_effect) == ("write", False)
    assert (kept.effect, kept.declared_effect) == ("read", True)


def test_reads_are_tried_again_and_writes_are_not() -> None:
    @tool(effect="read")
    def read() -> None: ...

    @tool(effect="idempotent", retries=2)
    def put() -> None: ...

    assert read.retries > 0
    assert (add.retries, put.retries) == (0, 2)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"effect": "reads"}, "effect is 'reads', expected one of 'read', 'idempotent', 'write'"),
        ({"scope": "mine"}, "scope is 'mine'"),
        ({"ttl": 5, "effect": "write"}, "ttl is only for reads"),
        ({"ttl": 5, "effect": "idempotent"}, "ttl is only for reads"),
        ({"ttl": 0}, "ttl is 0, expected more than 0 seconds"),
        ({"timeout": -1}, "timeout is -1"),
        ({"retries": -1, "effect": "read"}, "retries is -1"),
        ({"retries": 1}, "a write is never retried automatically"),
        ({"retries": 1, "effect": "write"}, "a write is never retried automatically"),
        ({"probe": print, "effect": "read"}, "a read just runs again"),
        ({"cache_errors": (KeyError,)}, "cache_errors needs a ttl"),
        ({"secret": ("pin",)}, "secret names 'pin'"),
        ({"resource": "order:{order}"}, "names 'order', which is not one of its parameters"),
        ({"resource": "order:{a!r}"}, "is not a parameter or a path in one"),
        ({"max_result_chars": 0}, "max_result_chars is 0"),
        ({"flatten": True}, "flatten is for one parameter"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], problem: str) -> None:
    def f(a: int, b: int = 1) -> None: ...

    with pytest.raises(DefinitionError, match="tool 'f': ") as caught:
        tool(**options)(f)
    assert problem in str(caught.value)


def test_type_that_cannot_be_an_argument_is_told_with_its_parameter() -> None:
    class Opaque:
        pass

    def opaque(a: int, b: Opaque) -> None: ...
    def function(a: int, b: Callable[[], int]) -> None: ...
    def keyed(a: int, b: dict[tuple[int, int], int]) -> None: ...

    for refused in (opaque, function, keyed):
        with pytest.raises(DefinitionError, match="parameter 'b'") as caught:
            tool(refused)
        assert (caught.value.tool, caught.value.parameter) == (refused.__name__, "b")


def test_generator_cannot_be_a_tool() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def ticks() -> AsyncIterator[int]:
        yield 1

    def ticks_of_another() -> AsyncIterator[int]:
        return ticks()

    for refused in (numbers, ticks, ticks_of_another):
        with pytest.raises(DefinitionError, match=r"a generator can't be a tool; return a list"):
            tool(refused)


def test_tool_of_a_tool_is_itself_unless_options_are_given() -> None:
    assert make_tool(add) is add
    renamed = tool(name="plus", effect="read")(add)
    assert (renamed.name, renamed.effect, renamed(1)) == ("plus", "read", 2)
    with pytest.raises(DefinitionError, match="from_schema"):
        make_tool(foreign, Options(name="other"))


def test_call_makes_a_call_and_runs_nothing() -> None:
    assert add.call(1, b=Reference("c", ("n",))) == ToolCall("", "add", {"a": 1, "b": Reference("c", ("n",))})
    with pytest.raises(ToolArgumentsError, match="'a' is 'x'"):
        add.call("x")
    with pytest.raises(TypeError, match="2 positional"):
        add.call(1, 2, 3)
    with pytest.raises(TypeError, match="'a' twice"):
        add.call(1, a=2)


def test_call_collects_positions() -> None:
    @tool
    def f(a: int, *rest: int) -> None: ...

    assert f.call(1, 2, 3).arguments == {"a": 1, "rest": [2, 3]}


def test_run_takes_a_dict_or_text_and_a_sync_function() -> None:
    assert asyncio.run(add.run({"a": 1})) == asyncio.run(add.run('{"a": 1}')) == 2
    with pytest.raises(ToolArgumentsError):
        asyncio.run(add.run({"a": "x"}))


def test_run_gives_a_context_of_its_own() -> None:
    @tool
    async def who(ctx: Context[Any]) -> object:
        return ctx.data

    assert asyncio.run(who.run()) is None
    assert asyncio.run(who.run("", context=Context("shop"))) == "shop"


def test_wrapper_that_awaits_by_itself_can_be_run() -> None:
    async def inner(a: int) -> int:
        return a

    @functools.wraps(inner)
    def passes(a: int) -> Any:
        return inner(a)

    @functools.wraps(inner)
    def finishes(a: int) -> Any:
        return a

    assert asyncio.run(tool(passes).run({"a": 1})) == asyncio.run(tool(finishes).run({"a": 1})) == 1


def test_async_wrapper_of_a_blocking_function_is_awaited() -> None:
    def inner(a: int) -> int:
        return a

    @functools.wraps(inner)
    async def awaits(a: int) -> int:
        return inner(a)

    @functools.wraps(awaits)
    def passes(a: int) -> Any:
        return awaits(a)

    wrappers: tuple[Any, ...] = (awaits, passes, functools.partial(awaits))
    for wrapper in wrappers:
        made: Any = make_tool(wrapper, Options(name="f"))
        assert made.is_async
        assert asyncio.run(made.run({"a": 1})) == 1


def test_wrapper_that_passes_on_positions_alone_can_be_run() -> None:
    def inner(a: int, b: int = 2) -> list[int]:
        return [a, b]

    @functools.wraps(inner)
    def passes(*args: Any) -> Any:
        return inner(*args)

    @functools.singledispatch
    def dispatches(a: int, b: int = 2) -> list[int]:
        return [a, b]

    functions: tuple[Any, ...] = (passes, dispatches)
    for function in functions:
        made: Any = make_tool(function, Options())
        assert asyncio.run(made.run({"a": 1})) == [1, 2]


def count(number: int) -> Any:
    return (i for i in range(number))


def double(number: int) -> Any:
    return map((2).__mul__, range(number))


async def count_later(number: int) -> Any:
    return iter(range(number))


@pytest.mark.parametrize(("function", "result"), [(count, [0, 1]), (double, [0, 2]), (count_later, [0, 1])])
@pytest.mark.parametrize("annotation", [Iterable[int], list[int], Any])
def test_what_can_be_read_once_is_a_list_in_json(function: Any, result: list[int], annotation: Any) -> None:
    made = make_tool(functools.partial(function, 2), Options(effect="read"))
    made.results.annotation = annotation
    assert execute([made], [Step("a", made.name)])["a"].value == result


def test_what_can_be_read_once_is_given_to_the_tool_that_called_for_it() -> None:
    made = make_tool(count_later, Options(effect="read"))

    @tool(effect="read")
    async def outer(ctx: Context[Any]) -> list[list[int]]:
        return [list(await ctx.call(made, 2)) for _ in range(2)]

    assert execute([outer, made], [Step("a", "outer")])["a"].value == [[0, 1], [0, 1]]


def look_by_order(order: int) -> bool:
    return order > 0


def look_in_shop(number: int, shop: str) -> bool:
    return number > 0 and bool(shop)


def look_anywhere() -> bool:
    return True


def look_by_names(**names: object) -> bool:
    return bool(names)


@pytest.mark.parametrize(
    ("probe", "problem"),
    [
        (look_by_order, "missing a required argument: 'order'"),
        (look_in_shop, "missing a required argument: 'shop'"),
        (look_anywhere, "got an unexpected keyword argument 'number'"),
    ],
)
def test_probe_that_does_not_take_the_arguments_is_refused(probe: Callable[..., bool], problem: str) -> None:
    def pay(number: int, ctx: Context[Any]) -> None: ...

    with pytest.raises(DefinitionError, match=f"tool 'pay': its probe can't be called .*{problem}"):
        tool(probe=probe)(pay)
    assert tool(probe=look_by_names)(pay).probe is look_by_names


def test_results_that_act_as_mappings_lists_or_paths_are_json() -> None:
    @tool
    def f() -> Any:
        return {"map": ChainMap({"a": 1}), "keys": {"a": 1}.keys(), "range": range(2), "path": PurePosixPath("a/b")}

    assert f.dump(asyncio.run(f.run())) == {"map": {"a": 1}, "keys": ["a"], "range": [0, 1], "path": "a/b"}


class Model(BaseModel):
    day: datetime.date = datetime.date(2026, 1, 2)


@dataclass
class Data:
    model: Model


class Named(NamedTuple):
    x: int


@pytest.mark.parametrize(
    ("annotation", "result", "value"),
    [
        (Data, Data(Model()), {"model": {"day": "2026-01-02"}}),
        (list[Model], [Model()], [{"day": "2026-01-02"}]),
        (bytes, b"\x00\xff", "AP8="),
        (dict[str, bytes], {"a": b"\xff"}, {"a": "/w=="}),
        (Named, Named(1), {"x": 1}),
        (Decimal, Decimal("1.10"), "1.10"),
        (set[int], {1}, [1]),
        (None, None, None),
        (Any, Data(Model()), {"model": {"day": "2026-01-02"}}),
        (dict[int, str], {1: "a"}, {"1": "a"}),
        # No instance of the annotation, and the same in JSON.
        (str, PurePosixPath("a/b"), "a/b"),
        (list[int], {1}, [1]),
        (Named, {"x": 1}, {"x": 1}),
    ],
    ids=str,
)
def test_result_becomes_json_by_the_return_type(annotation: Any, result: object, value: object) -> None:
    def f() -> Any: ...

    f.__annotations__["return"] = annotation
    made = tool(f)
    assert made.dump(result) == value
    json.dumps(value, allow_nan=False)


@pytest.mark.parametrize(
    "result", [object(), float("nan"), {"a": float("inf")}, [lambda: 1]], ids=["object", "nan", "inf", "lambda"]
)
def test_result_that_is_not_json_is_an_error_that_names_the_type(result: object) -> None:
    @tool
    def f() -> object: ...

    with pytest.raises(ToolResultError, match=f"of type {type(result).__name__}, can't be JSON"):
        f.dump(result)


def test_numbers_and_arrays_of_numpy_become_pythons() -> None:
    @tool(effect="read")
    def count() -> int: ...

    @tool(effect="read")
    def measure() -> object: ...

    assert count.dump(numpy.int64(3)) == 3
    assert measure.dump({"rows": numpy.arange(4).reshape(2, 2), "mean": numpy.float32(1.5), "ok": numpy.True_}) == {
        "rows": [[0, 1], [2, 3]],
        "mean": 1.5,
        "ok": True,
    }
    with pytest.raises(ToolResultError, match="not JSON: nan"):
        measure.dump(numpy.array([numpy.nan]))


@pytest.mark.parametrize("annotation", [list[dict[str, float | None]], list[dict[str, Any]], None])
def test_a_missing_value_of_a_table_is_named_with_its_place(annotation: Any) -> None:
    def load() -> Any: ...

    load.__annotations__["return"] = annotation
    if annotation is None:
        del load.__annotations__["return"]
    with pytest.raises(ToolResultError, match="not JSON: nan at /1/won; None is the value for what is missing"):
        tool(effect="read")(load).dump([{"won": 3.0, "left": None}, {"won": float("nan"), "left": None}])


def test_result_that_holds_itself_is_an_error() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(ToolResultError, match="of type list"):
        add.dump(endless)


def test_a_result_of_an_alias_without_end_is_taken_without_a_schema() -> None:
    def read() -> dict[str, JSON]:
        """Read."""
        return {"a": [1]}

    assert tool(read).result_schema is None


def test_an_alias_that_refers_to_itself_is_refused_with_how_to_write_it() -> None:
    def write(value: dict[str, JSON]) -> None:
        """Write."""

    with pytest.raises(DefinitionError, match=r"parameter 'value': .* an alias that refers to itself is written"):
        _ = tool(write).parameters


def test_result_schema_is_of_what_an_async_function_gives() -> None:
    @tool
    async def f() -> Model:
        return Model()

    @tool
    def g():
        return 1

    assert f.result_schema == {
        "type": "object",
        "properties": {"day": {"type": "string", "format": "date", "default": "2026-01-02"}},
    }
    assert g.result_schema is None
    assert add.result_schema == {"type": "integer"}


def test_resources_hold_the_arguments() -> None:
    @tool(resource=("order:{order_id}", "shop:{model.day}", "all"))
    def f(order_id: str | None = None, model: Model = Model()) -> None: ...  # noqa: B008

    assert f.resources(f.validate({"order_id": "7"})) == ("order:7", "shop:2026-01-02", "all")
    assert f.resources(f.validate({})) == ("order:*", "shop:2026-01-02", "all")
    assert f.resources({"order_id": Reference("c")}) == ("order:*", "shop:*", "all")
    assert f.resources(f.validate({"order_id": "*"}))[0] == "order:%2A"


def test_code_changes_with_the_source_and_with_what_is_needed() -> None:
    def first() -> int:
        return 1

    def second() -> int:
        return 2

    codes = {tool(name="f")(function).code() for function in (first, second)}
    assert len(codes) == 2
    assert tool(name="f")(first).code() in codes
    assert tool(name="f", version="1")(first).code() == tool(name="f", version="1")(second).code()


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a": {"type": "integer", "minimum": 1},
        "b": {"type": "integer", "default": 2},
        "words": {"type": "array", "items": {"$ref": "#/$defs/Word"}},
        "size": {"enum": ["S", "M"]},
    },
    "required": ["a"],
    "additionalProperties": False,
    "$defs": {"Word": {"type": "string"}},
}


def give(arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


foreign = Tool.from_schema("foreign", "From elsewhere.", SCHEMA, give, effect="read", ttl=5, secret=("size",))


def take_names(**names: object) -> object:
    return names


def take_two(arguments: dict[str, Any], more: int) -> object:
    return arguments, more


@pytest.mark.parametrize("handler", [None, 5, take_names, take_two])
def test_handler_that_cannot_take_a_dict_is_refused(handler: Any) -> None:
    with pytest.raises(DefinitionError, match=r"tool 'f': its handler .*dict"):
        Tool.from_schema("f", "", {}, handler)


@pytest.mark.parametrize("schema", [None, [], "{}"])
def test_schema_that_is_no_object_is_refused(schema: Any) -> None:
    with pytest.raises(DefinitionError, match=r"tool 'f': its schema is .* expected a JSON Schema of an object"):
        Tool.from_schema("f", "", schema, give)


def test_schema_tool_checks_fills_defaults_and_repairs() -> None:
    assert asyncio.run(foreign.run({"a": 1})) == {"a": 1, "b": 2}
    read = foreign.validate('{"a": 1, "words": "[\\"x\\"]", "b": null, "size": "m"}')
    assert read.values == {"a": 1, "b": 2, "words": ["x"], "size": "M"}
    assert len(read.repaired) == 3
    assert foreign.key(foreign.validate({"a": 1}), "") == foreign.key(foreign.validate({"b": 2, "a": 1}), "")


def test_schema_tool_reads_what_can_only_be_meant() -> None:
    schema: dict[str, Any] = {"properties": {"n": {"type": ["integer", "null"]}, "text": {"type": ["string", "null"]}}}
    built = Tool.from_schema("f", "", schema, give)

    assert built.validate({"n": "None", "text": "None"}).values == {"n": None, "text": "None"}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "'a' is missing"),
        ({"a": 0}, "'a' is 0: is less than the minimum of 1"),
        ({"a": 1, "word": 1}, "unexpected argument 'word'; did you mean 'words'?"),
        ({"a": 1, "words": [1]}, "'words[0]' is 1: is not of type 'string'"),
        ({"a": 1, "size": "XL"}, "'size' breaks 'enum'"),
    ],
    ids=str,
)
def test_schema_tool_tells_what_is_wrong(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ToolArgumentsError) as caught:
        foreign.validate(arguments)
    assert caught.value.problems == (problem,)


def test_schema_tool_checks_around_references() -> None:
    foreign.check({"a": Reference("c"), "size": "m"})
    foreign.call(a=1, words=[Reference("c")])
    with pytest.raises(ToolArgumentsError, match="'a' is missing") as caught:
        foreign.check({"b": Reference("c")})
    assert len(caught.value.problems) == 1
    two = Tool.from_schema("two", "", {"properties": {"a": {}, "b": {}}, "required": ["a", "b"]}, give)
    with pytest.raises(ToolArgumentsError) as caught:
        two.check({"a": Reference("c")})
    assert caught.value.problems == ("'b' is missing",)
    with pytest.raises(ToolArgumentsError, match="unexpected argument 'x'"):
        foreign.check({"a": 1, "x": Reference("c")})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array"},
        {"properties": {"a": {"type": "nothing"}}},
        {"properties": {"a": {"$ref": "#/$defs/Missing"}}},
        {"properties": {"a": {"$ref": "https://example.com/schema"}}},
        {"properties": []},
    ],
    ids=str,
)
def test_schema_that_is_not_one_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="tool 'f'"):
        Tool.from_schema("f", "", schema, give)


def test_schema_handler_may_take_the_context() -> None:
    async def handle(arguments: dict[str, Any], ctx: Context[str]) -> str:
        return ctx.data + arguments["a"]

    made = Tool.from_schema("f", "", {"properties": {"a": {"type": "string"}}}, handle)
    assert made.takes_context
    assert asyncio.run(made.run({"a": "x"}, context=Context("shop "))) == "shop x"


@pytest.mark.parametrize("shape", ["nested", "flat"])
def test_definition_on_the_wire_becomes_a_tool(shape: str) -> None:
    body: dict[str, Any] = {"name": "find", "description": "Find.", "parameters": SCHEMA, "strict": True}
    definition = {"type": "function", "function": body} if shape == "nested" else {"type": "function", **body}

    made = Tool.from_openai(definition, give)

    assert (made.name, made.description, made.strict) == ("find", "Find.", True)
    assert made.parameters == SCHEMA
    assert Tool.from_openai({"name": "now"}, give).parameters == {"type": "object", "properties": {}}
    with pytest.raises(DefinitionError, match="not the definition"):
        Tool.from_openai({"type": "function"}, give)


def test_idempotent_call_is_tried_again_as_often_as_retries_says_with_one_key() -> None:
    keys: list[str] = []

    def make(retries: int | None) -> Tool[..., Any]:
        @tool(effect="idempotent", retries=retries)
        async def put(ctx: Context[Any] = CONTEXT) -> str:
            keys.append(ctx.idempotency_key)
            raise ToolError("not now", retryable=True)

        return put

    for retries, attempts in ((None, 1), (2, 3)):
        keys.clear()
        put = make(retries)

        async def go(put: Tool[..., Any] = put) -> None:
            async with Executor(tools=[put], run_id="r") as graph:
                graph.add(ToolCall("a", "put", {}))
                await graph.wait()

        run_virtual(go())
        assert len(keys) == attempts
        assert len(set(keys)) == 1
