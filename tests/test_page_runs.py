"""What the page shows of a run: its graph, its replay, an export, forks, a recipe with its form."""

import json
from pathlib import Path

import pytest

from tests.extra_packages import NEEDS_ALL

pytest.importorskip("playwright", reason=NEEDS_ALL)

from playwright.sync_api import expect

from tests.browser import Open, card, ended, say

pytestmark = pytest.mark.slow
pytest_plugins = ["tests.browser_fixtures"]


def test_inputs_of_a_recipe_are_a_form_and_edges_pass_no_box(open_page: Open) -> None:
    page = open_page()
    page.locator(".composer > select").select_option(label="order_support")
    page.locator("[name=order_id]").fill("nothing")
    page.get_by_role("button", name="Run").click()
    assert page.locator(".exchange").count() == 0  # the pattern of its schema isn't met
    page.locator("[name=order_id]").fill("ORD-1034")
    page.get_by_role("button", name="Run").click()
    ended(page)

    edges = {(edge.get_attribute("data-from"), edge.get_attribute("data-to")) for edge in page.locator(".edge").all()}
    assert ("inputs", "get_order_status") in edges
    assert ("refund", "refund/then/refund_order") in edges
    assert page.evaluate(CROSSINGS) == []


CROSSINGS = """() => {
  const boxes = [...document.querySelectorAll(".node")].map(node => {
    const [x, y] = node.getAttribute("transform").match(/[-.0-9]+/g).map(Number)
    return { id: node.dataset.call ?? "inputs", x, y, w: 186, h: 46 }
  })
  return [...document.querySelectorAll(".edge")].flatMap(edge => {
    const length = edge.getTotalLength()
    return boxes.filter(box => box.id !== edge.dataset.from && box.id !== edge.dataset.to).filter(box => {
      for (let at = 0; at <= length; at += 2) {
        const { x, y } = edge.getPointAtLength(at)
        if (x > box.x && x < box.x + box.w && y > box.y && y < box.y + box.h) return true
      }
    }).map(box => `${edge.dataset.from} > ${edge.dataset.to} through ${box.id}`)
  })
}"""


def test_graph_keeps_still_while_calls_come(open_page: Open) -> None:
    page = open_page()
    page.evaluate(
        """() => {
          window.moves = []
          const places = new Map()
          const look = () => {
            for (const node of document.querySelectorAll(".node")) {
              const at = node.getAttribute("transform"), id = node.dataset.call
              // A call moves once, when it is told what it needs.
              if (places.has(id) && places.get(id) !== at && !/recommend|track/.test(node.textContent)) window.moves.push(id)
              places.set(id, at)
            }
            requestAnimationFrame(look)
          }
          look()
        }"""
    )
    say(page, "Where is my order?")
    ended(page)

    assert page.evaluate("window.moves") == []


def test_replay_shows_the_run_as_it_was(open_page: Open) -> None:
    page = open_page()
    say(page, "Where is my order?")
    ended(page)
    slider = page.get_by_role("slider", name="Position")
    slider.fill("0.3")
    expect(page.locator(".card")).to_have_count(1)
    assert page.locator(".answer").count() == 0
    page.get_by_role("combobox", name="Speed").select_option("16")
    page.get_by_role("button", name="Play").click()

    expect(page.locator(".answer").last).to_contain_text("Green tea would go well with it.")
    page.get_by_role("button", name="Back to now").click()
    ended(page)


def test_exported_page_opens_without_a_server(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    say(page, "Where is my order?")
    ended(page)
    page.locator(".export summary").click()
    with page.expect_download() as log:
        page.get_by_role("button", name="Log (.jsonl)").click()
    with page.expect_download() as exported:
        page.get_by_role("button", name="Page (.html)").click()
    log.value.save_as(tmp_path / "log.jsonl")
    exported.value.save_as(tmp_path / "page.html")

    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [event["type"] for event in (events[0], events[-1])] == ["run.started", "run.finished"]
    alone = open_page((tmp_path / "page.html").as_uri(), offline=True)
    ended(alone)
    assert alone.locator(".card").all_inner_texts() == page.locator(".card").all_inner_texts()
    assert alone.locator(".composer").count() == 0


def test_five_hundred_calls_are_a_few_boxes(open_page: Open) -> None:
    page = open_page()
    say(page, "Many calls")
    ended(page)

    page.get_by_text("500 inside").click()
    expect(page.locator(".cards .cards .card")).to_have_count(100)
    page.locator(".cards .link", has_text="400 more").click()
    expect(page.locator(".cards .cards .card")).to_have_count(500)
    assert page.locator(".node").count() < 10
    assert "500 / 500" in (page.locator(".graph svg").text_content() or "")


def test_a_turn_is_forked_with_another_message(open_page: Open) -> None:
    page = open_page()
    say(page, "Where is my order?")
    ended(page)
    first = page.url
    page.get_by_role("button", name="Fork here").last.click()
    page.get_by_label("Another message (optional)").fill("Say something else")
    page.locator("form.fork .primary").click()

    expect(page).not_to_have_url(first)
    expect(page.locator(".answer").last).to_contain_text("You said: Say something else. That is all.")
    ended(page)
    assert page.locator(card("track_parcel")).count() == 0


def test_a_result_is_replaced_by_a_fork(open_page: Open) -> None:
    page = open_page()
    say(page, "Where is my order?")
    ended(page)
    first = page.url
    page.locator(card("search_products") + " .title").click()
    page.locator(".inspector").get_by_role("button", name="Fork here").click()
    form = page.locator(".inspector form.fork")
    form.locator("textarea").fill("[not JSON")
    form.locator(".primary").click()
    expect(form.locator(".error")).to_be_visible()
    form.locator("textarea").fill("[]")
    form.locator(".primary").click()

    expect(page).not_to_have_url(first)
    expect(page.locator(".answer").last).to_contain_text("on its way")
    ended(page)
