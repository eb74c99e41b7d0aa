"""The model that the environment names, for apps that leave the choice to whoever runs them."""

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import cached_property

from flowkit.models.base import Delta, ModelRequest
from flowkit.models.openai import OpenAIModel
from flowkit.models.pricing import Price

NAME_VARIABLE = "FLOWKIT_MODEL"
USUAL_NAME = "gpt-4.1-mini"


class DefaultModel:
    """`FLOWKIT_MODEL`, or a usual one, at `OPENAI_BASE_URL` with `OPENAI_API_KEY`, looked up when it is first asked.

    So an app can be imported, listed and tested where there is no key. Asking it there raises `ConfigurationError`.
    """

    @property
    def name(self) -> str:
        return os.environ.get(NAME_VARIABLE) or USUAL_NAME

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

    async def aclose(self) -> None:
        """Close the connections, where there are some."""
        if "_model" in vars(self):
            await self._model.aclose()

    @cached_property
    def _model(self) -> OpenAIModel:
        return OpenAIModel(self.name)
