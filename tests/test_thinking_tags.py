"""Thinking between tags in the text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.assemble import Assembler
from flowkit.models.base import EndDelta, TextDelta


def split(*texts: str) -> tuple[str, str]:
    """Thinking and text, as the turn holds them."""
    assembler = Assembler(think_tags=True)
    for text in texts:
        assembler.feed(TextDelta(text))
    assembler.feed(EndDelta())
    assembler.end()
    return assembler.turn.thinking, assembler.turn.text


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("<think>hm</think>yes", "hm", "yes"),
        ("\n<think>\nhm\n</think>\n\nyes\n", "\nhm\n", "yes\n"),
        ("hm</think>yes", "hm", "yes"),
        ("<think>hm", "hm", ""),
        ("<think></think>yes", "", "yes"),
        ("plain", "", "plain"),
        ("a <think> in the middle", "", "a <think> in the middle"),
        ("<think>a</think>b <think>c</think>", "a", "b <think>c</think>"),
        ("1 < 2 </thin", "", "1 < 2 </thin"),
        ("<thin", "", "<thin"),
        ("", "", ""),
    ],
)
def test_thinking_is_told_from_text_wherever_it_is_cut_case_r05(text: str, thinking: str, answer: str) -> None:
    assert split(text) == (thinking, answer)
    assert split(*text) == (thinking, answer)


def test_tags_stay_in_the_text_unless_asked_for() -> None:
    assembler = Assembler()
    assembler.feed(TextDelta("<think>hm</think>yes"))
    assert assembler.turn.text == "<think>hm</think>yes"


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", " ", "<", "</", "think>", "\n"]), max_size=10), st.data())
def test_cutting_elsewhere_tells_the_same(words: list[str], data: st.DataObject) -> None:
    text = "".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    assert split(*(text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True))) == split(text)
