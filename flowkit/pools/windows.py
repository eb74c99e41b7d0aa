"""The number of parallel calls in each pool. It is read for every run, so it imports no dependency of the pools."""

import os
from collections.abc import Mapping

from flowkit.errors import ConfigurationError
from flowkit.tools.options import POOL_SLOTS

SIZE_VARIABLE = "FLOWKIT_POOL_SIZE"

DASK_WINDOW = 200
"""How many calls of this process are at a Dask cluster at once."""


def find_size() -> int:
    """Return the number of processes of the local pool: `FLOWKIT_POOL_SIZE`, else the number of usable cores."""
    said = os.environ.get(SIZE_VARIABLE)
    if not said:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not said.isdecimal() or int(said) < 1:
        raise ConfigurationError(f"{SIZE_VARIABLE} is {said!r}, expected a whole number of at least 1")
    return int(said)


def find_windows() -> Mapping[str, int]:
    """Return the limits of a run's parallel calls in each pool, by the names of its slots."""
    return {POOL_SLOTS["process"]: find_size(), POOL_SLOTS["dask"]: DASK_WINDOW}
