"""Docstrings of three styles, as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit import tool
from flowkit.tools.schema.docstrings import Documentation, read_docstring

GOOGLE = """Find things.

Second paragraph: with a colon.

Args:
    word (str, optional): What to find: any word.
        More of it.
    *rest: Others.
    **more: Named ones.

Returns:
    A list.

Raises:
    ValueError: never.
"""
GOOGLE_TIGHT = """Find things.
Args:
    word: What to find.
Returns:
    A list.
"""
GOOGLE_HASH = """Find things.

#Args:
    word: What to find.
"""
NUMPY = """Find things.

Parameters
----------
word : str, optional
    What to find: any word.
    More of it.
x, y : int
    Both.
*rest
    Others.

Returns
-------
list
    Found.
"""
SPHINX = """Find things.

:param word: What to find: any word.
    More of it.
:param int limit: How many.
:type word: str
:returns: a list
:raises ValueError: never
"""
EPYTEXT = """Find things.

@param word: What to find: any word.
    More of it.
@type word: str
@param  limit :How many.
@return: a list
"""
DRESSED = """Find things.

Args:
    word : What to find.
    `limit` (int): How many, as in
        `offset`: below.
    **offset**: Where from.
    *rest: Others.
"""


@pytest.mark.parametrize(
    ("docstring", "parameters"),
    [
        (GOOGLE_TIGHT, {"word": "What to find."}),
        (GOOGLE_HASH, {"word": "What to find."}),
        (NUMPY, {"word": "What to find: any word. More of it.", "x": "Both.", "y": "Both.", "rest": "Others."}),
        (SPHINX, {"word": "What to find: any word. More of it.", "limit": "How many."}),
        (SPHINX.replace(" word:", "  word :"), {"word": "What to find: any word. More of it.", "limit": "How many."}),
        (EPYTEXT, {"word": "What to find: any word. More of it.", "limit": "How many."}),
        (
            DRESSED,
            {
                "word": "What to find.",
                "limit": "How many, as in `offset`: below.",
                "offset": "Where from.",
                "rest": "Others.",
            },
        ),
        ("Find things.", {}),
    ],
    ids=[
        "google without a blank line",
        "google with a hash",
        "numpy",
        "sphinx",
        "sphinx with odd spaces",
        "epytext",
        "dressed",
        "one line",
    ],
)
def test_parameters_are_read_and_left_out_of_the_description(docstring: str, parameters: dict[str, str]) -> None:
    assert read_docstring(docstring) == Documentation("Find things.", parameters)


def test_google_style_keeps_its_paragraphs() -> None:
    read = read_docstring(GOOGLE)
    assert read.description == "Find things.\n\nSecond paragraph: with a colon."
    assert read.parameters == {
        "word": "What to find: any word. More of it.",
        "rest": "Others.",
        "more": "Named ones.",
    }


def test_docstring_that_is_nothing_but_a_list() -> None:
    assert read_docstring("Args:\n    word: What to find.") == Documentation("", {"word": "What to find."})
    assert read_docstring(":param word: What to find.") == Documentation("", {"word": "What to find."})


def test_text_that_only_looks_like_a_section_stays() -> None:
    text = "Find things.\n\nThese args: are not a section.\n\nBest used with care: yes."
    assert read_docstring(text).description == text


def test_notes_stay_in_the_description() -> None:
    read = read_docstring("Find things.\n\nNote:\n    Slow.\n\nArgs:\n    word: What.")
    assert read.description == "Find things.\n\nNote: Slow."
    assert read.parameters == {"word": "What."}


def test_annotation_goes_before_the_docstring() -> None:
    from typing import Annotated

    @tool
    def find(word: Annotated[str, "From the type."], limit: int = 1) -> None:
        """Find things.

        Args:
            word: From the docstring.
            limit: How many.
            unknown: Nothing.
        """

    assert str(find.parameters).count("From the docstring") == 0
    assert find.parameters["properties"] == {
        "word": {"type": "string", "description": "From the type."},
        "limit": {"type": "integer", "default": 1, "description": "How many."},
    }


def test_description_given_by_hand_goes_first() -> None:
    @tool(description="By hand.")
    def find() -> None:
        """By docstring."""

    assert find.description == "By hand."


def test_inherited_docstring_of_a_callable_object_is_not_that_of_object() -> None:
    class Plain:
        def __call__(self) -> None: ...

    class Described:
        """Finds things."""

        def __init__(self, word: str) -> None: ...

    assert tool(Plain()).description == ""
    assert tool(Described).description == "Finds things."


NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
TEXTS = st.from_regex(r"[a-z]{1,5}:?( [(a-z.,)]{1,6}){0,5}", fullmatch=True)


@pytest.mark.parametrize(
    ("heading", "item"),
    [
        ("Args:", "    {} (str): {}"),
        ("Parameters\n----------", "{} : str\n    {}"),
        ("", ":param {}: {}"),
        ("", "@param {}: {}"),
    ],
    ids=["google", "numpy", "sphinx", "epytext"],
)
@given(said=st.dictionaries(NAMES, TEXTS, min_size=1, max_size=4), prose=st.lists(TEXTS, max_size=3))
def test_what_is_written_in_a_style_is_read(heading: str, item: str, said: dict[str, str], prose: list[str]) -> None:
    text = "\n\n".join(prose)
    items = "\n".join(item.format(*pair) for pair in said.items())
    assert read_docstring(f"{text}\n\n{heading}\n{items}") == Documentation(text, said)
