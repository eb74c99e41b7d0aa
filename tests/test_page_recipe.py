"""A recipe of a YAML file on the page: its form, each, when and ask, a retried step, and a step that waits."""

import json
from pathlib import Path

import pytest

from tests.extra_packages import NEEDS_ALL

pytest.importorskip("playwright", reason=NEEDS_ALL)

from playwright.sync_api import expect

from tests.browser import ROOT, TOKEN, card, ended, open_browser, opening_pages, serve

pytestmark = pytest.mark.slow


def test_recipe_of_a_file_is_filled_in_watched_approved_and_inspected(tmp_path: Path) -> None:
    app = ROOT / "tests" / "web_recipe.py"
    with (
        serve(tmp_path, app, data=False) as served,
        open_browser() as browser,
        opening_pages(browser, served.link) as open_page,
    ):
        page = open_page()
        page.locator("[name=channel]").select_option("전화")
        page.locator("[name=order_id]").fill("ORD-1")
        with page.expect_request("**/api/runs") as sent:
            page.get_by_role("button", name="Run").click()
        # As the schema orders them, not as they were filled in.
        assert list(json.loads(sent.value.post_data or "")["inputs"].items()) == [
            ("order_id", "ORD-1"),
            ("channel", "전화"),
            ("tags", []),
        ]

        question = page.locator(".question")
        expect(question).to_be_visible()
        expect(page.locator(".inputs [name=order_id]")).to_be_hidden()
        expect(question.locator("[name=amount_won]")).to_have_attribute("placeholder", "6000")
        expect(question.locator("[name=notify]")).to_be_checked()
        ended(page, "waiting")
        expect(page.locator(".node[data-call=refund]")).to_have_attribute("data-state", "waiting")
        expect(page.locator(".runs a .title")).to_contain_text("order_id=ORD-1")
        question.locator("[name=notify]").uncheck()
        with page.expect_request("**/decisions") as sent:
            question.get_by_role("button", name="Approve").click()
        assert json.loads(sent.value.post_data or "")["changes"] == {"notify": False}
        ended(page)
        expect(page.locator(".output")).to_contain_text("ORD-1: 6000 won paid back")

        rows = page.locator(".gantt .row")
        bars = {
            name: rows.filter(has_text=name).locator(".bar.failed").count() for name in ("order", "offers", "refund")
        }
        assert bars == {"order": 1, "offers": 0, "refund": 0}
        page.locator(card("summary") + " .title").click()
        expect(page.locator(".inspector .facts")).to_contain_text("Cost$0.0031")
        # It has a prompt, and no arguments.
        expect(page.locator(".inspector")).not_to_contain_text("Arguments")
        page.keyboard.press("Escape")
        page.locator(card("order") + " .title").click()
        expect(page.locator(".inspector .facts")).to_contain_text("failed (ref ")


def test_cancelled_run_asks_nobody_any_more(tmp_path: Path) -> None:
    app = ROOT / "tests" / "web_recipe.py"
    with (
        serve(tmp_path, app, data=False) as served,
        open_browser() as browser,
        opening_pages(browser, served.link) as open_page,
    ):
        page = open_page()
        page.locator(".inputs [name=order_id]").fill("ORD-1")
        page.get_by_role("button", name="Run").click()
        expect(page.locator(".question")).to_be_visible()
        ended(page, "waiting")
        link = f"{served.origin}/api/runs/{page.url.split('/')[-1]}/cancel"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert page.request.post(link, data={}, headers=headers).status == 202
        ended(page, "cancelled")
        expect(page.locator(".question")).to_have_count(0)
        for name in ("refund", "then/refund_order"):
            expect(page.locator(f"{card(name)} > header .state")).to_contain_text("cancelled")
        expect(page.locator(".inputs [name=order_id]")).to_be_visible()
