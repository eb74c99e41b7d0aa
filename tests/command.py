"""Running `flowkit …` in this process, for tests."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowkit.cli import main

ROOT = Path(__file__).parent.parent
SHOP = str(ROOT / "recipes" / "shop.py")


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


def make_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """A function that runs `flowkit …` in this folder, with a journal of its own and a key that is none."""
    monkeypatch.chdir(folder)
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "FLOWKIT_MODEL", "FLOWKIT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("FLOWKIT_JOURNAL", str(folder / "journal.sqlite3"))

    def run(*words: str, stdin: str = "") -> Ended:
        monkeypatch.setattr("sys.argv", ["flowkit", *words])
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as exited:
            main()
        code = exited.value.code
        assert isinstance(code, int)
        assert "Traceback" not in err.getvalue()
        return Ended(code, out.getvalue(), err.getvalue())

    return run
