"""The phase of a call; it only moves forward, except that a call which waited at a gate becomes due again.

These are plain numbers of a module, since each call reads a dozen of them. Enum members are slow, and so are class
attributes in Python 3.11, which the interpreter looks up each time; module attributes are cached.
"""

from typing import Final

NEW: Final = 0
"""Its arguments still stream."""
NEEDS: Final = 1
"""It waits for other calls."""
DUE: Final = 2
"""It may continue: it is in the table's `moves`, once."""
GUARD: Final = 3
"""The run's guard looks at it."""
APPROVAL: Final = 4
RESOURCE: Final = 5
LOOKUP: Final = 6
"""It waits for the cache's answer."""
FLIGHT: Final = 7
"""It waits for an equal call."""
SLOT: Final = 8
RUNNING: Final = 9
ENDED: Final = 10
DROPPED: Final = 11
"""An early run with other arguments than the final ones; its result isn't needed any more."""
