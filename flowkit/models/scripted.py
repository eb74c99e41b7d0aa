"""A model that follows a script, for tests and examples: no network, no randomness.

Each turn is a list of pieces, sent in order: text, thinking, calls, pauses in seconds on the loop's clock, errors, and
a finish reason. Without one, the turn ends normally.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import assert_never

from flowkit.errors import ModelError
from flowkit.messages import FinishReason, Usage
from flowkit.models.base import (
    CallDelta,
    CallDone,
    Delta,
    EndDelta,
    ErrorDelta,
    FinishDelta,
    ModelRequest,
    ProviderDelta,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
    UsageDelta,
)
from flowkit.models.pricing import Price


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    """A call in a script; `arguments` is the JSON text that goes over the wire, `id` is made when it is None."""

    name: str
    arguments: str = "{}"
    id: str | None = None
    pieces: int = 1
    seconds: float = 0.0

    def slowly(self, seconds: float, pieces: int = 4) -> "ScriptedCall":
        """Return the same call, its arguments cut in `pieces` that come within `seconds`."""
        return replace(self, seconds=seconds, pieces=pieces)

    def with_id(self, id: str) -> "ScriptedCall":
        """Return the same call under this id."""
        return replace(self, id=id)


@dataclass(frozen=True, slots=True)
class Cut:
    """End the body here, without a finish reason and an end mark."""


Piece = str | float | Usage | Delta | ScriptedCall | Cut | ModelError
Script = str | Sequence[Piece]
"""One turn: a text, or pieces. A number is a pause in seconds, a `Usage` the tokens used."""


def call(name: str, /, **arguments: object) -> ScriptedCall:
    """Make a call of this tool.

    >>> call("get_order", order_id="ORD-1").arguments
    '{"order_id": "ORD-1"}'
    """
    return ScriptedCall(name, json.dumps(arguments, ensure_ascii=False))


def raw_call(name: str, arguments: str) -> ScriptedCall:
    """Make a call with this text as its arguments, valid JSON or not."""
    return ScriptedCall(name, arguments)


def thinking(text: str) -> ThinkingDelta:
    """Make a piece of thinking."""
    return ThinkingDelta(text)


def finish(reason: FinishReason) -> FinishDelta:
    """Finish the turn for this reason."""
    return FinishDelta(reason)


CUT = Cut()
"""The body breaks off here."""


class ScriptedModel:
    """Stream the scripted turns one after another, or the result of a function of the request.

    `requests` holds every request, in order. A request after the last turn raises `ModelError`. An error among the
    pieces is raised when the request is made if it comes first, else in the middle of the answer.

    >>> model = ScriptedModel([[call("get_order")], "It is on its way."])
    """

    def __init__(
        self,
        turns: Iterable[Script] | Callable[[ModelRequest], Script],
        *,
        name: str = "scripted",
        source: str | None = None,
        price: Price | None = None,
    ) -> None:
        self.name = name
        self.source = source or f"scripted {name}"
        self.price = price
        self.base_url: str | None = None
        self.requests: list[ModelRequest] = []
        self._turns = turns if callable(turns) else list(turns)
        self._calls = 0

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Stream the next turn of the script, as deltas."""
        return self._open(request)

    @asynccontextmanager
    async def _open(self, request: ModelRequest) -> AsyncGenerator[AsyncIterator[Delta], None]:
        self.requests.append(request)
        script = self._next_turn(request)
        pieces: Sequence[Piece] = [script] if isinstance(script, str) else list(script)
        if pieces and isinstance(pieces[0], ModelError):
            raise pieces[0]
        deltas = self._say(pieces)
        try:
            yield deltas
        finally:
            await deltas.aclose()

    def _next_turn(self, request: ModelRequest) -> Script:
        if callable(self._turns):
            return self._turns(request)
        position = len(self.requests) - 1
        if position >= len(self._turns):
            raise ModelError(f"the script has {len(self._turns)} turns, and turn {position + 1} was asked for")
        return self._turns[position]

    async def _say(self, pieces: Sequence[Piece]) -> AsyncGenerator[Delta, None]:
        slot = 0
        has_calls = ended = False
        for piece in pieces:
            match piece:
                case str():
                    yield TextDelta(piece)
                case int() | float():
                    await asyncio.sleep(piece)
                case Usage():
                    yield UsageDelta(piece)
                case ModelError():
                    raise piece
                case Cut():
                    return
                case ScriptedCall():
                    has_calls = True
                    self._calls += 1
                    yield CallDelta(slot, id=piece.id or f"call_{self._calls}", name=piece.name)
                    for fragment in _cut(piece.arguments, piece.pieces):
                        if piece.seconds:
                            await asyncio.sleep(piece.seconds / piece.pieces)
                        yield CallDelta(slot, arguments=fragment)
                    slot += 1
                case FinishDelta() | EndDelta():
                    ended = True
                    yield piece
                case (
                    TextDelta()
                    | ThinkingDelta()
                    | RefusalDelta()
                    | CallDelta()
                    | CallDone()
                    | ProviderDelta()
                    | UsageDelta()
                    | ErrorDelta()
                ):
                    has_calls = has_calls or isinstance(piece, CallDelta)
                    yield piece
                case _:
                    assert_never(piece)
        if not ended:
            yield FinishDelta("tool_calls" if has_calls else "stop")
        yield EndDelta()


def _cut(text: str, pieces: int) -> list[str]:
    size = max(1, -(-len(text) // pieces))
    return [text[start : start + size] for start in range(0, len(text), size)]
