"""Six more services, whose requests (`fresh.json`) were written before any rule was changed for them.

Nobody looks at single results of theirs. Half of the services are described in Korean, half in English, and each is
asked in both languages.
"""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import Field

from flowkit import tool
from flowkit.tools.toolsets import Toolset

# Car sharing


@tool
def reserve_shared_car(
    zone: Annotated[str, Field(description="차를 빌릴 존(장소).")],
    at: datetime,
    hours: Annotated[int, Field(ge=1, le=72, description="이용 시간, 시간.")],
) -> str:
    """공유 차량을 예약한다. 예: "내일 9시에 홍대 존에서 두 시간 차 예약해 줘"."""
    return zone


@tool
def unlock_car(car: Annotated[str, Field(pattern=r"^CAR\d{4}$")]) -> str:
    """예약한 차의 문을 연다. 예: "CAR1234 문 열어 줘"."""
    return car


@tool(effect="read")
def find_chargers(area: Annotated[str, Field(description="동네나 역 이름.")]) -> list[str]:
    """전기차 충전소를 찾는다. 예: "강남역 근처 충전소 어디 있어?"."""
    return [area]


@tool
def end_rental(car: Annotated[str, Field(pattern=r"^CAR\d{4}$")]) -> str:
    """이용을 끝내고 차를 반납한다. 예: "CAR1234 반납할게요"."""
    return car


# Staff


@tool(effect="read")
def show_payslip(month: Annotated[int, Field(ge=1, le=12, description="몇 월.")]) -> str:
    """급여 명세서를 보여 준다. 예: "10월 급여 명세서 보여 주세요"."""
    return str(month)


@tool
def claim_expense(
    amount_won: Annotated[int, Field(gt=0, description="금액, 원.")],
    purpose: Annotated[str, Field(description="무엇에 썼는지.")],
) -> str:
    """쓴 경비를 청구한다. 예: "택시비 1만 2천 원 청구해 주세요"."""
    return purpose


@tool
def clock_overtime(day: date, hours: Annotated[float, Field(gt=0, le=12, description="시간.")]) -> str:
    """초과 근무를 등록한다. 예: "어제 야근 두 시간 등록해 줘"."""
    return str(day)


@tool(effect="read")
def look_up_colleague(name: Annotated[str, Field(description="사람 이름.")]) -> str:
    """직원의 내선 번호와 자리를 찾는다. 예: "김영희 대리 내선 번호 알려 줘"."""
    return name


# Management of an apartment house


@tool
def register_visitor_car(
    plate: Annotated[str, Field(pattern=r"^\d{2,3}[가-힣]\d{4}$", description="차량 번호.")], day: date
) -> str:
    """방문 차량을 등록한다. 예: "내일 12가3456 방문 차량 등록해 주세요"."""
    return plate


@tool
def report_fault(
    unit: Annotated[str, Field(pattern=r"^\d{3}-\d{3,4}$", description="동-호수.")],
    problem: Annotated[str, Field(description="고장 내용.")],
) -> str:
    """고장을 관리 사무소에 접수한다. 예: "101-203 보일러가 고장 났어요"."""
    return problem


@tool(effect="read")
def show_maintenance_fee(unit: Annotated[str, Field(pattern=r"^\d{3}-\d{3,4}$", description="동-호수.")]) -> int:
    """이번 달 관리비를 알려 준다. 예: "101-203 관리비 얼마 나왔어요?"."""
    return 0


# A veterinarian


@tool
def book_checkup(
    pet: Annotated[str, Field(description="Name of the animal.")],
    at: datetime,
) -> str:
    """Book a check-up for an animal.

    As in "A check-up for Rex on Monday at 10" or "월요일 10시에 초코 검진 예약해 주세요".
    """
    return pet


@tool(effect="read")
def list_vaccinations(chip: Annotated[str, Field(pattern=r"^\d{15}$")]) -> list[str]:
    """List an animal's vaccinations by the number of its chip.

    As in "Which shots has 410000000000001 had?" or "410000000000001 예방 접종 기록 보여 주세요".
    """
    return [chip]


@tool
def order_pet_food(
    food: Annotated[str, Field(description="Kind of food.")],
    bags: Annotated[int, Field(ge=1, le=20, description="How many bags.")],
) -> str:
    """Order food for an animal.

    As in "Order two bags of salmon kibble" or "연어 사료 두 포대 주문해 주세요".
    """
    return food


@tool
def cancel_checkup(visit: Annotated[str, Field(pattern=r"^V-\d{6}$")]) -> str:
    """Cancel a check-up.

    As in "Cancel V-123456" or "V-123456 취소해 주세요".
    """
    return visit


# A museum


@tool
def buy_admission(
    day: date,
    adults: Annotated[int, Field(ge=1, le=20, description="How many adults.")],
) -> str:
    """Buy tickets for the museum on a day.

    As in "Three tickets for Sunday" or "일요일 입장권 세 장 살게요".
    """
    return str(day)


@tool(effect="read")
def show_exhibitions(day: date) -> list[str]:
    """Show the exhibitions that are open on a day.

    As in "What is on display tomorrow?" or "내일 무슨 전시 해요?".
    """
    return [str(day)]


@tool
def join_tour(language: Literal["English", "Korean", "Japanese"], at: datetime) -> str:
    """Join a guided tour.

    As in "An English tour tomorrow at 2" or "내일 2시 Korean 해설 신청할게요".
    """
    return language


# A phone company


@tool
def change_plan(
    line: Annotated[str, Field(pattern=r"^01\d-\d{4}-\d{4}$")],
    plan: Literal["basic", "standard", "unlimited"],
) -> str:
    """Change the plan of a phone line.

    As in "Put 010-1234-5678 on unlimited" or "010-1234-5678 요금제 unlimited로 바꿔 주세요".
    """
    return line


@tool(effect="read")
def show_data_left(line: Annotated[str, Field(pattern=r"^01\d-\d{4}-\d{4}$")]) -> float:
    """Tell how much data a line has left this month.

    As in "How much data is left on 010-1234-5678?" or "010-1234-5678 데이터 얼마나 남았어요?".
    """
    return 0.0


@tool
def top_up_data(
    line: Annotated[str, Field(pattern=r"^01\d-\d{4}-\d{4}$")],
    gigabytes: Annotated[int, Field(ge=1, le=50)],
) -> str:
    """Add data to a line.

    As in "Add 2 GB to 010-1234-5678" or "010-1234-5678에 데이터 2기가 충전해 주세요".
    """
    return line


@tool
def block_lost_phone(line: Annotated[str, Field(pattern=r"^01\d-\d{4}-\d{4}$")]) -> str:
    """Block a line whose phone was lost.

    As in "I lost my phone, block 010-1234-5678" or "휴대폰을 잃어버렸어요, 010-1234-5678 정지해 주세요".
    """
    return line


FRESH: Mapping[str, Toolset] = {
    "car sharing": Toolset(reserve_shared_car, unlock_car, find_chargers, end_rental),
    "staff": Toolset(show_payslip, claim_expense, clock_overtime, look_up_colleague),
    "housing": Toolset(register_visitor_car, report_fault, show_maintenance_fee),
    "vet": Toolset(book_checkup, list_vaccinations, order_pet_food, cancel_checkup),
    "museum": Toolset(buy_admission, show_exhibitions, join_tour),
    "telecom": Toolset(change_plan, show_data_left, top_up_data, block_lost_phone),
}
