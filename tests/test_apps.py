"""What a file offers as an app."""

from pathlib import Path

import pytest

from flowkit.apps import load_app

MODELS = """
from flowkit import DefaultModel, ScriptedModel, ask, recipe

small = DefaultModel()
large = ScriptedModel(["Hello."], name="large-1")

@recipe
def greet(name: str) -> str:
    return ask(large, "Greet {name}.", name=name)
"""


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "models.py").write_text(MODELS)
    return tmp_path / "models.py"


@pytest.mark.parametrize("name", ["small", "large", "large-1"])
def test_recipe_file_may_ask_the_models_of_its_tools_file(models: Path, name: str) -> None:
    recipe = models.with_name("one.yaml")
    recipe.write_text(f"recipe: one\nsteps:\n  said: {{ask: {name}, prompt: Hello}}\n")

    assert list(load_app(str(recipe), tools=models).recipes) == ["one"]


def test_written_recipe_is_read_with_the_models_of_the_file_it_came_from(models: Path) -> None:
    written = models.with_name("written.yaml")
    written.write_text(load_app(str(models)).recipes["greet"].to_yaml())

    assert load_app(str(written), tools=models).recipes["greet"].run_sync(name="Mina").output == "Hello."
