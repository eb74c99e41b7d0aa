"""What a watcher sees, driven by events made by hand."""

import io
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from flowkit.codec import JSON
from flowkit.display.plain import PlainDisplay, say_call
from flowkit.display.summary import say_summary, summarise
from flowkit.display.terminal import MANY_CALLS, Steps, TerminalDisplay
from flowkit.display.transcript import CallBlock, Transcript
from flowkit.display.words import clean, shorten
from flowkit.events import (
    CallCancelled,
    CallDenied,
    CallFailed,
    CallFinished,
    CallNew,
    CallProgress,
    CallSealed,
    CallSkipped,
    CallStarted,
    Event,
    EventLog,
    RunFinished,
    RunStarted,
    TextDelta,
    ThinkingDelta,
    TurnFinished,
    TurnStarted,
    UsageReported,
)
from flowkit.graph import Body, Each, Graph
from flowkit.messages import Usage
from flowkit.references import Reference, ToolCall


class Script:
    """A log on a clock of its own: `at(t)` sets the time of the events that follow."""

    def __init__(self) -> None:
        self.t = 0.0
        self.log = EventLog("run-1", lambda: self.t)

    def at(self, t: float, kind: type[Event], *values: Any, **named: Any) -> None:
        self.t = t
        self.log.emit(kind, *values, **named)

    def call(self, name: str, start: float, end: float, **finished: Any) -> None:
        self.at(start, CallNew, name, name)
        self.at(start, CallSealed, name, {"order_id": "ORD-1"})
        self.at(start, CallStarted, name)
        self.at(end, CallFinished, name, {"status": "shipped"}, **finished)


def show_on_terminal(events: list[Event], *, width: int = 80, graph: Graph | None = None) -> str:
    """What has scrolled by when the display is closed."""
    out = io.StringIO()
    console = Console(file=out, width=width, height=24, force_terminal=False)
    with TerminalDisplay(console, graph=graph) as display:
        for event in events:
            display.show(event)
    return out.getvalue()


def show_in_pipe(events: list[Event]) -> tuple[str, str]:
    answer, notes = io.StringIO(), io.StringIO()
    display = PlainDisplay(answer, notes)
    for event in events:
        display.show(event)
    display.end()
    return answer.getvalue(), notes.getvalue()


def say_last_call(events: list[Event]) -> str:
    """The call that began last, as a person reads it."""
    transcript = Transcript()
    for event in events:
        transcript.apply(event)
    return say_call([*transcript.calls.values()][-1])


def refer(call: str, path: str) -> JSON:
    """A reference as events hold it."""
    return {"from_call": call, "path": path}


def test_summary_counts_what_ran_at_the_same_time() -> None:
    script = Script()
    script.at(0.0, RunStarted, "shop")
    script.at(0.0, TurnStarted, 1, "m")
    script.at(0.2, TextDelta, "Let me look.", 1)
    script.call("first", 0.5, 1.5)
    script.t = 0.0
    script.at(1.0, TurnFinished, 1, "tool_calls")
    script.at(1.0, UsageReported, 1, Usage(10, 5), 0.25)
    script.at(1.5, TurnStarted, 2, "m")
    script.at(2.5, TurnFinished, 2, "stop")
    script.at(2.5, UsageReported, 2, Usage(20, 6), 0.5)
    script.at(2.5, RunFinished, "done", tips=("mark it as read",))

    summary = summarise(script.log.events)

    assert (summary.first_token_s, summary.wall_s, summary.tools_s) == (0.2, 2.5, 1.0)
    assert summary.saved_s == 0.5  # 1.0 + 1.0 + 1.0 one after another, 2.5 as it was
    assert (summary.turns, summary.calls, summary.from_cache) == (2, 1, 0)
    assert (summary.usage.input_tokens, summary.usage.output_tokens, summary.cost_usd) == (30, 11, 0.75)
    assert say_summary(summary) == [
        "first token 200 ms · wall 2.50 s · in tools 1.00 s · 500 ms saved by starting early",
        "2 turns · 1 call · tokens 30 in, 11 out · $0.7500",
        "tip: mark it as read",
    ]
    assert "saved" not in str(say_summary(replace(summary, saved_s=0.009)))


def test_time_is_saved_by_parallelism_only_if_calls_ran_in_parallel() -> None:
    script = Script()
    script.call("first", 0.0, 1.0)
    script.at(0.25, CallNew, "second", "second")
    script.at(0.25, CallStarted, "second")
    script.at(1.0, CallFinished, "second", 1)

    assert "750 ms saved by parallelism" in say_summary(summarise(script.log.events))[0]


