"""What is asked of an executor, a graph or a run at the wrong moment, or by the wrong name, is told in a sentence."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from flowkit import (
    Agent,
    Approve,
    ConfigurationError,
    Executor,
    FlowkitError,
    Graph,
    Journal,
    ToolCall,
    run_graph,
    tool,
)
from flowkit.errors import DefinitionError, GraphError, NoSuchNode
from flowkit.graph import Body, Each, item_id
from flowkit.references import Reference
from flowkit.testing import ScriptedModel, call
from flowkit.testing.loop import run_virtual


@tool(effect="write", approval=True)
async def pay(amount: int) -> int:
    """Pay."""
    return amount


@tool(effect="read")
async def look(number: int) -> int:
    """Look."""
    return number


LOOK = ToolCall("look", "look", {"number": 1})
PAY = ToolCall("pay", "pay", {"amount": 1})
EACH = Each("e", [1], Body((ToolCall("e/x", "look", {"number": Reference(item_id("e"))}),), Reference("e/x")))

BY_ID: Mapping[str, Callable[[Executor, str], object]] = {
    "decide": lambda graph, name: graph.decide(name, Approve()),
    "cancel": lambda graph, name: graph.cancel(name),
    "void": lambda graph, name: graph.void(name, "why"),
    "confirm": lambda graph, name: graph.confirm(name),
    "disown": lambda graph, name: graph.disown(name),
    "references": lambda graph, name: graph.references(name),
    "outcomes": lambda graph, name: graph.outcomes[name],
    "announce below": lambda graph, name: graph.announce("other", "look", name),
    "add below": lambda graph, name: graph.add(ToolCall("other", "look", {"number": 1}), parent=name),
}
TAKES_NODES: Mapping[str, Callable[[Executor], object]] = {
    "add": lambda graph: graph.add(ToolCall("late", "look", {"number": 1})),
    "add a control": lambda graph: graph.add(EACH),
    "seal": lambda graph: graph.seal(ToolCall("late", "look", {"number": 1})),
    "announce": lambda graph: graph.announce("late", "look"),
    "fail": lambda graph: graph.fail(ToolCall("late", "look", {"number": 1}), "no"),
    "start_early": lambda graph: graph.start_early(ToolCall("late", "look", {"number": 1})),
    "provide": lambda graph: graph.provide("late", 1),
}


@pytest.mark.parametrize("verb", BY_ID)
def test_a_node_that_is_not_there_is_named_with_those_that_are(verb: str) -> None:
    async def go() -> None:
        async with Executor([look]) as graph:
            graph.add(LOOK)
            with pytest.raises(NoSuchNode) as refused:
                BY_ID[verb](graph, "lok")
            assert str(refused.value) == "there is no node 'lok'; did you mean 'look'?"
            assert refused.value.node_id == "lok"
            assert isinstance(refused.value, GraphError)
            assert isinstance(refused.value, KeyError)

    run_virtual(go())


def test_waiting_for_a_node_that_is_not_there_is_refused_at_once() -> None:
    async def go() -> None:
        async with Executor([look]) as graph:
            graph.add(LOOK)
            with pytest.raises(NoSuchNode, match="there is no node 'lok'"):
                await graph.wait("look", "lok")

    run_virtual(go())


def test_a_decision_on_what_does_not_wait_says_why() -> None:
    async def go() -> list[str]:
        said: list[str] = []
        async with Executor([look, pay]) as graph:
            graph.add(PAY)
            graph.add(ToolCall("after", "pay", {"amount": Reference("pay")}))
            await graph.wait()
            for name in ("after", "pay", "pay"):
                try:
                    graph.decide(name, Approve())
                except NoSuchNode as refused:
                    said.append(str(refused))
            await graph.wait()
            with pytest.raises(NoSuchNode) as ended:
                graph.decide("pay", Approve())
        return [*said, str(ended.value)]

    assert run_virtual(go()) == [
        "'after' doesn't wait for a decision: nobody is asked about it, or not yet",
        "'pay' doesn't wait for a decision: it was decided before",
        "'pay' doesn't wait for a decision: it has ended (finished)",
    ]


def test_what_is_no_decision_is_refused_and_the_call_still_waits() -> None:
    async def go() -> None:
        async with Executor([pay]) as graph:
            graph.add(PAY)
            await graph.wait()
            with pytest.raises(ConfigurationError, match=r"a decision is True, expected Approve\(\) or Deny\(reason\)"):
                graph.decide("pay", cast(Any, True))
            assert [waiting.id for waiting in graph.pending] == ["pay"]

    run_virtual(go())


@pytest.mark.parametrize("verb", TAKES_NODES)
def test_a_closed_executor_takes_no_node(verb: str) -> None:
    async def go() -> None:
        async with Executor([look]) as graph:
            graph.add(LOOK)
        with pytest.raises(GraphError, match="this executor is closed"):
            TAKES_NODES[verb](graph)
        with pytest.raises(GraphError, match="this executor is closed: make a new one"):
            await graph.__aenter__()
        assert list(graph.outcomes) == ["look"]
        await graph.wait()

    run_virtual(go())


@pytest.mark.parametrize("is_kept", [False, True], ids=["alone", "journal"])
@pytest.mark.parametrize("verb", TAKES_NODES)
def test_an_executor_that_has_not_begun_says_how_to_begin(verb: str, is_kept: bool, tmp_path: Path) -> None:
    async def go() -> None:
        journal = Journal(tmp_path / "journal.sqlite3") if is_kept else None
        graph = Executor([look], journal=journal, run_id="r")
        with pytest.raises(GraphError, match="has not begun: use it as `async with"):
            TAKES_NODES[verb](graph)
        assert (graph.pending, dict(graph.outcomes)) == ((), {})
        await graph.wait()
        async with graph:
            graph.add(LOOK)
            await graph.wait()
            assert graph.outcomes["look"].value == 1
        if journal is not None:
            journal.close()

    run_virtual(go())


@pytest.mark.parametrize("node", ["look", look, None])
def test_what_is_no_node_is_refused(node: object) -> None:
    async def go() -> None:
        async with Executor([look]) as graph:
            with pytest.raises(GraphError, match=r"is no node, expected ToolCall\("):
                graph.add(cast(Any, node))
            with pytest.raises(GraphError, match="an empty id"):
                graph.add(ToolCall("", "look", {"number": 1}))

    run_virtual(go())
    with pytest.raises(GraphError, match=r"is no node, expected ToolCall\("):
        Graph([cast(Any, node)])


def test_a_control_has_no_references_of_its_own() -> None:
    async def go() -> object:
        async with Executor([look]) as graph:
            graph.add(EACH)
            await graph.wait()
            return graph.references("e")

    assert run_virtual(go()) == {}


OF_GRAPHS: Mapping[str, Callable[[Graph], object]] = {
    "look up": lambda graph: graph["lok"],
    "dependencies": lambda graph: graph.dependencies("lok"),
    "dependents": lambda graph: graph.dependents("lok"),
}


@pytest.mark.parametrize("verb", OF_GRAPHS)
def test_a_graph_names_the_node_that_was_meant(verb: str) -> None:
    graph = Graph([LOOK])
    assert "lok" not in graph
    assert graph.get("lok") is None
    with pytest.raises(NoSuchNode, match="there is no node 'lok'; did you mean 'look'"):
        OF_GRAPHS[verb](graph)


WRONG: Mapping[str, tuple[Mapping[str, object], str]] = {
    "no seconds": ({"timeout": 0}, "timeout is 0, expected more than 0 seconds"),
    "words for a time": ({"timeout": "5m"}, "timeout is '5m', expected seconds or a timedelta"),
    "a flag for a time": ({"timeout": True}, "timeout is True, expected seconds or a timedelta"),
    "a path for a cache": ({"cache": "folder"}, "cache is 'folder', expected True, False or a cache"),
    "a path for a journal": ({"journal": "runs.sqlite3"}, r"such as Journal\('runs.sqlite3'\), not its path"),
    "a text of slots": ({"slots": "4"}, "slots is '4', expected a whole number"),
    "a flag for a decision": ({"decisions": {"look": True}}, r"expected a dict of Approve\(…\) or Deny\(…\)"),
    "an input that it hasn't": ({"inputs": {"input": 1}}, "the graph has no input 'input'; did you mean 'inputs'"),
    "a list for a graph": ({"graph": [LOOK]}, r"is no graph, expected Graph\("),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_option_of_the_wrong_kind_is_told_before_anything_runs(case: str) -> None:
    options, said = WRONG[case]
    with pytest.raises(FlowkitError, match=said):
        run_virtual(run_graph(**cast(Any, {"graph": Graph([LOOK]), "tools": [look], **options})))


def test_a_run_says_why_it_takes_no_decision() -> None:
    async def go() -> None:
        agent = Agent(ScriptedModel([[call("look", number=1)], "done"]), tools=[look])
        run = agent.start("go")
        with pytest.raises(NoSuchNode, match="the run has not begun"):
            run.decide("look", Approve())
        await run.wait()
        with pytest.raises(NoSuchNode, match="'lok'"):
            run.decide("lok", Approve())

    run_virtual(go())


def test_cancelling_a_run_that_has_ended_does_nothing_also_when_its_loop_is_closed() -> None:
    async def go() -> object:
        run = Agent(ScriptedModel(["done"])).start("go")
        await run.wait()
        return run

    run = cast(Any, asyncio.run(go()))
    run.cancel()
    assert run.status == "done"


def ask_amount(amount: int) -> bool:
    """Take an argument of the tool."""
    return amount > 1


async def ask_later(arguments: Mapping[str, Any], context: object) -> bool:
    """Say so too late."""
    return True


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (ask_amount, "approval is the function ask_amount, expected one that takes the arguments, as a dict, and the"),
        (ask_later, "approval is the function ask_later, which is async: a rule returns True or False at once"),
    ],
    ids=["one parameter", "async"],
)
def test_a_rule_of_the_wrong_form_is_refused_at_decoration(rule: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):

        @tool(effect="write", approval=rule)
        async def send(to: str) -> None:  # pyright: ignore[reportUnusedFunction]  # refused before it is one
            """Send."""
