"""The executor: it runs a graph that may still grow."""

from flowkit.executor.core import Executor
from flowkit.executor.graph_runs import run_graph
from flowkit.executor.outcomes import Approve, Decision, Deny, Outcome, Source, State

__all__ = ["Approve", "Decision", "Deny", "Executor", "Outcome", "Source", "State", "run_graph"]
