"""The shop's nightly report: more than two hundred steps over all orders, some at once, resumed when it was stopped.

    flowkit run recipes/nightly.py
    flowkit run recipes/nightly.py --resume RUN

For each order: read it, ask the carrier where its parcel is, and judge whether someone has to look at it. The report
is written once, at the end.

What it shows: an `each` with a bound on what runs at once, and a key by which the journal finds an order's steps again;
retries and a time limit for a service; a step that may be repeated after a crash.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from flowkit import CONTEXT, Context, ToolError, build, each, recipe, step, tool
from shop_carrier import Carrier, CarrierUnavailable, run_carrier
from shop_data import open_database, prepare_database, read_parcels

ORDERS_AT_ONCE = 8


@dataclass(frozen=True)
class Night:
    """What the report is made from, and the folder that it goes to."""

    database: Path
    carrier: Carrier
    folder: Path


@dataclass(frozen=True)
class OrderRow:
    id: str
    placed_on: str
    status: str
    city: str
    days_allowed: int
    total_won: int
    tracking_number: str | None


@dataclass(frozen=True)
class Location:
    state: str
    place: str


@dataclass(frozen=True)
class Verdict:
    order_id: str
    is_late: bool
    note: str


@dataclass(frozen=True)
class Line:
    """One order in the report."""

    order: OrderRow
    location: Location
    verdict: Verdict


@dataclass(frozen=True)
class Report:
    """What was written, and where."""

    path: str
    orders: int
    late: int
    total_won: int


@contextmanager
def open_data(database: Path | None = None, folder: Path | None = None, latency: float = 0.25) -> Generator[Night]:
    """Open the shop's books and its carrier; make the database when it isn't there.

    `latency` is what the carrier takes to answer, in seconds.
    """
    database = prepare_database(database)
    with run_carrier(read_parcels(database), latency) as carrier:
        yield Night(database, carrier, folder or database.parent)


@tool(effect="read")
def list_orders(until: date, ctx: Context[Night] = CONTEXT) -> list[str]:
    """List the orders placed until this day, oldest first."""
    with open_database(ctx.data.database) as db:
        rows = db.execute("SELECT id FROM orders WHERE placed_on <= ? ORDER BY id", (until.isoformat(),)).fetchall()
    return [row["id"] for row in rows]


@tool(effect="read")
def read_order(order_id: str, ctx: Context[Night] = CONTEXT) -> OrderRow:
    """Read an order with what it is worth and how long its way may take."""
    with open_database(ctx.data.database) as db:
        row = db.execute(
            "SELECT orders.*, days, (SELECT sum(price_won * quantity) FROM order_items JOIN products "
            "ON products.id = product_id WHERE order_id = orders.id) AS total_won "
            "FROM orders JOIN zones ON zones.city = orders.city WHERE orders.id = ?",
            (order_id,),
        ).fetchone()
    if row is None:
        raise ToolError(f"no order {order_id}")
    return OrderRow(
        id=row["id"],
        placed_on=row["placed_on"],
        status=row["status"],
        city=row["city"],
        days_allowed=row["days"],
        total_won=row["total_won"],
        tracking_number=row["tracking_number"],
    )


@tool(effect="read", timeout=10, retries=2)
def locate_parcel(tracking_number: str | None, ctx: Context[Night] = CONTEXT) -> Location:
    """Ask the carrier where a parcel is."""
    if tracking_number is None:
        return Location("not sent", "서울 (Seoul)")
    try:
        found = ctx.data.carrier.find_parcel(tracking_number)
    except CarrierUnavailable as error:
        raise ToolError(str(error)) from error
    return Location("unknown", "") if found is None else Location(found["state"], found["place"])


@tool(effect="read")
def judge_order(order: OrderRow, location: Location, until: date) -> Verdict:
    """Say whether an order takes longer than its way may take."""
    days = (until - date.fromisoformat(order.placed_on)).days
    is_open = order.status not in ("delivered", "cancelled")
    # Two days to pack it, and then its way.
    is_late = is_open and days > order.days_allowed + 2
    note = f"{days} days since it was placed, {location.state}, {location.place}" if is_late else ""
    return Verdict(order.id, is_late, note)


@tool(effect="idempotent")
def write_report(lines: list[Line], until: date, ctx: Context[Night] = CONTEXT) -> Report:
    """Write the report as Markdown; once more writes the same file again."""
    late = [line for line in lines if line.verdict.is_late]
    total_won = sum(line.order.total_won for line in lines if line.order.status != "cancelled")
    text = [f"# {until}: {len(lines)} orders, {total_won:,} won, {len(late)} late", ""]
    text += [f"- {line.order.id} ({line.order.city}): {line.verdict.note}" for line in late]
    path = ctx.data.folder / f"nightly-{until}.md"
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return Report(str(path), len(lines), len(late), total_won)


@recipe
def nightly_report(until: date = date(2026, 11, 11)) -> Report:
    """Look at every order placed until this day, and write what needs a person."""

    def look_at(order_id: str) -> Line:
        order = step(read_order, order_id)
        location = step(locate_parcel, order.tracking_number)
        verdict = step(judge_order, order, location, until)
        return build(Line, order=order, location=location, verdict=verdict)

    lines = each(step(list_orders, until), look_at, at_once=ORDERS_AT_ONCE, key=lambda order_id: order_id, id="orders")
    return step(write_report, lines, until)
