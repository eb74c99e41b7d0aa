"""What the lint tells of a tool."""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, field_validator

from flowkit.cli import main
from flowkit.targets import TARGETS
from flowkit.tools import Tool, tool
from flowkit.tools.lint import Finding


@tool(effect="read")
def search(words: str, limit: Annotated[int, Field(ge=1)] = 10, tags: set[str] | None = None) -> list[str]:
    """Find products.

    Args:
        words: Words to find.
        limit: How many.
        tags: Only with these.
    """
    return [words] * limit


def find(findings: list[Finding], code: str) -> list[Finding]:
    return [finding for finding in findings if finding.code == code]


def test_what_was_lowered_is_told_with_its_place() -> None:
    (lowered,) = find(search.lint(), "lowered")
    assert lowered.path == "/properties/limit"
    assert "null" in lowered.text


def test_rule_that_is_only_described_is_told() -> None:
    assert "uniqueItems" in str(find(search.lint(), "only-described"))


def test_plain_target_changes_nothing() -> None:
    assert {finding.code for finding in search.lint("openai")} == {"size"}


def test_schema_that_cannot_be_strict_is_told() -> None:
    def save(fields: dict[str, Any]) -> None:
        """Save them."""

    (finding,) = find(tool(save).lint(), "not-strict")
    assert finding.path == "/properties/fields"
    assert "any type" in finding.text


def test_asking_for_strict_in_vain_is_an_error() -> None:
    def save(fields: dict[str, Any]) -> None:
        """Save them."""

    first = tool(strict=True)(save).lint()[0]
    assert (first.level, first.code) == ("error", "strict-refused")


def test_default_of_a_nullable_parameter_is_told() -> None:
    def greet(name: str | None = "you") -> str:
        """Greet."""
        return name or ""

    (finding,) = find(tool(greet).lint(), "default-out-of-reach")
    assert finding.path == "/properties/name"


def test_undeclared_effect_says_what_it_costs() -> None:
    def look(word: str) -> str:
        """Look."""
        return word

    (finding,) = find(tool(look).lint(), "undeclared-effect")
    assert "counts as a write" in finding.text
    assert find(tool(effect="write")(look).lint(), "undeclared-effect") == []


def test_missing_words_for_the_model_are_told() -> None:
    def look(word: str) -> str:
        return word

    assert [finding.path for finding in find(tool(look).lint(), "no-description")] == ["", "/properties/word"]


def test_name_that_cannot_travel_is_told() -> None:
    (finding,) = find(tool(name="shop.search")(search.function).lint(), "alias")
    assert finding.text == "travels as 'shop_search'"


def test_check_that_no_schema_tells_is_told() -> None:
    class Stay(BaseModel):
        nights: int

        @field_validator("nights")
        @classmethod
        def even(cls, value: int) -> int:
            return value

    @dataclass
    class Guest:
        name: str

        def __post_init__(self) -> None: ...

    def book(stay: Stay, others: list[Stay], guest: Guest, paper: Path, day: date = date.min) -> None:
        """Book."""

    findings = find(tool(book).lint("openai"), "own-check")
    assert [finding.path for finding in findings] == ["/properties/stay", "/properties/others", "/properties/guest"]
    assert findings[0].text.startswith("checked by Stay.even too")
    assert findings[2].text.startswith("checked by Guest.__post_init__ too")


def test_what_takes_anything_is_told() -> None:
    def wrapper(*args, **kwargs):  # pyright: ignore  # as a decorator without functools.wraps leaves it
        """Call another."""

    findings = find(tool(wrapper).lint("openai"), "untyped")  # pyright: ignore
    assert [(finding.level, finding.path) for finding in findings] == [("warning", "/additionalProperties")]

    def keep(value: Any, words: str = "") -> None:
        """Keep."""

    assert [finding.path for finding in find(tool(keep).lint(), "untyped")] == ["/properties/value"]


def test_size_grows_with_the_schema() -> None:
    def size(target: str) -> int:
        return int(find(search.lint(target), "size")[0].text.split()[1])

    assert 20 < size("openai") < 200
    assert all(size(target) > 0 for target in TARGETS)


def test_reference_that_a_strict_target_cannot_carry_is_told() -> None:
    def save(name: str, **fields: int) -> None:
        """Save them."""

    findings = tool(accepts_references=True)(save).lint()
    assert [finding.path for finding in find(findings, "no-references")] == ["/additionalProperties"]
    assert find(tool(save).lint(), "no-references") == []


def test_worst_stands_first() -> None:
    def save(fields: dict[str, Any], name: str | None = "x") -> None: ...

    levels = [finding.level for finding in tool(strict=True)(save).lint()]
    assert levels == sorted(levels, key=("error", "warning", "info").index)


def test_tool_of_a_schema_is_linted_too() -> None:
    made = Tool.from_schema(
        "t", "T.", {"type": "object", "properties": {"a": {"format": "uri", "type": "string"}}}, dict
    )
    assert find(made.lint(), "only-described")


def test_finding_reads_as_a_line() -> None:
    assert str(Finding("warning", "alias", "x", "/a")) == "warning alias at /a: x"
    assert str(Finding("info", "size", "y")) == "info size: y"


def run_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[object, str]:
    """Exit status and output of `flowkit tools …`."""
    monkeypatch.setattr("sys.argv", ["flowkit", "tools", *words])
    with pytest.raises(SystemExit) as exited:
        main()
    return exited.value.code, "".join(capsys.readouterr())


APP = """
from flowkit import tool

@tool(strict={strict})
def save(fields: dict) -> None:
    "Save them."
"""


def test_command_tells_the_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP.format(strict=None))
    code, said = run_command(monkeypatch, capsys, str(app), "--lint")
    assert code == 0
    assert "warning not-strict at /properties/fields" in said
    code, said = run_command(monkeypatch, capsys, str(app), "--lint", "--json", "--target", "openai")
    assert {row["code"] for row in json.loads(said)} == {"undeclared-effect", "no-description", "size"}


def test_command_fails_for_an_error_and_for_an_unknown_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP.format(strict=True))
    assert run_command(monkeypatch, capsys, str(app), "--lint")[0] == 1
    code, said = run_command(monkeypatch, capsys, str(app), "--lint", "--target", "nobody")
    assert code == 2
    assert "the target is 'nobody', expected one of openai" in said
