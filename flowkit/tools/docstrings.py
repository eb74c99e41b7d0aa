"""What a docstring says of a function and of each parameter: in Google, NumPy or Sphinx style.

The lists are cut out; those of parameters are read, the others (of results, errors, examples) say nothing that a model
needs in order to call. What is left is prose, and stays as it was written.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from textwrap import indent


@dataclass(frozen=True, slots=True)
class Documentation:
    """A docstring's own words without its lists, and a text for each parameter that it describes."""

    description: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])


@lru_cache(maxsize=1024)
def read_docstring(docstring: str) -> Documentation:
    """Read a docstring of any of the three styles, which are told by the headings of their lists."""
    text = inspect.cleandoc(docstring)
    first, _, rest = text.partition("\n")
    if _GOOGLE_LIST.fullmatch(first) and not rest.startswith((" ", "\n")):
        # A list on the first line: its items' indentation was taken for that of the docstring.
        text = f"{first}\n{indent(rest, ' ')}"
    parameters: dict[str, str] = {}
    for list_pattern, item_pattern in _STYLES:
        for heading, body in list_pattern.findall(text):
            if _OF_PARAMETERS.fullmatch(heading):
                for names, said in item_pattern.findall(_dedent(body)):
                    for name in names.split(","):
                        parameters.setdefault(name.strip().lstrip("*"), " ".join(said.split()))
        text = list_pattern.sub("\n", text)
    return Documentation(re.sub(r"\n{3,}", "\n\n", text).strip(), parameters)


def _dedent(body: str) -> str:
    """A list's body with its items at the margin, even where a line stands further out than the first."""
    body = body.lstrip("\n")
    margin = body[: len(body) - len(body.lstrip(" \t"))]
    return body.removeprefix(margin).replace(f"\n{margin}", "\n")


_OF_PARAMETERS = re.compile(r"(?:(?:keyword|other) )?(?:arg(?:ument)?s?|param(?:eter)?s?)|keyword", re.I)
_OF_OTHERS = "returns?|yields?|receives|raises?|exceptions|warns|attributes|examples"
_BELOW = r"(?:[ \t].*\n?|\n)*"
"""The lines that belong to the one above: they are indented, or blank."""

# The first group of a list is its heading, the second its body; those of an item are its names and what it says.
_GOOGLE_LIST = re.compile(rf"^#?[ ]?({_OF_PARAMETERS.pattern}|{_OF_OTHERS}):[ \t]*(?:\n|\Z)({_BELOW})", re.M | re.I)
_GOOGLE_ITEM = re.compile(rf"^(\**\w+)(?:[ \t]*\(.*?\))?[ \t]*:(.*\n?{_BELOW})", re.M)
_NUMPY_LIST = re.compile(
    rf"^({_OF_PARAMETERS.pattern}|{_OF_OTHERS})[ \t]*\n-{{3,}}[ \t]*\n((?s:.*?))(?=^.+\n-{{3,}}[ \t]*$|\Z)", re.M | re.I
)
_NUMPY_ITEM = re.compile(rf"^(\**\w+(?:[ \t]*,[ \t]*\**\w+)*)[ \t]*(?::.*)?\n({_BELOW})", re.M)
_SPHINX_LIST = re.compile(rf"^:({_OF_PARAMETERS.pattern}|{_OF_OTHERS}|type|rtype)\b([^:\n]*:.*\n?{_BELOW})", re.M)
_SPHINX_ITEM = re.compile(r"(\**\w+):((?s:.*))")
_STYLES = ((_NUMPY_LIST, _NUMPY_ITEM), (_GOOGLE_LIST, _GOOGLE_ITEM), (_SPHINX_LIST, _SPHINX_ITEM))
