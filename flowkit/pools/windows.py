"""How much may run at once in each pool. Read for every run, so it imports nothing of what the pools need."""

import os
from collections.abc import Mapping

from flowkit.errors import ConfigurationError
from flowkit.tools.options import POOL_SLOTS

SIZE_VARIABLE = "FLOWKIT_POOL_SIZE"

DASK_WINDOW = 200
"""How many calls of this process are at a Dask cluster at once."""


def find_size() -> int:
    """Return how many processes the pool of this machine has: `FLOWKIT_POOL_SIZE`, else as many as cores it may use."""
    said = os.environ.get(SIZE_VARIABLE)
    if not said:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not said.isdecimal() or int(said) < 1:
        raise ConfigurationError(f"{SIZE_VARIABLE} is {said!r}, expected a whole number of at least 1")
    return int(said)


def find_windows() -> Mapping[str, int]:
    """Return how many calls of one run may be in each pool at once, by the names of its slots."""
    return {POOL_SLOTS["process"]: find_size(), POOL_SLOTS["dask"]: DASK_WINDOW}
