"""Track a run's calls for both protocols: which calls are the agent's own, and which of their states were sent.

A resumed run's log repeats a call with its earlier states, which a client has already seen. So an encoder reads the
whole log and sends each state once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from flowkit.codec import JSON

Told = Mapping[str, JSON]
"""An event as `Event.to_json` gives it."""
Frame = dict[str, JSON]
"""A chunk of the AI SDK's stream, or an event of AG-UI."""

ENDINGS = {
    "call.failed": "failed",
    "call.skipped": "skipped",
    "call.in_doubt": "in doubt",
    "call.cancelled": "cancelled",
    "call.void": "void",
    "call.denied": "denied",
}
"""The kinds of events by which a call ends without a result, in a client's words."""


class Encoder(Protocol):
    """Convert the events of one run, from the first on, to frames of one protocol."""

    def feed(self, event: Told) -> list[Frame]:
        """Return the frames of the next event; none if the protocol has no form for it."""
        ...

    def close(self, reason: str) -> list[Frame]:
        """Return the last frames of a stream that ends before its run; none if the run has finished."""
        ...


@dataclass(slots=True)
class ToldCall:
    """The states of a call that a client has received.

    `is_shown` is set once the call is opened, `has_arguments` once they are complete, `has_ended` with its result.
    `was_requested` is set when its approval was requested, `was_answered` when the run has resumed since.
    `is_gone` is set when its turn was discarded; nothing more is sent about such a call.
    """

    id: str
    name: str
    parent: str | None
    fragments: list[str] = field(default_factory=list[str])
    arguments: JSON = None
    is_shown: bool = False
    has_arguments: bool = False
    has_ended: bool = False
    is_asked: bool = False
    was_requested: bool = False
    was_answered: bool = False
    is_gone: bool = False

    @property
    def is_open(self) -> bool:
        """True while the client still waits for the call's result."""
        return self.is_shown and not self.is_gone and not self.has_ended


class Calls:
    """The calls of a run, by name."""

    def __init__(self) -> None:
        self._calls: dict[str, ToldCall] = {}

    def add(self, event: Told) -> tuple[ToldCall, bool]:
        """Add the call of a `call.new` event; return it, and whether it is new."""
        name = text(event, "call")
        known = self._calls.get(name)
        if known is not None:
            known.is_asked = False
            known.was_answered = known.was_requested
            return known, False
        parent = event.get("parent")
        call = self._calls[name] = ToldCall(name, text(event, "name"), parent if isinstance(parent, str) else None)
        return call, True

    def get(self, event: Told) -> ToldCall | None:
        """Return the call that an event is about."""
        name = event.get("call")
        return self._calls.get(name) if isinstance(name, str) else None

    def find(self, name: str) -> ToldCall | None:
        """Find a call by its name."""
        return self._calls.get(name)

    def list_open(self) -> list[ToldCall]:
        """List the calls that a client still waits for."""
        return [call for call in self._calls.values() if call.is_open]

    def list_shown(self, prefix: str) -> list[ToldCall]:
        """List the calls that a client has seen, by a prefix of their names."""
        return [call for call in self._calls.values() if call.is_shown and call.id.startswith(prefix)]

    def list_asked(self) -> list[ToldCall]:
        """List the calls that wait for approval."""
        return [call for call in self._calls.values() if call.is_asked]


@dataclass(slots=True)
class Pieces:
    """The text of each turn so far, so that a repeated delta is sent once."""

    lengths: dict[tuple[str, str, JSON], int] = field(default_factory=dict[tuple[str, str, JSON], int])

    def take(self, event: Told) -> str:
        """Return the part of this delta that is new."""
        key = (text(event, "type"), text(event, "call"), event.get("turn"))
        piece, known = text(event, "text"), self.lengths.get(key, 0)
        at = event.get("at")
        at = at if isinstance(at, int) else known
        if at == 0 and known and len(piece) < known:
            known = 0  # its turn began anew
        self.lengths[key] = max(known, at + len(piece))
        return piece[max(0, known - at) :]

    def restart(self, turn: JSON) -> None:
        """Restart a turn, discarding its earlier text."""
        for key in [key for key in self.lengths if key[2] == turn and not key[1]]:
            del self.lengths[key]


@dataclass(slots=True)
class Spent:
    """The total token usage of a run."""

    tokens: dict[str, int] = field(default_factory=dict[str, int])
    cost_usd: float | None = 0.0

    def add(self, event: Told) -> None:
        """Count a `usage` event."""
        usage, cost = event.get("usage"), event.get("cost_usd")
        if isinstance(usage, dict):
            for name, count in usage.items():
                if name.endswith("_tokens") and isinstance(count, int):
                    self.tokens[name] = self.tokens.get(name, 0) + count
        known = self.cost_usd
        self.cost_usd = known + cost if known is not None and isinstance(cost, (int, float)) else None


def is_own(call: ToldCall) -> bool:
    """Return True if the agent's own model made the call in a turn: not prefetched, needed, nested, nor a recipe's step."""
    return call.parent is None and call.id.startswith("turn/")


def text(event: Told, name: str) -> str:
    """Return a text field; empty if it isn't a text."""
    value = event.get(name)
    return value if isinstance(value, str) else ""


def strip(event: Told, *without: str) -> Frame:
    """Return the event's own fields without nulls, which neither protocol accepts."""
    dropped = {"run", "seq", "t", *without}
    return {name: value for name, value in event.items() if value is not None and name not in dropped}
