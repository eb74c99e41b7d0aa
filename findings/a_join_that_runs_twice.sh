#!/usr/bin/env bash
# LangGraph 1.2.24: two branches that meet in one node, one of them a step longer than the other.
# Expected by most: the node that both lead to runs once, when both are done, as a join of a workflow does.
# Seen: it runs twice: with the short branch's result alone, and again after the long one. Drawn, the graph shows a join.
# An edge starts its target in the next step, whatever else leads there; only an edge from a list of nodes waits for all
# of them. So an answer is written, and paid for, before the slower look-up has ended.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check langgraph==1.2.24
"$work/venv/bin/python" - <<'PYTHON'
import operator
from collections.abc import Callable
from typing import Annotated, TypedDict

from langgraph.graph import END, START, StateGraph


class State(TypedDict):
    ran: Annotated[list[str], operator.add]


def note(name: str) -> Callable[[State], State]:
    return lambda state: {"ran": [name]}


def run(*, waits: bool) -> list[str]:
    graph = StateGraph(State)
    for name in ("order", "stock", "shipping", "answer"):
        graph.add_node(name, note(name))
    graph.add_edge(START, "order")
    graph.add_edge(START, "stock")
    graph.add_edge("order", "shipping")
    if waits:
        graph.add_edge(["shipping", "stock"], "answer")
    else:
        graph.add_edge("shipping", "answer")
        graph.add_edge("stock", "answer")
    graph.add_edge("answer", END)
    return graph.compile().invoke({"ran": []})["ran"]


print("two edges:", run(waits=False), "one edge from a list:", run(waits=True))
assert run(waits=False).count("answer") == 2
assert run(waits=True).count("answer") == 1
PYTHON
echo "as stated"
