"""A typed answer that fills in the page of `flowkit serve`, and a guard's reason, in a real browser."""

import pytest

from tests.extra_packages import NEEDS_ALL

pytest.importorskip("playwright", reason=NEEDS_ALL)

from playwright.sync_api import expect

from tests.browser import ROOT, open_browser, opening_pages, say, serve

pytestmark = pytest.mark.slow


def test_a_typed_answer_fills_in_and_a_refusal_is_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("served")
    with (
        serve(folder, ROOT / "tests" / "web_typed.py") as served,
        open_browser() as browser,
        opening_pages(browser, served.link) as open_page,
    ):
        page = open_page()
        say(page, "Review the tea set.")
        output = page.locator("section.output")
        expect(output).to_contain_text("A good tea set")
        assert "stars" not in output.inner_text(), "what hasn't come is missing"
        expect(output).to_contain_text("items: 2")
        expect(output).to_contain_text("4")
        say(page, "You idiot.")
        expect(page.locator(".exchange").last).to_contain_text("Please be polite.")
