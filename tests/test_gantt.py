"""The chart in the terminal."""

import pytest
from rich.cells import cell_len

from flowkit import events
from flowkit.graph.pictures.gantt import MANY, draw_timeline
from tests.runs import Script, two_turns


@pytest.mark.parametrize("width", [80, 120, 200])
def test_chart_fits_and_says_what_is_computed(width: int) -> None:
    text = draw_timeline(two_turns().events, width).plain
    lines = text.splitlines()
    assert lines[0] == "shop  done  5.00 s"
    assert lines[1].startswith("turn 1")
    assert "━" in lines[1]
    assert "█" in lines[3]
    assert "▒" in lines[4]
    assert "from cache" in text
    assert "tools ran 4.00 s in all, 1.50 s of it while the model was speaking" in lines
    assert "one after another: 7.00 s (computed)" in text
    assert "turn by turn: 6.00 s (computed)" in text
    assert all(cell_len(line) <= width for line in lines)


def many(count: int) -> Script:
    """An `each` of so many items, each of which is read, four at once, and then judged; one fails."""
    script = Script()
    script.at(0, events.CallNew, "orders", "each")
    script.at(0, events.CallStarted, "orders")
    for place in range(count):
        begin = float(place // 4)
        script.call(f"orders/{place}/읽기", begin, begin, begin + 1, parent="orders")
        script.at(begin + 1, events.CallNew, f"orders/{place}/judge", "judge", "orders")
        script.at(begin + 1, events.CallSkipped if place == 0 else events.CallFinished, f"orders/{place}/judge", "")
    script.at(count / 4, events.CallFinished, "orders")
    return script


def test_many_calls_of_one_maker_are_one_row_for_each_tool() -> None:
    lines = draw_timeline(many(MANY).log.events, 100).plain.splitlines()
    assert lines[1].startswith("orders")
    assert lines[2].startswith("  읽기 ")
    assert lines[2].endswith("40 calls, 4 at once")
    assert lines[3].startswith("  judge ")
    assert lines[3].endswith("40 calls, 1 skipped")
    assert all(cell_len(line) <= 100 for line in lines)


def test_few_calls_and_those_that_were_asked_for_have_a_row_each() -> None:
    assert "  19/읽기" in draw_timeline(many(20).log.events, 100).plain
    assert "  39/읽기" in draw_timeline(many(40).log.events, 100, every_call=True).plain


def test_long_critical_path_shows_its_longest_pieces() -> None:
    script = Script()
    for place in range(20):
        script.call(f"c{place}", 0, place, place + (1 if place < 13 else 0.5))
        script.at(place, events.CallWaiting, f"c{place}", "calls", (f"c{place - 1}",))
    text = draw_timeline(script.log.events, 100).plain
    assert "8 shorter ones" in text


def test_wide_characters_keep_the_bars_in_line() -> None:
    script = Script()
    script.call("아주_긴_이름의_도구_주문_상태를_확인하기", 0, 0, 1)
    script.call("short", 0, 0, 1)
    first, second = draw_timeline(script.log.events, 100).plain.splitlines()[1:3]
    assert cell_len(first.partition("█")[0]) == cell_len(second.partition("▒")[0])
