"""A typed answer that fills in the page of `flowkit serve`, and a guard's reason, in a real browser."""

import pytest

from tests.extra_packages import NEEDS_ALL

pytest.importorskip("playwright", reason=NEEDS_ALL)

from playwright.sync_api import expect

from tests.browser import ROOT, open_browser, opening_pages, say, serve

pytestmark = pytest.mark.slow

WATCH_OUTPUT = """() => {
  window.seen = [];
  new MutationObserver(() => window.seen.push(document.querySelector("section.output")?.innerText ?? ""))
    .observe(document.body, { subtree: true, childList: true, characterData: true });
}"""
"""Keeps every text that the output had: on a busy machine the first one may be gone before a test has looked."""


def test_a_typed_answer_fills_in_and_a_refusal_is_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("served")
    with (
        serve(folder, ROOT / "tests" / "web_typed.py") as served,
        open_browser() as browser,
        opening_pages(browser, served.link) as open_page,
    ):
        page = open_page()
        page.evaluate(WATCH_OUTPUT)
        say(page, "Review the tea set.")
        output = page.locator("section.output")
        expect(output).to_contain_text("items: 2")
        expect(output).to_contain_text("4")
        seen: list[str] = page.evaluate("window.seen")
        assert any("A good tea set" in text and "stars" not in text for text in seen), "the title came before the rest"
        say(page, "You idiot.")
        expect(page.locator(".exchange").last).to_contain_text("Please be polite.")
