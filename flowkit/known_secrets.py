"""The secrets that a run has come to know, looked for by value in what it shows of its calls.

A tool or a type marks where secrets stand. A model may also write one elsewhere: a card's number in a note beside it,
or in the next call. So from the call on that holds a secret of six characters or more, the run and those inside it mask
its text wherever they show arguments. Shorter ones are too common as parts of other words.
"""

from collections.abc import Iterable
from contextvars import ContextVar

from flowkit.codec import JSON, dumps
from flowkit.masking import LONG_ECHO, mask_repeats, mask_text


class KnownSecrets:
    """The secrets of a run and of all runs inside it; false as long as there are none."""

    __slots__ = ("texts",)

    def __init__(self) -> None:
        self.texts = set[str]()
        """All of them; the same set for as long as the run lasts."""

    def __bool__(self) -> bool:
        return bool(self.texts)

    def learn(self, texts: Iterable[str]) -> None:
        """Add those that are long enough."""
        self.texts |= {text for text in texts if len(text) >= LONG_ECHO}

    def mask(self, value: JSON) -> JSON:
        """Mask them in a value."""
        return mask_repeats(value, self.texts) if self.texts else value

    def mask_text(self, text: str) -> str:
        """Mask them in a text."""
        return mask_text(text, self.texts) if self.texts else text

    def find_held(self, text: str) -> int:
        """Count the characters at the end of a text that may be the beginning of a secret."""
        forms = [form for secret in self.texts for form in (secret, dumps(secret).decode()[1:-1])]
        longest = min(len(text), max(map(len, forms), default=1) - 1)
        return next((size for size in range(longest, 0, -1) if any(form.startswith(text[-size:]) for form in forms)), 0)


KNOWN: ContextVar[KnownSecrets | None] = ContextVar("flowkit_known_secrets", default=None)
"""The secrets known to the run around."""


class MaskedStream:
    """A text that comes in pieces: each is given without secrets, and an end that may begin one is held back."""

    __slots__ = ("_held", "_known")

    def __init__(self, known: KnownSecrets) -> None:
        self._known = known
        self._held = ""

    def feed(self, piece: str) -> str:
        """Return what can be shown now."""
        if not (self._held or self._known):
            return piece
        text = self._known.mask_text(self._held + piece)
        shown = len(text) - self._known.find_held(text)
        self._held = text[shown:]
        return text[:shown]

    def end(self) -> str:
        """Return the rest."""
        rest, self._held = self._held, ""
        return rest
