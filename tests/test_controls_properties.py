"""Random graphs of controls in controls: with one slot or many they give what evaluating them in order gives."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.codec import JSON
from flowkit.errors import ToolError
from flowkit.graph import Body, Each, Fallback, Graph, Group, Node, When, item_id
from flowkit.graph.conditions import Compare
from flowkit.references import Reference, ToolCall, find_references, substitute
from flowkit.tools import tool
from tests.example_counts import examples
from tests.executing import execute

DEEPEST = 2


@tool(effect="read", retries=0)
async def join(values: list[Any], seconds: float, fails: bool) -> list[Any]:
    """Give the values back after a while."""
    await asyncio.sleep(seconds)
    if fails:
        raise ToolError("no")
    return values


@st.composite
def bodies(draw: st.DrawFn, prefix: str, known: Sequence[str], depth: int) -> Body:
    """Nodes that refer to what is known and to one another, and a value made of some of them."""
    nodes: list[Node] = []
    here: list[str] = []
    for number in range(draw(st.integers(0 if depth else 1, 3))):
        nodes.append(draw(_nodes(f"{prefix}{number}", [*known, *here], depth)))
        here.append(nodes[-1].id)
    return Body(tuple(nodes), draw(_pick([*known, *here])))


def _pick(known: Sequence[str]) -> st.SearchStrategy[list[Reference]]:
    if not known:
        return st.just([])
    return st.lists(st.sampled_from(known).map(Reference), unique=True, max_size=3)


@st.composite
def _nodes(draw: st.DrawFn, name: str, known: Sequence[str], depth: int) -> Node:
    kinds = ["call", "call", *(["group", "each", "when", "fallback"] if depth < DEEPEST else [])]
    inside = f"{name}/"
    match draw(st.sampled_from(kinds)):
        case "group":
            return Group(name, draw(bodies(inside, known, depth + 1)))
        case "each":
            return Each(
                name,
                draw(st.lists(st.integers(0, 9), max_size=3)),
                draw(bodies(inside, [*known, item_id(name)], depth + 1)),
                at_once=draw(st.sampled_from([None, 1, 2])),
                on_error=draw(st.sampled_from(["fail", "stop", "skip", "null"])),
            )
        case "when":
            otherwise = draw(st.none() | bodies(f"{inside}otherwise/", known, depth + 1))
            return When(
                name,
                Compare(1, "==", draw(st.integers(1, 2))),
                draw(bodies(f"{inside}then/", known, depth + 1)),
                otherwise,
            )
        case "fallback":
            tries = [draw(bodies(f"{inside}{number}/", known, depth + 1)) for number in range(draw(st.integers(1, 2)))]
            return Fallback(name, tuple(tries), optional=draw(st.booleans()))
        case _:
            fails = draw(st.sampled_from([False, False, False, True]))
            seconds = draw(st.sampled_from([0, 0.5, 1.0]))
            return ToolCall(name, "join", {"values": draw(_pick(known)), "seconds": seconds, "fails": fails})


class NoValueError(Exception):
    """A node failed, or was left out because one did."""


@dataclass
class Evaluation:
    """The values so far, by node; who is missing has failed."""

    values: dict[str, JSON]

    def run(self, node: Node) -> None:
        try:
            self.values[node.id] = self._evaluate(node)
        except NoValueError:
            return

    def look(self, value: object) -> Any:
        def find(reference: Reference) -> JSON:
            if reference.call_id not in self.values:
                raise NoValueError
            return self.values[reference.call_id]

        return substitute(value, find)

    def _evaluate(self, node: Node) -> JSON:
        match node:
            case ToolCall():
                values = self.look(node.arguments["values"])
                if node.arguments["fails"]:
                    raise NoValueError
                return values
            case Group():
                return self.run_body(node.body)
            case When():
                # All that its values refer to has to be there, whichever branch is taken.
                self._need(node, *([node.then] if node.otherwise is None else [node.then, node.otherwise]))
                taken = node.then if node.condition.evaluate(self.look) else node.otherwise
                return None if taken is None else self.run_body(taken)
            case Fallback():
                self._need(node, *node.tries)
                for body in node.tries:
                    try:
                        return self.run_body(body)
                    except NoValueError:
                        continue
                if node.optional:
                    return None
                raise NoValueError
            case Each():
                self._need(node, node.body)
                return self._run_items(node)
            case _:
                raise AssertionError(node)

    def _need(self, node: Node, *made: Body) -> None:
        for body in made:
            self.look([found for found in find_references(body.value) if not found.call_id.startswith(f"{node.id}/")])

    def run_body(self, body: Body) -> JSON:
        for node in body.nodes:
            self.run(node)
        if any(node.id not in self.values for node in body.nodes):
            raise NoValueError
        return self.look(body.value)

    def _run_items(self, node: Each) -> JSON:
        results: list[JSON] = []
        for item in self.look(node.over):
            inside = Evaluation({**self.values, item_id(node.id): item})
            try:
                results.append(inside.run_body(node.body))
            except NoValueError:
                if node.on_error in ("fail", "stop"):
                    raise
                if node.on_error == "null":
                    results.append(None)
        return results


@given(bodies("n", [], 0), st.integers(1, 3))
@settings(max_examples=examples(150), deadline=None)
def test_controls_give_what_evaluating_in_order_gives(body: Body, slots: int) -> None:
    evaluation = Evaluation({})
    for node in body.nodes:
        evaluation.run(node)
    ran = execute([join], list(Graph(body.nodes).values()), slots=slots)
    for node in body.nodes:
        if node.id in evaluation.values:
            assert (ran[node.id].state, ran[node.id].value) == ("finished", evaluation.values[node.id])
        else:
            assert ran[node.id].state in ("failed", "skipped")
