"""Pieces of a request: what they leave out, and that nothing is made up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.models.offline.request_phrases import find_pieces


@pytest.mark.parametrize(
    ("request_text", "known", "piece"),
    [
        ("Remind me to water the plants at 2026-12-04T08:00", "set reminder", "water the plants"),
        ("Remind me to send the letter at 2026-12-04T08:00", "set reminder", "send the letter"),
        ("Put team lunch in my calendar at 2026-12-18T12:00", "write calendar", "team lunch"),
        ("Do you sell wireless earphones?", "find products", "wireless earphones"),
        ("I want to return ORD-1005 because the cup is broken", "return order", "cup is broken"),
        ("Find the word idempotent", "exact word", "idempotent"),
        ("Search for run.started", "", "run.started"),
        ("녹차 있어요?", "", "녹차"),
    ],
)
def test_the_longest_piece_is_what_the_request_is_about(request_text: str, known: str, piece: str) -> None:
    assert find_pieces(request_text, known.split())[0] == piece


def test_values_end_a_piece_and_prepositions_part_it() -> None:
    pieces = find_pieces("Send a heavy box of 2 kg from the shop to Busan")
    assert pieces[0] == "shop to Busan"
    assert {"heavy box", "shop", "Busan"} <= set(pieces)


def test_a_request_of_a_tools_own_words_alone_still_has_a_piece() -> None:
    assert find_pieces("since it was cancelled", ["cancelled"]) == ["cancelled"]


@given(st.text(max_size=120), st.lists(st.text(max_size=8), max_size=3))
def test_for_every_request_each_piece_stands_in_it(request: str, known: list[str]) -> None:
    said = " ".join(request.split())
    assert all(piece in said for piece in find_pieces(request, known))
