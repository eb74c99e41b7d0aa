"""Korean requests to six services whose tools the embedded model's rules have never seen, and four others.

`services.json` was written before any rule was changed for it, and is held out: nobody looks at single results. Rules are
written against `services_development.json`. A request without calls lacks something, asks for what no tool does, or
says what isn't to be done. Days are counted from `NOW`, and an hour that names no half of the day is one of business.
"""

import json
from collections.abc import Mapping
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from flowkit import tool
from flowkit.messages import ToolSpec
from flowkit.tools.toolsets import Toolset
from tests.evaluation import Call
from tests.evaluation.development_services import DEVELOPMENT
from tests.evaluation.fresh_services import FRESH

# A library


@tool(effect="read")
def search_books(title: Annotated[str, Field(description="책 제목, 저자나 주제.")]) -> list[str]:
    """책을 제목이나 저자로 찾는다. 예: "한강 작가 책 있나요?", "토지 빌릴 수 있어요?"."""
    return [title]


@tool
def renew_loan(loan_id: Annotated[str, Field(pattern=r"^L-\d{5}$")]) -> date:
    """빌린 책의 대출 기간을 연장한다. 예: "L-10001 연장해 주세요"."""
    return date(2026, 12, 1)


@tool
def reserve_room(at: datetime, people: Annotated[int, Field(ge=1, le=12, description="사용 인원.")]) -> str:
    """스터디룸을 예약한다. 예: "내일 3시에 네 명이 쓸 방 예약해 주세요"."""
    return f"{at} {people}"


@tool(effect="read")
def list_overdue() -> list[str]:
    """연체된 책을 모두 보여 준다. 예: "연체된 책 있나요?"."""
    return []


# A clinic


@tool
def book_appointment(doctor: Annotated[str, Field(description="Name of the doctor.")], at: datetime) -> str:
    """Book an appointment with a doctor.

    As in "Book me in with Dr. Lee tomorrow at 10" or "내일 10시에 이 선생님 진료 예약해 주세요".
    """
    return f"{doctor} {at}"


@tool
def cancel_appointment(appointment_id: Annotated[str, Field(pattern=r"^AP-\d{4}$")]) -> str:
    """Cancel an appointment.

    As in "Cancel my appointment AP-1234" or "AP-1234 예약 취소해 주세요".
    """
    return appointment_id


@tool(effect="read")
def find_free_hours(
    department: Annotated[str, Field(description="Department, such as 내과.")], day: date
) -> list[datetime]:
    """Find the free hours of a department on a day.

    As in "When is dermatology free on Monday?" or "월요일에 피부과 빈 시간 있나요?".
    """
    return []


@tool
def refill_prescription(
    prescription_id: Annotated[str, Field(pattern=r"^RX\d{6}$")], days: Annotated[int, Field(ge=1, le=90)]
) -> str:
    """Refill a prescription for some days.

    As in "I need my pills RX123456 for 30 days more" or "RX123456 약 한 달치 더 주세요".
    """
    return f"{prescription_id} {days}"


# A restaurant


@tool
def reserve_table(
    at: datetime,
    people: Annotated[int, Field(ge=1, le=30, description="How many people.")],
    phone: Annotated[str | None, Field(pattern=r"^01\d-\d{4}-\d{4}$")] = None,
) -> str:
    """Reserve a table.

    As in "A table for four on Friday at 7" or "금요일 7시에 네 명 자리 예약할게요".
    """
    return f"{at} {people}"


@tool
def order_dish(
    dish: Annotated[str, Field(description="Name of the dish.")],
    count: Annotated[int, Field(ge=1, le=50, description="How many portions.")],
) -> str:
    """Order a dish for delivery.

    As in "Two portions of noodles, please" or "짜장면 두 그릇 배달해 주세요".
    """
    return f"{dish} {count}"


@tool(effect="read")
def show_menu() -> list[str]:
    """Show the menu with its prices.

    As in "What is on the menu?" or "메뉴판 보여 주세요".
    """
    return []


@tool
def cancel_reservation(phone: Annotated[str, Field(pattern=r"^01\d-\d{4}-\d{4}$")]) -> str:
    """Cancel the reservation of a table by the phone number that it was made with.

    As in "Cancel the table, my number is 010-1234-5678" or "010-1234-5678로 한 예약 취소할게요".
    """
    return phone


# A parcel firm


@tool
def request_pickup(day: date, weight_kg: Annotated[float, Field(gt=0, le=30)]) -> str:
    """Have a parcel picked up at home on a day.

    As in "Pick up a parcel of 3 kg tomorrow" or "내일 3킬로짜리 택배 가지러 와 주세요".
    """
    return f"{day} {weight_kg}"


@tool(effect="read")
def trace_waybill(waybill: Annotated[str, Field(pattern=r"^\d{12}$")]) -> str:
    """Tell where a parcel is, by its waybill number.

    As in "Where is 123456789012?" or "운송장 123456789012 어디쯤이에요?".
    """
    return waybill


