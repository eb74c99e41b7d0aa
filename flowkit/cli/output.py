"""Print the output of commands; text of a model or a tool can't drive the terminal, since control characters are escaped."""

import codecs
import io
import os
import re
import sys
from collections.abc import Iterable
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from flowkit import codec
from flowkit.display.words import clean, clean_json
from flowkit.errors import FlowkitError, RecipeFileError


class CleanConsole(Console):
    """A console that escapes control characters in its text; its own colours stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(clean(segment.text), segment.style)


def make_console() -> Console:
    """Make a console for standard output that prints text literally: `[red]` isn't read as markup.

    A pipe isn't wrapped at 80 columns.
    """
    console = CleanConsole(highlight=False, markup=False)
    return console if console.is_terminal else CleanConsole(highlight=False, markup=False, width=200)


def write_any_text() -> None:
    """Make standard output and error escape characters that their encoding lacks, such as Hangul in an old Windows console.

    Otherwise a command would end in a traceback after its work is done, and a retry would do it twice.
    """
    codecs.register_error("flowkit.escape", _escape)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="flowkit.escape")


def _escape(error: UnicodeError) -> tuple[str, int]:
    """As in JSON, so that JSON stays JSON: `\\u2713`, and two of them for what is beyond four digits."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    data = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{data[at : at + 2].hex()}" for at in range(0, len(data), 2)), error.end


def say(text: str) -> None:
    """Print sentences, which may contain words of a model or a tool; a terminal's lines break between words."""
    print(_fit(clean(text), sys.stdout))


def say_exactly(text: str) -> None:
    """Print a text that something else may read, such as code or a table: its lines stay as they are."""
    print(clean(text))


def print_json(value: codec.JSON) -> None:
    """Print JSON: one line in a pipe, indented on a terminal."""
    if sys.stdout.isatty():
        import json

        print(clean_json(json.dumps(value, ensure_ascii=False, indent=2)))
    else:
        print(clean_json(codec.dumps(value).decode()))


def note(text: str) -> None:
    """Print a message to standard error, for the person at the terminal."""
    print(_fit(clean(text), sys.stderr), file=sys.stderr, flush=True)


_COMMAND = re.compile(r": (?=flowkit |pytest )")


def break_lines(text: str, width: int) -> str:
    """Break lines longer than `width` cells between words; a command at the end of one gets a line of its own, unbroken.

    >>> print(break_lines("  decide with: flowkit runs approve r1 refund", 24))
      decide with:
        flowkit runs approve r1 refund
    """
    return "\n".join(part for line in text.split("\n") for part in _break_line(line, width))


def _break_line(line: str, width: int) -> Iterable[str]:
    if cell_len(line) <= width:
        yield line
        return
    indent = line[: len(line) - len(line.lstrip())]
    below = f"{indent}  "
    sentence, *command = _COMMAND.split(line.strip(), maxsplit=1)
    parts = Text(f"{sentence}:" if command else sentence).wrap(Console(), max(20, width - len(below)))
    for number, part in enumerate(parts):
        yield f"{below if number else indent}{part.plain.rstrip()}"
    if command:  # whoever copies it gets it whole
        yield f"{below}{command[0]}"


def _fit(text: str, stream: TextIO) -> str:
    if not stream.isatty():
        return text
    try:
        width = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return text
    return break_lines(text, width) if width else text


def note_error(error: FlowkitError) -> None:
    """Print an error to standard error in one line; for a recipe file, print one line per error."""
    for single in error.errors if isinstance(error, RecipeFileError) else (error,):
        note(f"flowkit: {' '.join(str(single).split())}")


def say_bytes(size: int) -> str:
    """Write a size in the usual units.

    >>> [say_bytes(size) for size in (0, 999, 2_500, 98_000_000)]
    ['0 B', '999 B', '2.5 kB', '98.0 MB']
    """
    if size < 1000:
        return f"{size} B"
    amount = float(size)
    for unit in ("kB", "MB"):
        amount /= 1000
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:.1f} GB"
