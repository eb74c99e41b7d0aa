"""A typed answer as it grows: what is shown of it stays, and is what the whole answer has."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Literal, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, create_model, model_validator

from flowkit.agent.growing.answers import FoundJSON
from flowkit.agent.growing.json_text import GrowingJSON
from flowkit.agent.growing.shapes import GrowingShape, make_schema_shape, make_shape
from flowkit.agent.outputs import make_output
from flowkit.codec import JSON
from tests.example_counts import examples

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@dataclass(frozen=True)
class Case:
    """A type, and how JSON of it is made."""

    annotation: Any
    values: st.SearchStrategy[Any]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int
    name: str = "Tom"


class Dog(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    kind: Literal["dog"]
    friends: "list[Cat | Dog]" = []  # pydantic copies it
    good: bool = Field(default=True, alias="isGood")


_CATS = st.fixed_dictionaries(
    {"kind": st.just("cat"), "lives": st.integers(0, 99)}, optional={"name": _TEXTS, "unknown": st.integers()}
)
_DOGS = st.fixed_dictionaries(
    {"kind": st.just("dog")}, optional={"friends": st.lists(_CATS, max_size=2), "isGood": st.booleans()}
)
_LEAVES = [
    Case(int, st.integers(-(2**62), 2**62)),
    Case(float, st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)),
    Case(bool, st.booleans()),
    Case(str, _TEXTS),
    Case(Literal["a", "ab", 1], st.sampled_from(["a", "ab", 1])),
    Case(date, st.dates().map(date.isoformat)),
    Case(str | int, _TEXTS | st.integers(-(2**62), 2**62)),
    Case(date | str, _TEXTS | st.dates().map(date.isoformat)),
    Case(Annotated[str, AfterValidator(str.upper)], _TEXTS),
    Case(Annotated[Cat | Dog, Field(discriminator="kind")], _CATS | _DOGS),
    Case(Cat | Dog | None, _CATS | _DOGS | st.none()),
    Case(
        Any,
        st.recursive(st.none() | st.integers(-9, 9) | _TEXTS, lambda inner: st.lists(inner, max_size=2), max_leaves=3),
    ),
]


def _make_model(parts: Sequence[Case]) -> Case:
    fields: dict[str, Any] = {f"f{place}": (part.annotation, ...) for place, part in enumerate(parts)}
    values = st.fixed_dictionaries({f"f{place}": part.values for place, part in enumerate(parts)})
    return Case(
        create_model("Made", **fields), values.flatmap(lambda made: st.permutations(list(made.items())).map(dict))
    )


_CASES = st.recursive(
    st.sampled_from(_LEAVES),
    lambda inner: (
        inner.map(lambda case: Case(list[case.annotation], st.lists(case.values, max_size=3)))  # pyright: ignore[reportGeneralTypeIssues]
        | inner.map(lambda case: Case(dict[str, case.annotation], st.dictionaries(_TEXTS, case.values, max_size=3)))  # pyright: ignore[reportGeneralTypeIssues]
        | inner.map(lambda case: Case(case.annotation | None, case.values | st.none()))
        | st.lists(inner, min_size=1, max_size=3).map(_make_model)
    ),
    max_leaves=6,
)
_AROUND = st.sampled_from(
    [
        ("", ""),
        ("\n```json\n", "\n```\nThat is all."),
        ("<think>maybe {} or [1]?</think>", ""),
        ("Let me see: {no}. <i></think>\n", " Done"),
        ("Here you are: ", ""),
    ]
)


@st.composite
def _answers(draw: st.DrawFn) -> tuple[Case, Any, str]:
    case = draw(_CASES)
    value = draw(case.values)
    layout = draw(st.sampled_from([None, 1]))
    return case, value, json.dumps(value, ensure_ascii=draw(st.booleans()), indent=layout)


def _cut(text: str, places: Sequence[int]) -> list[str]:
    marks = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:stop] for start, stop in itertools.pairwise(marks)]


def _is_beginning(part: JSON, whole: JSON) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and _is_beginning(value, whole[name]) for name, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) <= len(whole) and all(map(_is_beginning, part, whole))
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    return type(part) is type(whole) and part == whole


@settings(max_examples=examples(300))
@given(_answers(), st.lists(st.integers(0, 10_000), max_size=60), _AROUND)
def test_for_every_type_value_and_cut_each_partial_is_a_beginning_of_the_whole(
    answer: tuple[Case, Any, str], places: list[int], around: tuple[str, str]
) -> None:
    case, _, text = answer
    output = make_output(case.annotation)
    if output.adapter is None:
        return
    wrapped = json.dumps({"value": json.loads(text)}) if output.wrapped else text
    whole = output.dump(output.read(wrapped))
    found = FoundJSON(cast(GrowingShape, output.shape))
    shown: list[JSON] = []
    for piece in _cut(around[0] + wrapped + around[1], places):
        if found.feed(piece):
            value = found.value
            shown.append(value.get("value") if output.wrapped and isinstance(value, dict) else value)
    begun = [value for value in shown if value is not None]
    assert all(_is_beginning(value, whole) for value in begun)
    assert all(_is_beginning(first, second) for first, second in itertools.pairwise(begun))


@settings(max_examples=examples(200))
@given(_answers(), st.lists(st.integers(0, 10_000), max_size=60))
def test_for_every_cut_the_last_partial_is_the_same(answer: tuple[Case, Any, str], places: list[int]) -> None:
    case, _, text = answer
    shape = make_shape(TypeAdapter(case.annotation))
    once, cut = GrowingJSON(shape), GrowingJSON(shape)
    once.feed(text)
    for piece in _cut(text, places):
        cut.feed(piece)
    once.end()
    cut.end()
    assert (once.snapshot(), once.is_done, once.is_broken) == (cut.snapshot(), cut.is_done, cut.is_broken)
    assert once.is_done


@settings(max_examples=examples(200))
@given(st.text(st.sampled_from('{}[]",:ab1\\u-. \n'), max_size=40), st.lists(st.integers(0, 50), max_size=20))
def test_any_text_is_taken_without_an_error(text: str, places: list[int]) -> None:
    found = FoundJSON(make_shape(TypeAdapter(dict[str, Any])))
    for piece in _cut(text, places):
        found.feed(piece)


def feed(annotation: Any, *pieces: str) -> JSON:
    growing = GrowingJSON(make_shape(TypeAdapter(annotation)))
    for piece in pieces:
        growing.feed(piece)
    return growing.snapshot()


class Checked(BaseModel):
    low: int
    high: int

    @model_validator(mode="after")
    def swap(self) -> "Checked":
        return self if self.low <= self.high else Checked(low=self.high, high=self.low)


class Report(BaseModel):
    title: str
    pages: int
    when: date
    span: Checked | None = None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"tit', {}),
        ('{"title": "', {"title": ""}),
        ('{"title": "Caf\\u00e', {"title": "Caf"}),
        ('{"title": "Caf\\u00e9', {"title": "Café"}),
        ('{"title": "\\ud83d\\ude', {"title": ""}),
        ('{"title": "\\ud83d\\ude00', {"title": "😀"}),
        ('{"title": "a", "pages": 12', {"title": "a"}),
        ('{"title": "a", "pages": 12,', {"title": "a", "pages": 12}),
        ('{"pages": "12",', {"pages": 12}),
        ('{"when": "2026-11-3', {}),
        ('{"when": "2026-11-30"', {"when": "2026-11-30"}),
        ('{"span": {"low": 9, "high": 1', {}),
        ('{"span": {"low": 9, "high": 1}', {"span": {"low": 1, "high": 9}}),
        ('{"unknown": [1, {"title": "x"}], "title": "y', {"title": "y"}),
    ],
)
def test_a_field_is_there_when_it_can_not_turn_out_otherwise(text: str, shown: JSON) -> None:
    assert feed(Report, text) == feed(Report, *text) == shown


def test_a_schema_of_an_unknown_form_is_shown_when_it_is_whole() -> None:
    adapter = TypeAdapter(dict[str, int])
    odd: Any = {"type": "dict", "keys_schema": {"type": "str"}, "values_schema": {"kind": "new"}}
    adapter.core_schema = odd
    growing = GrowingJSON(make_shape(adapter))
    growing.feed('{"a": 1')
    assert growing.snapshot() is None
    growing.feed("}")
    assert growing.snapshot() == {"a": 1}


def test_what_does_not_fit_ends_the_growth_and_keeps_what_was_shown() -> None:
    assert feed(Report, '{"title": "a", "pages": "many", "when": "2026-11-30"}') == {"title": "a"}


def test_arguments_show_what_their_schema_names_and_leave_out_what_is_of_another_type() -> None:
    schema: dict[str, JSON] = {
        "type": "object",
        "properties": {
            "to": {"type": "string"},
            "kind": {"type": "string", "enum": ["a", "ab"]},
            "count": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "tags": {"type": "array", "items": {"type": "string"}},
        },
    }
    growing = GrowingJSON(make_schema_shape(schema))
    growing.feed('{"to": 5, "kind": "a')
    assert growing.snapshot() == {}
    growing.feed('b", "count": null, "tags": ["x", "y')
    assert growing.snapshot() == {"kind": "ab", "count": None, "tags": ["x", "y"]}


def test_a_snapshot_is_not_changed_by_what_comes_later() -> None:
    growing = GrowingJSON(make_shape(TypeAdapter(list[dict[str, list[str]]])))
    shown: list[tuple[JSON, str]] = []
    for character in '[{"a": ["x", "yz"], "b": []}, {"c": ["w"]}]':
        growing.feed(character)
        shown.append((growing.snapshot(), json.dumps(growing.snapshot())))
    assert [json.dumps(value) for value, _ in shown] == [text for _, text in shown]
