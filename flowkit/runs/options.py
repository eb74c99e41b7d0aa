"""The options of a run, with the same names for agents and recipes."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypedDict

from flowkit.cache import Cache, open_default_cache
from flowkit.errors import ConfigurationError
from flowkit.events import EventLog
from flowkit.executor import Decision
from flowkit.executor.standalone import EXPECTED
from flowkit.journal import Journal
from flowkit.option_checks import FLAG, Expected, find_misfit, has_methods
from flowkit.runs.limits import Limits
from flowkit.suggestions import check_option_names
from flowkit.tools import Tool
from flowkit.tools.options import to_seconds


class RunOptions(TypedDict, total=False):
    """The options of every run, also for the `options(…)` of an agent or a recipe.

    - `data` is `ctx.data` for tools.
    - `user` and `session` limit who may share cached results.
    - `run_id` names the run.
    - `decisions` answer calls that wait for a person, by the ids of `result.pending`.
    - `cache` keeps results with a TTL; True is the user's cache folder, False disables it.
    - `journal`: a run in it can be resumed after a crash by its `run_id`; `allow_changed` allows it under changed code.
    - `limits` bound the run's usage and cost.
    - `timeout` limits its duration, in seconds or as a `timedelta`.
    - `slots` limits the calls in parallel, in total or by name.
    """

    data: object
    user: str | None
    session: str | None
    run_id: str | None
    decisions: Mapping[str, Decision]
    cache: Cache | bool
    journal: Journal | None
    allow_changed: bool
    limits: Limits | None
    timeout: float | timedelta | None
    slots: int | Mapping[str, int]


def _say_name(value: object) -> str:
    return f"a model is expected, such as OpenAIModel({value!r}), not its name" if isinstance(value, str) else ""


MODEL = Expected(
    "a model, such as OpenAIModel('gpt-4.1-mini')",
    has_methods("stream"),
    instead=_say_name,
)
_EXPECTED: Mapping[str, Expected] = {
    **EXPECTED,
    "allow_changed": FLAG,
    "limits": Expected("Limits(…)", lambda value: isinstance(value, Limits)),
}


def check_run_options(
    given: Mapping[str, object], known: type, what: str, more: Mapping[str, Expected] | None = None
) -> None:
    """Refuse options that a run hasn't, with `TypeError`, and values they don't take, with `ConfigurationError`."""
    check_option_names(given, known, what)
    misfit = find_misfit(given, {**_EXPECTED, **(more or {})})
    if misfit is not None:
        raise ConfigurationError(f"{what}: {misfit}")


def find_limits(limits: Limits | None, timeout: float | timedelta | None) -> Limits:
    """Return the limits, with the timeout included."""
    limits = Limits() if limits is None else limits
    return limits if timeout is None else replace(limits, seconds=to_seconds(timeout))


def open_cache(cache: Cache | bool, tools: Iterable[Tool[..., Any]] | None = None) -> Cache | None:
    """Open the cache of an option; the user's default cache is opened only for tools with a TTL, if tools are given."""
    if not isinstance(cache, bool):
        return cache
    is_needed = tools is None or any(tool.ttl_s is not None for tool in tools)
    return open_default_cache() if cache and is_needed else None


def open_log(run_id: str) -> EventLog:
    """Open the log of a run that starts now in the current event loop."""
    return EventLog(run_id, asyncio.get_running_loop().time)


def check_identity(tools: Iterable[Tool[..., Any]], user: str | None, session: str | None) -> None:
    """Refuse a run that lacks the identity by which its tools' results are kept apart."""
    for tool in tools:
        if tool.ttl_s is None:
            continue
        if (tool.scope == "user" and user is None) or (tool.scope == "session" and session is None):
            raise ConfigurationError(
                f"tool {tool.name!r} keeps its results for each {tool.scope}: start the run with {tool.scope}=…"
            )