def test_prefetched_read_that_nobody_used_saves_no_time() -> None:
    script = Script()
    script.at(0.0, TurnStarted, 1, "m")
    script.call("prefetch/first", 0.0, 0.5)
    script.at(1.0, TurnFinished, 1, "stop")
    script.at(1.0, RunFinished, "done")

    summary = summarise(script.log.events)

    assert (summary.saved_s, len(summary.unused)) == (0.0, 1)


def test_summary_counts_a_call_inside_a_call_once() -> None:
    script = Script()
    script.at(0.0, CallNew, "outer", "outer")
    script.at(0.0, CallStarted, "outer")
    script.at(0.0, CallNew, "inner", "inner", "outer")
    script.at(0.0, CallStarted, "inner")
    script.at(1.0, CallFinished, "inner", 1)
    script.at(1.0, CallFinished, "outer", 1)

    summary = summarise(script.log.events)

    assert (summary.tools_s, summary.saved_s, summary.calls) == (1.0, 0.0, 1)


def test_summary_of_a_recipe_says_nothing_of_tokens_and_of_no_time_saved() -> None:
    script = Script()
    script.call("first", 0.0, 1.0)

    assert say_summary(summarise(script.log.events)) == ["wall 1.00 s · in tools 1.00 s", "1 call"]


def test_call_is_shown_with_the_values_that_its_references_stand_for() -> None:
    script = Script()
    script.at(0.0, RunStarted, "support", inputs={"express": True})
    script.call("get_order", 0.0, 0.1)
    script.at(0.2, CallNew, "ship", "ship")
    script.at(0.2, CallSealed, "ship", {"fast": refer("inputs", "/express"), "state": refer("get_order", "/status")})
    before = say_last_call(script.log.events)
    script.at(0.2, CallStarted, "ship")
    script.at(0.3, CallFinished, "ship", 1)

    assert before == "ship(fast=inputs/express, state=get_order/status)"
    assert say_last_call(script.log.events) == 'ship(fast=true, state="shipped")'


def test_call_that_the_model_did_not_ask_for_says_so() -> None:
    script = Script()
    script.at(0.0, CallNew, "prefetch/0", "get_order")
    script.at(0.0, CallSealed, "prefetch/0", {})
    script.at(0.0, CallStarted, "prefetch/0")
    script.at(0.5, CallFinished, "prefetch/0", 1)

    assert "✓ get_order()  500 ms, prefetched" in show_on_terminal(script.log.events)


def test_text_is_wrapped_between_words_on_a_terminal() -> None:
    script = Script()
    script.at(0.1, TextDelta, "Your order is on its way, and arrives tomorrow.", 1)

    lines = show_on_terminal(script.log.events, width=30).splitlines()

    assert [line.rstrip() for line in lines[:2]] == ["Your order is on its way, and", "arrives tomorrow."]


@pytest.mark.parametrize(
    "reference", [("get_order", ""), ("get_order", "/nothing"), ("nobody", "/status"), ("inputs", "/x")], ids=str
)
def test_reference_to_no_short_value_stays_a_name(reference: tuple[str, str]) -> None:
    script = Script()
    script.call("get_order", 0.0, 0.1)
    script.at(0.2, CallNew, "ship", "ship")
    script.at(0.2, CallSealed, "ship", {"it": refer(*reference)})
    script.at(0.2, CallStarted, "ship")

    assert say_last_call(script.log.events) == f"ship(it={''.join(reference)})"


def test_terminal_shows_text_calls_and_results_in_the_order_they_began() -> None:
    script = Script()
    script.at(0.1, ThinkingDelta, "Two things.", 1)
    script.at(0.2, TextDelta, "Let me ", 1)
    script.at(0.3, TextDelta, "look.\nNow", 1)
    script.call("get_order", 0.4, 0.7)
    script.call("search", 0.8, 0.9, source="cache", age_s=12.0)
    script.at(1.0, TextDelta, "It has shipped.", 2)

    shown = show_on_terminal(script.log.events)

    assert shown.splitlines() == [
        "Two things.",
        "Let me look.",
        "Now",
        '✓ get_order(order_id="ORD-1")  300 ms',
        '  {"status":"shipped"}',
        '✓ search(order_id="ORD-1")  ⚡ from the cache, 12.00 s old',
        '  {"status":"shipped"}',
        "It has shipped.",
    ]


