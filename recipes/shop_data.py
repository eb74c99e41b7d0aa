"""The shop's database: a shop in Seoul, its customers, products, orders and shipping zones, in SQLite.

The file is made when it isn't there. Everything in it is made up, and the same on every machine.
"""

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from datetime import date, timedelta
from pathlib import Path

from flowkit import ConfigurationError

TABLES = """
CREATE TABLE customers (id TEXT PRIMARY KEY, name TEXT NOT NULL, english_name TEXT NOT NULL, city TEXT NOT NULL);
CREATE TABLE zones (city TEXT PRIMARY KEY, english_name TEXT NOT NULL, days INTEGER NOT NULL);
CREATE TABLE products (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, english_name TEXT NOT NULL, category TEXT NOT NULL,
    price_won INTEGER NOT NULL, weight_kg REAL NOT NULL, stock INTEGER NOT NULL
);
CREATE TABLE orders (
    id TEXT PRIMARY KEY, customer_id TEXT NOT NULL REFERENCES customers, placed_on TEXT NOT NULL, status TEXT NOT NULL,
    city TEXT NOT NULL REFERENCES zones, tracking_number TEXT
);
CREATE TABLE order_items (
    order_id TEXT NOT NULL REFERENCES orders, product_id TEXT NOT NULL REFERENCES products, quantity INTEGER NOT NULL
);
CREATE INDEX orders_of_customer ON orders (customer_id, placed_on);
CREATE INDEX items_of_order ON order_items (order_id);
CREATE TABLE returns (key TEXT PRIMARY KEY, order_id TEXT NOT NULL REFERENCES orders, reason TEXT NOT NULL);
CREATE TABLE refunds (
    key TEXT PRIMARY KEY, order_id TEXT NOT NULL REFERENCES orders, amount_won INTEGER NOT NULL, reason TEXT NOT NULL
);
"""

CUSTOMERS = [
    ("c-1", "김민지", "Kim Minji", "서울"),
    ("c-2", "이준호", "Lee Junho", "부산"),
    ("c-3", "박서연", "Park Seoyeon", "인천"),
    ("c-4", "최도윤", "Choi Doyun", "제주"),
    ("c-5", "정하은", "Jung Haeun", "대구"),
    ("c-6", "강지우", "Kang Jiwoo", "광주"),
    ("c-7", "Emma Wilson", "Emma Wilson", "서울"),
    ("c-8", "윤시우", "Yoon Siwoo", "강원"),
]

ZONES = [
    ("서울", "Seoul", 1),
    ("경기", "Gyeonggi", 1),
    ("인천", "Incheon", 1),
    ("세종", "Sejong", 2),
    ("대전", "Daejeon", 2),
    ("충북", "Chungbuk", 2),
    ("충남", "Chungnam", 2),
    ("강원", "Gangwon", 2),
    ("대구", "Daegu", 2),
    ("광주", "Gwangju", 2),
    ("전북", "Jeonbuk", 2),
    ("전남", "Jeonnam", 3),
    ("경북", "Gyeongbuk", 2),
    ("경남", "Gyeongnam", 3),
    ("부산", "Busan", 2),
    ("울산", "Ulsan", 2),
    ("제주", "Jeju", 4),
    ("울릉도", "Ulleungdo", 5),
]
"""City or province, and the days that a parcel from Seoul takes."""

PRODUCTS = [
    ("P001", "무선 이어폰", "Wireless earbuds", "electronics", 89_000, 0.2, 34),
    ("P002", "노이즈 캔슬링 헤드폰", "Noise-cancelling headphones", "electronics", 259_000, 0.5, 12),
    ("P003", "블루투스 스피커", "Bluetooth speaker", "electronics", 65_000, 0.8, 21),
    ("P004", "보조 배터리 20000mAh", "Power bank 20000 mAh", "electronics", 39_000, 0.4, 58),
    ("P005", "기계식 키보드", "Mechanical keyboard", "electronics", 119_000, 1.1, 9),
    ("P006", "무선 마우스", "Wireless mouse", "electronics", 32_000, 0.2, 44),
    ("P007", "전기 주전자", "Electric kettle", "kitchen", 45_000, 1.3, 17),
    ("P008", "무쇠 프라이팬", "Cast-iron pan", "kitchen", 52_000, 2.4, 14),
    ("P009", "돌솥", "Stone bowl", "kitchen", 28_000, 1.9, 25),
    ("P010", "밥솥 6인용", "Rice cooker for six", "kitchen", 189_000, 5.2, 6),
    ("P011", "도자기 찻잔 세트", "Porcelain tea set", "kitchen", 76_000, 1.6, 11),
    ("P012", "원두 커피 1kg", "Coffee beans 1 kg", "food", 27_000, 1.0, 80),
    ("P013", "보성 녹차", "Boseong green tea", "food", 18_000, 0.3, 95),
    ("P014", "제주 감귤 5kg", "Jeju mandarins 5 kg", "food", 24_000, 5.0, 40),
    ("P015", "포기김치 3kg", "Kimchi 3 kg", "food", 31_000, 3.0, 33),
    ("P016", "인삼 절편", "Ginseng slices", "food", 68_000, 0.5, 19),
    ("P017", "구운 김 선물 세트", "Roasted seaweed gift set", "food", 22_000, 0.7, 70),
    ("P018", "꿀 유자차", "Honey citron tea", "food", 15_000, 1.1, 66),
    ("P019", "시카 수분 크림", "Cica moisture cream", "beauty", 34_000, 0.2, 50),
    ("P020", "자외선 차단제 SPF50", "Sunscreen SPF50", "beauty", 21_000, 0.1, 90),
    ("P021", "마스크팩 30매", "Sheet masks, 30", "beauty", 29_000, 0.9, 61),
    ("P022", "쌀 세안제", "Rice cleanser", "beauty", 17_000, 0.3, 48),
    ("P023", "경량 패딩 재킷", "Light down jacket", "clothing", 129_000, 0.6, 15),
    ("P024", "생활 한복", "Everyday hanbok", "clothing", 158_000, 0.8, 8),
    ("P025", "러닝화", "Running shoes", "clothing", 109_000, 0.7, 22),
    ("P026", "양말 5켤레", "Socks, five pairs", "clothing", 12_000, 0.3, 120),
    ("P027", "등산 배낭 30L", "Hiking backpack 30 l", "outdoor", 98_000, 1.2, 13),
    ("P028", "캠핑 의자", "Camping chair", "outdoor", 47_000, 2.8, 18),
    ("P029", "2인용 텐트", "Tent for two", "outdoor", 210_000, 3.6, 5),
    ("P030", "보온병 1L", "Vacuum flask 1 l", "outdoor", 36_000, 0.6, 37),
    ("P031", "한국어 첫걸음", "First steps in Korean", "books", 19_800, 0.6, 42),
    ("P032", "서울 골목 사진집", "Alleys of Seoul, photographs", "books", 42_000, 1.4, 10),
]

