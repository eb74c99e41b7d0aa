"""Korean requests: days, hours and amounts as figures, and what is left of a clause without particles and verbs."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.messages import ToolSpec
from flowkit.models.offline.declining import leave_declined_out, only_asks_about
from flowkit.models.offline.korean import (
    count_called_for,
    find_nouns,
    find_order,
    find_statement,
    split_korean,
    strip_particle,
)
from flowkit.models.offline.korean_numbers import read_number, write_figures
from flowkit.models.offline.korean_times import normalise
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


@pytest.mark.parametrize(
    ("said", "figures"),
    [
        ("내일오후세시에", "2026-12-02T15:00 에"),
        ("낼 3시", "2026-12-02T15:00"),
        ("담주 월욜 10시", "2026-12-07T10:00"),
        ("내주 화요일", "2026-12-08"),
        ("지난주 금요일", "2026-11-27"),
        ("지난달 말일", "2026-11-30"),
        ("다음 달 마지막 날", "2027-01-31"),
        ("연말까지", "2026-12-31 까지"),
        ("2주 뒤 수요일", "2026-12-16"),
        ("2026. 12. 25.", "2026-12-25"),
        ("12/24 오후 두 시", "2026-12-24T14:00"),
        ("3/4 정도", "3/4 정도"),
        ("크리스마스에", "2026-12-25"),
        ("크리스마스 선물", "크리스마스 선물"),
        ("이틀 전에 산 컵", "2026-11-29 산 컵"),
        ("출발 이틀 전에", "출발 이틀 전에"),
        ("저녁 여덟시 십분", "2026-12-01T20:10"),
        ("오후 3:30", "2026-12-01T15:30"),
        ("1시간 30분", "90 분"),
        ("반 시간", "30 분"),
        ("반 박스", "0.5 박스"),
        ("구월 급여", "9 월 급여"),
        ("손님 차 12가3456", "손님 차 12가3456"),
    ],
)
def test_days_hours_and_amounts_are_read_as_people_spell_them(said: str, figures: str) -> None:
    assert normalise(said, TUESDAY) == figures


@pytest.mark.parametrize(
    ("said", "figures"),
    [
        ("이번 달 말까지", "2026-12-31 까지"),
        ("월말에", "2026-12-31"),
        ("다음 달 5일", "2027-01-05"),
        ("내년 1월 3일부터", "2027-01-03 부터"),
        ("십이월 이십사일", "2026-12-24"),
        ("15일에 만나요", "2026-12-15 만나요"),
        ("이틀 뒤 오후 두 시 반", "2026-12-03T14:30"),
        ("2주 뒤", "2026-12-15"),
        ("한 달 뒤", "2027-01-01"),
        ("내일 두 시", "2026-12-02T14:00"),
        ("내일 새벽 두 시", "2026-12-02T02:00"),
        ("내일 6시", "2026-12-02T06:00"),
        ("3주 동안", "3 weeks"),
        ("사흘 더", "3 days 더"),
        ("한 달치", "1 months"),
        ("하룻밤 세 사람", "1 박 3 명"),
        ("다섯이서", "5 명"),
        ("어른 넷", "어른 4 명"),
        ("계란 서른 개", "계란 30 개"),
        ("삼십 분 뒤", "2026-12-01T09:30"),
        ("두 시간 반 뒤에", "2026-12-01T11:30"),
        ("3일에 한 번", "3 일에 한 번"),
        ("잠시 뒤", "잠시 뒤"),
        ("다음 주 목요일부터 금요일까지", "2026-12-10 부터 2026-12-11 까지"),
        ("12월 28일부터 3일까지", "2026-12-28 부터 2027-01-03 까지"),
        ("한 시간 반 동안", "1.5 시간 동안"),
        ("백이십만 원", "1200000 원"),
        ("3만 오천 원", "35000 원"),
        ("반 킬로", "0.5 kg"),
        ("2킬로 반", "2.5 kg"),
        ("사원 목록과 이 원피스", "사원 목록과 이 원피스"),
        ("한 번 봐 주세요", "한 번 봐 주세요"),
        ("3주차 회의", "3 주차 회의"),
    ],
)
def test_number_words_spans_and_ends_of_months_become_figures(said: str, figures: str) -> None:
    assert normalise(said, TUESDAY) == figures


def write_sino(number: int) -> str:
    """A number below ten thousand in Sino-Korean words."""
    digits = [int(digit) for digit in f"{number:04}"]
    names = ("천", "백", "십", "")
    said = zip(digits, names, strict=True)
    return "".join(
        ("일이삼사오육칠팔구"[digit - 1] if digit > 1 or not name else "") + name for digit, name in said if digit
    )


@given(st.integers(0, 9999), st.integers(1, 9999), st.booleans())
def test_every_amount_in_words_is_its_figure(myriads: int, rest: int, spaced: bool) -> None:
    above = "" if not myriads else "만" if myriads == 1 else f"{write_sino(myriads)}만"
    said = f"{above}{' ' * (spaced and bool(above))}{write_sino(rest)}"
    assert read_number(said) == myriads * 10_000 + rest
    if myriads:
        assert write_figures(f"{said} 원") == f"{myriads * 10_000 + rest} 원"


@given(st.text("한두세다섯열스무서른 명개일이삼십백천만억원월반킬로주달0123456789.,-", max_size=30))
def test_every_text_of_number_words_can_be_read(text: str) -> None:
    assert isinstance(normalise(text, TUESDAY), str)


@pytest.mark.parametrize(
    ("request_text", "rest", "declined"),
    [
        ("AP-0912 예약은 취소하지 마세요", "", 1),
        ("결제는 하지 말아 줘", "", 1),
        ("연장은 안 할게요", "", 1),
        ("재고 확인하지 마세요", "", 1),
        ("010-1111-2222 예약 취소하지 말고 그대로 두세요", "", 2),
        ("L-20418 연장하지 말고 목록 보여 줘", "목록 보여 줘", 1),
        ("약 먹는 거 잊지 마", "약 먹는 거 잊지 마", 0),
        ("왜 취소하지 않았나요?", "왜 취소하지 않았나요?", 0),
        ("사진 보고 싶어요", "사진 보고 싶어요", 0),
        ("Please don't cancel AP-1234", "", 1),
        ("Cancel AP-1234 and don't cancel AP-1235", "Cancel AP-1234", 1),
        ("Don't forget to remind me", "Don't forget to remind me", 0),
        ("Why don't you ship it?", "Why don't you ship it?", 0),
    ],
)
def test_what_is_declined_is_left_out(request_text: str, rest: str, declined: int) -> None:
    kept, found = leave_declined_out(request_text)
    assert (kept, len(found)) == (rest, declined)


@pytest.mark.parametrize(
    ("part", "tool", "asks"),
    [
        ("환불하면 얼마 돌려받나요?", "refund_order", True),
        ("AP-1234 취소하려면 어떻게 하나요?", "cancel_appointment", True),
        ("깨졌으면 환불해 주세요", "refund_order", False),
        ("비가 오면 취소해 줘", "cancel_booking", False),
        ("가능하면 내일로 바꿔 줄 수 있나요?", "move_booking", False),
        ("결석하면 보강 있나요?", "show_grades", True),
        ("울산까지 배송하면 얼마예요?", "quote_fee", False),
        ("What happens if I cancel AP-1234?", "cancel_appointment", True),
        ("Tell me if I have overdue books", "list_overdue", False),
    ],
)
def test_a_question_what_would_follow_is_no_order(part: str, tool: str, asks: bool) -> None:
    assert only_asks_about(part, ToolSpec(tool, "")) is asks


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
