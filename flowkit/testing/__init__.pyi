"""The public names for tests, for type checkers; `__init__.py` imports them when they are first used."""

from flowkit.clock import ManualClock as ManualClock
from flowkit.exports.replaying import replay_run as replay_run
from flowkit.models.scripted import CUT as CUT
from flowkit.models.scripted import ScriptedModel as ScriptedModel
from flowkit.models.scripted import call as call
from flowkit.models.scripted import raw_call as raw_call
from flowkit.models.scripted import thinking as thinking
from flowkit.testing.checks import check as check
from flowkit.testing.loop import run_virtual as run_virtual
from flowkit.testing.strategies import arguments as arguments
from flowkit.testing.streams import read_turn as read_turn

__all__ = [
    "CUT",
    "ManualClock",
    "ScriptedModel",
    "arguments",
    "call",
    "check",
    "raw_call",
    "read_turn",
    "replay_run",
    "run_virtual",
    "thinking",
]
