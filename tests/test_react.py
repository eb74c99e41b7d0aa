"""The hook in a React 19 app under StrictMode, in a real browser, against a real server."""

import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.extra_packages import NEEDS_ALL

pytest.importorskip("playwright", reason=NEEDS_ALL)

from playwright.sync_api import Browser, Page, expect

from tests.browser import ROOT, TOKEN, WAIT_MS, Open, Served
from tests.node import JS, need_packages, run_node

pytestmark = pytest.mark.slow
pytest_plugins = ["tests.browser_fixtures"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example app, built as its own `npm run build` does it."""
    need_packages("example")
    folder = tmp_path_factory.mktemp("example")
    shutil.copy(JS / "example" / "index.html", folder)
    options = ["--bundle", "--preserve-symlinks", "--format=esm", f"--outfile={folder}/main.js"]
    run_node("-e", BUILD, JS / "example" / "src" / "main.tsx", *options)
    return folder


BUILD = """
const { execFileSync } = require("node:child_process")
execFileSync("node_modules/esbuild/bin/esbuild", process.argv.slice(1), { cwd: "example", stdio: "inherit" })
"""


@contextmanager
def run_proxy(folder: Path, server: Served, cuts: str) -> Generator[str]:
    command = [sys.executable, "-m", "tests.cutting_proxy", str(folder), server.origin, *([cuts] if cuts else [])]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@pytest.fixture
def open_app(browser: Browser, server: Served, built: Path) -> Iterator[Open]:
    """Opens the app; `cuts` is how the streams of its server are cut."""
    with ExitStack() as stack:

        def open_one(cuts: str = "") -> Page:
            origin = stack.enter_context(run_proxy(built, server, cuts))
            context = browser.new_context()
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(WAIT_MS)
            page.goto(f"{origin}/#token={TOKEN}")
            return page

        yield open_one


def say(page: Page, message: str) -> None:
    page.get_by_label("Message").fill(message)
    page.get_by_role("button", name="Send").click()


def ended(page: Page, status: str = "done") -> None:
    expect(page.locator("#status")).to_have_text(status)


def answers(page: Page) -> list[str]:
    return page.locator("[data-role=assistant]").all_inner_texts()


def test_message_is_answered_once_with_every_call(open_app: Open) -> None:
    page = open_app()
    say(page, "Where is my order?")
    ended(page)

    calls = page.locator("[data-call]")
    assert set(calls.evaluate_all("all => all.map(one => one.dataset.status)")) == {"completed"}
    assert page.locator("#seen").inner_text().split() == [
        "track_parcel",
        "search_products",
        "recommend_products",
        "calculate_shipping",
    ]
    assert page.locator("[data-role=user]").all_inner_texts() == ["Where is my order?"]
    assert [text.count("Green tea would go well with it.") for text in answers(page)] == [1]


def test_streams_that_are_cut_go_on_and_nothing_is_told_twice(open_app: Open) -> None:
    page = open_app("5,10")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(f"{request.method} {request.url.split('/api')[-1].split('?')[0]}"))
    say(page, "Long answer")
    ended(page)

    assert answers(page)[0].split() == [word for number in range(400) for word in ("line", str(number))]
    assert [line.split()[0] for line in asked if "/runs" in line] == ["POST", "GET", "GET"]


def test_stream_that_stays_cut_is_an_error(open_app: Open) -> None:
    page = open_app("5," + ",".join(["0"] * 500))  # a browser asks again by itself, too
    say(page, "Long answer")

    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)


def test_abort_cancels_the_run_and_its_stream_tells_the_end(open_app: Open) -> None:
    page = open_app()
    say(page, "Count to a hundred")
    expect(page.locator("[data-call=count_slowly]")).to_have_attribute("data-status", "executing")
    page.get_by_role("button", name="Stop").click()

    ended(page, "cancelled")
    expect(page.locator("[data-call=count_slowly]")).to_have_attribute("data-status", "error")


def test_new_message_cancels_the_run_before_it(open_app: Open) -> None:
    page = open_app()
    say(page, "Count to a hundred")
    expect(page.locator("[data-call=count_slowly]")).to_have_attribute("data-status", "executing")
    say(page, "Hello again")
    ended(page)

    assert page.locator("[data-role=user]").all_inner_texts() == ["Count to a hundred", "Hello again"]
    assert answers(page)[-1] == "You said: Hello again. That is all."


def test_approved_call_goes_on(open_app: Open) -> None:
    page = open_app()
    say(page, "Refund it")
    expect(page.locator("[data-call=refund_order]")).to_have_attribute("data-status", "pending")
    page.get_by_role("button", name="Approve").click()

    expect(page.locator("[data-call=refund_order]")).to_have_attribute("data-status", "completed")
    ended(page)
