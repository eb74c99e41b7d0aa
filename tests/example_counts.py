"""How many examples are tried: all of them on the build machine, a tenth or a quarter of them in a quick run elsewhere."""

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

IS_THOROUGH = bool(os.environ.get("CI"))
_QUICK_SHARE = 10
_FEWEST = 10


def examples(count: int) -> int:
    """Return how many of `count` examples to try here: `max_examples=examples(200)`."""
    return count if IS_THOROUGH else max(min(count, _FEWEST), count // _QUICK_SHARE)


def share(cases: Sequence[T], start: int = 0, *, every: int = 4) -> Sequence[T]:
    """Return the cases to try here, in their order: all, or every fourth. `start` shifts which of them."""
    return cases if IS_THOROUGH else cases[start % every :: every]
