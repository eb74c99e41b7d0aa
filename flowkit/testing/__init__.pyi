from flowkit.clock import ManualClock as ManualClock
from flowkit.models.scripted import ScriptedModel as ScriptedModel
from flowkit.testing.checks import check as check
from flowkit.testing.loop import run_virtual as run_virtual
from flowkit.testing.strategies import arguments as arguments
from flowkit.testing.streams import read_turn as read_turn

__all__ = ["ManualClock", "ScriptedModel", "arguments", "check", "read_turn", "run_virtual"]
