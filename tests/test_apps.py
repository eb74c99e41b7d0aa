"""What a file offers as an app."""

from pathlib import Path
from typing import Literal
from unicodedata import normalize

import pytest

from flowkit.apps import load_app
from flowkit.cli.options import read_pairs

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


@pytest.mark.parametrize(("on_disk", "typed"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_a_file_and_a_name_in_korean_are_found_composed_or_not(
    tmp_path: Path, on_disk: Literal["NFC", "NFD"], typed: Literal["NFC", "NFD"]
) -> None:
    program = "from flowkit import recipe\n\n@recipe\ndef 환영() -> str:\n    return '안녕'\n"
    (tmp_path / normalize(on_disk, "회사.py")).write_text(program, encoding="utf-8")
    assert load_app(normalize(typed, f"{tmp_path}/회사.py:환영")).get_recipe().name == "환영"


def test_the_name_of_an_input_is_composed_and_its_value_left_as_it_is() -> None:
    decomposed = normalize("NFD", "이름=이민수")
    assert read_pairs([decomposed], "input") == {"이름": decomposed.partition("=")[2]}
