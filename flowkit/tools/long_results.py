"""Results that are too long for a model: a part at once, the rest when it asks.

A model's context is small and dear, and a tool that returns a log of a million characters would fill it. So a text
longer than the tool's limit is cut, and the cut text says how to read on: with the tool `read_result`, by the id of
the result and the place to continue from. What was cut is kept for the run, up to `MAX_KEPT_CHARS`, oldest out first.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from flowkit.errors import ToolError

DEFAULT_MAX_CHARS = 20_000
"""About 5,000 tokens in any script, counted in bytes of UTF-8; a tool's `max_result_chars=` goes before it."""
MAX_KEPT_CHARS = 50_000_000
"""Of all long results of one run together."""
READ_TOOL = "read_result"


@dataclass(slots=True)
class LongResults:
    """The long results of one run, by the ids that the model received.

    >>> results = LongResults()
    >>> print(results.show("r1", "one two three four", limit=9))
    one two
    [cut: characters 0 to 8 of 18; continue with read_result(id="r1", offset=8), if you have that tool]
    >>> print(results.read("r1", 8, limit=20))
    three four
    """

    max_kept_chars: int = MAX_KEPT_CHARS
    _texts: dict[str, str] = field(default_factory=dict[str, str])
    _kept_chars: int = 0

    @property
    def is_empty(self) -> bool:
        """Nothing was cut so far, so there is nothing to read on."""
        return not self._texts

    def show(self, result_id: str, text: str, limit: int = DEFAULT_MAX_CHARS) -> str:
        """Return the text when it is short enough, else its beginning and how to read the rest."""
        if measure(text) <= limit:
            return text
        self._keep(result_id, text)
        return _page(result_id, text, 0, limit)

    def read(self, result_id: str, offset: int = 0, limit: int = DEFAULT_MAX_CHARS) -> str:
        """Read the part from `offset` on, with how to read the rest.

        Raises `ToolError`, for the model, when there is no such result or no such place in it.
        """
        text = self._texts.get(result_id)
        if text is None:
            known = ", ".join(map(repr, self._texts)) or "none"
            raise ToolError(f"there is no long result {result_id!r} any more, only: {known}; call its tool again")
        if not 0 <= offset < len(text):
            raise ToolError(f"'offset' is {offset}; result {result_id!r} has the characters 0 to {len(text)}")
        return _page(result_id, text, offset, limit)

    def reader(self, limit: int = DEFAULT_MAX_CHARS) -> Callable[..., str]:
        """Return the function for the tool `read_result`; it changes nothing, so make it a `read`."""

        def read_result(id: str, offset: int = 0) -> str:
            """Read on in a tool result that was too long to show at once.

            Args:
                id: The id at the place where the result was cut.
                offset: The character to continue from.
            """
            return self.read(id, offset, limit)

        return read_result

    def _keep(self, result_id: str, text: str) -> None:
        self._kept_chars += len(text) - len(self._texts.pop(result_id, ""))
        self._texts[result_id] = text
        while self._kept_chars > self.max_kept_chars and len(self._texts) > 1:
            oldest = next(iter(self._texts))
            self._kept_chars -= len(self._texts.pop(oldest))


def measure(text: str) -> int:
    """Measure a text against a limit: bytes in UTF-8, since a Hangul letter costs about as much as three Latin ones.

    >>> measure("order"), measure("주문")
    (5, 6)
    """
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def _find_end(text: str, offset: int, limit: int) -> int:
    """Find where the part from `offset` on has to end to stay within the limit; at least one character long."""
    part = text[offset : offset + limit]
    if part.isascii():
        return offset + max(1, len(part))
    head = part.encode(errors="surrogatepass")[:limit].decode(errors="ignore")
    return offset + max(1, len(head))


def _page(result_id: str, text: str, offset: int, limit: int) -> str:
    end = min(len(text), _find_end(text, offset, max(1, limit)))
    if end == len(text):
        return text[offset:]
    # Rather between words or lines than inside one, unless that would give half a page away.
    space = max(text.rfind(" ", offset, end), text.rfind("\n", offset, end)) + 1
    if space > offset + (end - offset) // 2:
        end = space
    # The conversation outlives the run, and what the run kept; a later one doesn't offer the tool.
    how = f'continue with {READ_TOOL}(id="{result_id}", offset={end}), if you have that tool'
    return f"{text[offset:end].rstrip()}\n[cut: characters {offset} to {end} of {len(text)}; {how}]"
