"""A model whose answers are timed as they pass.

What is timed is what arrives here, piece by piece: the request's way, the server's work and the answer's way back. The
assembler says when a call has begun and when its arguments are complete, as it does for a run.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from flowkit.assemble import Assembler
from flowkit.assemble.parts import CallOpened, CallReady, SealedCall
from flowkit.models.base import (
    CallDelta,
    Delta,
    Model,
    ModelRequest,
    RefusalDelta,
    TextDelta,
    ThinkingDelta,
)
from flowkit.models.pricing import ManyModels, Price, Priced

Now = Callable[[], float]


@dataclass(slots=True)
class TimedAnswer:
    """One answer; `opened_s` and `complete_s` are by the position of a call in it, all on one clock."""

    asked_s: float
    turn: int
    first_token_s: float | None = None
    opened_s: dict[int, float] = field(default_factory=dict[int, float])
    complete_s: dict[int, float] = field(default_factory=dict[int, float])


class TimedModel:
    """The same model; `answers` has the times of each answer, attempts that broke included."""

    def __init__(self, model: Model, now: Now) -> None:
        self.model = model
        self.answers: list[TimedAnswer] = []
        self._now = now

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def source(self) -> str:
        return self.model.source

    @property
    def price(self) -> Price | None:
        return self.model.price if isinstance(self.model, Priced) else None

    @property
    def base_url(self) -> str | None:
        return self.model.base_url if isinstance(self.model, Priced) else None

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Stream the model's answer, timed as it passes."""
        return self._open(request)

    @asynccontextmanager
    async def _open(self, request: ModelRequest) -> AsyncGenerator[AsyncGenerator[Delta, None], None]:
        answer = TimedAnswer(self._now(), request.turn)
        self.answers.append(answer)
        assembler = Assembler(known_names=[spec.name for spec in request.tools])
        async with self.model.stream(request) as deltas:
            timed = self._time(deltas, answer, assembler)
            try:
                yield timed
            finally:
                await timed.aclose()

    async def _time(
        self, deltas: AsyncIterator[Delta], answer: TimedAnswer, assembler: Assembler
    ) -> AsyncGenerator[Delta, None]:
        begun_s: dict[int | str, float] = {}  # by slot or id: a call's name, which opens it, may come later
        async for delta in deltas:
            at_s = self._now()
            if isinstance(delta, CallDelta) and not delta.choice:
                key = delta.id if delta.slot is None else delta.slot
                if key is not None:
                    begun_s.setdefault(key, at_s)
            if answer.first_token_s is None and isinstance(delta, (TextDelta, ThinkingDelta, RefusalDelta, CallDelta)):
                answer.first_token_s = at_s
            for part in assembler.feed(delta):
                match part:
                    case CallOpened(index=index):
                        answer.opened_s[index] = [*begun_s.values(), *[at_s] * (index + 1)][index]
                    case CallReady(index=index) | SealedCall(index=index):
                        answer.complete_s.setdefault(index, at_s)
                    case _:
                        pass
            yield delta


class TimedModels(TimedModel):
    """A router or a fallback, whose members tell the price."""

    @property
    def models(self) -> tuple[Model, ...]:
        """The models behind it."""
        return self.model.models if isinstance(self.model, ManyModels) else ()


def time_model(model: Model, now: Now) -> TimedModel:
    """Wrap a model for one run."""
    return TimedModels(model, now) if isinstance(model, ManyModels) else TimedModel(model, now)
