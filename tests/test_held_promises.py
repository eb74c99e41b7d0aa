"""The docs say of their promises which tests hold them; those tests are there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HELD = re.compile(r"<!-- held by\n(.*?)-->", re.DOTALL)
PROMISES = (
    "docs/explanation/crashes.md",
    "docs/explanation/faults.md",
    "docs/explanation/security.md",
    "docs/how-to/caching.md",
    "docs/how-to/from-a-streaming-class.md",
    "docs/how-to/web-client.md",
)
"""Pages that promise something in each of their sections."""
WITHOUT = ("What isn't guaranteed", "What someone with access to the folder can still do")
"""Sections that say what isn't promised."""


@cache
def names_of(path: str) -> frozenset[str]:
    """The functions of a file of tests."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def find_named(text: str) -> list[str]:
    return [line for block in HELD.findall(text) for line in block.split()]


@pytest.mark.parametrize("page", sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")))
def test_each_test_that_a_page_names_is_there(page: str) -> None:
    named = find_named((ROOT / page).read_text(encoding="utf-8"))
    missing = [name for name in named if name.partition("::")[2] not in names_of(name.partition("::")[0])]
    assert not missing


@pytest.mark.parametrize("page", PROMISES)
def test_each_section_of_a_page_of_promises_names_a_test(page: str) -> None:
    head, *sections = (ROOT / page).read_text(encoding="utf-8").split("\n## ")
    unheld = [part.splitlines()[0] for part in sections if not find_named(part) and not part.startswith(WITHOUT)]
    assert not unheld
    assert head.startswith("# ")
    assert sections or find_named(head), "a page of one section names its tests, too"
