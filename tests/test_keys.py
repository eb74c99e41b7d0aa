"""Keys: what is equal, what is different, in every process."""

import datetime
import enum
import functools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr
from pydantic_core import core_schema

from flowkit import DefinitionError, Tool, tool
from flowkit.codec import dump_sorted
from flowkit.tools.keys import NotKeyable, canonicalize, freeze, make_key
from tests.hash_seeds import print_under_seeds


class Colour(enum.Enum):
    RED = "red"


class Shade(enum.Enum):
    RED = "red"


class Model(BaseModel):
    red: str = "red"


class Twin(BaseModel):
    red: str = "red"


@dataclass(frozen=True)
class Data:
    red: str = "red"


class Named(NamedTuple):
    red: str = "red"


DIFFERENT: list[Any] = [
    None, True, False, 0, 1, 1.0, 0.0, -0.0, "1", "", "red", "null", b"red", b"", Colour.RED, Shade.RED,
    Model(), Twin(), Data(), Named(), {"red": "red"}, ["red"], ("red",), {"red"}, frozenset({"red"}), deque(["red"]),
    [], (), {}, set(), [[]], [1, 2], [2, 1], {1: 2}, {"1": 2}, 2**70, str(2**70), float("nan"), float("inf"), "nan",
    Decimal("1"), Decimal("1.0"), datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2), "2026-01-02",
    datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), datetime.timedelta(1), Path("red"), ["list", ["red"]],
    ["dict", []], SecretStr("red"),
]  # fmt: skip


def test_different_values_have_different_keys() -> None:
    keys = [make_key([canonicalize(value)]) for value in DIFFERENT]
    for (first, one), (second, other) in combinations(zip(DIFFERENT, keys, strict=True), 2):
        assert one != other, (first, second)


def test_texts_with_half_a_character_have_keys_of_their_own() -> None:
    assert len({make_key([text]) for text in ("a\ud83d", "a\ud83c", "a�", "a\\ud83d")}) == 4


def test_order_of_dicts_and_sets_makes_no_difference() -> None:
    assert canonicalize({"a": 1, "b": {3, 1, 2}}) == canonicalize({"b": {2, 3, 1}, "a": 1})
    assert canonicalize({"a", 1, None}) == canonicalize({None, "a", 1})
    assert canonicalize({"a": 1, 2: None}) == canonicalize({2: None, "a": 1})


def test_field_that_was_set_is_equal_to_its_default() -> None:
    assert canonicalize(Model(red="red")) == canonicalize(Model())


def test_value_without_a_canonical_form_has_no_key() -> None:
    @tool(ttl=5)
    def f(x: Any) -> None: ...

    for value in (object(), Data):
        with pytest.raises(NotKeyable):
            canonicalize(value)
    assert f.key(f.validate({"x": object()}), "") is None
    assert f.key(f.validate({"x": [1]}), "") is not None


def test_ttl_of_a_tool_that_no_key_can_be_made_for_is_refused() -> None:
    class Opaque:
        @classmethod
        def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
            return core_schema.no_info_after_validator_function(lambda text: cls(), core_schema.str_schema())

    def f(x: list[Opaque] | None = None) -> None: ...

    assert tool(effect="read")(f).validate({"x": ["a"]})
    with pytest.raises(DefinitionError, match="parameter 'x' holds a Opaque"):
        tool(ttl=5)(f)


def test_secret_is_hashed_with_a_key_of_its_own() -> None:
    @tool(ttl=5, secret=("pin",))
    def f(pin: int, word: SecretStr) -> None: ...

    one = f.validate({"pin": 1, "word": "a"})
    assert f.key(one, "") == f.key(f.validate({"pin": 1, "word": "a"}), "")
    assert f.key(one, "") != f.key(f.validate({"pin": 2, "word": "a"}), "")
    assert f.key(one, "") != f.key(f.validate({"pin": 1, "word": "b"}), "")
    assert f.key(one, "", secret_key=b"k") != f.key(one, "")
    assert "'a'" not in str(canonicalize(SecretStr("a")))


def make(value: object, name: str = "find", **options: Any) -> Tool[..., Any]:
    def find(word: str = "") -> object:
        return value

    return tool(name=name, ttl=5, **options)(find)


def key(made: Tool[..., Any], scope_id: str = "", generations: tuple[int, ...] = ()) -> str | None:
    return made.key(made.validate({}), scope_id, generations)


def test_key_tells_apart_all_that_a_result_depends_on() -> None:
    keys = [
        key(make(1)),
        key(make(2)),
        key(make(1, name="other")),
        key(make(1, version="2")),
        key(make(1, scope="user")),
        key(make(1), "c-17"),
        key(make(1), "", (1,)),
    ]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    assert key(make(1)) == keys[0]


def test_what_a_function_was_made_with_belongs_to_its_key() -> None:
    class Desk:
        def __init__(self, rate: float) -> None:
            self.rate = rate

        @tool(ttl=5)
        def price(self) -> float:
            return self.rate

    @dataclass(frozen=True)
    class Plain:
        rate: float

        @tool(ttl=5)
        def price(self) -> float:
            return self.rate

    def add(a: int, b: int) -> int:
        return a + b

    one, other = Desk(1), Desk(1)
    partials: list[Callable[..., int]] = [functools.partial(add, 1), functools.partial(add, 2)]
    assert key(one.price) == key(one.price) != key(other.price)
    assert key(Plain(1).price) == key(Plain(1).price) != key(Plain(2).price)
    assert len({tool(ttl=5)(p).key(tool(ttl=5)(p).validate({"b": 1}), "") for p in partials}) == 2
    assert key(make((1, "a"))) == key(make((1, "a"))) != key(make((2, "a")))
    assert key(make([1])) != key(make([1]))
    held = Desk(1)
    assert key(make(held)) == key(make(held)) != key(make(Desk(1)))


PROGRAM = """
import datetime, uuid
from tests.test_keys import Colour, Data, Model
from flowkit import tool

@tool(ttl=5, version="1")
def f(a: set[str], b: dict[str, set[int]], c: Model, d: Data, e: Colour | str, g: datetime.date | str = "x") -> None: ...

arguments = {"a": ["x", "y", "z", "w"], "b": {"k": [3, 1, 2]}, "c": {}, "d": {}, "e": "red", "g": "2026-01-02"}
print(f.key(f.validate(arguments), "c-17", (1, 2)))
"""


@pytest.mark.slow
def test_key_is_the_same_in_every_process() -> None:
    found = print_under_seeds(PROGRAM)
    assert len(found) == 1
    assert len(found.pop().strip()) == 64


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-1, 1) | st.sampled_from(["", "1", "bool", "list"]),
    lambda items: st.lists(items, max_size=2),
    max_leaves=4,
)


@given(PLAIN, PLAIN)
def test_frozen_values_are_equal_exactly_when_their_canonical_forms_are(first: object, second: object) -> None:
    assert (freeze(first) == freeze(second)) == (dump_sorted(canonicalize(first)) == dump_sorted(canonicalize(second)))
