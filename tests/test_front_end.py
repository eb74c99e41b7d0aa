"""What is committed of the front end: its types, its built files, its size, and its reading of real logs."""

import gzip
import json
import os
from pathlib import Path

import pytest

from scripts import web_types
from tests.node import JS, need_packages, run_node
from tests.test_docs import find_blocks
from tests.web_runs import write_logs

PAGE = JS.parent / "flowkit" / "web" / "page"


def test_types_are_those_of_the_event_classes() -> None:
    written = web_types.TARGET.read_text(encoding="utf-8")

    assert written == web_types.write_types(), "run python scripts/web_types.py and npm run build"


def test_every_event_class_has_its_interface() -> None:
    text = web_types.write_types()

    assert 'type: "call.in_doubt"' in text
    assert "  age_s: number | null\n" in text
    assert '  waiting_for: "calls" | "approval" | "resource" | "slot"\n' in text


@pytest.mark.slow
def test_parser_and_fold_keep_their_rules_on_logs_of_real_runs(tmp_path: Path) -> None:
    write_logs(tmp_path)

    told = run_node("--test", *sorted(JS.glob("test/*.test.mjs")), env={**os.environ, "FLOWKIT_LOGS": str(tmp_path)})

    assert "fail 0" in told


@pytest.mark.slow
def test_built_files_are_those_that_their_sources_give(tmp_path: Path) -> None:
    need_packages()
    run_node("build.mjs", tmp_path / "dist", tmp_path / "page")

    for built, committed in ((tmp_path / "dist", JS / "dist"), (tmp_path / "page", PAGE)):
        names = sorted(path.relative_to(built) for path in built.rglob("*") if path.is_file())
        assert names == sorted(path.relative_to(committed) for path in committed.rglob("*") if path.is_file())
        for name in names:
            assert (built / name).read_bytes() == (committed / name).read_bytes(), f"{name}: run npm run build in js/"


@pytest.mark.slow
def test_sources_have_no_type_errors() -> None:
    need_packages()

    run_node("node_modules/typescript/bin/tsc", "-p", "tsconfig.json")


@pytest.mark.slow
def test_example_app_has_no_type_errors() -> None:
    need_packages("example")

    run_node("node_modules/typescript/bin/tsc", "-p", "example/tsconfig.json")


@pytest.mark.slow
def test_code_in_the_how_to_has_no_type_errors(tmp_path: Path) -> None:
    need_packages("example")
    blocks = [block for block in find_blocks() if block.page.name == "react.md" and block.language in ("ts", "tsx")]
    for number, block in enumerate(blocks):
        (tmp_path / f"block{number}.{block.language}").write_text(block.text, encoding="utf-8")
    modules = JS / "example" / "node_modules"
    types = {"react": "@types/react", "react/jsx-runtime": "@types/react/jsx-runtime"}
    ours = {"flowkit-agents": "index.d.ts", "flowkit-agents/core": "core/index.d.ts"}
    paths = {name: [str(modules / path)] for name, path in types.items()}
    paths |= {name: [str(JS / "dist" / path)] for name, path in ours.items()}
    settings = {"extends": str(JS / "example" / "tsconfig.json"), "compilerOptions": {"paths": paths}, "include": ["."]}
    (tmp_path / "tsconfig.json").write_text(json.dumps(settings))

    run_node("node_modules/typescript/bin/tsc", "-p", tmp_path)

    assert blocks


@pytest.mark.slow
def test_hook_stays_small() -> None:
    need_packages()

    assert json.loads(run_node("size.mjs"))["hook"] <= 4_000


@pytest.mark.parametrize(("name", "most"), [("page.js", 25_000), ("page.css", 4_000)])
def test_page_stays_small(name: str, most: int) -> None:
    assert len(gzip.compress((PAGE / name).read_bytes(), 9)) <= most


def test_fold_takes_its_events_in_time() -> None:
    need_packages()

    # A tenth of what is wanted of a machine with nothing else to do: `npm run bench` says what it is here.
    assert min(json.loads(run_node("bench.mjs")).values()) >= 10_000
