"""Options of a wrong type are refused in a sentence, where they are given: by `@tool`, agents, limits, runs, recipes."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from flowkit import Agent, Limits, OpenAIModel, Recipe, ScriptedModel, Tool, Toolset, each, recipe, step, tool, when
from flowkit.errors import ConfigurationError, DefinitionError

AGENT: Callable[..., Any] = Agent
TOOL: Any = tool
LIMITS: Any = Limits
EACH: Any = each
WHEN: Any = when
STEP: Any = step
RECIPE: Any = recipe


def look(name: str) -> str:
    """Look for a thing."""
    return name


LOOK = tool(effect="read")(look)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"ttl": "5m"}, "ttl is '5m', expected seconds or a timedelta, such as 300 or timedelta(minutes=5)"),
        ({"ttl": True}, "ttl is True, expected seconds"),
        ({"timeout": "3"}, "timeout is '3', expected seconds or a timedelta"),
        ({"timeout": float("nan")}, "timeout is nan, expected seconds or a timedelta"),
        ({"retries": "2", "effect": "read"}, "retries is '2', expected a whole number"),
        ({"effect": "reads"}, "effect is 'reads', expected one of 'read', 'idempotent', 'write'"),
        ({"scope": "me"}, "scope is 'me', expected one of"),
        ({"resource": 5}, "resource is 5, expected a string, or a tuple of them"),
        ({"secret": "name"}, "secret is 'name', expected a tuple of names: ('name',)"),
        ({"cache_errors": ValueError, "ttl": 5}, "cache_errors is the class ValueError, expected a tuple of exception"),
        ({"approval": "always"}, "approval is 'always', expected True, False or a function"),
        ({"probe": "look"}, "probe is 'look', expected a function"),
        ({"max_result_chars": 1.5}, "max_result_chars is 1.5, expected a whole number"),
        ({"slot": 3}, "slot is 3, expected a string"),
        ({"name": 3}, "name is 3, expected a string"),
        ({"strict": "no"}, "strict is 'no', expected True, False or None"),
        ({"flatten": 1}, "flatten is 1, expected True or False"),
    ],
)
def test_a_tools_option_of_a_wrong_type_is_told_at_decoration(options: Mapping[str, Any], expected: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        TOOL(**options)(look)
    assert f"tool 'look': {expected}" in str(caught.value)
    if "name" not in options:
        with pytest.raises(DefinitionError, match="expected"):
            Tool.from_schema("look", "", {"type": "object"}, look, **options)


def test_an_option_that_a_tool_has_not_is_told_with_the_one_that_was_meant() -> None:
    with pytest.raises(TypeError, match="@tool has no option 'tll'; did you mean 'ttl'"):
        TOOL(tll=5)
    with pytest.raises(DefinitionError, match=r"a name is given as @tool\(name='look'\)"):
        TOOL("look")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"tools": look}, "tools is the function look, expected a list of tools: tools=[look]"),
        ({"tools": LOOK}, "tools is the function look, expected a list of tools: tools=[look]"),
        ({"tools": Toolset(LOOK)}, "expected a list of tools"),
        ({"tools": "look"}, "tools is 'look', expected a list of tools"),
        ({"tools": None}, "tools is None, expected a list of tools"),
        ({"limits": 5}, "limits is 5, expected Limits(…)"),
        ({"cache": "folder"}, "cache is 'folder', expected True, False or a cache, such as DiskCache(folder)"),
        ({"journal": True}, "journal is True, expected a journal"),
        ({"slots": "many"}, "slots is 'many', expected a whole number, or numbers by name"),
        ({"prefetch": "look"}, "prefetch is 'look', expected a list of calls"),
        ({"instructions": None}, "instructions is None, expected a string, or a function"),
        ({"tool_choice": "look"}, "tool_choice is 'look', expected 'auto', 'none', 'required' or NamedTool(name)"),
        ({"attempts": 0}, "attempts is 0, expected 1 or more"),
        ({"early": "yes"}, "early is 'yes', expected True or False"),
        ({"before_request": 1}, "before_request is 1, expected a function"),
    ],
)
def test_an_agents_option_of_a_wrong_type_is_told_when_it_is_made(options: Mapping[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AGENT(ScriptedModel(["Hi."]), **options)
    assert str(caught.value).startswith("agent 'agent': ")
    assert expected in str(caught.value)


@pytest.mark.parametrize("model", [None, 5, OpenAIModel, "gpt"])
def test_what_is_no_model_is_told_when_an_agent_is_made(model: object) -> None:
    with pytest.raises(ConfigurationError, match=r"agent 'agent': .*such as OpenAIModel"):
        AGENT(model)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"turns": "8"}, "Limits: turns is '8', expected a whole number"),
        ({"cost_usd": "1$"}, "Limits: cost_usd is '1$', expected US dollars as a number"),
        ({"seconds": timedelta(minutes=1)}, "expected a number of seconds; timeout= takes a timedelta, too"),
    ],
)
def test_a_limit_of_a_wrong_type_is_told_when_it_is_made(options: Mapping[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        LIMITS(**options)
    assert expected in str(caught.value)


@recipe
def find(name: str) -> str:
    """Find a thing."""
    return step(LOOK, name)


RUN_OPTIONS = [
    ({"timeout": "5s"}, "timeout is '5s', expected seconds or a timedelta"),
    ({"user": 17}, "user is 17, expected a string"),
    ({"run_id": 5}, "run_id is 5, expected a string"),
    ({"decisions": {"a": True}}, "expected a dict of Approve"),
    ({"limits": {"turns": 5}}, "expected Limits"),
    ({"journal": "runs.db"}, r"a journal is expected, such as Journal\('runs.db'\), not its path"),
    ({"model": "gpt"}, r"a model is expected, such as OpenAIModel\('gpt'\), not its name"),
    ({"slots": {"db": "4"}}, "slots is .*expected a whole number"),
]


@pytest.mark.parametrize(("options", "expected"), RUN_OPTIONS)
def test_a_runs_option_of_a_wrong_type_is_told_at_its_start_for_both_kinds(
    options: Mapping[str, Any], expected: str
) -> None:
    agent, found = AGENT(ScriptedModel(["Hi."]), cache=False), cast_any(find)
    for attempt in (
        lambda: agent.options(**options),
        lambda: agent.start("Hi", **options),
        lambda: found.options(**options),
        lambda: found.start({"name": "tea"}, **options),
    ):
        with pytest.raises(ConfigurationError, match=expected):
            attempt()


def test_the_options_of_a_run_stand_in_the_same_places_for_both_kinds() -> None:
    agent = Agent(ScriptedModel(["Hi.", "Ho."]), cache=False).options(user="Ann", timeout=timedelta(minutes=1))
    found = find.options(user="Ann", timeout=timedelta(minutes=1), cache=False, limits=Limits(tokens=9))
    assert (agent.run_sync("Hi", run_id="r").run_id, found.options(run_id="r").run_sync("tea").run_id) == ("r", "r")
    other = agent.options(model=ScriptedModel(["From another."]))
    assert (other.run_sync("Hi").output, agent.run_sync("Hi").output) == ("From another.", "Ho.")


def same(value: Any) -> Any:
    return value


SLIPS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda name: STEP.options(timeout="5s")(LOOK, name), r"a step: timeout is '5s', expected seconds"),
    (lambda name: STEP.options(retries=-1)(LOOK, name), r"a step: retries is -1, expected 0 or more"),
    (lambda name: STEP.options(optional="yes")(LOOK, name), r"a step: optional is 'yes', expected True or False"),
    (lambda name: STEP.options(fallback=5)(LOOK, name), r"a step: fallback is 5, expected a function"),
    (lambda name: STEP.options(id=5)(LOOK, name), r"a step: id is 5, expected a string"),
    (lambda name: EACH([name], same, at_once=0), r"each: at_once is 0, expected 1 or more"),
    (lambda name: EACH([name], [1]), r"each: do is \[1\], expected a function, such as a lambda"),
    (lambda name: EACH([name], same, on_error="ignore"), r"each: on_error is 'ignore', expected 'fail'"),
    (lambda name: WHEN(name == "tea", "tea"), r"when: then is 'tea', expected a function, such as a lambda"),
]


@pytest.mark.parametrize(("make", "expected"), SLIPS)
def test_an_option_of_a_recipes_word_is_told_with_its_line(make: Callable[[str], Any], expected: str) -> None:
    def traced(name: str) -> Any:
        return make(name)

    with pytest.raises(DefinitionError, match=rf"test_option_checks\.py:\d+: {expected}"):
        recipe(traced)


def test_what_is_no_function_makes_no_recipe() -> None:
    with pytest.raises(DefinitionError, match=r"@recipe takes a function .*@recipe\(name='night'\)"):
        RECIPE("night")
    with pytest.raises(DefinitionError, match="@recipe: name is 5, expected a string"):
        RECIPE(name=5)


def cast_any(made: Recipe[..., Any]) -> Any:
    """The recipe, as one without a type checker sees it."""
    return made
