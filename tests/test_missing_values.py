"""A step can't take a value that may be missing: said when the recipe is made, in Python and in YAML."""

from pathlib import Path
from typing import Any

import pytest

from flowkit import DefinitionError, load_recipe, recipe, step, tool, when


@tool(effect="read")
def say(text: str) -> str:
    """Say it."""
    return text


@tool(effect="read")
def say_maybe(text: str | None = None) -> str:
    """Say it, or nothing."""
    return text or "nothing"


HEAD = "recipe: join\ninputs: {flag: {type: boolean, default: false}}\nsteps:\n"
CONDITION = '{value: "${{ inputs.flag }}", is_true: true}'
WHEN = f"  b:\n    when: {CONDITION}\n    then: {{tool: say, with: {{text: b}}}}\n"
OPTIONAL = "  b: {tool: say, with: {text: b}, optional: true}\n"
USE = '  c: {tool: TOOL, with: {text: "${{ steps.b }}"}}\n'


def load(tmp_path: Path, text: str) -> object:
    file = tmp_path / "join.yaml"
    file.write_text(HEAD + text, encoding="utf-8")
    return load_recipe(file, tools=[say, say_maybe])


@pytest.mark.parametrize(("branch", "said"), [(WHEN, "give 'otherwise'"), (OPTIONAL, "give a fallback")])
def test_file_says_where_a_missing_value_cannot_go(tmp_path: Path, branch: str, said: str) -> None:
    with pytest.raises(DefinitionError, match=said) as raised:
        load(tmp_path, branch + USE.replace("TOOL", "say"))
    assert "join.yaml:" in str(raised.value)
    load(tmp_path, branch + USE.replace("TOOL", "say_maybe"))


def test_a_branch_on_both_sides_is_never_missing(tmp_path: Path) -> None:
    load(tmp_path, WHEN + "    otherwise: {tool: say, with: {text: c}}\n" + USE.replace("TOOL", "say"))


def test_recipe_in_python_says_so_too_and_a_condition_on_the_value_is_enough() -> None:
    with pytest.raises(DefinitionError, match="takes no null"):

        @recipe
        def broken(flag: bool) -> object:
            """Break."""
            maybe: Any = when(is_true(flag), lambda: step(say, "b"))
            return step(say, maybe)

    @recipe
    def careful(flag: bool) -> object:
        """Look first."""
        maybe: Any = when(is_true(flag), lambda: step(say, "b"))
        return when(maybe == "b", lambda: step(say, maybe))

    assert careful.options(cache=False).run_sync(True).output == "b"
    assert careful.options(cache=False).run_sync(False).output is None


def is_true(flag: Any) -> Any:
    """The condition that an input holds; a `Ref` compares to one."""
    return flag == True  # noqa: E712
