"""From deltas to a turn: an answer's content, and which of its calls are sealed."""

from flowkit.assemble.assembler import Assembler
from flowkit.assemble.parts import (
    CallFragment,
    CallOpened,
    CallReady,
    CallState,
    CallVoided,
    Part,
    SealedCall,
    Turn,
    TurnCall,
)

__all__ = [
    "Assembler",
    "CallFragment",
    "CallOpened",
    "CallReady",
    "CallState",
    "CallVoided",
    "Part",
    "SealedCall",
    "Turn",
    "TurnCall",
]
