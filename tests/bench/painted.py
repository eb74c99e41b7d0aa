"""From an event to the screen: how long until a browser paints what a running tool has said.

    python -m tests.bench.painted [--json]

A tool reports the time as its progress, 20 times a second; the page is asked at every frame what it shows. The ratio is
the median delay by 50 ms. Then 500 calls are shown, and the ratio is the longest the page held its thread by 200 ms.
Debian's Chromium is needed, and a machine that is doing nothing else.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page

from flowkit import CONTEXT, Agent, Context, tool
from flowkit.testing import ScriptedModel, call
from tests.bench.report import Report, wants_json
from tests.browser import open_browser, serve

TICKS = 100
EVERY_S = 0.05

WATCH = """() => {
  window.delays = []; window.longest = 0; let last = ""
  new PerformanceObserver(list => list.getEntries().forEach(entry => (window.longest = Math.max(window.longest, entry.duration)))).observe({ type: "longtask" })
  const look = () => {
    const found = document.querySelector(".card progress")?.parentElement.textContent.match(/at ([0-9.]+)/)
    if (found && found[1] !== last) { last = found[1]; window.delays.push(Date.now() - 1000 * Number(found[1])) }
    requestAnimationFrame(look)
  }
  requestAnimationFrame(look)
}"""


@tool(effect="read")
async def tell_time(ctx: Context[object] = CONTEXT) -> int:
    """Report the time as progress."""
    for tick in range(TICKS):
        ctx.progress(tick, TICKS, f"at {time.time():.4f}")
        await asyncio.sleep(EVERY_S)
    return TICKS


agent = Agent(
    ScriptedModel(lambda request: [call("tell_time")] if len(request.messages) == 1 else ["Done."]), tools=[tell_time]
)


def measure(report: Report) -> None:
    """Open both pages and add their rows."""
    with tempfile.TemporaryDirectory() as folder, open_browser() as browser:
        with serve(Path(folder), app=Path(__file__), data=False) as served:
            page = _ask(browser.new_page(), served.link, "What time is it?")
            delays = sorted(page.evaluate("window.delays"))
            page.close()
        median, late = statistics.median(delays), delays[int(len(delays) * 0.95)]
        report.row("emitted to painted", median / 50, 1.0, median_ms=round(median), p95_ms=round(late))
        with serve(Path(folder)) as served:
            page = _ask(browser.new_page(), served.link, "Many calls")
            page.get_by_text("500 inside").click()
            page.locator(".cards .cards .card").nth(99).wait_for()
            longest = page.evaluate("window.longest")
            page.close()
        report.row("500 calls, longest task", longest / 200, 1.0, longest_ms=round(longest))


def _ask(page: Page, link: str, message: str) -> Page:
    page.goto(link)
    page.evaluate(WATCH)
    page.locator(".message textarea").fill(message)
    page.keyboard.press("Enter")
    page.locator(".ending .state.done").wait_for(timeout=120_000)
    return page


def main() -> None:
    report = Report("painted", wants_json(sys.argv))
    measure(report)
    report.print()


if __name__ == "__main__":
    main()
