"""Tools by schema are checked as functions are, whatever stranger wrote the schema; and what schemas can't say is refused."""

import time
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import AliasChoices, AliasPath, BaseModel, Field

from flowkit import Agent, ScriptedModel, Tool, tool
from flowkit.codec import JSON
from flowkit.errors import DefinitionError, ToolArgumentsError, ToolResultError
from flowkit.tools.long_results import LongResults, measure
from flowkit.tools.schema.docstrings import read_docstring
from flowkit.tools.schema.results import ResultType
from tests.example_counts import examples


def give(arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


def give_x(arguments: dict[str, Any]) -> Any:
    return arguments["x"]


def make(property_schema: dict[str, JSON], **more: JSON) -> Tool[..., Any]:
    schema: dict[str, Any] = {"type": "object", "properties": {"x": property_schema}, "required": ["x"], **more}
    return Tool.from_schema("take", "Take it.", schema, give_x)


def read(property_schema: dict[str, JSON], value: object) -> object:
    return make(property_schema).validate({"x": value}).values["x"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "nullable": True},
        {"type": "string", "enum": ["a"], "nullable": True},
        {"$ref": "#/properties/y", "nullable": True},
        {"anyOf": [{"type": "string"}, {"type": "integer"}], "nullable": True},
    ],
)
def test_null_may_stand_where_a_schema_is_nullable(schema: dict[str, JSON]) -> None:
    whole: dict[str, Any] = {"type": "object", "properties": {"x": schema, "y": {"type": "string"}}}
    taken = Tool.from_schema("take", "Take it.", whole, give)
    assert taken.validate({"x": None}).values["x"] is None


def test_null_may_not_stand_elsewhere() -> None:
    with pytest.raises(ToolArgumentsError):
        read({"type": "string"}, None)


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        ("date", "2026-11-30", "30.11.2026"),
        ("date-time", "2026-11-30T08:00:00Z", "tomorrow"),
        ("time", "08:00:00", "8 o'clock"),
        ("duration", "PT5M", "five minutes"),
        ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123"),
        ("ipv4", "127.0.0.1", "localhost"),
        ("ipv6", "::1", "127.0.0.1"),
    ],
)
def test_formats_are_checked(form: str, good: str, bad: str) -> None:
    assert read({"type": "string", "format": form}, good) == good
    with pytest.raises(ToolArgumentsError):
        read({"type": "string", "format": form}, bad)


def test_formats_that_nobody_checks_are_texts() -> None:
    assert read({"type": "string", "format": "house-number"}, "12b") == "12b"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("integer", "5", 5),
        ("number", "2.5", 2.5),
        ("integer", "-3", -3),
        ("boolean", "true", True),
        ("boolean", "false", False),
    ],
)
def test_numbers_as_text_are_read_and_told(kind: str, text: str, value: object) -> None:
    read = make({"type": kind}).validate({"x": text})
    assert read.values["x"] == value
    assert read.repaired


@pytest.mark.parametrize(
    ("schema", "value"),
    [({"type": "integer"}, "five"), ({"type": "integer"}, "2.5"), ({"type": "integer", "minimum": 9}, "5")],
)
def test_texts_that_are_no_numbers_are_refused(schema: dict[str, JSON], value: str) -> None:
    with pytest.raises(ToolArgumentsError):
        read(schema, value)


def test_text_that_may_be_a_text_stays_one() -> None:
    assert read({"type": ["string", "integer"]}, "5") == "5"


ENDLESS: dict[str, dict[str, Any]] = {
    "to itself": {"properties": {"x": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}},
    "in a circle": {
        "properties": {"x": {"$ref": "#/$defs/a"}},
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}},
    },
    "needs itself": {"properties": {"x": {"$ref": "#"}}, "required": ["x"]},
    "needs itself in a list": {
        "properties": {"x": {"type": "array", "items": {"$ref": "#"}, "minItems": 1}},
        "required": ["x"],
    },
}