def test_on_a_narrow_terminal_the_name_of_a_call_comes_before_the_age_of_its_result() -> None:
    script = Script()
    script.at(0.0, CallNew, "a", "고객_주문_상태_조회")
    script.at(0.0, CallSealed, "a", {"주문": "ORD-1002"})
    script.at(0.1, CallFinished, "a", {}, source="cache", age_s=500.0)

    assert show_on_terminal(script.log.events, width=40).splitlines()[0] == "✓ 고객_주문_상태_조 …  ⚡ from the cache"
    assert show_on_terminal(script.log.events, width=80).splitlines()[0].endswith("min 20 s old")


def test_terminal_shows_a_result_while_an_earlier_call_still_runs() -> None:
    script = Script()
    script.at(0.0, CallNew, "slow", "slow")
    script.at(0.0, CallSealed, "slow", {})
    script.at(0.0, CallStarted, "slow")
    script.call("quick", 0.1, 0.2)
    out = io.StringIO()
    console = Console(file=out, width=80, height=24, force_terminal=True, color_system=None)

    with TerminalDisplay(console) as display:
        for event in script.log.events:
            display.show(event)
        drawn = out.getvalue()

    assert '{"status":"shipped"}' in drawn
    assert "● slow()  running" in drawn


def test_terminal_shows_why_a_call_failed_and_never_an_escape_sequence() -> None:
    script = Script()
    script.at(0.0, CallNew, "a", "get_order")
    script.at(0.0, CallSealed, "a", {})
    script.at(0.1, CallFailed, "a", "no such order\x1b[2J")
    script.at(0.1, TextDelta, "\x1b]0;owned\x07Sorry.", 1)

    shown = show_on_terminal(script.log.events)

    assert "✗ get_order()  failed\n  no such order\\x1b[2J\n" in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_why_a_call_was_skipped_is_said_in_words() -> None:
    script = Script()
    script.at(0.0, CallNew, "get_order", "get_order")
    script.at(0.0, CallNew, "track", "track")
    script.at(0.0, CallNew, "refund", "refund")
    script.at(1.0, CallFailed, "get_order", "no such order")
    script.at(1.0, CallSkipped, "track", "get_order")
    script.at(1.0, CallSkipped, "refund", "status == 'cancelled' is false")

    _, notes = show_in_pipe(script.log.events)
    assert notes.splitlines()[2:] == [
        "– track  skipped",
        "  get_order failed",
        "– refund  skipped",
        "  status == 'cancelled' is false",
    ]


def test_step_that_asks_has_its_own_name_and_that_of_its_model() -> None:
    script = Script()
    script.at(0.0, CallNew, "summary", "gpt-4.1")
    script.at(0.0, CallStarted, "summary")
    script.at(1.0, CallFinished, "summary", "Short.")

    assert "✓ summary (gpt-4.1)  1.00 s\n  Short." in show_on_terminal(script.log.events)


def test_terminal_says_how_far_a_run_was_that_stopped() -> None:
    script = Script()
    graph = Graph([ToolCall(f"c{number}", "get_order") for number in range(40)])
    for number in range(5):
        script.call(f"c{number}", number, number + 1)
    script.at(5.0, CallNew, "c5", "get_order")
    script.at(5.0, CallStarted, "c5")
    script.at(6.0, CallCancelled, "c5", "stopped")

    shown = show_on_terminal(script.log.events, graph=graph)
    assert shown.rstrip().splitlines()[-1] == "5 of 40 steps done, 1 left out"


def test_terminal_counts_instead_of_printing_when_there_are_many_calls() -> None:
    script = Script()
    for number in range(MANY_CALLS * 2):
        script.call(f"step_{number}", number, number + 1)
    script.at(100.0, CallNew, "last", "last")
    script.at(100.0, CallDenied, "last", "no")

    shown = show_on_terminal(script.log.events)

    assert f"step_{MANY_CALLS * 2 - 1}" not in shown
    assert "✗ last  denied" in shown


def test_pipe_has_the_answer_on_one_stream_and_the_calls_on_the_other() -> None:
    script = Script()
    script.at(0.1, ThinkingDelta, "Hm.", 1)
    script.at(0.2, TextDelta, "Let me look.", 1)
    script.call("get_order", 0.4, 0.7)
    script.at(1.0, TextDelta, "It has ", 2)
    script.at(1.1, TextDelta, "shipped.", 2)

    answer, notes = show_in_pipe(script.log.events)

    assert answer == "Let me look.\nIt has shipped.\n"
    assert notes == '✓ get_order(order_id="ORD-1")  300 ms\n  {"status":"shipped"}\n'


