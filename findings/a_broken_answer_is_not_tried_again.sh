#!/usr/bin/env bash
# LangGraph 1.2.24: a node with a `RetryPolicy`, by the errors that a call of a model ends with.
# Expected by most: a policy that one adds to a node tries it again on any error, or at least when the model was too slow
# or its answer was no JSON, which are what one adds it for.
# Seen: neither is tried again. By default ValueError, RuntimeError, LookupError and OSError count as faults of the
# program; JSONDecodeError and pydantic's ValidationError are ValueErrors, and TimeoutError is an OSError. A lost connection
# is tried again, and so is an error of one's own that derives from Exception. Only `retry_on` changes it.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check langgraph==1.2.24
"$work/venv/bin/python" - <<'PYTHON'
import json
from typing import TypedDict

from langgraph.graph import START, StateGraph
from langgraph.types import RetryPolicy


class State(TypedDict):
    question: str


class Refused(Exception):
    """An error of the application's own."""


def tries(error: Exception, **options: object) -> int:
    calls: list[State] = []

    def ask(state: State) -> State:
        calls.append(state)
        raise error

    graph = StateGraph(State)
    policy = RetryPolicy(max_attempts=2, initial_interval=0.01, jitter=False, **options)
    graph.add_node("ask", ask, retry_policy=policy)
    graph.add_edge(START, "ask")
    try:
        graph.compile().invoke({"question": "Is it on its way?"})
    except type(error):
        return len(calls)
    raise AssertionError(error)


no_json = json.JSONDecodeError("Expecting value", "Sure! Here it is:", 0)
seen = {type(error).__name__: tries(error) for error in (no_json, TimeoutError(), ConnectionError(), Refused())}
print(seen)
assert seen == {"JSONDecodeError": 1, "TimeoutError": 1, "ConnectionError": 2, "Refused": 2}
assert tries(no_json, retry_on=ValueError) == 2
PYTHON
echo "as stated"
