"""The wheel in an environment of its own: what it carries, and that an app made by it is served."""

import importlib.util
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ("index.html", "page.js", "page.css")

pytestmark = pytest.mark.slow


def build_wheel(folder: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        pytest.skip("pip isn't installed in this environment")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Path:
    """Unpack the wheel where an environment keeps packages, over those of this one; the environment's Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python3.*/site-packages")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (site / "others.pth").write_text("\n".join(packages))
    return folder / "bin" / "python"


def test_app_made_by_the_wheel_is_served_with_the_committed_page(tmp_path: Path) -> None:
    python = install(build_wheel(tmp_path / "wheels"), tmp_path / "env")
    work = tmp_path / "work"
    work.mkdir()
    where = subprocess.run(
        [str(python), "-c", "import flowkit; print(flowkit.__file__)"],
        cwd=work,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.startswith(str(tmp_path / "env"))
    subprocess.run([str(python), "-m", "flowkit", "new", "mine"], cwd=work, check=True, capture_output=True)
    command = [str(python), "-m", "flowkit", "serve", "mine/shop.py", "--port", "0", "--journal", "runs.sqlite3"]
    with subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            link = next(line for line in process.stdout if line.startswith("http")).strip()
            origin = link.split("/#")[0]
            for file in PAGE:
                path = "" if file == "index.html" else file
                with urllib.request.urlopen(f"{origin}/{path}", timeout=30) as answer:
                    committed = (ROOT / "flowkit" / "web" / "page" / file).read_bytes()
                    assert answer.read() == committed, file
        finally:
            process.terminate()
            process.wait(30)
