"""Strict type checkers accept what users write, and refuse their mistakes: pyright and mypy over `tests/typing/`."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent / "typing"
ROOT = FOLDER.parent.parent
MARK = "# error"

Checker = Callable[..., dict[tuple[str, int], str]]


def run_pyright(*paths: Path) -> dict[tuple[str, int], str]:
    """The errors by file name and line, counted from 1."""
    names = {str(path) for path in paths}
    return {
        (Path(item["file"]).name, item["range"]["start"]["line"] + 1): item["message"]
        for item in ask_pyright()
        if item["file"] in names and item["severity"] == "error"
    }


@cache
def ask_pyright() -> list[dict[str, Any]]:
    """What it says of the whole folder."""
    config = FOLDER / "pyrightconfig.json"
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--project", str(config), "--outputjson"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    return json.loads(done.stdout)["generalDiagnostics"]


def run_mypy(*paths: Path) -> dict[tuple[str, int], str]:
    """The same by mypy."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(FOLDER / "mypy.ini"), "--output", "json", *map(str, paths)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode in (0, 1), done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {(Path(item["file"]).name, item["line"]): item["message"] for item in found if item["severity"] == "error"}


def marked_lines(*paths: Path) -> set[tuple[str, int]]:
    return {
        (path.name, number)
        for path in paths
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if line.endswith(MARK)
    }


@pytest.mark.slow
@pytest.mark.parametrize("check", [run_pyright, run_mypy])
def test_checkers_accept_what_users_write(check: Checker) -> None:
    assert check(*sorted((FOLDER / "accepted").glob("*.py"))) == {}


@pytest.mark.slow
@pytest.mark.parametrize("check", [run_pyright, run_mypy])
def test_checkers_refuse_every_marked_line_and_no_other(check: Checker) -> None:
    paths = sorted((FOLDER / "rejected").glob("*.py"))
    assert set(check(*paths)) == marked_lines(*paths)