@pytest.mark.parametrize("schema", ENDLESS.values(), ids=ENDLESS)
def test_schema_that_refers_to_itself_without_end_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="without end"):
        Tool.from_schema("take", "Take it.", {"type": "object", **schema}, give)


def test_schema_of_a_tree_is_taken() -> None:
    node: dict[str, Any] = {
        "type": "object",
        "properties": {
            "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        },
        "required": ["children", "next"],
    }
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"x": {"$ref": "#/$defs/node"}},
        "required": ["x"],
        "$defs": {"node": node},
    }
    taken = Tool.from_schema("take", "Take it.", schema, give)
    leaf: dict[str, Any] = {"children": [], "next": None}
    taken.validate({"x": {"children": [leaf], "next": None}})


@pytest.mark.parametrize("pattern", [r"^(a+)+$", r"^(a|aa)+$", r"(x+x+)+y"])
def test_pattern_of_a_stranger_is_matched_in_bounded_time(pattern: str) -> None:
    """By backtracking each of these takes hours; the suite's own time-out is the bound here."""
    began = time.thread_time()
    with pytest.raises(ToolArgumentsError):
        read({"type": "string", "pattern": pattern}, "a" * 50 + "!" if "x" not in pattern else "x" * 50)
    assert time.thread_time() - began < 10


def test_patterns_are_checked() -> None:
    assert read({"type": "string", "pattern": "^P[0-9]+$"}, "P12") == "P12"
    with pytest.raises(ToolArgumentsError):
        read({"type": "string", "pattern": "^P[0-9]+$"}, "Q12")


def test_pattern_that_only_backtracking_can_match_is_not_checked_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    assert read({"type": "string", "pattern": "^(?=x)(?!y).*$"}, "anything") == "anything"
    assert "can't be matched in bounded time" in caplog.text


# What schemas and docstrings of functions can't say


class ByPath(BaseModel):
    city: str = Field(validation_alias=AliasPath("address", "city"))


class ByChoice(BaseModel):
    city: str = Field(validation_alias=AliasChoices("town", AliasPath("address", "city")))


def test_path_alias_is_refused_where_the_schema_is_made() -> None:
    def find(place: ByPath) -> str:
        """Find it."""
        return place.city

    with pytest.raises(DefinitionError, match=r"path 'address\.city'"):
        _ = tool(effect="read")(find).parameters


def test_alias_that_has_a_plain_name_is_taken() -> None:
    @tool(effect="read")
    def find(place: ByChoice) -> str:
        """Find it."""
        return place.city

    assert find.validate({"place": {"town": "부산"}}).values["place"].city == "부산"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("when (str, as HH:MM): When to come.", "When to come."),
        ("when (str, as HH:MM, optional): At: noon.", "At: noon."),
        ("when (dict[str, int]: counts): Whatever.", "Whatever."),
        ("when (str): HH:MM, in 24 hours.", "HH:MM, in 24 hours."),
        ("when (Callable[[int], str]): How.", "How."),
        ("when: As (HH:MM): so.", "As (HH:MM): so."),
    ],
)
def test_type_with_a_colon_keeps_the_text_of_its_parameter(line: str, text: str) -> None:
    read = read_docstring(f"Come.\n\nArgs:\n    {line}\n    other: Another.\n")
    assert read.parameters == {"when": text, "other": "Another."}


@dataclass
class Holder:
    held: dict[Any, int]


@pytest.mark.parametrize(
    "result", [{"1": 1, 1: 2}, [{None: 1, "null": 2}], {"a": {True: 1, "true": 2}}, Holder({1: 1, "1": 2})]
)
def test_result_that_would_lose_a_key_is_refused(result: object) -> None:
    with pytest.raises(ToolResultError, match="are one in JSON"):
        ResultType(Any).dump("look", result)


