"""What the text of arguments means, and when it closes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.assemble.arguments_text import Bracket, Reading, read_fragments, read_object


def read(*fragments: str) -> list[dict[str, Any] | None]:
    return [reading.arguments for reading in read_fragments(fragments)]


def test_fragments_are_joined() -> None:
    assert read('{"x"', ":1", "}") == [{"x": 1}]


@pytest.mark.parametrize("fragments", [(), ("",), (" \n",)])
def test_no_text_is_an_empty_object_case_t19(fragments: tuple[str, ...]) -> None:
    assert read_fragments(fragments) == (Reading("{}", {}),)


def test_blanks_around_are_allowed() -> None:
    assert read(" \n{", '"x": 1', "} \t\n") == [{"x": 1}]


def test_placeholder_is_dropped_case_t21() -> None:
    assert read("{}", '{"x":', "1}") == [{"x": 1}]
    assert read("{}", '{"x":1}')[0] == {"x": 1}
    assert read("{}") == [{}]
    assert read("{}", "{}") == [{}]


def test_the_last_of_a_growing_chain_counts_case_t22() -> None:
    reading = read_fragments(['{"x":', '{"x":1', '{"x":1}'])
    assert reading == (Reading('{"x":1}', {"x": 1}),)


def test_growing_chain_may_follow_a_placeholder() -> None:
    assert read("{}", '{"x":', '{"x":1}') == [{"x": 1}]


def test_nested_data_that_looks_like_a_chain_is_joined() -> None:
    assert read('{"a":[', '{"a":[1]}]}') == [{"a": [{"a": [1]}]}]


def test_repeated_arguments_count_once_case_t23() -> None:
    assert read('{"x":', "1}", '{"x":1}') == [{"x": 1}]
    assert read('{"x":1}', ' {"x": 1}') == [{"x": 1}]


def test_objects_that_differ_are_several_calls_case_t26() -> None:
    assert read('{"x":1}', '{"y":2}') == [{"x": 1}, {"y": 2}]
    assert [reading.raw for reading in read_fragments(['{"x":1} {"y":2}'])] == ['{"x":1}', '{"y":2}']


def test_objects_of_which_some_are_equal_are_an_error() -> None:
    assert read('{"x":1}{"y":2}{"x":1}') == [None]


def test_too_many_objects_are_an_error() -> None:
    assert read("".join(json.dumps({"x": number}) for number in range(33))) == [None]


def test_json_in_json_is_decoded_once_more_case_t27() -> None:
    assert read_fragments([json.dumps('{"x": 1}')]) == (Reading('{"x": 1}', {"x": 1}),)
    assert read(json.dumps(json.dumps('{"x": 1}'))) == [None]


def test_raw_line_ends_in_strings_are_read_and_written_properly_case_t28() -> None:
    (reading,) = read_fragments(['{"x": "a\nb\tc"}'])
    assert reading.arguments == {"x": "a\nb\tc"}
    assert json.loads(reading.raw) == {"x": "a\nb\tc"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"x": NaN}', "NaN isn't JSON"),
        ('{"x": -Infinity}', "-Infinity isn't JSON"),
        ('{"x": 1e999}', "1e999 is too large"),
        ("[1]", "are list, expected an object"),
        ("12", "are int, expected an object"),
        ("[null]", "are list, expected an object"),
        ('null {"x"', "aren't JSON"),
        ('"text"', "aren't JSON"),
        ('{"x": 1', "aren't JSON"),
        ('{"x": 1}}', "aren't JSON"),
        ('{"x": "\\ud83c"}', "half of a character"),
        ("[" * 100_000, "aren't JSON"),
    ],
)
def test_what_is_no_finite_object_is_an_error_case_t25_t28(text: str, problem: str) -> None:
    (reading,) = read_fragments([text])
    assert reading.arguments is None
    assert problem in (reading.error or "")


def test_large_numbers_stay_exact_and_the_last_of_equal_keys_counts() -> None:
    assert read('{"x": 123456789012345678901234567890, "y": 1, "y": 2}') == [
        {"x": 123456789012345678901234567890, "y": 2}
    ]


def test_pairs_of_escapes_are_one_character() -> None:
    assert read('{"x": "\\ud83c\\udf89"}') == [{"x": "🎉"}]


@pytest.mark.parametrize("text", ["", "1", '"a"', "{", '{"a": "}', '{"a": "\\"}', '{"a": [}', "}", '{"a": "\\\\\\"}'])
def test_open_text_is_not_closed(text: str) -> None:
    bracket = Bracket()
    bracket.feed(text)
    assert not bracket.is_closed


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='ab"\\{}[]\n🎉', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a"\\}{', max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=4), values, max_size=4)


@given(objects, st.booleans(), st.data())
def test_an_object_closes_exactly_at_its_end(value: dict[str, Any], ascii_only: bool, data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    bracket = Bracket()
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        bracket.feed(text[start:end])
        assert bracket.is_closed == (end == len(text))


@given(objects, st.data())
def test_cutting_elsewhere_reads_the_same(value: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=False)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(*pieces) == [value]


@given(objects, st.data())
def test_no_prefix_of_an_object_is_an_object(value: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(value)
    assert read_object(text[: data.draw(st.integers(0, len(text) - 1))]) is None


@given(st.text(alphabet='{}[]":,\\1a \n', max_size=60), st.integers(0, 60))
def test_whatever_comes_is_read_without_an_exception(text: str, cut: int) -> None:
    for reading in read_fragments([text[:cut], text[cut:]]):
        assert (reading.arguments is None) == (reading.error is not None)


def test_arguments_that_are_nested_too_deep_are_refused() -> None:
    deepest = '{"v":' + "[" * 99 + "]" * 99 + "}"
    assert read_object(deepest) is not None
    assert read_object(deepest.replace("[]", "[[]]")) is None
    wide = '{"v":[' + ",".join(["[]"] * 500) + "]}"
    assert read_object(wide) is not None


@pytest.mark.parametrize(
    "fragments", [["null"], [" null\n"], ["nu", "ll"], ['"null"'], ['""'], ["null", "null"], ["null", "{}"]]
)
def test_null_is_no_arguments(fragments: list[str]) -> None:
    (reading,) = read_fragments(fragments)
    assert (reading.raw, reading.arguments) == ("{}", {})


@given(st.dictionaries(st.text(max_size=3), st.integers(), max_size=3), st.integers(1, 3))
def test_for_every_object_a_null_in_front_of_it_is_dropped(value: dict[str, Any], times: int) -> None:
    text = json.dumps(value)
    readings = read_fragments([*["null"] * times, text[:1], text[1:]])
    assert [reading.arguments for reading in readings] == [value]