@tool(effect="read")
def quote_fee(
    destination: Annotated[str, Field(description="City or island.")], weight_kg: Annotated[float, Field(gt=0, le=30)]
) -> int:
    """Quote the fee for sending a parcel somewhere.

    As in "How much is 2 kg to Busan?" or "부산까지 2킬로 얼마예요?".
    """
    return 0


@tool
def redirect_parcel(
    waybill: Annotated[str, Field(pattern=r"^\d{12}$")],
    address: Annotated[str, Field(description="The new place.")],
) -> str:
    """Send a parcel that is on its way to another place.

    As in "Send 123456789012 to the office instead" or "123456789012 회사로 배송지 바꿔 주세요".
    """
    return address


# A bank


@tool
def transfer_money(
    account: Annotated[str, Field(pattern=r"^\d{3}-\d{3}-\d{6}$")],
    amount_won: Annotated[int, Field(gt=0, description="금액, 원.")],
) -> str:
    """다른 계좌로 돈을 보낸다. 예: "110-222-333444로 5만 원 보내 줘"."""
    return account


@tool(effect="read")
def show_balance() -> int:
    """계좌의 잔액을 알려 준다. 예: "통장에 얼마 있어?"."""
    return 0


@tool(effect="read")
def show_rate(currency: Literal["USD", "EUR", "JPY"]) -> float:
    """환율을 알려 준다. 예: "오늘 USD 환율 얼마예요?"."""
    return 1.0


@tool
def book_visit(branch: Annotated[str, Field(description="지점 이름.")], at: datetime) -> str:
    """지점 방문 상담을 예약한다. 예: "내일 2시에 강남 지점 상담 예약해 주세요"."""
    return branch


# A gym


@tool
def book_class(course: Annotated[str, Field(description="수업 이름.")], at: datetime) -> str:
    """그룹 수업을 예약한다. 예: "내일 7시 요가 수업 예약해 줘"."""
    return course


@tool
def pause_membership(start: date, days: Annotated[int, Field(ge=1, le=180)]) -> str:
    """회원권을 며칠 동안 정지한다. 예: "다음 주 월요일부터 10일 동안 회원권 정지해 주세요"."""
    return f"{start} {days}"


@tool
def log_weight(kg: Annotated[float, Field(gt=20, lt=300)]) -> str:
    """오늘 잰 몸무게를 기록한다. 예: "오늘 몸무게 70킬로 기록해 줘"."""
    return f"{kg}"


@tool
def buy_lessons(count: Annotated[int, Field(ge=1, le=100, description="몇 회.")]) -> str:
    """개인 레슨 회수권을 산다. 예: "PT 10회 끊고 싶어요"."""
    return f"{count}"


# A cinema, to develop with


@tool
def book_seats(
    film: Annotated[str, Field(description="영화 제목.")], at: datetime, seats: Annotated[int, Field(ge=1, le=9)]
) -> str:
    """영화표를 예매한다. 예: "내일 6시 기생충 두 장 예매해 줘"."""
    return film


@tool
def refund_ticket(ticket: Annotated[str, Field(pattern=r"^TK\d{6}$")]) -> str:
    """예매한 표를 환불한다. 예: "TK123456 환불해 주세요"."""
    return ticket


@tool(effect="read")
def list_films(day: date) -> list[str]:
    """그날 상영하는 영화를 보여 준다. 예: "토요일에 무슨 영화 해?"."""
    return []


# A car rental, to develop with


@tool
def rent_car(
    model: Annotated[str, Field(description="Model of the car.")], start: date, days: Annotated[int, Field(ge=1, le=60)]
) -> str:
    """Rent a car for some days.

    As in "I need a Sonata from Monday for 3 days" or "월요일부터 3일 동안 소나타 빌릴게요".
    """
    return model


@tool
def extend_rental(
    contract: Annotated[str, Field(pattern=r"^CR-\d{5}$")], days: Annotated[int, Field(ge=1, le=60)]
) -> str:
    """Extend a running rental.

    As in "Two days more for CR-12345" or "CR-12345 이틀 연장할게요".
    """
    return contract


@tool
def report_damage(
    contract: Annotated[str, Field(pattern=r"^CR-\d{5}$")], damage: Annotated[str, Field(description="What happened.")]
) -> str:
    """Report damage to a rented car.

    As in "CR-12345 has a flat tyre" or "CR-12345 타이어가 펑크 났어요".
    """
    return damage


# A market, to develop with


@tool
def add_to_basket(
    product: Annotated[str, Field(description="상품 이름.")],
    count: Annotated[int, Field(ge=1, le=99, description="수량, 개.")],
) -> str:
    """장바구니에 상품을 담는다. 예: "우유 두 개 담아 줘"."""
    return product


@tool(effect="read")
def find_below_price(most_won: Annotated[int, Field(gt=0, description="최대 금액, 원.")]) -> list[str]:
    """금액보다 싼 상품을 찾는다. 예: "만 원 이하 상품 보여 줘"."""
    return []


