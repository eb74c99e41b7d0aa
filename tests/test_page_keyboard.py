"""The page without a mouse, without motion, on a phone in Korean; and asked by pages of another origin."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.extra_packages import NEEDS_ALL

pytest.importorskip("playwright", reason=NEEDS_ALL)

from playwright.sync_api import Page, expect

from tests.browser import Open, Served, card, say
from tests.node import JS, need_packages

pytestmark = pytest.mark.slow
pytest_plugins = ["tests.browser_fixtures"]


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until this is focused."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab never comes to {selector}")


def test_all_is_done_by_the_keyboard(open_page: Open) -> None:
    page = open_page()
    expect(page.locator(".message textarea")).to_be_focused()
    page.keyboard.type("Charge me")
    page.keyboard.press("Enter")
    expect(page.locator(".question [name=amount_won]")).to_be_focused()
    page.keyboard.press("Control+A")
    page.keyboard.type("4000")
    page.keyboard.press("Enter")
    expect(page.locator(".ending .state")).to_contain_text("done")
    expect(page.locator(".card[data-call$='call/0']")).to_contain_text("charged 4000")

    tab_to(page, ".card .title")
    page.keyboard.press("Enter")
    expect(page.locator(".inspector")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".inspector")).to_have_count(0)
    tab_to(page, ".row")
    page.keyboard.press("Enter")
    expect(page.locator(".inspector")).to_be_visible()
    page.keyboard.press("Escape")
    tab_to(page, ".message textarea")
    page.keyboard.type("Count to a thousand")
    page.keyboard.press("Enter")
    expect(page.locator(card("count_slowly"))).to_have_attribute("data-state", "running")
    page.keyboard.press("Escape")
    expect(page.locator(".ending .state").last).to_contain_text("cancelled")
    expect(page.locator(".runs a")).to_have_count(2)  # the list comes by itself, but not at once
    tab_to(page, ".runs a")


@pytest.mark.parametrize(("motion", "animations"), [("reduce", 0), ("no-preference", 1)])
def test_nothing_moves_for_who_wants_no_motion(open_page: Open, motion: str, animations: int) -> None:
    page = open_page(reduced_motion=motion)
    page.locator(".chat").evaluate("chat => chat.insertAdjacentHTML('beforeend', '<p class=dots>●</p>')")

    assert page.evaluate("document.getAnimations().length") == animations


@pytest.mark.parametrize("pane", [0, 1, 2])
def test_phone_in_korean_has_no_findings_of_axe(open_page: Open, pane: int) -> None:
    need_packages()
    page = open_page(
        locale="ko-KR",
        viewport={"width": 360, "height": 700},
        is_mobile=True,
        has_touch=True,
        bypass_csp=True,
    )
    say(page, "Two charges")
    expect(page.locator(".question")).to_have_count(2)
    page.locator(".panes button").nth(pane).click()
    page.add_script_tag(content=(JS / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate(
        "axe.run().then(({ violations }) => violations.map(one => [one.id, one.nodes.map(node => node.html)]))"
    )

    assert found == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360


FOREIGN = """<!doctype html><iframe src="TARGET/"></iframe><script type="module">
const body = JSON.stringify({ message: "Hello from elsewhere" })
const run = name => fetch(`TARGET/api/${name}`, { method: "POST", mode: "no-cors", body }).catch(() => {})
await run("runs")
await run("chat")
await fetch("TARGET/api/runs", { method: "POST", headers: { "content-type": "application/json" }, body }).catch(() => {})
await fetch("TARGET/api/runs", { credentials: "include" }).then(() => document.title = "read").catch(() => {})
navigator.sendBeacon("TARGET/api/runs", new Blob([body], { type: "text/plain" }))
document.body.append("tried")
</script>"""


@pytest.fixture
def foreign(server: Served) -> Iterator[str]:
    """A page on another port of this machine, that asks our server for what it shouldn't get."""

    class Foreign(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(FOREIGN.replace("TARGET", server.origin).encode())

        def log_message(self, format: str, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Foreign) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()


def test_pages_of_another_port_start_nothing_read_nothing_and_frame_nothing(open_page: Open, foreign: str) -> None:
    own = open_page()
    page = own.context.new_page()
    page.goto(foreign)
    expect(page.locator("body")).to_contain_text("tried")

    assert page.title() != "read"
    assert page.frames[1].evaluate("document.querySelector('#app') === null")
    own.reload()
    own.get_by_role("searchbox").fill("elsewhere")
    expect(own.locator(".runs .empty")).to_be_visible()
