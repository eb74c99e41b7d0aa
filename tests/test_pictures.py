"""Pictures: what stands in them before and after a run, in every form."""

import asyncio
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import networkx
import pytest

from flowkit.apps import load_app
from flowkit.errors import ToolError
from flowkit.events import Event
from flowkit.graph import Body, Each, Fallback, Graph, ModelStep, Step, When, item_id
from flowkit.graph.conditions import Compare
from flowkit.graph.pictures.picture import Box, make_picture
from flowkit.graph.pictures.timeline import fold
from flowkit.references import Reference, ToolCall
from flowkit.tools import tool
from tests.executing import execute


@tool(effect="read", retries=0)
async def get(a: Any = None) -> Any:
    """Give a list."""
    if a == 2:
        raise ToolError("not two")
    return {"items": [1, 2, 3], "status": "open"}


NODES = [
    ToolCall("order", "get"),
    Each(
        "offers",
        Reference("order", ("items",)),
        Body((ToolCall("offers/one", "get", {"a": Reference(item_id("offers"))}),), Reference("offers/one")),
        at_once=4,
        on_error="null",
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


def run() -> list[Event]:
    return execute([get], NODES).log.events


def boxes_after_the_run() -> dict[str, Box]:
    return {box.id: box for box in make_picture(NODES, fold(run())).all_boxes()}


def test_explain_tells_layers_and_what_waits_for_what() -> None:
    text = GRAPH.explain()
    assert "4 nodes in 3 layers, at most 2 at once" in text
    assert "critical path: order -> offers -> mail" in text
    assert "offers (for each of order/items, 4 at once) waits for order/items" in text
    assert "mail (get) waits for offers, refund" in text


def test_explain_after_a_run_tells_how_each_ended() -> None:
    @tool
    async def wait() -> int:
        await asyncio.sleep(3)
        return 1

    nodes = [ToolCall("w", "wait"), *NODES]
    lines = Graph(nodes).explain(execute([get, wait], nodes).log.events).splitlines()
    assert "critical path: w (3.00 s)" in lines
    assert "w (wait) starts at once: ✓ 3.00 s" in lines
    assert "    offers/one (get) waits for offers/item: ✗ 3 times, 1 failed" in lines
    assert "  otherwise: a value" in lines


def test_controls_hold_boxes_and_say_what_decides() -> None:
    offers, refund = make_picture(NODES).boxes[1:3]
    assert offers.lines == ("offers", "for each of order/items, 4 at once")
    assert [box.title for box in offers.inner] == ["one"]
    assert refund.lines == ("refund", "when order/status == 'say \"<&>\"'")
    assert [box.title for box in refund.inner] == ["then", "otherwise: a value"]


def test_edges_carry_paths_and_end_at_the_outermost_box() -> None:
    edges = {(edge.first, edge.second): edge.labels for edge in make_picture(NODES).edges}
    assert edges == {
        ("order", "offers"): ("/items",),
        ("order", "refund"): ("/status",),
        ("offers", "mail"): (),
        ("refund", "mail"): ("after",),
    }


def test_edge_of_many_paths_shows_the_first_ones() -> None:
    arguments = {str(number): Reference("a", ("field", number)) for number in range(9)}
    [edge] = make_picture([ToolCall("a", "t"), ToolCall("b", "t", arguments)]).edges
    assert edge.shown == ("/field/0", "/field/1", "and 7 more")


def test_before_a_run_nothing_is_said_of_one() -> None:
    assert {(box.tone, box.outcome) for box in make_picture(NODES).all_boxes()} == {("", "")}


def test_after_a_run_each_box_tells_how_it_ended() -> None:
    boxes = boxes_after_the_run()
    assert (boxes["order"].tone, boxes["order"].outcome) == ("good", "✓ 0 ms")
    assert (boxes["refund/주문"].tone, boxes["refund/주문"].outcome) == ("left", "– skipped")


def test_node_that_ran_for_many_items_tells_of_all() -> None:
    one = boxes_after_the_run()["offers/one"]
    assert (one.tone, one.outcome) == ("bad", "✗ 3 times, 1 failed")


def test_nested_items_are_found_by_their_keys() -> None:
    inner = Each(
        "a/b",
        Reference(item_id("a")),
        Body((ToolCall("a/b/get", "get", {"a": Reference(item_id("a/b"))}),), Reference("a/b/get")),
    )
    nodes = [Each("a", [["x/y", "z"], ["x"]], Body((inner,), Reference("a/b")))]
    boxes = {box.id: box for box in make_picture(nodes, fold(execute([get], nodes).log.events)).all_boxes()}
    assert boxes["a/b"].outcome == "✓ 2 times"
    assert boxes["a/b/get"].outcome == "✓ 3 times"


def test_node_that_a_run_never_reached_says_so() -> None:
    boxes = list(make_picture(NODES, fold([])).all_boxes())
    assert {box.outcome for box in boxes if box.kind == "call"} == {"– not reached"}


def test_critical_path_is_marked_between_the_boxes_that_hold_it() -> None:
    @tool
    async def slow(a: Any = None) -> int:
        await asyncio.sleep(1)
        return 1

    nodes = [
        ToolCall("a", "slow"),
        Each("e", [1], Body((ToolCall("e/s", "slow", {"a": Reference("a")}),), Reference("e/s"))),
        ToolCall("beside", "get", {"a": Reference("a")}),
    ]
    picture = make_picture(nodes, fold(execute([get, slow], nodes).log.events))
    assert {(edge.first, edge.second): edge.is_critical for edge in picture.edges} == {
        ("a", "e"): True,
        ("a", "beside"): False,
    }


def test_mermaid_holds_bodies_in_subgraphs() -> None:
    text = GRAPH.to_mermaid()
    assert text.startswith("flowchart TD\n")
    assert text.count("subgraph") == text.count("end\n") == 3
    assert 'n0 -->|"/items"| n1' in text
    assert 'n3 -.->|"after"| n7' in text


@pytest.mark.parametrize(
    ("label", "written"),
    [
        ("end", "end"),
        ('a "b"', "a #34;b#34;"),
        ("`a`", "#96;a#96;"),
        ("<b>&amp;", "#60;b#62;#38;amp;"),
        ("#35;", "#35;35;"),
        ("주문 [1] {2} (3) | x", "주문 [1] {2} (3) | x"),
    ],
)
def test_mermaid_reads_a_label_as_it_was_written(label: str, written: str) -> None:
    # Each was looked at in Mermaid 11.
    assert f'n0["{written}<br/>t"]' in Graph([ToolCall(label, "t")]).to_mermaid()


def test_mermaid_after_a_run_has_a_class_for_each_kind_of_end() -> None:
    text = GRAPH.to_mermaid(run())
    assert "  class n5 left" in text
    assert "  class n2 bad" in text


def test_dot_ends_edges_at_the_frames_of_controls() -> None:
    text = GRAPH.to_dot()
    assert '"order" -> "offers/one" [lhead="cluster offers", label="/items"];' in text
    assert text.count("{") == text.count("}")


def test_dot_quotes_what_stands_in_a_label() -> None:
    assert '"a\\"b\\\\" [label="a\\"b\\\\\\nt"];' in Graph([ToolCall('a"b\\', "t")]).to_dot()


def test_networkx_graph_has_the_nodes_of_bodies() -> None:
    made = GRAPH.to_networkx(run())
    assert set(made.nodes) == {"order", "offers", "offers/one", "refund", "refund/주문", "mail"}
    assert {(first, second): data["paths"] for first, second, data in made.edges(data=True)} == {
        ("order", "offers"): ["/items"],
        ("order", "refund"): ["/status"],
        ("order", "refund/주문"): [""],
        ("offers", "mail"): [""],
        ("refund", "mail"): [],
    }
    assert made.nodes["offers/one"]["parent"] == "offers"
    assert made.nodes["refund/주문"]["states"] == ["skipped"]
    assert sorted(made.nodes["offers/one"]["states"]) == ["failed", "finished", "finished"]
    library: Any = networkx
    assert library.descendants(made, "order") == set(made.nodes) - {"order", "offers/one"}


SVG = "{http://www.w3.org/2000/svg}"


def svgs() -> Iterator[str]:
    yield GRAPH.to_svg()
    yield GRAPH.to_svg(run())
    wide = [ToolCall(f"a_rather_long_name_{number}", "t", {"a": Reference("start")}) for number in range(9)]
    yield Graph([ToolCall("start", "t"), *wide]).to_svg()
    tries = tuple(Body((ModelStep(f"f/{n}"),), Reference(f"f/{n}")) for n in range(3))
    yield Graph([Fallback("f", tries)]).to_svg()
    yield Graph().to_svg()


def test_svg_is_one_document_with_every_text_inside_its_box() -> None:
    for svg in svgs():
        for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
            [*boxes], texts = group.findall(f"{SVG}rect"), group.findall(f"{SVG}text")
            if group.get("class") is None:
                continue
            for text in texts:
                wide = sum(2 if ord(character) > 0x1100 else 1 for character in "".join(text.itertext()))
                assert float(text.get("x", 0)) + wide * 13 * 0.602 <= float(boxes[0].get("width", 0))
                assert float(text.get("y", 0)) < float(boxes[0].get("height", 0))


def test_svg_shows_paths_branches_and_what_is_dashed() -> None:
    root = ElementTree.fromstring(GRAPH.to_svg())
    texts = {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}
    assert {"order", "one", "주문", "otherwise: a value", "/items", "/status", "after"} <= texts
    assert sum("fk-after" in path.get("class", "") for path in root.iter(f"{SVG}path")) == 1


def test_svg_is_dark_on_a_screen_that_asks_for_it_and_light_on_paper() -> None:
    svg = GRAPH.to_svg()
    assert ".fk-page{fill:#fff}" in svg.partition("@media")[0]
    assert "@media screen and (prefers-color-scheme:dark)" in svg


def test_svg_of_a_wide_graph_runs_from_left_to_right() -> None:
    def width(nodes: list[ToolCall]) -> float:
        return float(ElementTree.fromstring(Graph(nodes).to_svg()).get("width", 0))

    fan = [ToolCall("start", "t"), *(ToolCall(f"node_{n}", "t", {"a": Reference("start")}) for n in range(30))]
    assert width(fan) < 400


def test_picture_in_the_docs_is_what_is_drawn() -> None:
    # To draw it anew: flowkit graph recipes/shop.py -f svg > docs/images/graph.svg
    root = Path(__file__).parent.parent
    recipe = load_app(str(root / "recipes" / "shop.py:order_support")).get_recipe()
    assert (root / "docs" / "images" / "graph.svg").read_text(encoding="utf-8") == recipe.graph().to_svg()
