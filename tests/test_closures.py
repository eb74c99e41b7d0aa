"""Functions that differ in nothing but what they were made with: different keys, as deep as that lies."""

import enum
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, PrivateAttr

from flowkit import Tool, tool
from flowkit.identity import HERE
from flowkit.tools.keys import canonicalize, make_key
from flowkit.tools.made_with import identify
from tests.hash_seeds import print_under_seeds

Make = Callable[[str], Tool[..., Any]]


def key_of(made: Tool[..., Any]) -> str:
    key = made.key(made.validate({}), "")
    assert key is not None
    return key


def asking(fetch: Callable[[], object]) -> Tool[..., Any]:
    @tool(ttl=300)
    async def who() -> object:
        """Ask."""
        return fetch()

    return who


def a_function(db: str) -> Tool[..., Any]:
    def fetch() -> str:
        return db

    return asking(fetch)


def a_function_of_a_function(db: str) -> Tool[..., Any]:
    def connect() -> str:
        return db

    def fetch() -> str:
        return connect()

    return asking(fetch)


def a_default(db: str) -> Tool[..., Any]:
    def fetch(place: str = db) -> str:
        return place

    return asking(fetch)


def a_keyword_default(db: str) -> Tool[..., Any]:
    def fetch(*, place: str = db) -> str:
        return place

    return asking(fetch)


def a_partial(db: str) -> Tool[..., Any]:
    return asking(functools.partial(str.upper, db))


def a_keyword_of_a_partial(db: str) -> Tool[..., Any]:
    def fetch(place: str = "") -> str:
        return place

    return asking(functools.partial(fetch, place=db))


def a_tool(db: str) -> Tool[..., Any]:
    @tool(ttl=300, name="fetch")
    def fetch() -> str:
        """Fetch."""
        return db

    return asking(fetch)


def a_class(db: str) -> Tool[..., Any]:
    class Client:
        place = db

    return asking(lambda: Client.place)


def a_class_method(db: str) -> Tool[..., Any]:
    class Client:
        @classmethod
        def fetch(cls) -> str:
            return db

    return asking(Client.fetch)


def a_bound_method(db: str) -> Tool[..., Any]:
    return asking(SimpleNamespace(place=db).__repr__)


def a_method_of_a_list(db: str) -> Tool[..., Any]:
    return asking([db].copy)


def a_member_of_an_enum(db: str) -> Tool[..., Any]:
    class Place(enum.Enum):
        HERE = db

    held = Place.HERE
    return asking(lambda: held.value)


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    name: str = "a"
    _place: str = PrivateAttr(default="")


def a_private_attribute(db: str) -> Tool[..., Any]:
    held = Frozen()
    held._place = db  # pyright: ignore[reportPrivateUsage]  # it is what this is about
    return asking(lambda: held)


class Text(str):
    place: str


def a_subclass_of_a_plain_type(db: str) -> Tool[..., Any]:
    held = Text("same")
    held.place = db
    return asking(lambda: held.place)


class Number(int):
    place: str


def a_number_with_more_to_it(db: str) -> Tool[..., Any]:
    held = Number(1)
    held.place = db
    return asking(lambda: held.place)


@dataclass(frozen=True)
class Record:
    name: str = "a"
    fetch: Callable[[], str] = field(default=str, compare=False)


def a_function_in_a_record(db: str) -> Tool[..., Any]:
    record = Record(fetch=lambda: db)
    return asking(lambda: record.fetch())


def an_attribute_beside_the_fields(db: str) -> Tool[..., Any]:
    record = Record()
    object.__setattr__(record, "place", db)
    return asking(lambda: record)


def a_tuple(db: str) -> Tool[..., Any]:
    held = ("a", (lambda: db,))
    return asking(lambda: held[1][0]())


def a_wrapper(db: str) -> Tool[..., Any]:
    def wrap(function: Callable[[], str]) -> Callable[[], str]:
        @functools.wraps(function)
        def wrapper() -> str:
            return function() + db

        return wrapper

    @wrap
    def fetch() -> str:
        return "a"

    return asking(fetch)


def a_handler(db: str) -> Tool[..., Any]:
    def send(arguments: dict[str, Any]) -> str:
        return db

    def handle(arguments: dict[str, Any]) -> str:
        return send(arguments)

    return Tool.from_schema("fetch", "Fetch.", {"type": "object"}, handle, ttl=300)


def a_partial_handler(db: str) -> Tool[..., Any]:
    def send(arguments: dict[str, Any], place: str = "") -> str:
        return place

    return Tool.from_schema("fetch", "Fetch.", {"type": "object"}, functools.partial(send, place=db), ttl=300)


