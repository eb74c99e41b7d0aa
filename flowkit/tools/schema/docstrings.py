"""Read a function's and its parameters' descriptions from a docstring: Google, NumPy, Sphinx and Epytext styles, also mixed.

People write these styles by heart, so each is first brought into the form that griffe reads; lists of fields, which are
one line each, are read here.
"""

import inspect
import re
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Any, Literal

from flowkit.tools.schema.signatures import find_constructor


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
    text = inspect.cleandoc(docstring)
    return any(marks.search(text) for marks in (_NUMPY, _GOOGLE, _DRESSED_HEADER))


def read_documentation(described: Any) -> Documentation:
    """Read the docstring of a function or a class, unless Python or pydantic wrote it."""
    is_class = inspect.isclass(described)
    written: Any = next((cls for cls in described.__mro__ if cls.__doc__), described) if is_class else described
    text = inspect.getdoc(written)
    package = str(getattr(written, "__module__", "")).partition(".")[0]
    is_general = package in ("builtins", "pydantic") or package.startswith("namedtuple_") or text in _OF_CONSTRUCTORS
    # What `dataclass` and `NamedTuple` write on a class is its signature.
    if not text or is_general or (is_class and text.startswith(f"{written.__name__}(")):
        return Documentation()
    return read_docstring(text)


def read_call_documentation(called: Any) -> Documentation:
    """Read the description of a class or a callable object, and its parameters' from its constructor or `__call__`."""
    is_class = inspect.isclass(called)
    of_class = read_documentation(called if is_class else type(called))
    of_call = read_documentation(find_constructor(called) if is_class else type(called).__call__)
    return Documentation(of_class.description or of_call.description, {**of_class.parameters, **of_call.parameters})


_OF_CONSTRUCTORS = frozenset(map(inspect.getdoc, (object.__init__, object.__new__)))


@lru_cache(maxsize=1024)
def read_docstring(docstring: str) -> Documentation:
    """Read a docstring of any of the styles; each is found by its marks."""
    text, parameters = _take_fields(inspect.cleandoc(docstring.replace("\r\n", "\n")).strip())
    text = _DRESSED_HEADER.sub(r"\1:", text)
    # Google's lists first: NumPy's sections go on to the next underlined heading.
    if _GOOGLE.search(text):
        text = _read_sections(_part_sections(text), "google", parameters)
    if _NUMPY.search(text):
        text = _read_sections(_straighten_sections(text), "numpy", parameters)
    return Documentation(text, {name: said for name, said in parameters.items() if said})


def _read_sections(text: str, style: Literal["google", "numpy"], parameters: dict[str, str]) -> str:
    """Add the parameters' descriptions in lists of this style; return the rest of the text."""
    import griffe

    rest: list[str] = []
    for section in griffe.Docstring(text, lineno=1).parse(style, warnings=False):
        match section.kind:
            case griffe.DocstringSectionKind.text:
                rest.append(str(section.value).strip())
            case griffe.DocstringSectionKind.parameters | griffe.DocstringSectionKind.other_parameters:
                for item in section.value:
                    for name in item.name.split(","):
                        parameters.setdefault(name.strip(" \\*`"), _join_lines(item.description))
            case griffe.DocstringSectionKind.admonition:
                rest.append(f"{section.title}: {section.value.contents}".strip())
            case _:
                pass
    return "\n\n".join(part for part in rest if part)


_FIELD = re.compile(
    r"^(?::|@)(?:(?P<told>param|parameter|arg|argument|key|keyword|kwarg)[ \t]+(?:[^:\n]*[ \t])?"
    r"\\?\*{0,2}(?P<name>\w+)|(?P<other>type|returns?|rtype|raises?|except|exception|yields?|ytype|i?var|cvar|meta)"
    r"\b[^:\n]*?)[ \t]*:(?!:)(?P<text>.*)$"
)
_JAVADOC = re.compile(r"^@(?:param[ \t]+\*{0,2}(?P<name>\w+)|(?P<other>returns?|throws))[ \t]+(?P<text>[^:\s].*)$")


