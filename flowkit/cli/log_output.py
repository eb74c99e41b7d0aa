"""What a command logs to stderr: as much as `-v` and `FLOWKIT_LOG` ask for, else warnings."""

import logging
import sys
from collections.abc import Callable, Mapping

from flowkit.errors import ConfigurationError
from flowkit.suggestions import suggest

LEVELS: Mapping[str, int] = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
BY_COUNT = ("warning", "info", "debug")
"""The level of no, one and two `-v`."""


def start_logging(verbose: int, wanted: str | None) -> Callable[[], None]:
    """Log what flowkit says to stderr; return what ends that.

    `wanted` has levels with commas between: one alone is for all of flowkit, `flowkit.cache=debug` for a part. `-v`
    goes before the one for all. Raises `ConfigurationError` for what is no level.
    """
    levels = {"flowkit": LEVELS["warning"], **read_levels(wanted or "")}
    if verbose:
        levels["flowkit"] = LEVELS[BY_COUNT[min(verbose, len(BY_COUNT) - 1)]]
    handler = logging.StreamHandler(sys.stderr)
    if verbose or wanted:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    loggers = {name: logging.getLogger(name) for name in levels}
    before = {name: logger.level for name, logger in loggers.items()}
    for name, logger in loggers.items():
        logger.setLevel(levels[name])
    loggers["flowkit"].addHandler(handler)

    def stop() -> None:
        loggers["flowkit"].removeHandler(handler)
        for name, logger in loggers.items():
            logger.setLevel(before[name])

    return stop


def read_levels(text: str) -> dict[str, int]:
    """Read levels by logger.

    >>> read_levels("info,flowkit.cache=debug")
    {'flowkit': 20, 'flowkit.cache': 10}
    """
    levels: dict[str, int] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, is_named, level = part.rpartition("=")
        if level.lower() not in LEVELS:
            raise ConfigurationError(f"FLOWKIT_LOG: {level!r} is no level: {suggest(level.lower(), LEVELS)}")
        if is_named and name != "flowkit" and not name.startswith("flowkit."):
            raise ConfigurationError(f"FLOWKIT_LOG: {name!r} is none of flowkit's loggers: flowkit.cache, for example")
        levels[name or "flowkit"] = LEVELS[level.lower()]
    return levels
