"""A typed answer that fills in the page of `flowkit serve`, and a guard's reason, in a real browser."""

import pytest

from tests.extra_packages import NEEDS_ALL

pytest.importorskip("playwright", reason=NEEDS_ALL)

from playwright.sync_api import expect

from tests.browser import ROOT, open_browser, serve

pytestmark = pytest.mark.slow
WAIT_MS = 30_000


def test_a_typed_answer_fills_in_and_a_refusal_is_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("served")
    with serve(folder, ROOT / "tests" / "web_typed.py") as served, open_browser() as browser:
        page = browser.new_page(locale="en-US")
        page.set_default_timeout(WAIT_MS)
        page.goto(served.link)
        page.locator(".message textarea").fill("Review the tea set.")
        page.keyboard.press("Enter")
        output = page.locator("section.output")
        expect(output).to_contain_text("A good tea set", timeout=WAIT_MS)
        assert "stars" not in output.inner_text(), "what hasn't come is missing"
        expect(output).to_contain_text("items: 2", timeout=WAIT_MS)
        expect(output).to_contain_text("4", timeout=WAIT_MS)
        page.locator(".message textarea").fill("You idiot.")
        page.keyboard.press("Enter")
        expect(page.locator(".exchange").last).to_contain_text("Please be polite.", timeout=WAIT_MS)
