"""Other frameworks that do the same work, where they are installed: `pip install -e '.[test,bench]'`.

An adapter is a module of this folder. It uses its package as the package's own pages show it, streaming, with its
defaults, only without tracing. Some peers do more in the same case: Pydantic AI and the OpenAI Agents SDK have hooks for
tracing at every step, LangChain calls callbacks, LangGraph can save the state after each step, Hamilton keeps lineage.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, cast

from tests.bench.report import Report

AGENTS = {
    "pydantic_ai": ("pydantic-ai-slim",),
    "openai_agents": ("openai-agents",),
    "langchain": ("langchain", "langchain-openai"),
}
"""Which packages each adapter needs; the first one's version is told."""
GRAPHS = {"langgraph": ("langgraph",), "hamilton": ("apache-hamilton",)}

Ask = Callable[[str], Coroutine[Any, Any, str]]
"""Sends a prompt, and gives the answer when the calls of the turn have run."""


class AgentPeer(Protocol):
    """What the adapter of an agent framework offers."""

    def open_agent(self, base_url: str, *tools: Callable[..., Any]) -> AbstractAsyncContextManager[Ask]:
        """An agent with these functions as tools; its model streams."""
        ...

    def make_model(self, client: Any, name: str) -> Any:
        """A model of this name behind a client of the `openai` package."""
        ...

    def stream(self, model: Any) -> AsyncIterator[object]:
        """One answer of the model in the framework's own chunks, and whole at the end."""
        ...

    def build(self, function: Callable[..., Any]) -> Any:
        """A tool with its schema and its docstring read."""
        ...

    def make_call(self, tool: Any, arguments: str) -> Callable[[], Coroutine[Any, Any, object]]:
        """What validates the JSON text and calls the tool."""
        ...


class GraphPeer(Protocol):
    """What the adapter of a graph framework offers."""

    def make_graph(
        self, edges: Sequence[Sequence[int]], durations_s: Sequence[float]
    ) -> Callable[[], Coroutine[Any, Any, object]]:
        """What runs a graph that is already built: node `n` waits for the nodes `edges[n]`, sleeps and gives `n`."""
        ...


def find_agents(report: Report) -> Mapping[str, AgentPeer]:
    """The adapters whose packages are installed; the report says what they are, or how to have them."""
    return {name: load_agent(name) for name in _find_installed(AGENTS, report)}


def find_graphs(report: Report) -> Mapping[str, GraphPeer]:
    """As `find_agents`."""
    return {name: cast(GraphPeer, _load(name)) for name in _find_installed(GRAPHS, report)}


def load_agent(name: str) -> AgentPeer:
    """One adapter, whose packages are installed."""
    return cast(AgentPeer, _load(name))


def _load(name: str) -> object:
    return import_module(f"tests.bench.peers.with_{name}")


def _find_installed(adapters: Mapping[str, Sequence[str]], report: Report) -> list[str]:
    found: list[str] = []
    for name, packages in adapters.items():
        try:
            versions = [version(package) for package in packages]
        except PackageNotFoundError:
            continue
        found.append(name)
        report.note(f"{name}: {packages[0]} {versions[0]}")
    if missing := [name for name in adapters if name not in found]:
        report.note(f"without {', '.join(missing)}: pip install -e '.[test,bench]'")
    return found
