"""Pictures: what stands in them, and that no line runs through a box."""

import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.graph import Body, Each, Graph, Step, When, drawing
from flowkit.graph.conditions import Compare
from flowkit.graph.layout import arrange
from flowkit.graph.timeline import fold
from flowkit.references import Reference, ToolCall
from flowkit.tools import tool
from tests.executing import execute


@tool(effect="read")
async def get(a: Any = None) -> Any:
    """Give a list."""
    return {"items": [1, 2], "status": "open"}


NODES = [
    ToolCall("order", "get"),
    Each(
        "offers",
        Reference("order", ("items",)),
        Body((ToolCall("offers/one", "get"),), Reference("offers/one")),
        at_once=4,
    ),
    When(
        "refund",
        Compare(Reference("order", ("status",)), "==", 'say "<&>"'),
        Body((ToolCall("refund/주문", "get", {"a": Reference("order")}),), None),
        Body((), None),
    ),
    Step("mail", "get", {"a": Reference("offers")}, after=("refund",)),
]
GRAPH = Graph(NODES)


def test_explain_tells_layers_and_what_waits_for_what() -> None:
    text = GRAPH.explain()
    assert "4 nodes in 3 layers, at most 2 at once" in text
    assert "critical path: order -> offers -> mail" in text
    assert "offers (for each of order/items, 4 at once) waits for order/items" in text
    assert "mail (get) waits for offers, refund" in text


def test_mermaid_holds_bodies_in_subgraphs() -> None:
    text = drawing.to_mermaid(GRAPH)
    assert text.startswith("flowchart TD\n")
    assert text.count("subgraph") == text.count("end\n") == 3
    assert 'n0 -->|"/items"| n1' in text
    assert "#34;" in text, "quotes are written as entities"


def test_dot_ends_edges_at_the_frames_of_controls() -> None:
    text = drawing.to_dot(GRAPH)
    assert '"order" -> "offers/one" [lhead="cluster offers", label="/items"];' in text
    assert text.count("{") == text.count("}")


def test_svg_is_one_document_with_every_label_inside_its_box() -> None:
    root = ElementTree.fromstring(drawing.to_svg(GRAPH))
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"order", "offers/one", "refund/주문", "otherwise: a value"} <= set(texts)
    for group in root.iter("{http://www.w3.org/2000/svg}g"):
        boxes = group.findall("{http://www.w3.org/2000/svg}rect")
        for text in group.findall("{http://www.w3.org/2000/svg}text"):
            length = len("".join(text.itertext()))
            assert float(text.get("x", 0)) + length * 13 * 0.602 <= float(boxes[0].get("width", 0))


def test_pictures_after_a_run_show_states() -> None:
    timeline = fold(execute([get], NODES).log.events)
    assert drawing.COLORS["skipped"] in drawing.to_svg(GRAPH, timeline)
    assert drawing.COLORS["finished"] in drawing.to_mermaid(GRAPH, timeline)
    assert drawing.to_networkx(GRAPH, timeline).nodes["refund/주문"]["state"] == "skipped"


def test_networkx_graph_has_the_nodes_of_bodies() -> None:
    made = drawing.to_networkx(GRAPH)
    assert set(made.nodes) == {"order", "offers", "offers/one", "refund", "refund/주문", "mail"}
    assert set(made.edges) == {
        ("order", "offers"),
        ("order", "refund"),
        ("order", "refund/주문"),
        ("offers", "mail"),
        ("refund", "mail"),
    }


@st.composite
def boxes_and_edges(draw: st.DrawFn) -> tuple[dict[str, tuple[float, float]], list[tuple[str, str]]]:
    count = draw(st.integers(1, 12))
    size = st.tuples(st.floats(20, 300), st.floats(20, 200))
    sizes = {f"n{number}": draw(size) for number in range(count)}
    pairs = [(f"n{a}", f"n{b}") for b in range(count) for a in range(b)]
    return sizes, draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []


@given(boxes_and_edges())
@settings(max_examples=60, deadline=None)
def test_no_line_runs_through_a_box_and_no_box_over_another(
    made: tuple[dict[str, tuple[float, float]], list[tuple[str, str]]],
) -> None:
    sizes, edges = made
    layout = arrange(sizes, edges)
    areas = {name: (*layout.corners[name], *sizes[name]) for name in sizes}
    for name, (x, y, width, height) in areas.items():
        assert 0 <= x <= layout.width - width + 1e-6
        for other, (left, top, wide, high) in areas.items():
            apart = x + width <= left or left + wide <= x or y + height <= top or top + high <= y
            assert name == other or apart
    for points in layout.lines.values():
        for (x1, y1), (x2, y2) in pairwise(points):
            for x, y, width, height in areas.values():
                # Lines are vertical inside the rows of boxes, and slanted only between rows.
                inside = max(min(x1, x2), x) < min(max(x1, x2), x + width) - 1e-6 or x + 1e-6 < x1 < x + width - 1e-6
                assert not (inside and max(min(y1, y2), y + 1e-6) < min(max(y1, y2), y + height - 1e-6))