def a_default_of_a_handler(db: str) -> Tool[..., Any]:
    def handle(arguments: dict[str, Any], _place: str = db) -> str:
        return _place

    return Tool.from_schema("fetch", "Fetch.", {"type": "object"}, handle, ttl=300)


def a_class_of_a_parameter(db: str) -> Tool[..., Any]:
    class Order(BaseModel):
        place: str = db

    @tool(ttl=300)
    def look(order: Order | None = None) -> str:
        """Look."""
        return repr(order)

    return look


def an_attribute_of_a_function(db: str) -> Tool[..., Any]:
    def place() -> str:
        return vars(place)["db"]

    vars(place)["db"] = db

    @tool(ttl=300)
    def fetch() -> str:
        """Fetch."""
        return place()

    return fetch


def a_global_of_code_made_as_text(db: str) -> Tool[..., Any]:
    names: dict[str, Any] = {"tool": tool, "db": db}
    exec("@tool(ttl=300)\ndef fetch() -> str:\n    'Fetch.'\n    return [db for _ in '1'][0]", names)
    return names["fetch"]


def a_function_with_globals_of_its_own(db: str) -> Tool[..., Any]:
    names: dict[str, Any] = {"db": db, "__name__": "made_as_text"}
    exec("def place(): return db\ndef look(): return place()", names)
    look: Callable[[], str] = names["look"]

    @tool(ttl=300)
    def fetch() -> str:
        """Fetch."""
        return look()

    return fetch


MAKERS: list[Make] = [
    a_function, a_function_of_a_function, a_default, a_keyword_default, a_partial, a_keyword_of_a_partial, a_tool,
    a_class, a_class_method, a_bound_method, a_method_of_a_list, a_member_of_an_enum, a_private_attribute,
    a_subclass_of_a_plain_type, a_number_with_more_to_it, a_function_in_a_record, an_attribute_beside_the_fields,
    a_tuple, a_wrapper, a_handler, a_partial_handler, a_default_of_a_handler, a_class_of_a_parameter,
    an_attribute_of_a_function, a_global_of_code_made_as_text, a_function_with_globals_of_its_own,
]  # fmt: skip


@pytest.mark.parametrize("make", MAKERS)
def test_for_every_thing_that_a_closure_holds_another_one_is_another_key(make: Make) -> None:
    held = [make("ann's"), make("bob's")]
    assert key_of(held[0]) != key_of(held[1])
    assert key_of(held[0]) == key_of(held[0])


DURABLE: list[Make] = [
    a_function, a_function_of_a_function, a_default, a_keyword_default, a_partial, a_keyword_of_a_partial, a_tool,
    a_function_in_a_record, a_tuple, a_wrapper, a_handler, a_partial_handler, a_default_of_a_handler,
    an_attribute_of_a_function, a_global_of_code_made_as_text, a_function_with_globals_of_its_own,
]  # fmt: skip


@pytest.mark.parametrize("make", DURABLE)
def test_what_can_be_told_apart_has_the_same_key_when_it_is_made_again(make: Make) -> None:
    assert key_of(make("ann's")) == key_of(make("ann's"))
    assert not key_of(make("ann's")).startswith(HERE)


@pytest.mark.parametrize("make", [make for make in MAKERS if make not in DURABLE])
def test_what_cannot_be_told_apart_stands_for_itself_in_this_process(make: Make) -> None:
    assert key_of(make("ann's")).startswith(HERE)


Nest = st.recursive(st.integers(0, 3), lambda inner: st.tuples(st.sampled_from(["function", "partial", "tool"]), inner))


def run_held(held: Callable[[], Any]) -> Any:
    return held()


def build(nest: Any) -> Callable[[], Any]:
    if isinstance(nest, int):
        return lambda: nest
    kind, inner = nest
    held = build(inner)
    match kind:
        case "function":
            return lambda: held()
        case "partial":
            return functools.partial(run_held, held)
        case _:
            return tool(ttl=300, name="held")(lambda: held())


@given(Nest, Nest)
def test_for_every_depth_keys_are_equal_exactly_when_the_closures_are(one: Any, other: Any) -> None:
    assert (key_of(asking(build(one))) == key_of(asking(build(other)))) == (one == other)


def test_two_lambdas_of_one_line_are_two() -> None:
    first, second = (lambda: "ann's"), (lambda: "bob's")
    assert key_of(asking(first)) != key_of(asking(second))
    assert key_of(tool(ttl=300, name="f")(first)) != key_of(tool(ttl=300, name="f")(second))


