"""Combine several models: fall back to the next one on failure, or pick one by a rule.

What a server gave for itself (signatures, encrypted thinking) may go back only to the model that gave it. So each
answer carries a mark of who gave it, in the message's own provider data, where it outlives the process; a later request
puts that model's name on the data again before it is sent.
"""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from inspect import isawaitable

from flowkit.errors import ConfigurationError, ModelError, StreamTruncated
from flowkit.messages import AssistantMessage, Message, ProviderData
from flowkit.models.base import Delta, ErrorDelta, Model, ModelRequest, ProviderDelta, UsageDelta
from flowkit.models.pricing import get_cost, load_prices

ANSWERED_BY = "answered_by"
"""The kind of the mark; its data is the `source` of the model that answered."""

logger = logging.getLogger("flowkit.models")

Rule = Callable[[tuple[Message, ...], object], Model | Awaitable[Model]]
"""Picks a model for a conversation; the second argument is the run's `data`."""


class FallbackModel:
    """Call the first model; if it fails before its first output, call the next.

    If an answer breaks off later, the attempt fails, and the next attempt starts with the next model. If all fail, the
    error names each.
    """

    def __init__(self, *models: Model) -> None:
        if not models:
            raise ConfigurationError("a FallbackModel needs at least one model")
        self.models = models
        self.name = " or ".join(model.name for model in models)
        self.source = f"fallback {self.name}"

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Stream the answer of the first model that has one."""
        return self._open(request)

    @asynccontextmanager
    async def _open(self, request: ModelRequest) -> AsyncGenerator[AsyncGenerator[Delta, None], None]:
        first = (request.attempt - 1) % len(self.models)
        failures: list[tuple[Model, ModelError]] = []
        for model in (*self.models[first:], *self.models[:first]):
            async with AsyncExitStack() as stack:
                try:
                    deltas = await stack.enter_async_context(model.stream(restore_sources(request, self.source)))
                    begun = await anext(deltas, None)
                except ModelError as error:
                    _tell_failed(model, error, failures)
                    continue
                if begun is None:
                    _tell_failed(model, StreamTruncated("the answer ended before it began", retryable=True), failures)
                    continue
                if isinstance(begun, ErrorDelta):
                    _tell_failed(model, begun.error, failures)
                    continue
                marked = _mark(model, begun, deltas)
                try:
                    yield marked
                finally:
                    await marked.aclose()
                return
        raise _join(failures)


def _tell_failed(model: Model, error: ModelError, failures: list[tuple[Model, ModelError]]) -> None:
    """Log that a model gave no answer, since the next model's success would hide it."""
    failures.append((model, error))
    logger.warning("%s gave no answer: %s", model.name, error)


class Router:
    """Send each request to the model that `rule` picks by its messages and the run's data.

    `models` lists the models that the rule can pick; other models are refused. A limit on cost requires it.

    >>> from flowkit import ScriptedModel
    >>> cheap, strong = ScriptedModel([], name="cheap"), ScriptedModel([], name="strong")
    >>> router = Router(lambda messages, data: strong if data == "vip" else cheap, cheap, strong)
    >>> [model.name for model in router.models]
    ['cheap', 'strong']
    """

    def __init__(self, rule: Rule, *models: Model, name: str = "router") -> None:
        self.rule = rule
        self.models = models
        self.name = name
        self.source = f"router {name} {' '.join(model.name for model in models)}".rstrip()

    async def choose(self, request: ModelRequest) -> Model:
        """Choose the model that would answer this request."""
        chosen = self.rule(request.messages, request.data)
        model = await chosen if isawaitable(chosen) else chosen
        if self.models and model not in self.models:
            raise ConfigurationError(f"{self.name} picked {model.name!r}, which isn't one of its models")
        return model

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        """Stream the answer of the model that the rule picks."""
        return self._open(request)

    @asynccontextmanager
    async def _open(self, request: ModelRequest) -> AsyncGenerator[AsyncGenerator[Delta, None], None]:
        model = await self.choose(request)
        async with model.stream(restore_sources(request, self.source)) as deltas:
            marked = _mark(model, None, deltas)
            try:
                yield marked
            finally:
                await marked.aclose()


def restore_sources(request: ModelRequest, source: str) -> ModelRequest:
    """Restore the name of the model that answered through `source`, in the messages of a request."""
    return replace(request, messages=tuple(_restore(message, source) for message in request.messages))


def answered_by(message: AssistantMessage) -> str | None:
    """Return the source of the model that answered, if a router or a fallback stood before it."""
    marks = [item.data for item in message.provider if item.kind == ANSWERED_BY and isinstance(item.data, str)]
    return marks[-1] if marks else None


def name_answerer(model: Model, message: AssistantMessage) -> str:
    """Name the model that answered: `model` itself, or the one behind it that did."""
    source = answered_by(message)
    found = None if source is None else _find(model, source)
    return model.name if source is None else source if found is None else found.name


def _find(model: Model, source: str) -> Model | None:
    if not isinstance(model, (FallbackModel, Router)):
        return model if model.source == source else None
    return next((found for inner in model.models if (found := _find(inner, source)) is not None), None)


async def _mark(model: Model, begun: Delta | None, deltas: AsyncIterator[Delta]) -> AsyncGenerator[Delta, None]:
    """Mark the deltas with the answering model and its cost, which only this layer knows."""
    yield ProviderDelta(ANSWERED_BY, model.source)
    if begun is not None:
        yield await _priced(model, begun) if isinstance(begun, UsageDelta) else begun
    async for delta in deltas:
        yield await _priced(model, delta) if isinstance(delta, UsageDelta) else delta


async def _priced(model: Model, delta: UsageDelta) -> Delta:
    await load_prices(model)
    return UsageDelta(replace(delta.usage, cost_usd=get_cost(model, delta.usage)))


def _restore(message: Message, source: str) -> Message:
    if not isinstance(message, AssistantMessage):
        return message
    # The outermost mark stands first; those of routers behind this one are data like any other, and theirs to read.
    marks = [item for item in message.provider if item.source == source and item.kind == ANSWERED_BY]
    if not marks:
        return message
    origin = str(marks[0].data)
    return replace(
        message,
        provider=tuple(_renamed(item, source, origin) for item in message.provider if item is not marks[0]),
        calls=tuple(
            call if call.provider is None else replace(call, provider=_renamed(call.provider, source, origin))
            for call in message.calls
        ),
    )


def _renamed(item: ProviderData, source: str, origin: str) -> ProviderData:
    return replace(item, source=origin) if item.source == source else item


def _join(failures: Sequence[tuple[Model, ModelError]]) -> ModelError:
    """Combine the errors. A retry can start as soon as the first model allows it; immediately if one named no time."""
    if len(failures) == 1:
        return failures[0][1]
    told = "; ".join(f"{model.name}: {error}" for model, error in failures)
    waits = [error.retry_after_s for _, error in failures if error.retryable]
    return ModelError(
        f"none of {len(failures)} models answered: {told}",
        status=failures[-1][1].status,
        retryable=any(error.retryable for _, error in failures),
        retry_after_s=None if None in waits else min((wait for wait in waits if wait is not None), default=None),
        max_retries=max(error.max_retries for _, error in failures),
    )
