"""Customer service of a shop in Seoul: an agent, and the same work as a recipe.

    flowkit chat recipes/shop.py "Where is my order?"
    flowkit run recipes/shop.py order_id=ORD-1002

What it shows: a cache that keeps customers apart, a need that spares the model a turn (`track_parcel`), a write that
may be repeated and one that a person approves, a prefetch, and a recipe with `each` and `when`.

Whose orders a tool may see comes from the run's context, never from an argument that a model could make up.
"""

import sqlite3
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from flowkit import (
    CONTEXT,
    Agent,
    ConfigurationError,
    Context,
    DefaultModel,
    Needs,
    ToolError,
    build,
    each,
    recipe,
    step,
    tool,
    when,
)
from shop_carrier import Carrier, CarrierUnavailable, run_carrier
from shop_data import open_database, prepare_database, read_parcels

REFUND_WITHOUT_ASKING_WON = 50_000
OrderId = Annotated[str, Field(pattern=r"^ORD-\d{4}$", description="As in ORD-1002.")]
Category = Literal["electronics", "kitchen", "food", "beauty", "clothing", "outdoor", "books"]
Status = Literal["preparing", "shipped", "in transit", "delivered", "cancelled"]


@dataclass(frozen=True)
class Shop:
    """What the tools of one customer's conversation work on."""

    customer_id: str
    database: Path
    carrier: Carrier


@dataclass(frozen=True)
class Item:
    product_id: str
    name: str
    category: Category
    quantity: int
    price_won: int


@dataclass(frozen=True)
class Order:
    id: str
    placed_on: str
    status: Status
    city: str
    items: list[Item]
    total_won: int
    weight_kg: float
    tracking_number: str | None


@dataclass(frozen=True)
class Product:
    id: str
    name: str
    english_name: str
    category: str
    price_won: int
    in_stock: bool


@dataclass(frozen=True)
class Shipping:
    destination: str
    fee_won: int
    days: int
    express: bool


@dataclass(frozen=True)
class Parcel:
    order_id: str
    state: str
    place: str


@dataclass(frozen=True)
class Refund:
    order_id: str
    amount_won: int
    state: str = "refunded"


@dataclass(frozen=True)
class Return:
    order_id: str
    state: str = "a courier will come for it within two days"


@contextmanager
def open_data(user: str = "c-1", database: Path | None = None, latency: float = 0.25) -> Generator[Shop]:
    """Open the shop as the customer `user` sees it; make the database when it isn't there, and start the carrier.

    `latency` is what the carrier takes to answer, in seconds.
    """
    database = prepare_database(database)
    with open_database(database) as db:
        if db.execute("SELECT 1 FROM customers WHERE id = ?", (user,)).fetchone() is None:
            raise ConfigurationError(f"no customer {user!r}; there are c-1 to c-8")
    with run_carrier(read_parcels(database), latency) as carrier:
        yield Shop(user, database, carrier)


@tool(ttl=60, scope="user", resource="order:{order_id}")
def get_order_status(order_id: OrderId | None = None, ctx: Context[Shop] = CONTEXT) -> Order:
    """Get the status, items and address of one of the customer's orders; the latest when no order is named.

    As in "Where is my order?", "What is the status of my order?", "When will it arrive?" or "내 주문이 어디 있나요?".
    """
    return _find_order(ctx.data, order_id)


@tool(ttl=600, scope="all")
def search_products(
    query: Annotated[str, Field(description="Words of the product's name, Korean or English.")],
    category: Category | None = None,
    max_price: Annotated[int | None, Field(gt=0, description="In won.")] = None,
    ctx: Context[Shop] = CONTEXT,
) -> list[Product]:
    """Find the products whose name and category match the most words; at most five.

    As in "Do you have green tea?", "Find headphones under a price" or "녹차 있나요?".
    """
    words = query.casefold().split()
    with open_database(ctx.data.database) as db:
        rows = db.execute(
            "SELECT * FROM products WHERE (? IS NULL OR category = ?) AND (? IS NULL OR price_won <= ?) ORDER BY id",
            (category, category, max_price, max_price),
        ).fetchall()
    # One word of several isn't enough where another product has them all: a gift set is no tea set.
    most = max((_count_matches(words, row) for row in rows), default=0)
    return [_read_product(row) for row in rows if most and _count_matches(words, row) == most][:5]


