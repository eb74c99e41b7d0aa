"""How many examples Hypothesis tries: all of them on the build machine, a quarter of them in a quick run elsewhere."""

import os

IS_THOROUGH = bool(os.environ.get("CI"))
_QUICK_SHARE = 4
_FEWEST = 10


def examples(count: int) -> int:
    """Return how many of `count` examples to try here: `max_examples=examples(200)`."""
    return count if IS_THOROUGH else max(min(count, _FEWEST), count // _QUICK_SHARE)