def _take_fields(text: str) -> tuple[str, dict[str, str]]:
    """Split off the fields of Sphinx and Epytext, `:param word: …` and `@param word: …`; javadoc has no second colon.

    A field ends at the next one, or at a blank line with a line behind it that isn't indented.
    """
    rest: list[str] = []
    told: dict[str, list[str]] = {}
    field_lines: list[str] | None = None
    is_after_blank = False
    for line in text.split("\n"):
        field = _FIELD.match(line) or _JAVADOC.match(line)
        if field:
            field_lines = [field["text"]]
            if field["name"]:
                told.setdefault(field["name"], field_lines)
        elif field_lines is None or line[:1] == "@" or (is_after_blank and line[:1].strip()):
            field_lines = None
            rest.append(line)
        else:
            field_lines.append(line)
        is_after_blank = not line.strip()
    return "\n".join(rest).strip(), {name: _join_lines("\n".join(lines)) for name, lines in told.items()}


_LISTS = "(?:(?:keyword|other) )?(?:args|arguments|params|parameters)"
_SECTIONS = rf"{_LISTS}|returns|yields|receives|raises|exceptions|warns|warnings|attributes|examples?|notes?"
_GOOGLE = re.compile(rf"^#?\s?({_SECTIONS}):\s*$", re.M | re.I)
_DRESSED_HEADER = re.compile(rf"^(?:#+ |\*\*)({_LISTS})(?::\*\*|\*\*:|\*\*|:|)[ \t]*$", re.M | re.I)
_LIST = re.compile(rf"^#?\s?{_LISTS}:\s*$", re.I)
_TYPE_WITH_COLON = re.compile(
    r"^(\s+\*{0,2}\w+)[ \t]*\((?=[^()\n]*(?:\([^()\n]*\)[^()\n]*)*:)(?:[^()\n]|\([^()\n]*\))*\)[ \t]*:", re.M
)
_DRESSED_NAME = re.compile(
    r"^(?:[-*+] +)?(`{1,2}|\*{1,2}|)\\?(\*{0,2}\w+(?:, *\w+)*)\1"
    r"([ \t]*\([^\n]*?\)|)(?:[ \t]*[\[{][^\n:]*[\]}])?(?:[ \t]*:(?!:)|[ \t]+-{1,2}[ \t])"
)


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
    """Write the items of parameter lists as griffe reads them: `city :`, `` `city`: `` and `- city - ` become `city:`."""
    lines: list[str] = []
    in_list, indent, is_flat = False, "", False
    for line in text.split("\n"):
        bare = line.lstrip()
        if bare == line and line and _LIST.match(line):
            in_list, indent, is_flat = True, "", True
        elif bare == line and line and in_list and is_flat and _DRESSED_NAME.match(bare):
            # A list that isn't indented ends at a blank line.
            line = f"    {_undress(bare)}"
        elif bare == line:
            in_list, is_flat = in_list and not line and not is_flat, False
        elif in_list:
            indent, is_flat = indent or line[: len(line) - len(bare)], False
            if line == indent + bare:
                line = indent + _undress(bare)
        lines.append(line)
    return "\n".join(lines)


def _undress(item: str) -> str:
    found = _DRESSED_NAME.match(item)
    return f"{found[2]}{found[3]}:{item[found.end() :]}" if found else item


_NUMPY = re.compile(
    r"^(Parameters|Params|Arguments|Args|Other Parameters|Returns|Yields|Raises|Attributes|Examples|Notes)[ \t]*\n"
    r"(?:-{3,}|={3,})[ \t]*$",
    re.M,
)
_UNDERLINED = re.compile(r"^(?=\S[^\n]*\n(?:-{3,}|={3,})[ \t]*$)", re.M)
_QUOTED_NAME = re.compile(r"^(`{1,2})(\*{0,2}\w+)\1", re.M)


def _straighten_sections(text: str) -> str:
    """Write sections as griffe reads them: `Parameters` over hyphens, with items that start in the first column."""
    return "".join(_straighten(part) if _NUMPY.match(part) else part for part in _UNDERLINED.split(text))


def _straighten(section: str) -> str:
    title, _, body = section.split("\n", 2) if section.count("\n") > 1 else (*section.split("\n", 1), "")
    title = "Parameters" if title.strip() in ("Params", "Arguments", "Args") else title.strip()
    items = _QUOTED_NAME.sub(r"\2", textwrap.dedent(body))
    return f"{title}\n{'-' * len(title)}\n{items}"


def _join_lines(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines() if line.strip())
