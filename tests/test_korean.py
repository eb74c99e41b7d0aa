"""Korean requests: days, hours and amounts as figures, and what is left of a clause without particles and verbs."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.models.offline.korean import (
    count_called_for,
    find_nouns,
    find_order,
    find_statement,
    normalise,
    split_korean,
    strip_particle,
)
from flowkit.models.offline.local import can_read

TUESDAY = datetime(2026, 12, 1, 9, 0)


@pytest.mark.parametrize(
    ("said", "figures"),
    [
        ("내일", "2026-12-02"),
        ("글피 일정", "2026-12-04 일정"),
        ("다음 주 금요일", "2026-12-11"),
        ("이번 주 일요일", "2026-12-06"),
        ("화요일", "2026-12-01"),
        ("월요일에", "2026-12-07"),
        ("3월 2일", "2027-03-02"),
        ("2026년 11월 3일", "2026-11-03"),
        ("열흘 동안", "10 days"),
        ("내일 오후 3시 반", "2026-12-02T15:30"),
        ("모레 정오에", "2026-12-03T12:00 에"),
        ("오늘 밤 12시", "2026-12-01T00:00"),
        ("내일 낮 11시", "2026-12-02T11:00"),
        ("오전 12시 5분", "2026-12-01T00:05"),
        ("두 시간 동안", "2 시간 동안"),
        ("3만원", "30000 원"),
        ("1만 2천원", "12000 원"),
        ("1.5만원", "15000 원"),
        ("12,000원", "12000 원"),
        ("2킬로", "2 kg"),
        ("2월 30일", "2 월 30 일"),
        ("ORD-1003과", "ORD-1003 과"),
        ("원피스와 일기장", "원피스와 일기장"),
        ("내일까지", "2026-12-02 까지"),
    ],
)
def test_days_hours_and_amounts_become_figures(said: str, figures: str) -> None:
    assert normalise(said, TUESDAY) == figures


@given(st.dates(datetime(2000, 1, 1).date(), datetime(2090, 1, 1).date()), st.sampled_from("월화수목금토일"))
def test_every_weekday_named_alone_is_one_of_the_next_seven_days(day: object, weekday: str) -> None:
    now = datetime.fromisoformat(f"{day}T10:00")
    found = datetime.fromisoformat(normalise(f"{weekday}요일", now))
    assert timedelta(0) <= found.date() - now.date() < timedelta(7)
    assert "월화수목금토일"[found.weekday()] == weekday


@given(st.integers(1, 9999), st.integers(0, 9))
def test_every_amount_by_myriads_is_its_figure(myriads: int, thousands: int) -> None:
    words = f"{myriads}만" + (f" {thousands}천" if thousands else "") + "원"
    assert normalise(words, TUESDAY) == f"{myriads * 10_000 + thousands * 1_000} 원"


@given(st.text())
def test_every_text_can_be_normalised_and_read(text: str) -> None:
    figures = normalise(text, TUESDAY)
    assert isinstance(figures, str)
    assert all(noun in figures or noun for noun in find_nouns(figures))
    assert "".join(split_korean(text)).strip() in text or len(split_korean(text)) > 1


@pytest.mark.parametrize(
    ("word", "bare"),
    [
        ("부산으로", "부산"),
        ("서울로", "서울"),
        ("전주로", "전주"),
        ("사과와", "사과"),
        ("책이랑", "책"),
        ("동생한테", "동생"),
        ("회의", "회의"),
    ],
)
def test_particle_goes_only_in_the_form_that_fits_the_sound_before_it(word: str, bare: str) -> None:
    assert strip_particle(word) == bare


def test_statement_order_and_asked_nouns_are_told_apart() -> None:
    assert find_statement("ORD-1001 환불해 주세요. 색상이 사진과 달라요") == "색상이 사진과 달라요"
    assert find_statement("ORD-1001 반품하고 싶어요") is None
    assert find_order("화분에 물 주라고 알려 줘") == "화분에 물 주기"
    assert find_order("날씨 알려 줘") is None
    assert split_korean("주문 상태랑 배송비 알려 줘") == ["주문 상태", "배송비 알려 줘"]
    assert split_korean("ORD-1003 과 어울리는 상품") == ["ORD-1003 과 어울리는 상품"]
    assert count_called_for("환불해 주세요", "refund_order") == 1


def test_other_scripts_cannot_be_read() -> None:
    assert can_read("Where is ORD-1002?")
    assert can_read("12:30 ?")
    assert not can_read("我的订单在哪里")
    assert not can_read("Где мой заказ?")
