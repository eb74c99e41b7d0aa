"""Characters that a server cut in two.

Servers written in languages whose strings are UTF-16 may put the first half of an emoji into one event and the second
into the next, each as a `\\ud83c` escape. The halves are put together; a half that stays alone is U+FFFD in a text and an
error in what must be exact: a tool call, or what goes back to the server.
"""

import json
from dataclasses import asdict, replace

from flowkit.errors import StreamError
from flowkit.models.base import CallDelta, Delta, ErrorDelta, RefusalDelta, TextDelta, ThinkingDelta

_Spoken = TextDelta | ThinkingDelta | RefusalDelta | CallDelta


class HalfCharacters:
    """Hold back first halves of characters until the second half arrives."""

    def __init__(self) -> None:
        self.held: dict[tuple[type[Delta], int, int | None], _Spoken] = {}
        """What waits for its second half; read for each event, so it is no property."""

    def mend(self, delta: Delta) -> list[Delta]:
        """Mend the delta to whole characters; return nothing while all of it is held."""
        if not isinstance(delta, _Spoken):
            return [delta] if _is_whole(delta) else [_broken()]
        if isinstance(delta, CallDelta) and not _is_whole(delta._replace(arguments=None)):
            return [_broken()]
        key = (type(delta), delta.choice, delta.slot if isinstance(delta, CallDelta) else None)
        held = self.held.pop(key, None)
        text = _text(delta)
        if held is not None:
            text = _text(held)[-1] + text
        if "\ud800" <= text[-1:] <= "\udbff":
            self.held[key] = delta
            text = text[:-1]
        return _finish(delta, text)

    def end(self) -> list[Delta]:
        """Return the remaining halves."""
        held, self.held = self.held, {}
        return [mended for delta in held.values() for mended in _finish(delta, _text(delta)[-1])]


def _text(delta: _Spoken) -> str:
    return delta.arguments or "" if isinstance(delta, CallDelta) else delta.text


def _finish(delta: _Spoken, text: str) -> list[Delta]:
    data = text.encode("utf-16-le", "surrogatepass")
    if isinstance(delta, CallDelta):
        try:
            return [delta._replace(arguments=data.decode("utf-16-le") or None)]
        except UnicodeDecodeError:
            return [_broken()]
    return [replace(delta, text=data.decode("utf-16-le", "replace"))] if text else []


def _is_whole(delta: Delta) -> bool:
    """Return whether the parts of it that must be exact can be written; the text of an error need not be."""
    if isinstance(delta, ErrorDelta):
        return True
    if isinstance(delta, CallDelta):
        held: object = (delta.id, delta.name, delta.arguments, delta.provider and delta.provider.data)
    else:
        held = asdict(delta)
    try:
        json.dumps(held, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _broken() -> ErrorDelta:
    return ErrorDelta(StreamError("half of a character where none can be", retryable=True))
