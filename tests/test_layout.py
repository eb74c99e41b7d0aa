"""Where boxes, lines and labels stand: none over another, whatever the graph."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.graph.pictures.placement import Edge, Layout, Size, arrange
from tests.example_counts import examples

Area = tuple[float, float, float, float]
"""Left, top, right and bottom."""


@st.composite
def drawings(draw: st.DrawFn) -> tuple[dict[str, Size], list[Edge], dict[Edge, Size]]:
    count = draw(st.integers(1, 12))
    size = st.tuples(st.floats(20, 300), st.floats(20, 200))
    sizes = {f"n{number}": draw(size) for number in range(count)}
    pairs = [(f"n{a}", f"n{b}") for b in range(count) for a in range(b)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    labelled = draw(st.lists(st.sampled_from(edges), unique=True)) if edges else []
    return sizes, edges, {edge: draw(st.tuples(st.floats(10, 200), st.floats(10, 50))) for edge in labelled}


def overlap(one: Area, other: Area) -> bool:
    slack = 1e-6
    return (
        min(one[2], other[2]) - max(one[0], other[0]) > slack and min(one[3], other[3]) - max(one[1], other[1]) > slack
    )


def find_areas(layout: Layout, sizes: dict[str, Size], labels: dict[Edge, Size]) -> dict[str | Edge, Area]:
    """Boxes by name, labels by edge."""
    areas: dict[str | Edge, Area] = {}
    for name, (x, y) in layout.corners.items():
        areas[name] = (x, y, x + sizes[name][0], y + sizes[name][1])
    for edge, (x, y) in layout.labels.items():
        width, height = labels[edge]
        areas[edge] = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return areas


@pytest.mark.parametrize("sideways", [False, True])
@given(drawings())
@settings(max_examples=examples(60), deadline=None)
def test_nothing_overlaps_and_everything_is_inside(
    sideways: bool, made: tuple[dict[str, Size], list[Edge], dict[Edge, Size]]
) -> None:
    sizes, edges, labels = made
    layout = arrange(sizes, edges, labels, sideways=sideways)
    areas = find_areas(layout, sizes, labels)
    assert areas.keys() == {*sizes, *labels}
    for key, area in areas.items():
        assert min(area[:2]) >= -1e-6
        assert area[2] <= layout.width + 1e-6
        assert area[3] <= layout.height + 1e-6
        assert not any(overlap(area, other) for another, other in areas.items() if another != key)


@pytest.mark.parametrize("sideways", [False, True])
@given(drawings())
@settings(max_examples=examples(60), deadline=None)
def test_no_line_runs_through_a_box_or_through_the_label_of_another(
    sideways: bool, made: tuple[dict[str, Size], list[Edge], dict[Edge, Size]]
) -> None:
    sizes, edges, labels = made
    layout = arrange(sizes, edges, labels, sideways=sideways)
    areas = find_areas(layout, sizes, labels)
    for edge, points in layout.lines.items():
        for first, second in pairwise(points):
            # A curve stays inside the corners of its piece.
            piece = (*map(min, first, second), *map(max, first, second))
            hit = [key for key, area in areas.items() if key != edge and _crosses(piece, area, sideways=sideways)]
            assert not hit


def _crosses(piece: tuple[float, ...], area: Area, *, sideways: bool) -> bool:
    """Whether a line from corner to corner of `piece` may touch the area's inside; straight pieces have no width."""
    along, across = (0, 1) if sideways else (1, 0)
    slack = 1e-6
    return (
        min(piece[along + 2], area[along + 2]) - max(piece[along], area[along]) > slack
        and piece[across] < area[across + 2] - slack
        and piece[across + 2] > area[across] + slack
    )


def test_line_ends_at_its_boxes_and_runs_through_the_middle_of_its_label() -> None:
    sizes: dict[str, Size] = {"a": (50, 20), "b": (90, 30), "c": (40, 20)}
    edges = [("a", "b"), ("b", "c"), ("a", "c")]
    layout = arrange(sizes, edges, {("a", "c"): (60, 14)})
    line = layout.lines["a", "c"]
    assert line[0][1] == 20
    assert line[-1][1] == layout.corners["c"][1]
    x, y = layout.labels["a", "c"]
    assert any(first[0] == second[0] == x and first[1] <= y <= second[1] for first, second in pairwise(line))


def test_chain_stands_straight() -> None:
    names = [f"n{number}" for number in range(6)]
    layout = arrange({name: (40 + 10 * len(names), 20) for name in names}, list(pairwise(names)), {})
    assert len({x for x, _ in layout.corners.values()}) == 1


def test_order_that_crosses_no_line_is_found() -> None:
    sizes: dict[str, Size] = dict.fromkeys(("a", "b", "c", "x", "y", "z"), (40, 20))
    layout = arrange(sizes, [("a", "z"), ("b", "y"), ("c", "x")], {})
    assert [layout.corners[name][0] for name in "abc"] == [layout.corners[name][0] for name in "zyx"]


def test_thousand_boxes_are_placed() -> None:
    sizes: dict[str, Size] = {f"n{number}": (40, 20) for number in range(1000)}
    edges = [(f"n{number // 2}", f"n{number}") for number in range(1, 1000)]
    assert len(arrange(sizes, edges, {}).corners) == 1000
