"""Warm up before the first run: imports, stores, and the connection to the model's server."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from flowkit.agent.plan import AgentPlan
from flowkit.errors import FlowkitError
from flowkit.executor.threads import run_apart
from flowkit.models.base import Model
from flowkit.models.pricing import ManyModels, load_prices


@dataclass(frozen=True, slots=True)
class WarmUp:
    """The result of a warm-up: the seconds of each part, and a sentence for each one that failed.

    A run may work in spite of a failure: the second model of a fallback is only needed when the first one fails.
    """

    seconds: dict[str, float]
    problems: tuple[str, ...]


@runtime_checkable
class Connects(Protocol):
    """A model over the network, which can open its connection before the first request."""

    async def connect(self) -> None: ...


async def warm_up(plan: AgentPlan[Any], timeout_s: float) -> WarmUp:
    """Read docstrings and prices, open cache and journal, and connect to each model's server, all in parallel."""
    parts: dict[str, Callable[[], Awaitable[object]]] = {"tools": lambda: run_apart(plan.tools.specs)}
    cache, journal = plan.cache, plan.journal
    if cache is not None:
        parts["cache"] = cache.open
    if journal is not None:
        parts["journal"] = lambda: run_apart(lambda: journal.runs(limit=1))
    parts["prices"] = lambda: load_prices(plan.model)
    for model in _list_models(plan.model):
        if isinstance(model, Connects):
            parts[f"model {model.name}"] = model.connect

    clock = asyncio.get_running_loop().time
    began_s = clock()
    seconds: dict[str, float] = {}
    problems: dict[str, str] = {}

    async def do(name: str, part: Callable[[], Awaitable[object]]) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await part()
        except TimeoutError:
            problems[name] = f"not ready within {timeout_s:g} s"
        except (FlowkitError, OSError, sqlite3.Error) as error:
            problems[name] = str(error)
        seconds[name] = clock() - began_s

    async with asyncio.TaskGroup() as group:
        for name, part in parts.items():
            group.create_task(do(name, part))
    if problems.get("prices") in [text for name, text in problems.items() if name != "prices"]:
        del problems["prices"]  # what is missing, such as a key, is missing for the model, too
    told = tuple(f"{name}: {problems[name]}" for name in parts if name in problems)
    return WarmUp({name: seconds[name] for name in parts}, told)


def _list_models(model: Model) -> Iterator[Model]:
    """Yield the model, or those that a fallback or a router chooses from."""
    members = model.models if isinstance(model, ManyModels) else ()
    for member in members:
        yield from _list_models(member)
    if not members:
        yield model
