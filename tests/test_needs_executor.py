"""`Tool.run` resolves what a tool needs one after another; the executor does it at the same time, and agrees."""

import asyncio
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowkit import Needs, Tool, ToolCall, tool
from tests.example_counts import examples
from tests.executing import execute


def build(shape: list[tuple[int, ...]], ran: list[str]) -> list[Tool[..., Any]]:
    """Tools in layers: each needs the earlier ones that `shape` names, and takes a parameter of its own."""
    tools: list[Tool[..., Any]] = []
    for index, needed in enumerate(shape):
        name = f"tool_{index}"

        def function(_name: str = name, **given_values: int) -> list[object]:
            ran.append(_name)
            return [_name, sorted(given_values.items())]

        tools.append(define(name, index, [tools[number % index] for number in needed] if index else [], function))
    return tools


def define(name: str, index: int, needed: list[Tool[..., Any]], body: Any) -> Tool[..., Any]:
    source = ", ".join(
        [
            f"own_{index}: int",
            "shared: int = 0",
            *(f"need_{place}: list[object] = Needs(needed[{place}])" for place in range(len(needed))),
        ]
    )
    namespace: dict[str, Any] = {"Needs": Needs, "needed": needed, "body": body}
    names = ", ".join(f"{part.split(':')[0]}={part.split(':')[0]}" for part in source.split(", "))
    exec(f"def {name}({source}) -> list[object]:\n    return body({names})", namespace)
    return tool(effect="read")(namespace[name])


shapes = st.lists(st.lists(st.integers(0, 5), max_size=3, unique=True).map(tuple), min_size=1, max_size=5)


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.too_slow])
@given(shapes, st.data())
def test_run_agrees_with_the_executor(shape: list[tuple[int, ...]], data: st.DataObject) -> None:
    ran: list[str] = []
    tools = build(shape, ran)
    last = tools[-1]
    names = [parameter.name for parameter in last.visible]
    arguments = {name: data.draw(st.integers(0, 9), label=name) for name in names}

    expected = asyncio.run(last.run(arguments))
    alone = sorted(ran)
    ran.clear()
    outcome = execute(tools, [ToolCall("c", last.name, arguments)])["c"]

    assert outcome.state == "finished"
    assert outcome.value == last.dump(expected)
    assert sorted(ran) == alone
    assert len(set(alone)) == len(alone)