STATUSES = (
    "delivered",
    "shipped",
    "in transit",
    "delivered",
    "preparing",
    "delivered",
    "cancelled",
    "shipped",
    "delivered",
)
FIRST_ORDER = 1001
ORDERS = 72
FIRST_DAY = date(2026, 9, 1)


def prepare_database(path: Path | None) -> Path:
    """Prepare the database at `path`, or beside this file when that is None; it is made when it isn't there.

    Raises `ConfigurationError` when it can't be opened.
    """
    path = path or Path(__file__).with_name("shop.sqlite3")
    try:
        create_database(path)
        with open_database(path) as db:
            db.execute("SELECT 1 FROM orders")
    except (OSError, sqlite3.Error) as error:
        raise ConfigurationError(f"the database {str(path)!r} can't be opened: {error}") from error
    return path


def create_database(path: Path) -> None:
    """Make the file with all its rows, or leave nothing; a file that is there stays as it is.

    Raises `sqlite3.Error` or `OSError` when it can't be made.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two processes may start at once: each makes its own file, and the last to be ready gives it the name.
    with closing(sqlite3.connect(":memory:")) as memory:
        memory.executescript(TABLES)
        _fill(memory)
        memory.commit()
        data = memory.serialize()
    draft = path.with_name(f"{path.name}-{id(memory)}.draft")
    draft.write_bytes(data)
    draft.replace(path)


@contextmanager
def open_database(path: Path) -> Generator[sqlite3.Connection]:
    """Open a connection of one tool call: what it changed is committed on leaving, or rolled back when it raised."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=5)) as connection, connection:
        connection.row_factory = sqlite3.Row
        yield connection


def read_parcels(path: Path) -> dict[str, dict[str, str]]:
    """Read what the carrier knows: state and place of each parcel, by tracking number."""
    with open_database(path) as db:
        rows = db.execute(
            "SELECT tracking_number, status, city FROM orders WHERE tracking_number IS NOT NULL"
        ).fetchall()
    return {row["tracking_number"]: _find_place(row["status"], row["city"]) for row in rows}


def _find_place(status: str, city: str) -> dict[str, str]:
    match status:
        case "delivered":
            return {"state": "delivered", "place": city}
        case "in transit":
            return {"state": "out for delivery", "place": city}
        case _:
            return {"state": "left the warehouse", "place": "옥천 (Okcheon hub)"}


def _fill(db: sqlite3.Connection) -> None:
    db.executemany("INSERT INTO customers VALUES (?, ?, ?, ?)", CUSTOMERS)
    db.executemany("INSERT INTO zones VALUES (?, ?, ?)", ZONES)
    db.executemany("INSERT INTO products VALUES (?, ?, ?, ?, ?, ?, ?)", PRODUCTS)
    for number in range(FIRST_ORDER, FIRST_ORDER + ORDERS):
        # Customers take turns, so that each has nine orders; ORD-1002 is the first of c-1.
        place = number - FIRST_ORDER
        customer = CUSTOMERS[(place - 1) % len(CUSTOMERS)]
        status = STATUSES[place % len(STATUSES)]
        tracking = None if status in ("preparing", "cancelled") else f"KR{number * 7919 % 10**8:08d}"
        day = FIRST_DAY + timedelta(days=place)
        order_id = f"ORD-{number}"
        db.execute(
            "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?)",
            (order_id, customer[0], day.isoformat(), status, customer[3], tracking),
        )
        # Odd steps through 32 products: neither neighbouring orders nor those of one customer hold the same.
        for item in range(1 + place % 3):
            product = PRODUCTS[(place * 5 + place // 8 * 3 + item * 11) % len(PRODUCTS)]
            db.execute("INSERT INTO order_items VALUES (?, ?, ?)", (order_id, product[0], 1 + (place + item) % 2))
