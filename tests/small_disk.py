"""A disk that is soon full, and can be made larger."""

import os
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers.processes import NOBODY


@contextmanager
def small_disk(place: Path, size: str) -> Generator[Path]:
    """A disk of this size, such as `400k`, in a folder that servers may use; skips where none can be mounted."""
    place.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mount("-t", "tmpfs", "-o", f"size={size},uid={NOBODY},gid={NOBODY},mode=700", "tmpfs", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def resize_disk(place: Path, size: str) -> None:
    """Make a small disk larger."""
    mount("-o", f"remount,size={size}", str(place))


def mount(*options: str) -> None:
    """Mount, or skip the test where that isn't possible."""
    done = subprocess.run(["mount", *options], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk can't be mounted here: {done.stderr.decode()}")
