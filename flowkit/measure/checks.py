"""Whether an answer is right, by the checks that need no model."""

import re
from collections.abc import Iterator

from flowkit.measure.cases import AnswerCheck


def find_wrong_answer(check: AnswerCheck, answer: str) -> list[str]:
    """Find what is wrong with an answer, a line for each failed check; what a model judges isn't checked here."""
    return list(_find(check, answer))


def _find(check: AnswerCheck, answer: str) -> Iterator[str]:
    said = answer.casefold()
    if check.exact is not None and answer.strip() != check.exact.strip():
        yield f"is {_shorten(answer)}, expected exactly {_shorten(check.exact)}"
    for text in check.contains:
        if text.casefold() not in said:
            yield f"lacks {text!r}"
    if check.contains_any and not any(text.casefold() in said for text in check.contains_any):
        yield f"has none of {', '.join(map(repr, check.contains_any))}"
    for text in check.lacks:
        if text.casefold() in said:
            yield f"says {text!r}"
    if check.regex is not None and re.search(check.regex, answer) is None:
        yield f"{check.regex!r} isn't found in it"
    if check.function is not None and (wrong := _call(check, answer)) is not None:
        yield wrong


def _call(check: AnswerCheck, answer: str) -> str | None:
    function = check.function
    assert function is not None
    name = getattr(function, "__name__", "the check")
    try:
        verdict = function(answer)
    except AssertionError as error:
        return str(error) or f"{name} says no"
    except Exception as error:  # noqa: BLE001  # somebody's check: a mistake in it is told as what it is
        return f"{name} failed: {type(error).__name__}: {error}"
    match verdict:
        case None | True:
            return None
        case str():
            return verdict
        case _:
            return f"{name} says no"


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:59] + "…")
