"""Agents: the rounds of a model and its tools, from a message to an answer."""

from flowkit.agent.agent import Agent, AgentRunOptions
from flowkit.agent.agent_run import AgentResult
from flowkit.agent.guards import Refuse, Watch
from flowkit.agent.warming import WarmUp

__all__ = ["Agent", "AgentResult", "AgentRunOptions", "Refuse", "WarmUp", "Watch"]
