"""What a docstring says of a function and of each parameter, read by griffe: Google, NumPy, Sphinx and Epytext styles."""

import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Literal


@dataclass(frozen=True, slots=True)
class Documentation:
    """A docstring's own words without its lists, and a text for each parameter that it describes."""

    description: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])


def load_reader() -> None:
    """Import what reads docstrings, which takes 0.1 s: an agent does it in a thread."""
    import_module("griffe")


def is_reader_missing(docstring: str | None) -> bool:
    """Return whether reading this docstring would import its reader."""
    return "griffe" not in sys.modules and docstring is not None and _is_styled(docstring)


@lru_cache(maxsize=1024)
def _is_styled(docstring: str) -> bool:
    return _find_style(inspect.cleandoc(docstring)) is not None


@lru_cache(maxsize=1024)
def read_docstring(docstring: str) -> Documentation:
    """Read a docstring of any of the four styles; the style is found by its marks."""
    text = inspect.cleandoc(docstring)
    style = _find_style(text)
    if style is None:
        return Documentation(text)
    import griffe

    if style == "google":
        text = _part_sections(text)
    elif style == "sphinx":
        text = _SPACED_FIELD.sub(r":\1 \2:", _EPYTEXT.sub(r":\1:", text))
    parsed = griffe.Docstring(text, lineno=1).parse(style, warnings=False)
    description: list[str] = []
    parameters: dict[str, str] = {}
    for section in parsed:
        match section.kind:
            case griffe.DocstringSectionKind.text:
                description.append(str(section.value).strip())
            case griffe.DocstringSectionKind.parameters | griffe.DocstringSectionKind.other_parameters:
                for item in section.value:
                    parameters.setdefault(item.name.lstrip("*"), _join_lines(item.description))
            case griffe.DocstringSectionKind.admonition:
                description.append(f"{section.title}: {section.value.contents}".strip())
            case _:
                pass
    return Documentation("\n\n".join(part for part in description if part), parameters)


_FIELDS = "param|parameter|arg|argument|key|keyword|type|returns?|rtype|raises?|yields?"
_SPHINX = re.compile(rf"^:({_FIELDS})\b[^:\n]*:", re.M)
_EPYTEXT = re.compile(rf"^@((?:{_FIELDS})\b[^:\n]*):", re.M)
_SPACED_FIELD = re.compile(r"^:(\w+)[ \t]+([^:\n]*?)[ \t]*:", re.M)
_NUMPY = re.compile(r"^(Parameters|Other Parameters|Returns|Yields|Raises|Attributes|Examples|Notes)\n-{3,}$", re.M)
_SECTIONS = (
    "args|arguments|params|parameters|keyword args|keyword arguments|keyword parameters|other args|other arguments|"
    "other params|other parameters|returns|yields|receives|raises|exceptions|warns|warnings|attributes|examples?|notes?"
)
_TYPE_WITH_COLON = re.compile(
    r"^(\s+\*{0,2}\w+)[ \t]*\((?=[^()\n]*(?:\([^()\n]*\)[^()\n]*)*:)(?:[^()\n]|\([^()\n]*\))*\)[ \t]*:", re.M
)
_LIST = re.compile(r"^#?\s?((keyword|other) )?(args|arguments|params|parameters):\s*$", re.I)
_DRESSED_NAME = re.compile(r"^(`{1,2}|\*{1,2}|)(\*{0,2}\w+)\1([ \t]*\([^\n]*\))?[ \t]*:(?!:)")
_GOOGLE = re.compile(rf"^#?\s?({_SECTIONS}):\s*$", re.M | re.I)


def _find_style(text: str) -> Literal["google", "numpy", "sphinx"] | None:
    if _NUMPY.search(text):
        return "numpy"
    if _SPHINX.search(text) or _EPYTEXT.search(text):
        return "sphinx"
    return "google" if _GOOGLE.search(text) else None


def _part_sections(text: str) -> str:
    header = _GOOGLE.match(text)
    if header and not text[header.end() :].startswith("\n "):
        # A list on the first line: its items' indentation was taken for that of the docstring.
        text = text[: header.end()] + text[header.end() :].replace("\n", "\n    ")
    # A type with a colon in it (`when (str, as HH:MM): …`) would end the name there.
    text = _TYPE_WITH_COLON.sub(r"\1:", _undress_names(text))
    # griffe takes a section only behind a blank line; people often leave it out, or write `#Args:`.
    return _GOOGLE.sub(lambda match: f"\n{match[1]}:", text)


def _undress_names(text: str) -> str:
    """Write the items of parameter lists as griffe reads them: `city :` and `` `city`: `` become `city:`."""
    lines: list[str] = []
    in_list, indent = False, ""
    for line in text.split("\n"):
        bare = line.lstrip()
        if bare == line and line:
            in_list, indent = _LIST.match(line) is not None, ""
        elif in_list and bare:
            indent = indent or line[: len(line) - len(bare)]
            if line == indent + bare and (item := _DRESSED_NAME.match(bare)):
                line = f"{indent}{item[2]}{item[3] or ''}:{bare[item.end() :]}"
        lines.append(line)
    return "\n".join(lines)


def _join_lines(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines() if line.strip())