@tool(effect="read")
def weigh_price(
    product: Annotated[str, Field(description="상품 이름.")], weight_kg: Annotated[float, Field(gt=0, le=50)]
) -> int:
    """무게로 파는 상품의 값을 계산한다. 예: "삼겹살 1킬로에 얼마예요?"."""
    return 0


@tool
def choose_delivery(at: datetime) -> str:
    """배송 시간을 정한다. 예: "내일 오전 10시에 배송해 주세요"."""
    return f"{at}"


# A hotel, to develop with


@tool
def book_room(
    checkin: date, nights: Annotated[int, Field(ge=1, le=30)], guests: Annotated[int, Field(ge=1, le=8)]
) -> str:
    """Book a hotel room.

    As in "A room from Friday for 2 nights for 2 guests" or "금요일부터 2박 두 명 방 예약해 주세요".
    """
    return f"{checkin}"


@tool
def cancel_booking(booking: Annotated[str, Field(pattern=r"^HT-\d{4}$")]) -> str:
    """Cancel a booking of a room.

    As in "Cancel HT-1234" or "HT-1234 예약 취소할게요".
    """
    return booking


@tool
def ask_for_wake_up(at: datetime) -> str:
    """Ask for a wake-up call.

    As in "Wake me at 6 tomorrow" or "내일 6시에 깨워 주세요".
    """
    return f"{at}"


# An office, to develop with


@tool
def request_leave(start: date, end: date, reason: Annotated[str | None, Field(description="사유.")] = None) -> str:
    """휴가를 신청한다. 예: "다음 주 월요일부터 수요일까지 휴가 신청해 줘"."""
    return f"{start} {end}"


@tool
def book_meeting_room(
    room: Annotated[str, Field(description="회의실 이름.")], at: datetime, minutes: Annotated[int, Field(ge=15, le=480)]
) -> str:
    """회의실을 예약한다. 예: "내일 2시에 한라산 회의실 한 시간 예약해 줘"."""
    return room


@tool
def send_notice(
    email: Annotated[str, Field(pattern=r"^[\w.+-]+@[\w-]+\.[\w.]+$")],
    text: Annotated[str, Field(description="보낼 내용.")],
) -> str:
    """메일로 알린다. 예: "kim@a.kr에 회의가 취소됐다고 메일 보내 줘"."""
    return email


@tool(effect="read")
def count_leave() -> float:
    """남은 연차를 알려 준다. 예: "연차 며칠 남았어?"."""
    return 1.0


# A laundry, to develop with


@tool
def collect_laundry(at: datetime, pieces: Annotated[int, Field(ge=1, le=100, description="How many pieces.")]) -> str:
    """Have clothes collected for cleaning.

    As in "Collect five shirts tomorrow at 10" or "내일 10시에 셔츠 다섯 벌 수거해 주세요".
    """
    return f"{at}"


@tool(effect="read")
def price_cleaning(
    garment: Literal["shirt", "coat", "suit", "blanket"], pieces: Annotated[int, Field(ge=1, le=100)] = 1
) -> int:
    """Tell what cleaning costs.

    As in "How much is a coat?" or "coat 두 벌 얼마예요?".
    """
    return 0


@tool
def pay_deposit(amount_won: Annotated[int, Field(ge=1000)], member: Annotated[str, Field(pattern=r"^M\d{4}$")]) -> str:
    """Top up a member's deposit.

    As in "Top up M1234 by 50,000 won" or "M1234 예치금 5만 원 충전해 주세요".
    """
    return member


SERVICES: Mapping[str, Toolset] = {
    "library": Toolset(search_books, renew_loan, reserve_room, list_overdue),
    "clinic": Toolset(book_appointment, cancel_appointment, find_free_hours, refill_prescription),
    "restaurant": Toolset(reserve_table, order_dish, show_menu, cancel_reservation),
    "parcels": Toolset(request_pickup, trace_waybill, quote_fee, redirect_parcel),
    "bank": Toolset(transfer_money, show_balance, show_rate, book_visit),
    "gym": Toolset(book_class, pause_membership, log_weight, buy_lessons),
    "cinema": Toolset(book_seats, refund_ticket, list_films),
    "cars": Toolset(rent_car, extend_rental, report_damage),
    "market": Toolset(add_to_basket, find_below_price, weigh_price, choose_delivery),
    "office": Toolset(request_leave, book_meeting_room, send_notice, count_leave),
    "laundry": Toolset(collect_laundry, price_cleaning, pay_deposit),
    "hotel": Toolset(book_room, cancel_booking, ask_for_wake_up),
    **DEVELOPMENT,
    **FRESH,
}


def load_services(name: str) -> list[tuple[str, tuple[ToolSpec, ...], str, tuple[Call, ...]]]:
    """Each request of this file, with its service, its tools and the calls that it asks for."""
    found = json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))
    return [
        (service, SERVICES[service].specs(), row[0], tuple(Call(made[0], made[1]) for made in row[1:]))
        for service, rows in found.items()
        for row in rows
    ]