@given(st.dictionaries(st.integers() | st.text(max_size=3) | st.booleans() | st.none(), st.integers(), max_size=5))
def test_for_every_mapping_all_is_there_or_refused(result: dict[Any, int]) -> None:
    try:
        dumped = ResultType(Any).dump("look", result)
    except ToolResultError:
        return
    assert isinstance(dumped, dict)
    assert len(dumped) == len(result)


@pytest.mark.parametrize("city", ["부산", "서울"])
def test_choice_in_another_form_of_unicode_is_read(city: str) -> None:
    @tool(effect="read")
    def weather(city: Literal["부산", "서울"]) -> str:
        """Tell the weather."""
        return city

    read = weather.validate({"city": unicodedata.normalize("NFD", city)})
    assert (read.values["city"], len(read.repaired)) == (city, 1)
    foreign = make({"enum": ["부산", "서울"]}).validate({"x": unicodedata.normalize("NFD", city)})
    assert foreign.values["x"] == city


@given(st.text(alphabet="ab 한국어é😀\n", max_size=200), st.integers(4, 60))
def test_for_every_script_what_is_shown_of_a_result_costs_no_more_than_its_limit(text: str, limit: int) -> None:
    results = LongResults()
    shown = results.show("r", text, limit)
    assert measure(shown.partition("\n[cut: ")[0]) <= limit
    assert measure("한" * 100) == 3 * measure("a" * 100)


def test_annotated_description_stays() -> None:
    @tool(effect="read")
    def look(when: Annotated[str, Field(description="As HH:MM.")]) -> str:
        """Look."""
        return when

    assert "As HH:MM." in str(look.parameters)


def test_model_reads_the_name_that_was_written_where_it_cannot_travel() -> None:
    @tool(effect="read", name="주문_조회")
    def look(number: str) -> str:
        """배송 상태를 알려 준다."""
        return number

    model = ScriptedModel(["네"])
    Agent(model, tools=[look]).run_sync("안녕")
    assert model.requests[0].tools[0].description.startswith("주문_조회: ")


_FIELDS: st.SearchStrategy[Any] = st.one_of(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(("string", "integer", "number", "boolean", "null", "array", "object"))
            | st.lists(st.sampled_from(("string", "integer", "null", "object")), min_size=1, unique=True)
        },
        optional={"description": st.just("A field."), "minLength": st.just(2), "enum": st.just(["a", 1])},
    ),
    st.just({}),
    st.just(True),
)
_VALUES: st.SearchStrategy[Any] = st.sampled_from(("", "a", "long", 0, 1, 1.0, 2.5, True, None, [], [1], {}, {"b": 1}))


@settings(max_examples=examples(300))
@given(
    st.dictionaries(st.sampled_from("abc"), _FIELDS),
    st.lists(st.sampled_from("abcd"), unique=True),
    st.sampled_from((None, True, False, {"type": "string"})),
    st.dictionaries(st.sampled_from("abcd"), _VALUES),
)
def test_for_every_schema_arguments_are_taken_as_they_are_exactly_if_jsonschema_takes_them(
    properties: dict[str, Any], required: list[str], others: JSON, arguments: dict[str, Any]
) -> None:
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": required}
    if others is not None:
        schema["additionalProperties"] = others
    taken = Tool.from_schema("take", "Take it.", schema, give)
    try:
        repaired = taken.validate(arguments).repaired
    except ToolArgumentsError:
        repaired = ("refused",)
    validator: Any = Draft202012Validator(schema)
    assert (repaired == ()) is validator.is_valid(arguments)


def test_schema_of_the_third_draft_has_its_own_types_and_its_own_required() -> None:
    third = "http://json-schema.org/draft-03/schema#"
    schema: dict[str, Any] = {
        "$schema": third,
        "type": "object",
        "properties": {"x": {"type": "any"}, "y": {"type": "integer", "required": True}},
    }
    taken = Tool.from_schema("take", "Take it.", schema, give)
    assert taken.validate({"x": [], "y": 1}).values == {"x": [], "y": 1}
    with pytest.raises(ToolArgumentsError, match="'y'"):
        taken.validate({"x": []})
