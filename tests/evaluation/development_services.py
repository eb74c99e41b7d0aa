"""Five more services that the embedded model's rules were developed with, their requests in `development.json`."""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import Field

from flowkit import tool
from flowkit.tools.toolsets import Toolset

# A hairdresser


@tool
def book_haircut(
    stylist: Annotated[str, Field(description="디자이너 이름.")],
    at: datetime,
) -> str:
    """머리 자를 시간을 예약한다. 예: "내일 3시에 민지 선생님 커트 예약해 주세요"."""
    return stylist


@tool
def move_haircut(booking: Annotated[str, Field(pattern=r"^HC\d{4}$")], at: datetime) -> str:
    """예약 시간을 옮긴다. 예: "HC1234 모레 4시로 바꿔 주세요"."""
    return booking


@tool(effect="read")
def show_prices(service: Annotated[str, Field(description="시술 이름.")]) -> int:
    """시술 가격을 알려 준다. 예: "염색 얼마예요?"."""
    return 0


@tool
def buy_product(
    product: Annotated[str, Field(description="제품 이름.")],
    count: Annotated[int, Field(ge=1, le=20, description="개수.")],
) -> str:
    """헤어 제품을 산다. 예: "샴푸 두 통 살게요"."""
    return product


# A repair shop


@tool
def open_repair(
    serial: Annotated[str, Field(pattern=r"^SN\d{6}$")],
    symptom: Annotated[str, Field(description="What is wrong.")],
) -> str:
    """Open a repair of a device.

    As in "SN123456 doesn't turn on" or "SN123456 전원이 안 켜져요".
    """
    return symptom


@tool(effect="read")
def check_repair(serial: Annotated[str, Field(pattern=r"^SN\d{6}$")]) -> str:
    """Tell how far a repair is.

    As in "Is SN123456 ready?" or "SN123456 수리 다 됐어요?".
    """
    return serial


@tool
def send_technician(
    address: Annotated[str, Field(description="Where to.")],
    at: datetime,
) -> str:
    """Send a technician to somebody's home.

    As in "Send somebody to Seocho tomorrow at 2" or "내일 2시에 서초동으로 기사님 보내 주세요".
    """
    return address


# A taxi firm


@tool
def call_taxi(
    pickup: Annotated[str, Field(description="출발지.")],
    passengers: Annotated[int, Field(ge=1, le=8, description="인원.")] = 1,
) -> str:
    """택시를 부른다. 예: "시청역에서 택시 불러 줘"."""
    return pickup


@tool
def cancel_ride(ride: Annotated[str, Field(pattern=r"^TX-\d{5}$")]) -> str:
    """부른 택시를 취소한다. 예: "TX-12345 취소해 주세요"."""
    return ride


@tool(effect="read")
def estimate_fare(
    destination: Annotated[str, Field(description="도착지.")],
) -> int:
    """택시 요금을 어림한다. 예: "공항까지 얼마 나와요?"."""
    return 0


@tool
def report_lost_item(
    ride: Annotated[str, Field(pattern=r"^TX-\d{5}$")],
    item: Annotated[str, Field(description="잃어버린 물건.")],
) -> str:
    """택시에 두고 내린 물건을 신고한다. 예: "TX-12345에 우산을 두고 내렸어요"."""
    return item


# A language school


@tool
def enrol(
    course: Annotated[str, Field(description="Name of the course.")],
    start: date,
) -> str:
    """Enrol in a course.

    As in "Enrol me in Spanish from Monday" or "월요일부터 스페인어 수강 신청할게요".
    """
    return course


@tool(effect="read")
def show_grades(student: Annotated[str, Field(pattern=r"^ST\d{4}$")]) -> list[int]:
    """Show a student's grades.

    As in "What are the marks of ST1234?" or "ST1234 성적 보여 주세요".
    """
    return []


@tool
def excuse_absence(
    student: Annotated[str, Field(pattern=r"^ST\d{4}$")],
    day: date,
    reason: Annotated[str, Field(description="Why.")],
) -> str:
    """Excuse a student for a day.

    As in "ST1234 is ill and won't come tomorrow" or "ST1234 내일 감기로 결석해요".
    """
    return reason


@tool
def book_tutor(
    subject: Literal["grammar", "speaking", "writing"],
    at: datetime,
    minutes: Annotated[int, Field(ge=15, le=180)],
) -> str:
    """Book a private lesson.

    As in "Speaking tomorrow at 5 for 30 minutes" or "내일 5시 speaking 30분 과외 예약해 주세요".
    """
    return subject


# An insurance firm


@tool
def file_claim(
    policy: Annotated[str, Field(pattern=r"^IN-\d{6}$")],
    amount_won: Annotated[int, Field(gt=0, description="금액, 원.")],
) -> str:
    """보험금을 청구한다. 예: "IN-123456 병원비 5만 원 보험금 청구할게요"."""
    return policy


@tool(effect="read")
def show_coverage(policy: Annotated[str, Field(pattern=r"^IN-\d{6}$")]) -> list[str]:
    """보험의 보장 내용을 보여 준다. 예: "IN-123456 뭐가 보장되나요?"."""
    return []


@tool
def change_payment_day(
    policy: Annotated[str, Field(pattern=r"^IN-\d{6}$")],
    day: Annotated[int, Field(ge=1, le=28, description="매달 며칠, 일.")],
) -> str:
    """보험료를 내는 날을 바꾼다. 예: "IN-123456 보험료 25일에 나가게 바꿔 주세요"."""
    return policy


@tool(effect="read")
def find_branch(area: Annotated[str, Field(description="동네나 도시.")]) -> list[str]:
    """가까운 지점을 찾는다. 예: "수원에 지점 있나요?"."""
    return []


DEVELOPMENT: Mapping[str, Toolset] = {
    "hairdresser": Toolset(book_haircut, move_haircut, show_prices, buy_product),
    "repairs": Toolset(open_repair, check_repair, send_technician),
    "taxi": Toolset(call_taxi, cancel_ride, estimate_fare, report_lost_item),
    "school": Toolset(enrol, show_grades, excuse_absence, book_tutor),
    "insurance": Toolset(file_claim, show_coverage, change_payment_day, find_branch),
}
