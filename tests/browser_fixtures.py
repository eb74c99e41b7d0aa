"""Fixtures of the tests of the page; such a module has `pytest_plugins = ["tests.browser_fixtures"]`.

They stand apart from `tests.browser`, which a test imports before pytest loads its plugins.
"""

from collections.abc import Iterator

import pytest

from tests.extra_packages import NEEDS_ALL

pytest.importorskip("playwright", reason=NEEDS_ALL)

from playwright.sync_api import Browser

from tests.browser import Open, Served, open_browser, opening_pages, serve


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium that a module's tests share."""
    with open_browser() as found:
        yield found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of `tests/web_app.py` that a module's tests share."""
    with serve(tmp_path_factory.mktemp("served")) as served:
        yield served


@pytest.fixture
def open_page(browser: Browser, server: Served) -> Iterator[Open]:
    """Opens pages of that server; a test whose page logs an error fails."""
    with opening_pages(browser, server.link) as open_one:
        yield open_one
