"""A warning about instructions that came in a history and are left out, where none of the agent's take their place."""

import logging
from collections.abc import Sequence

from flowkit.messages import Message, SystemMessage

logger = logging.getLogger("flowkit.agent")


def tell_dropped(agent: str, history: Sequence[Message], told: set[str]) -> None:
    """Warn once about a system message in this history that will be dropped; `told` records that it was done."""
    if "system" not in told and any(isinstance(message, SystemMessage) and message.text for message in history):
        told.add("system")
        logger.warning(
            "agent %r: the system message in history= is left out, and the agent has no instructions: give it "
            "instructions=",
            agent,
        )
