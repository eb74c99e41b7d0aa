"""Compute the effect, approval and scope of a tool with everything that it needs, and refuse a weaker declaration."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flowkit.errors import DefinitionError
from flowkit.tools.implementation import Callee
from flowkit.tools.keys import find_unkeyable
from flowkit.tools.needs import Need
from flowkit.tools.options import Effect, Options, Scope, narrowest, placeholders, strongest
from flowkit.tools.schema.signatures import MISSING


def find_effect(options: Options, needs: Sequence[Need[Any]]) -> Effect:
    """Find the strongest effect of a tool and its needs; without a declared effect, a tool is treated as a write."""
    return strongest([options.claimed_effect or "write", *(need.tool.effect for need in needs)])


def find_named_scope(options: Options, needs: Sequence[Need[Any]]) -> Scope | None:
    """Find the narrowest scope that a tool or a need of it names; None when none does."""
    claims: list[Scope | None] = [options.scope, *(need.tool.named_scope for need in needs)]
    named: list[Scope] = [scope for scope in claims if scope is not None]
    return narrowest(named) if named else None


def find_needed_tools(tool: str, needs: Sequence[Need[Any]]) -> Mapping[str, Any]:
    """Find all needed tools, direct or not, by name."""
    found: dict[str, Any] = {}
    for need in needs:
        for needed in (*need.tool.needed_tools.values(), need.tool):
            if found.setdefault(needed.name, needed).identity != needed.identity:
                raise DefinitionError.about(tool, f"it needs two tools that are called {needed.name!r}", need.parameter)
    return found


def check_closure(callee: Callee, options: Options) -> None:
    """Raise `DefinitionError` if a tool's needs contradict its own declaration."""
    problem, parameter = next(_find_problems(callee, options), (None, None))
    if problem is not None:
        raise DefinitionError.about(callee.name, problem, parameter)


def _find_problems(callee: Callee, options: Options) -> Iterator[tuple[str, str | None]]:
    """Yield each problem, and the parameter that it is about."""
    needs = callee.needs
    effect = find_effect(options, needs)
    if options.claimed_effect not in (None, effect):
        stronger = next(need.tool.name for need in needs if need.tool.effect == effect)
        yield f"it says effect {options.claimed_effect!r}, but needs {stronger!r}, which is {effect!r}", None
    asking = [need.tool.name for need in needs if need.tool.approval is not False]
    if options.approval is False and asking:
        yield f"it says approval=False, but needs {asking[0]!r}, which must be approved", None
    scope = find_named_scope(options, needs)
    if options.scope not in (None, scope):
        narrower = next(need.tool.name for need in needs if need.tool.named_scope == scope)
        yield f"it says scope {options.scope!r}, but needs {narrower!r}, whose scope is {scope!r}", None
    uses_context = callee.takes_context or any(need.tool.uses_context for need in needs)
    if options.ttl is not None and options.scope is None and uses_context:
        yield (
            "it has a ttl and takes a Context, so it must declare which users share its results: scope='user', ...",
            None,
        )
    if options.ttl is not None:
        yield from _find_unkeyable_parameters(callee)
    for name in options.secret:
        if name not in callee.own_names:
            yield f"secret names {name!r}, which is not one of its parameters", None
    for need in needs:
        if need.tool.result_annotation is not MISSING and need.tool.result_schema is None:
            result = f"{need.tool.name!r}, whose result {need.tool.result_annotation!r} can't be JSON"
            yield f"it needs {result}; what isn't data belongs in the run's data", need.parameter
    yield from _find_wrong_resources(callee, options)


def _find_unkeyable_parameters(callee: Callee) -> Iterator[tuple[str, str]]:
    for parameter in callee.visible:
        opaque = find_unkeyable(parameter.annotation)
        if opaque is not None:
            what = f"parameter {parameter.name!r} holds a {opaque.__name__}, of which no cache key can be made"
            yield f"it has a ttl, but {what}: nothing would be kept", parameter.name


def _find_wrong_resources(callee: Callee, options: Options) -> Iterator[tuple[str, None]]:
    known = callee.own_names | {need.parameter for need in callee.needs}
    for template in options.resources:
        try:
            names = {path.partition(".")[0] for path in placeholders(template)}
        except ValueError as error:
            yield f"resource {template!r}: {error}", None
            continue
        for name in sorted(names - known):
            yield f"resource {template!r} names {name!r}, which is not one of its parameters", None
