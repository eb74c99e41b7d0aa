"""Docstrings of several styles, as people write and mix them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

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


@pytest.mark.parametrize(
    "lists",
    [
        "Args:\n    word, limit: Both.",
        "Args:\n    word - Both.\n    limit (int) - Both.",
        "Args:\n    - word: Both.\n    - `limit` (int): Both.",
        "Args:\n    * word [str]: Both.\n    * limit {1, 2}: Both.",
        "Args:\n    \\*word: Both.\n    \\**limit: Both.",
        "Args:\nword: Both.\nlimit: Both.",
        "**Args:**\n    word: Both.\n    limit: Both.",
        "### Parameters\n- `word`: Both.\n- `limit`: Both.",
        "Args:\r\n    word: Both.\r\n    limit: Both.",
        "Parameters\r\n----------\r\nword : str\r\n    Both.\r\nlimit\r\n    Both.",
        "Parameters\n==========\nword, limit : str\n    Both.",
        "Arguments\n---------\n`word` : str\n    Both.\n**limit\n    Both.",
        "Parameters\n----------\n    word : str\n        Both.\n    limit\n        Both.",
        ":param dict[str, int] word: Both.\n:key \\**limit: Both.\n:meta private:",
        "@kwarg word: Both.\n@arg limit: Both.",
        "@param word Both.\n@param limit Both.\n@return A list.",
        "Args:\n    word: Both.\n\n:param limit: Both.",
        "Parameters\n----------\nword : str\n    Both.\n\n:param limit: Both.",
        "Args:\n    word: Both.\n    limit: Both.\n\nReturns\n-------\nlist\n    Found.",
        "Args:\n    word: Both.\n    limit: Both.\n\n:returns: A list.\n:raises ValueError: Never.",
        "Parameters\n----------\nword\n    Both.\nlimit\n    Both.\n\nRaises:\n    ValueError: Never.",
    ],
)
def test_lists_as_people_write_them_are_read(lists: str) -> None:
    assert read_docstring(f"Find things.\n\n{lists}") == Documentation(
        "Find things.", {"word": "Both.", "limit": "Both."}
    )


def test_text_behind_fields_belongs_to_the_description() -> None:
    read = read_docstring("Find things.\n\n:param word: What\nto find.\n:param limit:\n\nSlow.\n\n@note: beware")
    assert read == Documentation("Find things.\n\nSlow.\n\n@note: beware", {"word": "What to find."})


LISTS = {
    "google": ("Args:", "    {} (str): {}"),
    "numpy": ("Parameters\n----------", "{} : str\n    {}"),
    "sphinx": ("", ":param {}: {}"),
    "epytext": ("", "@param {}: {}"),
}


@given(said=st.dictionaries(NAMES, TEXTS, min_size=4, max_size=8), order=st.permutations(sorted(LISTS)))
def test_every_mixture_of_styles_is_read(said: dict[str, str], order: list[str]) -> None:
    parts = ["Find things."]
    pairs = list(said.items())
    for index, style in enumerate(order):
        heading, item = LISTS[style]
        parts.append(f"{heading}\n" + "\n".join(item.format(*pair) for pair in pairs[index::4]))
    assert read_docstring("\n\n".join(parts)) == Documentation("Find things.", said)


class Described:
    """Is a searcher.

    Args:
        size: Of the searcher.
        word: Said by the class.
    """

    def __init__(self, size: int) -> None:
        """Make one.

        Args:
            size: Of the index.
        """

    def __call__(self, word: str, **more: int) -> str:
        """Find things.

        Args:
            word: What to find.
            **more: Weights.
        """
        return word


class ByNew:
    def __new__(cls, word: "int") -> "ByNew":
        """Make one.

        :param word: Of it.
        """
        made = super().__new__(cls)
        made.word = word
        return made

    word: int


def test_constructor_and_call_say_what_their_parameters_are() -> None:
    made, called, new = tool(Described), tool(Described(1)), tool(ByNew)

    assert made.description == called.description == "Is a searcher."
    assert made.parameters["properties"] == {"size": {"type": "integer", "description": "Of the index."}}
    assert called.parameters["properties"] == {"word": {"type": "string", "description": "What to find."}}
    assert called.parameters["additionalProperties"] == {"type": "integer", "description": "Weights."}
    assert new.description == "Make one."
    assert new.parameters["properties"] == {"word": {"type": "integer", "description": "Of it."}}


def test_free_values_of_any_type_are_described() -> None:
    def find(**more: Any) -> None:
        """Find things.

        Args:
            **more: Weights.
        """

    assert tool(find).parameters["additionalProperties"] == {"description": "Weights."}


def test_docstring_that_nobody_wrote_describes_nothing() -> None:
    class Model(BaseModel):
        word: str

    @dataclass
    class Data:
        word: str

    class Pair(NamedTuple):
        word: str

    class Bare:
        def __init__(self, word: str) -> None: ...

    assert [tool(kind).description for kind in (Model, Data, Pair, Bare)] == [""] * 4
