"""The model that the environment names, looked up late."""

import asyncio

import pytest

from flowkit import ConfigurationError, ask, recipe
from flowkit.messages import UserMessage
from flowkit.models.base import ModelRequest
from flowkit.models.default import DefaultModel


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "FLOWKIT_MODEL"):
        monkeypatch.delenv(name, raising=False)


def test_it_is_made_without_a_key_and_says_so_when_it_is_asked() -> None:
    model = DefaultModel()

    async def ask() -> None:
        async with model.stream(ModelRequest(messages=(UserMessage("hello"),))):
            pass

    assert model.name == "gpt-4.1-mini"
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        asyncio.run(ask())


def test_the_environment_names_model_and_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_MODEL", "qwen3")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    model = DefaultModel()

    assert (model.name, model.base_url) == ("qwen3", "http://127.0.0.1:1/v1")
    assert model.source == "chat http://127.0.0.1:1/v1 qwen3"


def test_a_recipe_that_asks_it_is_declared_without_a_key() -> None:
    @recipe
    def answer(question: str) -> str:
        """An answer."""
        return ask(DefaultModel(), "Answer {question}.", question=question)

    assert len(answer.graph()) == 1
