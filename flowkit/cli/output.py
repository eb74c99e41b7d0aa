"""Print the output of commands; text of a model or a tool can't drive the terminal, since control characters are escaped."""

import codecs
import io
import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

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
    """Print a text that may contain words of a model or a tool."""
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
    print(clean(text), file=sys.stderr, flush=True)


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
