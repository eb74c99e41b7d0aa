"""The graph: nodes, the edges between them, and its pictures before and after a run."""

from flowkit.graph.copying import BodyCopies, nest
from flowkit.graph.core import Graph, sort_nodes
from flowkit.graph.nodes import (
    AT_MOST,
    INPUTS,
    Body,
    Control,
    Each,
    Fallback,
    Group,
    ModelStep,
    Node,
    Step,
    When,
    check_node,
    describe,
    find_all_references,
    find_own_references,
    get_after,
    get_bodies,
    index_id,
    item_id,
)
from flowkit.references import ToolCall

__all__ = [
    "AT_MOST",
    "INPUTS",
    "Body",
    "BodyCopies",
    "Control",
    "Each",
    "Fallback",
    "Graph",
    "Group",
    "ModelStep",
    "Node",
    "Step",
    "ToolCall",
    "When",
    "check_node",
    "describe",
    "find_all_references",
    "find_own_references",
    "get_after",
    "get_bodies",
    "index_id",
    "item_id",
    "nest",
    "sort_nodes",
]