def test_two_wrappers_of_one_function_are_two() -> None:
    def fetch() -> str:
        return "a"

    def loud(function: Callable[[], str]) -> Callable[[], str]:
        @functools.wraps(function)
        def wrapper() -> str:
            return function().upper()

        return wrapper

    def twice(function: Callable[[], str]) -> Callable[[], str]:
        @functools.wraps(function)
        def wrapper() -> str:
            return function() * 2

        return wrapper

    tools = [tool(ttl=300, name="f")(made) for made in (fetch, loud(fetch), twice(fetch))]
    assert all(key_of(one) != key_of(other) for one, other in combinations(tools, 2))


def test_a_decorator_of_another_module_is_no_reason_to_keep_a_result_out_of_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it wraps gives the wrapper its own module's name; the decorator's module has a lock and a logger."""
    decorators = ModuleType("decorators")
    text = """
import functools, logging, threading
logger, lock = logging.getLogger("decorators"), threading.Lock()

def traced(function):
    @functools.wraps(function)
    def wrapper():
        with lock:
            logger.debug("called")
        return function()
    return wrapper
"""
    exec(text, vars(decorators))
    monkeypatch.setitem(sys.modules, "decorators", decorators)

    def fetch() -> str:
        return "a"

    assert identify(vars(decorators)["traced"](fetch)).is_durable


def test_functions_that_call_themselves_and_each_other_have_keys() -> None:
    def make(db: str) -> Tool[..., Any]:
        def even(n: int) -> Any:
            return n == 0 or odd(n - 1)

        def odd(n: int) -> Any:
            return db if n == 0 else even(n - 1)

        @tool(ttl=300)
        def ask(n: int = 1) -> Any:
            """Ask."""
            return even(n) or ask

        return ask

    assert key_of(make("a")) == key_of(make("a")) != key_of(make("b"))


def test_version_stands_for_the_code_and_not_for_the_closure() -> None:
    def make(db: str, *, is_changed: bool) -> Tool[..., Any]:
        def before() -> str:
            return db

        def after() -> str:
            return f"{db}!"

        return tool(ttl=300, name="f", version="1")(after if is_changed else before)

    def simple(n: int) -> Tool[..., Any]:
        def one() -> int:
            return 1

        def two() -> int:
            return 2

        two.__qualname__ = one.__qualname__
        return tool(ttl=300, name="f", version="1")(one if n == 1 else two)

    assert key_of(simple(1)) == key_of(simple(2))
    assert key_of(make("a", is_changed=False)) != key_of(make("b", is_changed=False))


class Words(dict[str, int]):
    place = ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Number(1), 1),
        (Text("a"), "a"),
        (Words(a=1), {"a": 1}),
        (Words({"a": 1, "b": 2}), Words({"b": 2, "a": 1})),
    ],
)
def test_value_of_a_subclass_is_another_argument(one: object, other: object) -> None:
    assert make_key([canonicalize(one)]) != make_key([canonicalize(other)])


def test_a_parameter_that_may_be_none_leaves_the_key_to_every_process() -> None:
    @tool(ttl=300)
    def search(query: str = "", price: int | None = None, words: list[str | None] | None = None) -> str:
        """Search."""
        return f"{query} {price} {words}"

    assert not key_of(search).startswith(HERE)


PROGRAM = """
from tests.test_closures import MAKERS, DURABLE, key_of
print([key_of(make("a")) for make in DURABLE])
"""


@pytest.mark.slow
def test_durable_keys_are_the_same_in_every_process() -> None:
    found = print_under_seeds(PROGRAM)
    assert len(found) == 1


def _answering(kind: str, db: str) -> object:
    """Make an object that names another class than its own, or has an answer for every name."""

    class Any_:
        def __getattr__(self, name: str) -> str:
            return db

    class Acting:
        def __init__(self, acts_as: type[object]) -> None:
            object.__setattr__(self, "_acts_as", acts_as)

        @property
        def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]  # it only reads
            return object.__getattribute__(self, "_acts_as")

    match kind:
        case "every name":
            return Any_()
        case "mock":
            return Mock(return_value=db)
        case "mock of a function":
            return Mock(spec=key_of, return_value=db)
        case "mock of a tool":
            return MagicMock(spec=a_function(db))
        case named:
            return Acting({"function": type(key_of), "partial": functools.partial, "class": type, "int": int}[named])


@pytest.mark.parametrize(
    "kind",
    [
        *("every name", "mock", "mock of a function", "mock of a tool"),
        *("function", "partial", "class", "int"),
    ],
)
def test_an_object_that_acts_as_something_else_stands_for_itself(kind: str) -> None:
    held = [_answering(kind, "a"), _answering(kind, "b")]

    def make(one: object) -> Tool[..., Any]:
        return asking(lambda: one)

    first, second, again = (key_of(make(one)) for one in (*held, held[0]))
    assert first != second
    assert again == first
    assert first.startswith(HERE), "it isn't stored on disk"
