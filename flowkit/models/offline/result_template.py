"""Tools' results as text for a person, by a template: nothing is added, nothing is judged."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from flowkit.codec import JSON, loads
from flowkit.messages import ToolMessage

LONGEST_WORD = 80
"""Characters of a text that stands in a line with others."""


_ENGLISH: Mapping[str, str] = MappingProxyType(
    {"failed": "failed", "nothing": "nothing found", "yes": "yes", "no": "no"}
)
_KOREAN: Mapping[str, str] = MappingProxyType(
    {"failed": "실패", "nothing": "결과가 없습니다", "yes": "예", "no": "아니요"}
)


def show_results(results: Sequence[ToolMessage], *, korean: bool = False) -> str:
    """Show each result under its tool's name; errors as they are. The few words around them are of one language."""
    words = _KOREAN if korean else _ENGLISH
    return "\n\n".join(f"{result.name.replace('_', ' ')}:\n{_show(result, words)}" for result in results)


def _show(result: ToolMessage, words: Mapping[str, str]) -> str:
    if result.is_error:
        return f"  {words['failed']}: {result.text}"
    try:
        value = loads(result.text)
    except ValueError:
        return f"  {result.text}"
    return "\n".join(f"  {line}" for line in _lines(value, words))


def _lines(value: JSON, words: Mapping[str, str]) -> Iterator[str]:
    match value:
        case dict():
            for name, item in value.items():
                label = name.replace("_", " ")
                if isinstance(item, (dict, list)) and item:
                    yield f"{label}:"
                    yield from (f"  {line}" for line in _lines(item, words))
                elif item is not None and item != [] and item != {}:
                    yield f"{label}: {_word(item, words)}"
        case list():
            for item in value:
                if isinstance(item, dict):
                    short = {key: v for key, v in item.items() if v is not None and not _is_long(v)}
                    yield "- " + ", ".join(f"{key.replace('_', ' ')} {_word(v, words)}" for key, v in short.items())
                    for long in filter(_is_long, item.values()):
                        yield from (f"    {line}" for line in str(long).splitlines())
                else:
                    yield f"- {_word(item, words)}"
            if not value:
                yield words["nothing"]
        case _:
            yield _word(value, words)


def _is_long(value: JSON) -> bool:
    """Return True for a text that needs its own lines."""
    return isinstance(value, str) and ("\n" in value or len(value) > LONGEST_WORD)


def _word(value: JSON, words: Mapping[str, str]) -> str:
    match value:
        case bool():
            return words["yes"] if value else words["no"]
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,}"
        case dict():
            return ", ".join(f"{key.replace('_', ' ')} {_word(item, words)}" for key, item in value.items())
        case list():
            return ", ".join(_word(item, words) for item in value)
        case _:
            return str(value)
