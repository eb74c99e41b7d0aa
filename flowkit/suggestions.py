"""Suggest a name in place of an unknown one: the nearest, or the existing ones."""

from collections.abc import Iterable

SHOWN = 10
"""The limit on listed names; a longer list doesn't help."""


def suggest(name: object, known: Iterable[str]) -> str:
    """Suggest the nearest known name, as the end of a sentence.

    >>> suggest("sise", ["size", "words"]), suggest("colour", ["size", "words"]), suggest("size", [])
    ("did you mean 'size'?", "there is 'size', 'words'", 'there is none')
    """
    from difflib import get_close_matches

    names = list(known)
    near = get_close_matches(str(name), names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    more = ", …" if len(names) > SHOWN else ""
    return f"there is {', '.join(map(repr, names[:SHOWN])) or 'none'}{more}"


def check_option_names(given: Iterable[str], known: type, what: str) -> None:
    """Raise `TypeError` for an option that isn't among the keys of a TypedDict, as Python does for a parameter.

    A type checker sees it too, but a program that runs without one would lose its journal by a misspelt `journal=`.

    >>> from typing import TypedDict
    >>> check_option_names(["jurnal"], TypedDict("Options", {"journal": str}), "a run")
    Traceback (most recent call last):
    ...
    TypeError: a run has no option 'jurnal'; did you mean 'journal'?
    """
    names = known.__annotations__
    for name in given:
        if name not in names:
            raise TypeError(f"{what} has no option {name!r}; {suggest(name, names)}")
