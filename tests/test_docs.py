"""Every code block of the README and the docs runs, each on its own; every link between pages leads somewhere."""

import ast
import asyncio
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from inspect import ismodule
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

import flowkit
import flowkit.testing
from flowkit.cache import open_default_cache
from flowkit.cli import main
from flowkit.errors import ConfigurationError
from flowkit.models.offline.embeddings import SentenceEmbedder
from flowkit.pools.opened_pools import close_pools
from tests.extra_packages import NEEDS_ALL
from tests.server import ScriptedServer, chat

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("README*.md"), *(ROOT / "docs").rglob("*.md")])
SET_UP = "python3 -m venv .venv && .venv/bin/pip install -e "
"""The README's two first commands: they make an environment, so the build runs the second, and a person the first."""

FENCE = re.compile(r"^(?P<indent> *)```(?P<head>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is where it begins, `file` what a reader saves it as."""

    page: Path
    line: int
    language: str
    text: str
    file: str | None = None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def find_blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            indent = len(match["indent"])
            body = "".join(line[indent:] for line in match["body"].splitlines(keepends=True))
            line = text.count("\n", 0, match.start()) + 1
            title = re.search(r'title="([^"]+)"', match["head"])
            language = match["head"].split()[0] if match["head"].strip() else ""
            yield Block(page, line, language, body, title[1] if title else None)


FIRST_PAGES = ("README.md", "README.ko.md", "tutorial.md", "run-to-test.md")


def blocks_of(language: str) -> list[Block]:
    return [block for block in find_blocks() if block.language == language]


SLOW = re.compile(
    # packages of the extra `test-all`
    r"^\s*(?:from|import) (?:opentelemetry\.exporter|pydantic_ai|langchain_core|agents|distributed|anthropic)\b"
    # every page is embedded; processes of a pool are started
    r"|recipes/knowledge\.py|\bpool=\"|^\$ flowkit run primes\.py",
    re.MULTILINE,
)


def runs_of(language: str) -> list[Any]:
    """The blocks as parameters; what takes its time, or needs more than the extra `test`, is marked.

    Of the pages with commands, a quick run takes those that a newcomer reads first.
    """
    return [
        pytest.param(block, id=str(block), marks=[pytest.mark.slow] if is_slow(block) else [])
        for block in blocks_of(language)
    ]


def is_slow(block: Block) -> bool:
    is_later = block.language == "console" and block.page.name not in FIRST_PAGES
    return is_later or SLOW.search(block.text) is not None


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    """A server that says the same to everybody."""
    with ScriptedServer([chat("It is on its way.")], cycle=True) as running:
        yield running


@pytest.fixture
def surroundings(server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the apps in it, and a model to ask."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes", ignore=shutil.ignore_patterns("*.sqlite3*", "__pycache__"))
    shutil.copytree(ROOT / "docs", tmp_path / "docs")  # what the company search looks through
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "any")
    monkeypatch.setenv("FLOWKIT_JOURNAL", str(tmp_path / "journal.sqlite3"))
    monkeypatch.setenv("NO_COLOR", "1")
    return tmp_path


@pytest.mark.parametrize("block", runs_of("python"))
def test_python_block_runs(block: Block, surroundings: Path) -> None:
    # A tool that runs in another process is found there in its file.
    (surroundings / "page.py").write_text(block.text, encoding="utf-8")
    code = compile(block.text, str(surroundings / "page.py"), "exec")
    out = io.StringIO()
    with redirect_stdout(out):
        exec(code, {"__name__": "__main__", "__file__": str(surroundings / "page.py")})
    # As the end of the process would.
    asyncio.run(open_default_cache().close())
    close_pools()
    expected = read_expected_output(block.text)
    if expected:
        assert [line.rstrip() for line in out.getvalue().splitlines()] == expected


@pytest.mark.parametrize("block", runs_of("console"))
def test_console_block_runs(block: Block, surroundings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "recipes/knowledge.py" in block.text:
        skip_without_embeddings()
    for other in find_blocks():
        if other.page == block.page and other.file is not None:
            (surroundings / other.file).write_text(other.text, encoding="utf-8")
    for command in read_commands(block.text):
        if command.startswith(SET_UP):
            continue
        status, printed = run_command(command, monkeypatch)
        close_pools()
        assert status == 0, f"{command}\n{printed}"


@pytest.mark.parametrize("block", [*blocks_of("yaml"), *blocks_of("json")], ids=str)
def test_data_block_can_be_read(block: Block) -> None:
    import yaml

    assert yaml.safe_load(block.text) is not None


def test_every_block_says_its_language() -> None:
    known = {"python", "console", "yaml", "json", "javascript", "ts", "tsx", "text", "toml"}
    assert [str(block) for block in find_blocks() if block.language not in known] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for match in LINK.finditer(text):
        target = match["target"]
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in find_anchors(linked), f"{page.name} links to {target}"


@pytest.mark.slow
def test_site_is_built_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason=NEEDS_ALL)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    assert (tmp_path / "tutorial" / "index.html").exists()


def skip_without_embeddings() -> None:
    """The company search needs the extra `local`, and its tokenizer here or on the package index."""
    try:
        SentenceEmbedder()
    except ConfigurationError as error:
        pytest.skip(str(error))


def test_reference_has_every_public_name() -> None:
    shown = re.findall(r"^::: (.+)$", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"), re.MULTILINE)
    there = {target.rpartition(".")[2] for target in shown}
    for module in filter(ismodule, map(resolve_name, shown)):
        there |= set(vars(module))

    assert {*flowkit.__all__, *flowkit.testing.__all__} - there == set()


def read_expected_output(text: str) -> list[str]:
    """What the comments `#> …` say that the block prints."""
    return [line.strip().removeprefix("#>").strip() for line in text.splitlines() if line.strip().startswith("#>")]


def read_commands(text: str) -> list[str]:
    """The commands of a console block: the lines after `$ `, or all lines when none has it; the rest is output."""
    lines = text.replace("\\\n", " ").splitlines()
    prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return prompted or [line for line in lines if line.strip() and not line.startswith("#")]


def run_command(command: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, str]:
    """Exit status and output of a `flowkit …` command, run in this process."""
    words = shlex.split(command, comments=True)
    program = Path(words[0]).name
    assert program == "flowkit", f"a console block may only call flowkit: {command}"
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed), pytest.raises(SystemExit) as exited:
        main()
    return exited.value.code, printed.getvalue()


def find_anchors(page: Path) -> set[str]:
    """The ids that headings get."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_python_blocks_are_whole_programs() -> None:
    """A reader can copy one block and run it: what it uses, it imports."""
    for block in blocks_of("python"):
        tree = ast.parse(block.text)
        assert any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.walk(tree)), str(block)