@tool(ttl=3600, scope="all")
def calculate_shipping(
    destination: Annotated[str, Field(description="City or province in Korea, as in Busan or 부산.")],
    weight_kg: Annotated[float, Field(gt=0, le=30)],
    express: bool = False,
    ctx: Context[Shop] = CONTEXT,
) -> Shipping:
    """Calculate what it costs to send a parcel from Seoul, in won, and how many days it takes.

    As in "What does it cost to send 2 kg to Busan?", "How long does shipping to Jeju take?" or
    "부산까지 2 kg을 보내는 데 얼마가 드나요?".
    """
    with open_database(ctx.data.database) as db:
        zones = db.execute("SELECT * FROM zones").fetchall()
    zone = _find_zone(destination.casefold(), zones)
    if zone is None:
        names = ", ".join(f"{zone['english_name']} ({zone['city']})" for zone in zones)
        raise ToolError(f"we don't ship to {destination!r}; we ship to {names}")
    # 3,000 won for the first kilogram, 1,000 for each that is begun after it, 5,000 for express.
    fee_won = 3_000 + 1_000 * max(0, ceil(weight_kg) - 1) + (5_000 if express else 0)
    days = max(1, zone["days"] - 1) if express else zone["days"]
    return Shipping(f"{zone['english_name']} ({zone['city']})", fee_won, days, express)


@tool(effect="read", timeout=5, retries=2)
def track_parcel(order: Order = Needs(get_order_status), ctx: Context[Shop] = CONTEXT) -> Parcel:
    """Ask the carrier where the parcel of an order is; of the latest order when none is named.

    As in "Where is my parcel now?" or "내 택배가 지금 어디 있나요?".
    """
    if order.tracking_number is None:
        return Parcel(order.id, order.status, "서울 (Seoul)")
    try:
        found = ctx.data.carrier.find_parcel(order.tracking_number)
    except CarrierUnavailable as error:
        raise ToolError(f"{error}; its status in our books is {order.status!r}") from error
    if found is None:
        raise ToolError(f"the carrier doesn't know the parcel of {order.id}")
    return Parcel(order.id, found["state"], found["place"])


@tool(effect="read")
def recommend_products(
    limit: Annotated[int, Field(ge=1, le=10)] = 3,
    order: Order = Needs(get_order_status),
    ctx: Context[Shop] = CONTEXT,
) -> list[Product]:
    """Recommend products that go with an order, the most bought first; with the latest order when none is named.

    As in "What else would go with my order?" or "내 주문에 무엇이 또 어울릴까요?".
    """
    bought = [item.product_id for item in order.items]
    categories = sorted({item.category for item in order.items})
    with open_database(ctx.data.database) as db:
        rows = db.execute(
            "SELECT products.*, count(order_items.order_id) AS sold FROM products LEFT JOIN order_items "
            f"ON order_items.product_id = products.id WHERE category IN ({_marks(categories)}) "
            f"AND products.id NOT IN ({_marks(bought)}) AND stock > 0 GROUP BY products.id ORDER BY sold DESC, id LIMIT ?",
            (*categories, *bought, limit),
        ).fetchall()
    return [_read_product(row) for row in rows]


@tool(effect="idempotent", resource="order:{order_id}")
def return_order(order_id: OrderId, reason: str, ctx: Context[Shop] = CONTEXT) -> Return:
    """Have a delivered order picked up and taken back.

    As in "I want to return my order, it is broken" or "주문한 것이 고장 나서 반품하고 싶어요".
    """
    order = _find_order(ctx.data, order_id)
    if order.status != "delivered":
        raise ToolError(f"{order_id} is {order.status}; only a delivered order can be returned")
    with open_database(ctx.data.database) as db:
        # Once more with the same key changes nothing more.
        db.execute("INSERT OR IGNORE INTO returns VALUES (?, ?, ?)", (ctx.idempotency_key, order_id, reason))
    return Return(order_id)


def needs_approval(arguments: Mapping[str, object], ctx: Context[Shop]) -> bool:
    """Return whether a person has to decide on this refund: a large one."""
    amount = arguments["amount_won"]
    return isinstance(amount, int) and amount > REFUND_WITHOUT_ASKING_WON


