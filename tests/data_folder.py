"""Where the recorded data for tests lies; it is no part of the project."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class RecordedBody:
    """A body as a server sent it, and what it says, worked out without flowkit."""

    name: str
    api: str
    tier: str
    body: bytes
    expected: dict[str, Any]

    def __repr__(self) -> str:
        return self.name


def find_data() -> Path | None:
    """The folder named by FLOWKIT_TEST_DATA, or `shared/data` beside the checkout; None when neither is there."""
    named = os.environ.get("FLOWKIT_TEST_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


def streams() -> Path:
    """The folder of recorded streams; skips the test when it isn't there."""
    return _folder("streams")


def plans() -> Path:
    """The folder of plans; skips the test when it isn't there."""
    return _folder("plans")


def _folder(name: str) -> Path:
    data = find_data()
    if data is None or not (data / name).is_dir():
        pytest.skip(f"no test data: set FLOWKIT_TEST_DATA to a folder that holds {name}/")
    return data / name


@cache
def recorded_bodies(*tiers: str) -> tuple[RecordedBody, ...]:
    """The recorded bodies of these tiers; empty where there is no data, so that parametrised tests are skipped."""
    return tuple(body for body in _read("recorded") if body.tier in tiers)


@cache
def handmade_bodies() -> tuple[RecordedBody, ...]:
    """The bodies made by hand; empty where there is no data."""
    return (*_read("handmade"), *_read("handmade2"))


@cache
def anthropic_bodies() -> tuple[RecordedBody, ...]:
    """The bodies of the Messages API, recorded ones and those made by hand; empty where there is no data."""
    return (*_read("anthropic"), *_read("anthropic_handmade"))


def _read(kind: str) -> Iterator[RecordedBody]:
    data = find_data()
    if data is None:
        return
    for path in sorted((data / "streams" / kind).glob("*.json")):
        described = json.loads(path.read_text(encoding="utf-8"))
        body = path.with_suffix(".sse").read_bytes()
        yield RecordedBody(path.stem, described["api"], described.get("tier", kind), body, described["expected"])
