"""What a run's length is made of: by what the events tell, and by time only where they don't."""

from itertools import pairwise

import pytest
from hypothesis import given, settings

from flowkit import events
from flowkit.graph.pictures.critical_path import find_critical_path
from flowkit.graph.pictures.timeline import fold
from tests.example_counts import examples
from tests.runs import Script, two_turns
from tests.test_executor_properties import Made, graphs, run


def find(script: Script) -> list[tuple[str, float]]:
    return [(link.label, link.duration_s) for link in find_critical_path(fold(script.log.events))]


def test_turns_and_the_calls_between_them() -> None:
    path = find_critical_path(fold(two_turns().events))
    assert [(link.label, link.begin_s, link.end_s) for link in path] == [
        ("turn 1", 0, 1),
        ("0", 1, 4),
        ("turn 2", 4, 5),
    ]


def test_what_a_call_waited_for_counts_and_not_who_ended_at_the_same_time() -> None:
    script = Script()
    script.call("needed", 0, 0.5, 1)
    script.call("unrelated", 0, 0, 1)
    script.call("last", 0, 1, 3, waits={"calls": ("needed",)})
    assert find(script) == [("needed", 0.5), ("last", 2)]


def test_chain_goes_through_what_came_from_a_flight() -> None:
    script = Script()
    script.call("leader", 0, 0, 2)
    script.call("follower", 0, 0, 2, "flight", waits={"calls": ("leader",)})
    script.call("last", 0, 2, 3, waits={"calls": ("follower",)})
    assert find(script) == [("leader", 2), ("last", 1)]


def test_of_two_that_ended_together_the_one_that_ran_counts() -> None:
    script = Script()
    script.at(0, events.TurnStarted, 1, "gpt")
    script.at(1, events.TurnFinished, 1, "tool_calls")
    script.call("turn/1/call/0", 1, 1, 4)
    script.call("turn/1/call/1", 4, 4, 4, "cache")
    script.at(4, events.TurnStarted, 2, "gpt")
    script.at(5, events.TurnFinished, 2, "stop")
    assert find(script) == [("turn 1", 1), ("0", 3), ("turn 2", 1)]


def test_holder_is_on_the_path_by_what_it_held() -> None:
    script = Script()
    script.call("list", 0, 0, 1)
    script.at(0, events.CallNew, "each", "each")
    script.at(0, events.CallWaiting, "each", "calls", ("list",))
    script.at(1, events.CallStarted, "each")
    script.call("each/0/look", 1, 1, 3, parent="each")
    script.call("each/1/look", 1, 1, 2, parent="each")
    # The third item began when one of the first two had ended.
    script.call("each/2/look", 2, 2, 5, parent="each")
    script.at(5, events.CallFinished, "each")
    script.call("report", 0, 5, 6, waits={"calls": ("each",)})
    assert find(script) == [("list", 1), ("1/look", 1), ("2/look", 3), ("report", 1)]


def test_own_work_of_a_tool_that_calls_others_counts() -> None:
    script = Script()
    script.at(0, events.CallNew, "outer", "outer")
    script.at(0, events.CallStarted, "outer")
    script.call("outer/a", 1, 1, 3, parent="outer")
    script.at(4, events.CallFinished, "outer")
    assert find(script) == [("outer", 1), ("a", 2), ("outer", 1)]


def test_need_counts_before_its_caller() -> None:
    script = Script()
    script.at(0, events.TurnStarted, 1, "gpt")
    script.at(1, events.CallNew, "turn/1/call/0", "quote")
    script.call("turn/1/call/0/order", 1, 1, 2, parent="turn/1/call/0")
    script.at(1, events.CallWaiting, "turn/1/call/0", "calls", ("turn/1/call/0/order",))
    script.at(2, events.CallStarted, "turn/1/call/0")
    script.at(2, events.TurnFinished, 1, "tool_calls")
    script.at(3, events.CallFinished, "turn/1/call/0")
    assert find(script) == [("turn 1", 1), ("order", 1), ("quote", 1)]


@pytest.mark.parametrize("held_by", ["slot", "resource"])
def test_who_waited_for_a_slot_or_resource_follows_who_ended_last(held_by: events.WaitingFor) -> None:
    script = Script()
    script.call("first", 0, 0, 1)
    script.call("second", 0, 0, 2)
    script.call("last", 0, 2, 3, waits={held_by: ()})
    assert find(script) == [("second", 2), ("last", 1)]


def test_person_is_on_the_path_for_the_time_of_the_answer() -> None:
    script = Script()
    script.call("look", 0, 0, 1)
    script.at(0, events.CallNew, "refund", "refund")
    script.at(0, events.CallWaiting, "refund", "calls", ("look",))
    script.at(1, events.CallWaiting, "refund", "approval")
    script.at(9, events.CallStarted, "refund")
    script.at(10, events.CallFinished, "refund")
    assert find(script) == [("look", 1), ("a person's answer on refund", 8), ("refund", 1)]


def test_equal_labels_are_told_apart() -> None:
    script = Script()
    script.call("turn/1/call/0/get", 0, 0, 1)
    script.call("turn/2/call/0/get", 0, 1, 2, waits={"calls": ("turn/1/call/0/get",)})
    assert find(script) == [("get (turn/1/call/0/get)", 1), ("get (turn/2/call/0/get)", 1)]


def test_trace_of_calls_that_never_ended_has_a_path() -> None:
    script = Script()
    script.at(0, events.CallNew, "a", "a")
    script.at(1, events.CallStarted, "a")
    script.at(3, events.CallProgress, "a", 1)
    assert find(script) == [("a", 2)]
    assert find(Script()) == []


@given(graphs(calm=True))
@settings(max_examples=examples(60), deadline=None)
def test_path_of_every_run_reaches_from_its_beginning_to_its_end_without_a_gap(made: Made) -> None:
    ran = run(made, grow=False)
    path = find_critical_path(fold(ran.log.events))
    assert all(first.end_s == second.begin_s for first, second in pairwise(path))
    assert sum(link.duration_s for link in path) == ran.makespan


def test_who_waited_for_a_slot_follows_nobody_who_had_ended_before() -> None:
    script = Script()
    script.call("before", 0, 0, 1)
    script.call("last", 2, 3, 4, waits={"slot": ()})
    assert find(script) == [("last", 1)]


def test_call_that_took_no_time_follows_who_ended_before_it() -> None:
    script = Script()
    script.call("first", 0, 0, 1)
    script.call("last", 0, 2, 2, waits={"slot": ()})
    assert find(script) == [("first", 1)]
