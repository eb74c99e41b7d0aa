"""What rules for a router save on everyday and hard requests, and what they send to the wrong model."""

import pytest

from tests.router_requests import RULES, judge, load_requests

HELD = load_requests("held")


@pytest.mark.parametrize(
    ("name", "saved", "wrong", "wasted"),
    [
        ("always strong", 0.0, 0, 20),
        ("always cheap", 0.8, 10, 0),
        ("by length", 0.53, 3, 1),
        ("by words", 0.60, 5, 1),
        ("by words and errors", 0.49, 2, 1),
    ],
)
def test_a_rule_saves_so_much_on_requests_it_was_not_written_for(
    name: str, saved: float, wrong: int, wasted: int
) -> None:
    """Of 10 hard and 20 everyday ones; the figures stand in the documentation."""
    outcome, strong = judge(RULES[name], HELD), judge(RULES["always strong"], HELD)
    assert 1 - outcome.cost_usd / strong.cost_usd == pytest.approx(saved, abs=0.01)
    assert (outcome.answered_wrongly, outcome.wasted) == (wrong, wasted)


def test_rules_look_better_on_the_requests_they_were_written_for() -> None:
    """So a rule is judged by others."""
    rule = RULES["by words"]
    assert judge(rule, load_requests("rules")).answered_wrongly < judge(rule, HELD).answered_wrongly


def test_watching_for_errors_mends_some_of_what_was_sent_wrong() -> None:
    watched, plain = judge(RULES["by words and errors"], HELD), judge(RULES["by words"], HELD)
    assert watched.answered_wrongly < plain.answered_wrongly
    assert watched.cost_usd < judge(RULES["always strong"], HELD).cost_usd
