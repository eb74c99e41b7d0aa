"""The page while its server is away, comes back, or is asked by two tabs at once."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.extra_packages import NEEDS_ALL

pytest.importorskip("playwright", reason=NEEDS_ALL)

from playwright.sync_api import Browser, Page, expect

from tests.browser import WAIT_MS, ended, say, serve

pytestmark = pytest.mark.slow
pytest_plugins = ["tests.browser_fixtures"]


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = open_alone(browser)
    yield opened
    opened.context.close()


def open_alone(browser: Browser) -> Page:
    """Open a page in a context of its own; it may log errors, as its server is away."""
    opened = browser.new_context(locale="en-US", viewport={"width": 1400, "height": 900}).new_page()
    opened.set_default_timeout(WAIT_MS)
    return opened


def find_port() -> int:
    """A port that is free now: a server that is started again has to have the same one."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_run_of_a_killed_server_goes_on_by_a_button(page: Page, tmp_path: Path) -> None:
    running = page.locator(".card[data-call='turn/1/call/0'][data-state=running]")
    with serve(tmp_path) as first:
        page.goto(first.link)
        say(page, "Count to a thousand")
        expect(running).to_be_visible(timeout=WAIT_MS)
        run = page.url.split("#")[1]
        first.kill()
    with serve(tmp_path) as second:
        page.goto(second.link)
        page.goto(f"{second.origin}/#{run}")
        page.reload()
        ended(page, "stopped")
        page.get_by_role("button", name="Go on").click()

        expect(running).to_be_visible(timeout=WAIT_MS)
        page.get_by_role("button", name="Stop").click()
        ended(page, "cancelled")


def test_approval_says_that_the_server_is_away_and_works_when_it_is_back(page: Page, tmp_path: Path) -> None:
    port = find_port()
    approve = page.locator(".question").get_by_role("button", name="Approve")
    with serve(tmp_path, port=port) as first:
        page.goto(first.link)
        say(page, "Charge me")
        expect(approve).to_be_visible(timeout=WAIT_MS)
        ended(page, "waiting")  # it is asked while the run still goes on
        first.kill()
    approve.click()
    expect(page.locator(".question [role=status]")).to_have_text("The server doesn't answer.")
    with serve(tmp_path, port=port):
        approve.dblclick()

        ended(page, "done")
        expect(page.locator(".card[data-call='turn/1/call/0']")).to_contain_text("charged 5000")


def test_page_that_lost_its_server_follows_again_by_itself(page: Page, tmp_path: Path) -> None:
    port = find_port()
    with serve(tmp_path, port=port) as first:
        page.goto(first.link)
        say(page, "Count to a thousand")
        expect(page.locator(".card[data-call='turn/1/call/0'][data-state=running]")).to_be_visible(timeout=WAIT_MS)
        first.kill()
    with serve(tmp_path, port=port):
        ended(page, "stopped")
        expect(page.get_by_role("button", name="Go on")).to_be_visible(timeout=WAIT_MS)


def test_tab_that_waits_sees_what_another_one_decides(page: Page, tmp_path: Path) -> None:
    with serve(tmp_path) as served:
        page.goto(served.link)
        say(page, "Charge me")
        expect(page.locator(".question")).to_be_visible(timeout=WAIT_MS)
        other = page.context.new_page()
        other.goto(page.url)  # it has no token, and asks the first tab for it
        expect(other.locator(".question")).to_be_visible(timeout=WAIT_MS)
        page.get_by_role("button", name="Deny").click()
        ended(page, "done")

        ended(other, "done")
        expect(other.locator(".question")).to_have_count(0)


def test_live_run_of_another_server_is_watched_and_its_question_answered(
    browser: Browser, page: Page, tmp_path: Path
) -> None:
    with serve(tmp_path) as first:
        page.goto(first.link)
        say(page, "Charge me")
        expect(page.locator(".question")).to_be_visible(timeout=WAIT_MS)
        waiting = page.url.split("#")[1]
        page.get_by_role("button", name="New").click()
        say(page, "Count to a thousand")
        running = page.locator(".card[data-call='turn/1/call/0'][data-state=running]")
        expect(running).to_be_visible(timeout=WAIT_MS)
        live = page.url.split("#")[1]
        with serve(tmp_path) as second:
            other = open_alone(browser)
            other.goto(second.link)
            other.goto(f"{second.origin}/#{live}")
            expect(other.locator(".card progress")).to_be_visible(timeout=WAIT_MS)
            other.get_by_role("button", name="Stop").click()
            ended(other, "cancelled")
            ended(page, "cancelled")

            other.goto(f"{second.origin}/#{waiting}")
            other.locator(".question").get_by_role("button", name="Approve").click()
            ended(other, "done")
            other.context.close()