def test_answer_that_broke_off_is_kept_apart_from_the_one_that_took_its_place() -> None:
    script = Script()
    script.at(0.1, TurnStarted, 1, "m", 1)
    script.at(0.2, TextDelta, "It ha", 1)
    script.at(0.3, TurnFinished, 1, "error", error="the connection broke")
    script.at(0.4, TurnStarted, 1, "m", 2)
    script.at(0.5, TextDelta, "It has shipped.", 1)

    answer, notes = show_in_pipe(script.log.events)

    assert answer == "It ha\nIt has shipped.\n"
    assert notes == "the stream broke off; retrying\n"
    shown = show_on_terminal(script.log.events).splitlines()
    assert [line.rstrip() for line in shown if line.strip()] == [
        "It ha",
        "the stream broke off; retrying",
        "It has shipped.",
    ]


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_shortened_text_is_one_line_within_its_limit(text: str, limit: int) -> None:
    short = shorten(text, limit)

    assert len(short) <= limit
    assert "\n" not in short


@given(st.text())
def test_cleaned_text_holds_nothing_that_drives_a_terminal(text: str) -> None:
    assert all(letter in "\n\t" or ord(letter) >= 32 for letter in clean(text))
    assert not any(0x7F <= ord(letter) <= 0x9F for letter in clean(text))


def test_early_result_is_shown_before_its_call_is_sealed() -> None:
    script = Script()
    script.at(0.0, CallNew, "a", "get_order")
    script.at(0.1, CallStarted, "a", 1, True)
    script.at(0.3, CallProgress, "a", 1, 1, '{"status":"shipped"}')
    script.at(0.5, TextDelta, "One moment.", 1)
    out = io.StringIO()

    with TerminalDisplay(Console(file=out, width=80, height=24, force_terminal=True, color_system=None)) as display:
        for event in script.log.events:
            display.show(event)
        drawn = out.getvalue()

    assert "200 ms, early; the model is still speaking" in drawn
    assert '{"status":"shipped"}' in drawn


def open_below(script: Script, parent: str | None, *calls: str) -> None:
    for one in calls:
        script.at(script.t, CallNew, one, one, parent=parent)


def test_calls_stand_below_the_call_that_made_them() -> None:
    script = Script()
    open_below(script, None, "offers", "refund")
    open_below(script, "offers", "first", "second")
    open_below(script, "refund", "pay")
    open_below(script, "first", "look")
    open_below(script, "offers", "third")
    transcript = Transcript()
    for event in script.log.events:
        transcript.apply(event)

    shown = [(block.depth, block.call) for block in transcript.blocks if isinstance(block, CallBlock)]

    offers = [(0, "offers"), (1, "first"), (2, "look"), (1, "second"), (1, "third")]
    assert shown == [*offers, (0, "refund"), (1, "pay")]


def test_call_of_a_call_that_is_over_goes_to_the_end_since_lines_above_are_printed() -> None:
    script = Script()
    script.call("offers", 0.0, 1.0)
    open_below(script, None, "refund")
    open_below(script, "offers", "late")
    transcript = Transcript()
    for event in script.log.events:
        transcript.apply(event)

    assert [block.call for block in transcript.blocks if isinstance(block, CallBlock)] == ["offers", "refund", "late"]


def test_steps_inside_a_list_are_expected_once_the_list_is_there() -> None:
    each = Each("orders", Reference("list"), Body((ToolCall("orders/read", "read"), ToolCall("orders/judge", "judge"))))
    script = Script()
    script.call("list", 0.0, 1.0)
    steps = Steps.of_graph(
        Graph([ToolCall("list", "list"), each, ToolCall("report", "report", {"of": Reference("orders")})])
    )

    before = steps.say(0.0)
    script.log.emit(CallFinished, "list", ["a", "b", "c"])
    for event in script.log.events[:3]:
        steps.apply(event)
    steps.apply(script.log.events[-1])

    assert before == "0 of 3 steps done"
    assert steps.say(1.0) == "1 of 9 steps done"


def test_time_left_goes_by_the_pace_so_far() -> None:
    script = Script()
    for number in range(4):
        script.call(f"step_{number}", number, number + 1)
    script.at(4.0, CallNew, "step_4", "step_4")
    script.at(4.0, CallStarted, "step_4")
    steps = Steps(expected=10)
    for event in script.log.events:
        steps.apply(event)

    assert steps.say(4.0) == "4 of 10 steps done, 1 running, about 6.00 s left"
