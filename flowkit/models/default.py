"""The model named by the environment, for apps that leave the choice to the person who runs them."""

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from typing import Protocol

from flowkit.models.anthropic import AnthropicModel
from flowkit.models.base import Delta, Model, ModelRequest
from flowkit.models.openai import OpenAIModel
from flowkit.models.pricing import Price, Priced
from flowkit.models.wire.vendors import family_of

NAME_VARIABLE = "FLOWKIT_MODEL"
USUAL_NAME = "gpt-4.1-mini"
USUAL_CLAUDE = "claude-haiku-4-5"
"""Where only a key of Anthropic's is there."""

_OPENAI = ("OPENAI_API_KEY", "OPENAI_BASE_URL")
_ANTHROPIC = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL")


class NamedModel(Priced, Model, Protocol):
    """A model over HTTP, of any interface."""

    async def connect(self) -> None: ...
    async def aclose(self) -> None: ...


def make_model(name: str, base_url: str | None = None) -> NamedModel:
    """Make the model with this name: a Claude over Anthropic's API if its key is set, else an OpenAI-compatible model.

    A given address is taken for an OpenAI-compatible server unless it contains `anthropic`.
    """
    if family_of(name) == "claude" and "/" not in name and base_url is None and _is_set(_ANTHROPIC):
        return AnthropicModel(name)
    if base_url is not None and "anthropic" in base_url:
        return AnthropicModel(name, base_url=base_url)
    return OpenAIModel(name, base_url=base_url)


def has_server() -> bool:
    """Return whether the environment names a key or a server."""
    return _is_set((*_OPENAI, *_ANTHROPIC))


class DefaultModel:
    """The model in `FLOWKIT_MODEL`, or a common one; looked up at the first request.

    Requests go to `OPENAI_BASE_URL` with `OPENAI_API_KEY`; for a Claude, to Anthropic's API if `ANTHROPIC_API_KEY` is
    set. So an app can be imported, listed and tested without a key. A request without a key raises
    `ConfigurationError`.
    """

    @property
    def name(self) -> str:
        usual = USUAL_CLAUDE if _is_set(_ANTHROPIC) and not _is_set(_OPENAI) else USUAL_NAME
        return os.environ.get(NAME_VARIABLE) or usual

    @property
    def source(self) -> str:
        return self._model.source

    @property
    def price(self) -> Price | None:
        return self._model.price

    @property
    def base_url(self) -> str | None:
        return self._model.base_url

    def stream(self, request: ModelRequest) -> AbstractAsyncContextManager[AsyncIterator[Delta]]:
        return self._model.stream(request)

    async def connect(self) -> None:
        """Open the connection that the next request uses; raises `ModelError` where the server can't be reached."""
        await self._model.connect()

    async def aclose(self) -> None:
        """Close the connections, where there are some."""
        if "_model" in vars(self):
            await self._model.aclose()

    @cached_property
    def _model(self) -> NamedModel:
        return make_model(self.name)


def _is_set(variables: Iterable[str]) -> bool:
    return any(os.environ.get(name, "").strip() for name in variables)
