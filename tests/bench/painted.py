"""From an event to the screen: how long until a browser paints what a running tool has said.

    python -m tests.bench.painted [--json]

A tool reports the time as its progress, 20 times a second; the page is asked at every frame what it shows. The ratios
are the median delay by 50 ms, and the 95th of 100 by 120 ms. Then 500 calls are shown, and the ratio is the CPU time of
the page's longest task by 200 ms. Debian's Chromium is needed, and for the delays a machine that is doing nothing else.
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
from tests.browser import open_browser, serve, tracing

TICKS = 100
EVERY_S = 0.05

WATCH = """() => {
  window.delays = []; let last = ""
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
            page = _ask(browser.new_page(locale="en-US"), served.link, "What time is it?")
            delays = sorted(page.evaluate("window.delays"))
            page.close()
        median, late = statistics.median(delays), delays[int(len(delays) * 0.95)]
        report.row("emitted to painted, median", median / 50, 1.0, ms=round(median))
        report.row("emitted to painted, 95 of 100", late / 120, 1.0, ms=round(late))
        with serve(Path(folder)) as served:
            page = browser.new_page(locale="en-US")
            with tracing(browser, page) as longest:
                _ask(page, served.link, "Many calls")
                page.get_by_text("500 inside").click()
                page.locator(".cards .link", has_text="400 more").click()
                page.locator(".cards .cards .card").nth(499).wait_for()
            page.close()
        report.row("500 calls, longest task", longest[0] / 200, 1.0, cpu_ms=round(longest[0]))


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
