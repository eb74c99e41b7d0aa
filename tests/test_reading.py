"""Long results are cut for the model, and nothing of them is lost."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.errors import ToolError
from flowkit.tools.long_results import LongResults

_CUT = re.compile(
    r"\n\[cut: characters \d+ to \d+ of \d+; continue with read_result\(id=\"r1\", offset=(\d+)\), if you have that tool\]\Z"
)


def read_all(results: LongResults, shown: str, limit: int) -> str:
    """Follow the hints as a model would, until none is left."""
    parts: list[str] = []
    while (cut := _CUT.search(shown)) is not None:
        parts.append(shown[: cut.start()])
        shown = results.read("r1", int(cut[1]), limit)
    return "".join([*parts, shown])


@given(st.text(alphabet="ab \né한😀", max_size=200), st.integers(1, 50))
def test_reading_on_shows_every_character_but_spaces_at_a_cut(text: str, limit: int) -> None:
    results = LongResults()
    whole = read_all(results, results.show("r1", text, limit), limit)
    assert "".join(whole.split()) == "".join(text.split())


@given(st.text(max_size=100), st.integers(0, 100))
def test_short_result_is_shown_as_it_is(text: str, spare: int) -> None:
    results = LongResults()
    assert results.show("r1", text, len(text.encode()) + spare) == text
    assert results.is_empty


def test_no_page_is_longer_than_the_limit_and_its_hint() -> None:
    results = LongResults()
    shown = results.show("r1", "x" * 1000, 100)
    assert shown.startswith("x" * 100 + "\n[cut: characters 0 to 100 of 1000;")


def test_cut_prefers_the_space_between_words() -> None:
    assert LongResults().show("r1", "one two three", 9).startswith("one two\n[cut: characters 0 to 8 ")


def test_unknown_result_tells_the_model_what_there_is() -> None:
    results = LongResults()
    results.show("r1", "x" * 20, 10)
    with pytest.raises(ToolError, match=r"there is no long result 'r2' any more, only: 'r1'; call its tool again"):
        results.read("r2")


@pytest.mark.parametrize("offset", [-1, 20, 21])
def test_place_outside_the_result_is_refused(offset: int) -> None:
    results = LongResults()
    results.show("r1", "x" * 20, 10)
    with pytest.raises(ToolError, match=f"'offset' is {offset}"):
        results.read("r1", offset)


def test_oldest_results_give_way_when_too_much_is_kept() -> None:
    results = LongResults(max_kept_chars=25)
    for name in ("r1", "r2", "r3"):
        results.show(name, name * 6, 4)
    with pytest.raises(ToolError, match="'r1' any more, only: 'r2', 'r3'"):
        results.read("r1")
    assert results.read("r3", 0, 100) == "r3" * 6


def test_result_shown_again_under_its_id_replaces_the_first() -> None:
    results = LongResults(max_kept_chars=30)
    for letter in "abc":
        results.show("r1", letter * 20, 10)
    assert results.read("r1", 0, 100) == "c" * 20


def test_reader_is_a_function_with_a_name_and_words_for_the_model() -> None:
    results = LongResults()
    results.show("r1", "x" * 20, 10)
    reader = results.reader(limit=100)
    assert reader.__name__ == "read_result"
    assert reader("r1", offset=15) == "xxxxx"
