"""Where commands print, and how."""

import sys

from rich.console import Console

from flowkit import codec


def make_console() -> Console:
    """Standard output, for text as it is: `[red]` is no colour; in a pipe not wrapped at 80 columns."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=200)


def print_json(value: codec.JSON) -> None:
    """One line of JSON in a pipe, indented on a terminal."""
    if sys.stdout.isatty():
        import json

        print(json.dumps(value, ensure_ascii=False, indent=2))
    else:
        print(codec.dumps(value).decode())


def note(text: str) -> None:
    """A word to the person at the terminal that is no part of the output."""
    print(text, file=sys.stderr, flush=True)


def say_bytes(size: int) -> str:
    """A size as people say it.

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
