"""For tests of tools, agents and recipes.

Every public name is imported when it is first used: the pytest plugin lives in this package, and must not slow down
the test runs of projects that only have flowkit installed.
"""

from importlib import import_module

_HOME = {
    "CUT": "flowkit.models.scripted",
    "ManualClock": "flowkit.clock",
    "ScriptedModel": "flowkit.models.scripted",
    "arguments": "flowkit.testing.strategies",
    "call": "flowkit.models.scripted",
    "check": "flowkit.testing.checks",
    "raw_call": "flowkit.models.scripted",
    "read_turn": "flowkit.testing.streams",
    "replay_run": "flowkit.exports.replaying",
    "run_virtual": "flowkit.testing.loop",
    "thinking": "flowkit.models.scripted",
}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]  # the stub beside this file names them


def __getattr__(name: str) -> object:
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module 'flowkit.testing' has no attribute {name!r}") from None
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
