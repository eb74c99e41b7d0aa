"""`flowkit serve tests/web_app.py` as a process, and Debian's Chromium to look at it."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from tests.extra_packages import NEEDS_ALL

pytest.importorskip("playwright", reason=NEEDS_ALL)

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

ROOT = Path(__file__).parent.parent
TOKEN = "a-token-for-tests-alone"
WAIT_MS = 60_000
"""How long a page may take for anything on a machine that has other work."""
Open = Callable[..., Page]


@dataclass
class Served:
    """A running server: its link with the token, and what starts another one on its journal."""

    link: str
    process: subprocess.Popen[str]

    @property
    def origin(self) -> str:
        return self.link.split("/#")[0]

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def serve(
    folder: Path, app: Path = ROOT / "tests" / "web_app.py", port: int = 0, *, data: bool = True
) -> Generator[Served]:
    """Serve the app from this folder, which keeps its journal and data, if the app takes any."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "recipes")]),
        "FLOWKIT_CACHE_DIR": str(folder / "cache"),
        "FLOWKIT_TOKEN": TOKEN,
    }
    command = [sys.executable, "-c", "from flowkit.cli import main; main()", "serve", str(app), "--port", str(port)]
    command += ["--user", "c-1", "--journal", str(folder / "journal.sqlite3")]
    command += ["--data", f"database={folder}/shop.sqlite3"] if data else []
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Served(_read_link(process.stdout), process)
        finally:
            process.terminate()
            process.wait(20)


def _read_link(output: IO[str] | None) -> str:
    assert output is not None
    line = next((line for line in output if line.startswith("http")), "")
    assert line, "flowkit serve printed no link"
    return line.strip()


@contextmanager
def tracing(browser: Browser, page: Page) -> Generator[list[float]]:
    """Trace what the page does meanwhile; afterwards the list has the CPU time of its longest task, in ms.

    A task holds the page from its beginning to its end. Its CPU time is what a machine without other work would take.
    """
    longest: list[float] = []
    browser.start_tracing(page=page, categories=["toplevel", "disabled-by-default-devtools.timeline"])
    try:
        yield longest
    finally:
        events: list[dict[str, Any]] = json.loads(browser.stop_tracing())["traceEvents"]
    mains = {
        _thread(each) for each in events if each["name"] == "thread_name" and each["args"]["name"] == "CrRendererMain"
    }
    tasks = [
        each for each in events if each["name"].endswith("RunTask") and each["ph"] == "X" and _thread(each) in mains
    ]
    longest.append(max(task.get("tdur", task["dur"]) / 1000 for task in tasks))


def _thread(event: dict[str, Any]) -> tuple[int, int]:
    return event["pid"], event["tid"]


def find_chromium() -> str:
    """The path of a Chromium; skips the test where there is none."""
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None:
        pytest.skip("no Chromium on the path")
    return found


@contextmanager
def open_browser() -> Generator[Browser]:
    """A headless Chromium; what is expected of its pages may take `WAIT_MS`."""
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opening_pages(browser: Browser, served: str) -> Generator[Open]:
    """Open pages in contexts of their own; the test fails for any error that one of them logs."""
    errors: list[str] = []
    contexts: list[BrowserContext] = []

    def open_one(link: str = served, **options: Any) -> Page:
        chosen: dict[str, Any] = {"locale": "en-US", "viewport": {"width": 1400, "height": 900}, **options}
        context = browser.new_context(**chosen)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(link)
        return page

    yield open_one
    for context in contexts:
        context.close()
    # A second decision is answered with 409, which a browser logs as an error.
    assert [error for error in errors if "409" not in error] == []


def say(page: Page, message: str) -> None:
    page.locator(".message textarea").fill(message)
    page.keyboard.press("Enter")


def card(name: str) -> str:
    return f".card:has(> header .title:text-is('{name}'))"


def ended(page: Page, word: str = "done") -> None:
    expect(page.locator(".exchange").last.locator(".ending .state")).to_contain_text(word)