@tool(effect="write", resource="order:{order_id}", approval=needs_approval, accepts_references=True)
def refund_order(
    order_id: OrderId,
    amount_won: Annotated[int, Field(gt=0)],
    reason: str,
    ctx: Context[Shop] = CONTEXT,
) -> Refund:
    """Pay money for a cancelled or returned order back; above 50,000 won a person has to approve it.

    As in "Give me my money back" or "돈을 돌려주세요".
    """
    order = _find_order(ctx.data, order_id)
    with open_database(ctx.data.database) as db:
        # The lock is taken before the sum is read, so that two refunds can't both find room.
        db.execute("BEGIN IMMEDIATE")
        paid = db.execute(
            "SELECT coalesce(sum(amount_won), 0) FROM refunds WHERE order_id = ?", (order_id,)
        ).fetchone()[0]
        if paid + amount_won > order.total_won:
            raise ToolError(f"{order_id} was {order.total_won} won, and {paid} won are already refunded")
        db.execute("INSERT INTO refunds VALUES (?, ?, ?, ?)", (ctx.idempotency_key, order_id, amount_won, reason))
    return Refund(order_id, amount_won)


agent = Agent(
    DefaultModel(),
    name="shop",
    tools=[
        get_order_status,
        search_products,
        calculate_shipping,
        track_parcel,
        recommend_products,
        return_order,
        refund_order,
    ],
    instructions=(
        "You are the customer service of a shop in Seoul. Answer in the customer's language, briefly. "
        "Use the tools for every fact: orders, products, prices, shipping. Never guess a price or a date. "
        "Call several tools at once when they don't need one another."
    ),
    # Most customers ask about their latest order: it is on its way before the model has said a word.
    prefetch=[get_order_status.call()],
)


@dataclass(frozen=True)
class Support:
    """All that a person needs to answer a customer about an order."""

    order: Order
    parcel: Parcel
    shipping: Shipping
    offers: list[list[Product]]
    refund: Refund | None


@recipe
def order_support(order_id: OrderId, express: bool = False) -> Support:
    """Collect everything about an order: where it is, its shipping cost, what goes with it; refund a cancelled one."""
    order = step(get_order_status, order_id)
    parcel = step(track_parcel, order=order)
    shipping = step(calculate_shipping, order.city, order.weight_kg, express)
    offers = each(order.items, lambda item: step(search_products, item.category, item.category), at_once=4, id="offers")
    refund = when(
        order.status == "cancelled",
        lambda: step(refund_order, order.id, order.total_won, "the order was cancelled"),
        otherwise=None,
        id="refund",
    )
    return build(Support, order=order, parcel=parcel, shipping=shipping, offers=offers, refund=refund)


def _find_zone(destination: str, zones: list[sqlite3.Row]) -> sqlite3.Row | None:
    """Find the zone named first: 부산 in 부산 해운대구, though 대구 stands in it too."""
    places = {
        place: zone
        for zone in zones
        for name in (zone["city"], zone["english_name"].casefold())
        if (place := destination.find(name)) >= 0
    }
    return places[min(places)] if places else None


def _find_order(shop: Shop, order_id: str | None) -> Order:
    """Find this order of the customer, or the latest."""
    with open_database(shop.database) as db:
        found = db.execute(
            "SELECT * FROM orders WHERE customer_id = ? AND (id = ? OR ? IS NULL) ORDER BY placed_on DESC, id DESC LIMIT 1",
            (shop.customer_id, order_id, order_id),
        ).fetchone()
        if found is None:
            raise ToolError("you have no order yet" if order_id is None else f"you have no order {order_id}")
        return _read_order(db, found)


def _read_order(db: sqlite3.Connection, row: sqlite3.Row) -> Order:
    products = db.execute(
        "SELECT products.*, quantity FROM order_items JOIN products ON products.id = product_id WHERE order_id = ?",
        (row["id"],),
    ).fetchall()
    return Order(
        id=row["id"],
        placed_on=row["placed_on"],
        status=row["status"],
        city=row["city"],
        items=[
            Item(
                product["id"],
                f"{product['name']} ({product['english_name']})",
                product["category"],
                product["quantity"],
                product["price_won"],
            )
            for product in products
        ],
        total_won=sum(product["price_won"] * product["quantity"] for product in products),
        weight_kg=round(sum(product["weight_kg"] * product["quantity"] for product in products), 1),
        tracking_number=row["tracking_number"],
    )


def _read_product(row: sqlite3.Row) -> Product:
    return Product(
        row["id"], row["name"], row["english_name"], row["category"], row["price_won"], in_stock=row["stock"] > 0
    )


def _count_matches(words: list[str], row: sqlite3.Row) -> int:
    text = f"{row['name']} {row['english_name']} {row['category']}".casefold()
    return sum(word in text for word in words)


def _marks(values: list[str]) -> str:
    return ", ".join("?" * len(values))
