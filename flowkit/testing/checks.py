"""`check(tool)`: test the properties of every tool on one of yours.

    from flowkit.testing import check

    def test_get_order() -> None:
        check(get_order)

The tool's function isn't called. The properties: the schema is valid; the tool accepts whatever its schema allows; the
order of arguments, their spelling and an explicit default don't change the cache key; a strict target's rules are
met; and arguments written for a strict target are converted back to the same values.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import HealthCheck, given, note, settings

from flowkit.codec import JSON, dumps
from flowkit.errors import ToolArgumentsError
from flowkit.targets import Lowered, find_violations, lower
from flowkit.testing.strategies import arguments
from flowkit.tools import Tool, make_tool
from flowkit.tools.schema.arguments import Arguments

_SLOW = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)
Allowed = Callable[[Mapping[str, JSON]], bool]


def check(tool: Tool[..., Any] | Callable[..., Any], *, examples: int = 100, allowed: Allowed | None = None) -> None:
    """Test the properties of every tool on this one; raises `AssertionError` with the smallest failing arguments.

    `allowed` returns True for arguments that the tool accepts, if your own validators refuse some that fit the schema;
    the others must be refused with a `ToolArgumentsError`.
    """
    from jsonschema import Draft202012Validator

    tried = make_tool(tool)
    Draft202012Validator.check_schema(tried.parameters)
    lowered = lower(tried.parameters, "openai-strict", strict=tried.strict)
    strict_validator: Any = Draft202012Validator(dict(lowered.schema))
    if lowered.strict:
        broken = find_violations(lowered.schema)
        assert not broken, f"the strict schema breaks the rules: {'; '.join(map(str, broken))}"

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=_SLOW)
    @given(arguments(tried))
    def try_arguments(given_arguments: dict[str, JSON]) -> None:
        note(f"arguments of {tried.name}: {json.dumps(given_arguments, ensure_ascii=False)}")
        if allowed is not None and not allowed(given_arguments):
            _assert_refused(tried, given_arguments)
            return
        values = _validate(tried, given_arguments)
        if not _are_same(tried, values, _validate(tried, given_arguments)):
            return  # A default that is made anew, such as an id: two readings can't be compared.
        backwards = dict(reversed(given_arguments.items()))
        _assert_same(tried, values, _validate(tried, backwards), "in another order")
        text = dumps(backwards).decode()
        _assert_same(tried, values, _validate(tried, text), "as JSON text")
        if lowered.strict:
            written = lowered.lower_arguments(given_arguments)
            problem = next(strict_validator.iter_errors(written), None)
            assert problem is None, f"lowered to {written!r}, which the strict schema refuses: {problem}"
            _assert_comes_back(tried, lowered, given_arguments, values, written)

    try_arguments()


def _assert_comes_back(
    tool: Tool[..., Any], lowered: Lowered, before: dict[str, JSON], values: Arguments, written: dict[str, JSON]
) -> None:
    raised = lowered.raise_arguments(written)
    # Told by the lint: a default that the model can't ask for any more is written out, or isn't known to the schema.
    if raised != before and any(note.kind == "default" for note in lowered.notes):
        return
    _assert_same(tool, values, _validate(tool, raised), "after the way to a strict target and back")


def _validate(tool: Tool[..., Any], given_arguments: Mapping[str, JSON] | str) -> Arguments:
    try:
        return tool.validate(given_arguments)
    except ToolArgumentsError as error:
        names = ", ".join(dict.fromkeys(name for names in tool.own_checks.values() for name in names))
        hint = f"; {names} checks it too, so say what is good: check(..., allowed=...)" if names else ""
        raise AssertionError(f"the schema allows what the tool refuses: {error}{hint}") from error


def _assert_refused(tool: Tool[..., Any], given_arguments: Mapping[str, JSON]) -> None:
    try:
        tool.validate(given_arguments)
    except ToolArgumentsError:
        return
    raise AssertionError("the tool takes what `allowed` says that it refuses")


def _assert_same(tool: Tool[..., Any], values: Arguments, others: Arguments, how: str) -> None:
    assert _are_same(tool, values, others), f"{how}, {values.values!r} became {others.values!r}"


def _are_same(tool: Tool[..., Any], values: Arguments, others: Arguments) -> bool:
    first, second = tool.key(values, "check"), tool.key(others, "check")
    return values.values == others.values if first is None else first == second
