"""Agents: the rounds of a model and its tools, from a message to an answer."""

from flowkit.agent.agent import (
    Agent,
    RunOptions,
)

__all__ = [
    "Agent",
    "RunOptions",
]
