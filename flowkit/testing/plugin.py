"""The pytest plugin: a separate cache for every test, a clock under your control, and no model that costs money.

pytest loads it in every project of an environment where flowkit is installed, whether it is used or not. So it
imports only the clock, makes no folder before a test needs it, adds no automatic fixture, and does no more around a
test than setting three environment variables, which child processes see too.
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from flowkit.clock import ManualClock

OPTION = "--flowkit-real-models"
MARKER = "real_model"
_CACHE, _BLOBS, _REAL_MODELS = "FLOWKIT_CACHE_DIR", "FLOWKIT_BLOBS_DIR", "FLOWKIT_REAL_MODELS"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("flowkit").addoption(
        OPTION, action="store_true", help="let tests ask models on other machines (default: only marked tests may)"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{MARKER}: may ask a model on another machine")
    config.pluginmanager.register(_Surroundings(bool(config.getoption(OPTION))), "flowkit-surroundings")


@pytest.fixture
def flowkit_cache_dir() -> Path:
    """Return the folder of this test's default cache: empty at the start, removed when the session ends."""
    return Path(os.environ[_CACHE])


@pytest.fixture
def flowkit_clock() -> ManualClock:
    """Return a clock that moves only by `advance`, `jump` or `reboot`: `DiskCache(clock=flowkit_clock)`."""
    return ManualClock()


class _Surroundings:
    """The environment variables that flowkit sees during a test; restored after each."""

    def __init__(self, allows_real_models: bool) -> None:
        self._allows_real_models = allows_real_models
        # A random name: a folder left by another session is never taken for this one's.
        self._folder = Path(tempfile.gettempdir()) / f"flowkit-tests-{secrets.token_hex(8)}"
        self._count = 0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._count += 1
        is_allowed = self._allows_real_models or item.get_closest_marker(MARKER) is not None
        before = {name: os.environ.get(name) for name in (_CACHE, _BLOBS, _REAL_MODELS)}
        os.environ[_CACHE] = str(self._folder / str(self._count))
        os.environ[_BLOBS] = str(self._folder / f"{self._count}-blobs")
        os.environ[_REAL_MODELS] = "allow" if is_allowed else "refuse"
        try:
            return (yield)
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def pytest_sessionfinish(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
