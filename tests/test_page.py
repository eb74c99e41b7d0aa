"""The page of `flowkit serve` in a real browser, against a real server."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.extra_packages import NEEDS_ALL

pytest.importorskip("playwright", reason=NEEDS_ALL)

from playwright.sync_api import Browser, Page, Request, expect

from tests.browser import ROOT, Open, Served, card, ended, say
from tests.node import JS, need_packages

pytestmark = pytest.mark.slow
pytest_plugins = ["tests.browser_fixtures"]


def test_message_is_answered_with_a_card_for_each_call(open_page: Open) -> None:
    page = open_page()
    say(page, "Where is my order?")
    ended(page)

    assert "token" not in page.url
    assert page.locator(".said").inner_text().endswith("Where is my order?")
    assert page.locator(card("search_products") + " th").all_inner_texts()[:2] == ["id", "name"]
    expect(page.locator(card("track_parcel")).first).to_have_attribute("data-state", "finished")
    assert "on its way" in page.locator(".answer").last.inner_text()
    assert page.locator(".thinking summary").inner_text().startswith("Thought for")
    assert page.locator(".node").count() == 7
    assert page.locator(".gantt .row").count() == 2 + 7
    expect(page.locator("[role=status]").first).to_have_text("Answer complete")


def test_arguments_show_as_they_stream(open_page: Open) -> None:
    page = open_page()
    say(page, "Where is my order?")

    expect(page.locator(".card[data-state=new] .writing").first).to_contain_text("{")
    ended(page)


def test_reload_goes_on_with_the_same_run(open_page: Open) -> None:
    page = open_page()
    say(page, "Count to a hundred")
    expect(page.locator(card("count_slowly"))).to_have_attribute("data-state", "running")
    page.reload()

    expect(page.locator(card("count_slowly"))).to_have_attribute("data-state", "running")
    assert page.locator(".exchange").count() == 1
    expect(page.locator(".answer")).to_have_text("I count. ")
    page.keyboard.press("Escape")
    ended(page, "cancelled")


def test_second_tab_asks_the_first_for_the_token(open_page: Open, server: Served) -> None:
    first = open_page()
    expect(first.locator(".message textarea")).to_be_visible()
    second = first.context.new_page()
    second.goto(server.origin)

    expect(second.locator(".message textarea")).to_be_visible()


def test_page_without_a_token_says_what_to_do(browser: Browser, server: Served) -> None:
    context = browser.new_context(locale="ko-KR")
    page = context.new_page()
    page.goto(server.origin)

    expect(page.locator("main [role=alert]")).to_have_text("flowkit serve가 출력한 링크를 여세요.")
    context.close()


def test_approval_sends_what_was_changed_and_keeps_the_secret(open_page: Open) -> None:
    page = open_page()
    say(page, "Charge me")
    question = page.locator(".question")
    expect(question).to_contain_text("charge waits for you")
    expect(question.locator("[name=pin]")).to_be_disabled()
    expect(question.locator("[name=amount_won]")).to_have_value("5000")
    expect(question.locator("[name=amount_won]")).to_be_focused()
    question.locator("[name=amount_won]").fill("4000")
    with page.expect_request("**/decisions") as sent:
        question.get_by_role("button", name="Approve").dblclick()

    assert json.loads(sent.value.post_data or "") == {
        "call": "turn/1/call/0",
        "approved": True,
        "changes": {"amount_won": 4000},
    }
    ended(page)
    expect(page.locator(card("charge"))).to_contain_text("charged 4000")
    assert "4321" not in page.content()


def test_two_questions_are_answered_across_a_reload(open_page: Open) -> None:
    page = open_page()
    say(page, "Two charges")
    expect(page.locator(".question")).to_have_count(2)
    page.locator(".question").first.get_by_role("button", name="Approve").click()
    expect(page.locator(".question")).to_have_count(1)
    page.reload()
    expect(page.locator(".question")).to_have_count(1)
    page.locator(".question").get_by_role("button", name="Deny").click()

    ended(page)
    states = [found.get_attribute("data-state") for found in page.locator(".card[data-call^='turn/1']").all()]
    assert states == ["finished", "denied"]


def test_whoever_decides_second_learns_who_was_first(open_page: Open) -> None:
    first = open_page()
    say(first, "Charge me")
    expect(first.locator(".question")).to_be_visible()
    second = first.context.new_page()
    second.goto(first.url)
    expect(second.locator(".question")).to_be_visible()
    second.route("**/events*", lambda route: route.abort())  # it hears nothing of the first
    first.get_by_role("button", name="Deny").click()
    ended(first)
    second.get_by_role("button", name="Approve").click()

    expect(second.locator(".question [role=status]")).to_have_text("Decided by c-1")


def compose(page: Page, text: str, *, commit: bool) -> None:
    """Write with an input method, and press Enter while the last syllable is being composed."""
    session: Any = page.context.new_cdp_session(page)
    page.locator(".message textarea").focus()
    session.send("Input.imeSetComposition", {"text": text, "selectionStart": len(text), "selectionEnd": len(text)})
    key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
    session.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **key})
    if commit:
        session.send("Input.insertText", {"text": text})
    session.send("Input.dispatchKeyEvent", {"type": "keyUp", **key})


def test_enter_sends_korean_once_and_whole(open_page: Open) -> None:
    page = open_page()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.post_data or "") if request.method == "POST" else None)
    compose(page, "안녕", commit=True)
    page.keyboard.press("Enter")  # some browsers tell the key again after the composition

    ended(page)
    assert [json.loads(body)["message"] for body in sent] == ["안녕"]
    assert page.locator(".message textarea").input_value() == ""


def test_enter_that_chooses_a_japanese_word_sends_nothing(open_page: Open) -> None:
    page = open_page()
    compose(page, "東京", commit=True)

    expect(page.locator(".message textarea")).to_have_value("東京")
    assert page.locator(".exchange").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_has_no_findings_of_axe(open_page: Open, scheme: str) -> None:
    need_packages()
    page = open_page(color_scheme=scheme, bypass_csp=True)
    say(page, "Where is my order?")
    ended(page)
    say(page, "Charge me")
    expect(page.locator(".question")).to_be_visible()
    page.locator(".card .title").first.click()
    page.add_script_tag(content=(JS / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate(
        "axe.run().then(({ violations }) => violations.map(one => [one.id, one.nodes.map(node => node.html)]))"
    )

    assert found == []


@pytest.mark.parametrize("pane", ["Runs", "Chat", "Graph"])
def test_phone_never_scrolls_sideways(open_page: Open, pane: str) -> None:
    page = open_page(viewport={"width": 360, "height": 700}, is_mobile=True, has_touch=True)
    say(page, "Where is my order?")
    ended(page)
    page.locator(".panes").get_by_role("button", name=pane).click()

    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_texts_of_tools_are_no_markup(open_page: Open) -> None:
    page = open_page()
    say(page, "Fail please")
    ended(page)

    assert "<img src=x onerror=alert(1)>" in page.locator(card("calculate_shipping")).inner_text()
    assert page.locator("img").count() == 0


def test_reader_above_is_left_there(open_page: Open) -> None:
    page = open_page()
    say(page, "Long answer")
    expect(page.locator(".answer")).to_contain_text("line 60")
    page.locator(".log").evaluate("log => (log.scrollTop = 0)")
    expect(page.get_by_role("button", name="Newer below")).to_be_visible()
    expect(page.locator(".answer")).to_contain_text("line 120")

    assert page.locator(".log").evaluate("log => log.scrollTop") == 0
    page.get_by_role("button", name="Newer below").click()
    ended(page)
    expect(page.get_by_role("button", name="Newer below")).to_have_count(0)


def test_page_asks_nobody_but_its_server(open_page: Open, server: Served) -> None:
    asked: list[Request] = []
    page = open_page()
    page.on("request", lambda request: asked.append(request))
    page.reload()
    say(page, "Where is my order?")
    ended(page)

    assert {request.url.split("/", 3)[2] for request in asked if not request.url.startswith("data:")} == {
        server.origin.removeprefix("http://")
    }


def test_built_page_names_no_host() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (JS.parent / "flowkit" / "web" / "page").iterdir()]

    assert {host for text in texts for host in re.findall(r"https?://[\w.]+", text)} <= {"http://www.w3.org"}


def test_page_works_below_a_prefix_of_another_app(browser: Browser, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.mounted_app", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "recipes")])}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            page = browser.new_page(locale="en-US")
            asked: list[str] = []
            page.on("request", lambda request: asked.append(urlsplit(request.url).path))
            page.goto(process.stdout.readline().strip())
            say(page, "Where is my order?")
            ended(page)
            page.reload()
            expect(page.locator(".answer").last).to_contain_text("on its way")
            page.close()
        finally:
            process.terminate()
            process.wait(30)
    assert len(asked) > 5
    assert all(path.startswith("/flow/") for path in asked)


def test_failed_run_is_forked_and_not_resumed(open_page: Open) -> None:
    page = open_page()
    say(page, "break")
    ended(page, "failed")
    expect(page.get_by_role("button", name="Fork here")).to_be_visible()
    expect(page.get_by_role("button", name="Go on")).to_have_count(0)


def test_language_is_switched_in_place(open_page: Open) -> None:
    page = open_page(locale="ko-KR")
    expect(page.get_by_role("button", name="보내기")).to_be_visible()
    page.get_by_role("button", name="English").click()

    expect(page.get_by_role("button", name="Send")).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "en"


def test_runs_are_filtered_and_opened_by_the_keyboard(open_page: Open) -> None:
    page = open_page()
    say(page, "Hello needle")
    ended(page)
    page.get_by_role("button", name="New").click()
    page.get_by_role("searchbox").fill("needle")
    expect(page.locator(".runs a")).to_have_count(1)
    page.locator(".runs a").focus()
    page.keyboard.press("Enter")

    expect(page.locator(".answer")).to_contain_text("You said: Hello needle")
    expect(page.locator(".said")).to_contain_text("Hello needle")
