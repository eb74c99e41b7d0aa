"""The layout of boxes, edges and labels in a picture: rows from top to bottom, and no edge through a box.

Boxes are put in rows by what they wait for, and in a row by the middle of their neighbours (Sugiyama, Tagawa and
Toda 1981). A label has a place of its own between the rows of boxes, and its edge runs through its middle; an edge
over several rows gets a lane in each. Slanted lines run only in the gaps between rows, and vertical ones only in the
column of their own box, label or lane, so no line can cross a box, nor another edge's label.
"""

from bisect import bisect_right, insort
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

GAP_X = 28.0
GAP_Y = 40.0
LABEL_GAP = 20.0
"""The gap above a row of labels, and the one below it."""

SIDEWAYS = 1.8
"""How much wider those gaps are where lines run from left to right: they have farther to climb."""

LANE = 8.0
"""The width of an edge's own column."""

LANE_GAP = 14.0
"""The gap beside a lane or a label."""

SWEEPS = 16
"""How often order and columns are improved."""

Point = tuple[float, float]
Size = tuple[float, float]
Edge = tuple[str, str]
Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Layout:
    """The upper left corner of every box, the points of every edge, the middle of every label, and the whole's size.

    Every second piece of an edge, from its first point on, lies inside a row and is straight.
    """

    corners: Mapping[str, Point]
    lines: Mapping[Edge, Sequence[Point]]
    labels: Mapping[Edge, Point]
    width: float
    height: float


@dataclass(slots=True, eq=False)
class _Place:
    """A box, a label, or a lane of an edge in its row; `above` and `below` are its neighbours along edges."""

    row: int
    width: float
    height: float
    is_box: bool = False
    above: list["_Place"] = field(default_factory=list["_Place"])
    below: list["_Place"] = field(default_factory=list["_Place"])
    index: int = 0
    middle: float = 0.0


def arrange(
    sizes: Mapping[str, Size], edges: Sequence[Edge], labels: Mapping[Edge, Size], *, sideways: bool = False
) -> Layout:
    """Place boxes of these sizes; `edges` lead from earlier to later names, in the order of `sizes`.

    With `sideways` a node is to the right of its dependencies, not below them.
    """
    if sideways:
        return _turn(_arrange(_turn_sizes(sizes), edges, _turn_sizes(labels), SIDEWAYS))
    return _arrange(sizes, edges, labels, 1.0)


def _arrange(sizes: Mapping[str, Size], edges: Sequence[Edge], labels: Mapping[Edge, Size], stretch: float) -> Layout:
    boxes, label_rows = _make_boxes(sizes, edges, labels)
    chains = {edge: _make_chain(boxes[edge[0]], boxes[edge[1]], labels.get(edge)) for edge in edges}
    rows = _order([*boxes.values(), *(place for chain in chains.values() for place in chain[1:-1])])
    width = _set_columns(rows)
    tops = _set_tops(rows, label_rows, stretch)
    bottoms = [top + max(place.height for place in row) for top, row in zip(tops, rows, strict=True)]
    return Layout(
        {name: (box.middle - box.width / 2, tops[box.row]) for name, box in boxes.items()},
        {edge: _draw_line(chain, tops, bottoms) for edge, chain in chains.items()},
        {edge: _find_label(chains[edge][-2], tops, bottoms) for edge in edges if edge in labels},
        width,
        bottoms[-1] if bottoms else 0.0,
    )


def _turn(layout: Layout) -> Layout:
    return Layout(
        {name: (y, x) for name, (x, y) in layout.corners.items()},
        {edge: [(y, x) for x, y in points] for edge, points in layout.lines.items()},
        {edge: (y, x) for edge, (x, y) in layout.labels.items()},
        layout.height,
        layout.width,
    )


def _turn_sizes(sizes: Mapping[Key, Size]) -> dict[Key, Size]:
    return {key: (height, width) for key, (width, height) in sizes.items()}


def _make_boxes(
    sizes: Mapping[str, Size], edges: Sequence[Edge], labels: Mapping[Edge, Size]
) -> tuple[dict[str, _Place], set[int]]:
    """Make the boxes; also return the rows for labels: one before each row of boxes where a labelled edge ends."""
    depth = dict.fromkeys(sizes, 0)
    order = {name: number for number, name in enumerate(sizes)}
    for first, second in sorted(edges, key=lambda edge: order[edge[0]]):
        depth[second] = max(depth[second], depth[first] + 1)
    labelled = sorted({depth[second] for _, second in labels})
    rows = {name: depth[name] + bisect_right(labelled, depth[name]) for name in sizes}
    boxes = {name: _Place(rows[name], width, height, is_box=True) for name, (width, height) in sizes.items()}
    return boxes, {place + number for number, place in enumerate(labelled)}


def _make_chain(first: _Place, last: _Place, label: Size | None) -> list[_Place]:
    """Make the places an edge runs through: its box, a lane in each row between, its label, its other box."""
    chain = [first, *(_Place(row, LANE, 0.0) for row in range(first.row + 1, last.row)), last]
    if label is not None:
        chain[-2].width, chain[-2].height = label
    for above, below in pairwise(chain):
        above.below.append(below)
        below.above.append(above)
    return chain


def _order(places: Sequence[_Place]) -> list[list[_Place]]:
    """Order the places of each row from left to right, in the best order found."""
    rows: list[list[_Place]] = [[] for _ in range(1 + max((place.row for place in places), default=-1))]
    for place in places:
        rows[place.row].append(place)
    best, fewest = rows, float("inf")
    for sweep in range(SWEEPS + 1):
        for row in rows:
            _count_off(row)
        crossings = sum(map(_count_crossings, rows))
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            row.sort(key=lambda place: _find_middle_index(place, down=down))
            _count_off(row)
    for row in best:
        _count_off(row)
    return best


def _count_off(row: Sequence[_Place]) -> None:
    for index, place in enumerate(row):
        place.index = index


def _find_middle_index(place: _Place, *, down: bool) -> float:
    neighbours = place.above if down else place.below
    return sum(other.index for other in neighbours) / len(neighbours) if neighbours else place.index


def _count_crossings(row: Sequence[_Place]) -> int:
    """Count the pairs of edges that cross below this row."""
    ends: list[int] = []
    crossings = 0
    for place in row:
        below = sorted(other.index for other in place.below)
        crossings += sum(len(ends) - bisect_right(ends, end) for end in below)
        for end in below:
            insort(ends, end)
    return crossings


def _set_columns(rows: Sequence[Sequence[_Place]]) -> float:
    """Place each box near its neighbours; return the width of the whole."""
    for row in rows:
        _spread(row, [0.0] * len(row))
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            _spread(row, [_find_middle(place) for place in row])
    places = [place for row in rows for place in row]
    left = min((place.middle - place.width / 2 for place in places), default=0.0)
    for place in places:
        place.middle -= left
    return max((place.middle + place.width / 2 for place in places), default=0.0)


def _find_middle(place: _Place) -> float:
    """Find the ideal middle of a place: near its neighbours, with more weight for those with few others."""
    pulls = [(other.middle, 1 / len(other.below) ** 2) for other in place.above]
    pulls += [(other.middle, 1 / len(other.above) ** 2) for other in place.below]
    total = sum(weight for _, weight in pulls)
    return sum(middle * weight for middle, weight in pulls) / total if pulls else place.middle


def _spread(row: Sequence[_Place], wanted: Sequence[float]) -> None:
    """Put each place as near to where it is wanted as the others allow, in the order of the row.

    Least squares by pooling neighbours that would overlap; lanes weigh more, so that long edges run straight.
    """
    offsets = [0.0]
    for left, right in pairwise(row):
        gap = GAP_X if left.is_box and right.is_box else LANE_GAP
        offsets.append(offsets[-1] + (left.width + right.width) / 2 + gap)
    pools: list[tuple[float, float, int]] = []  # the sum of weighted positions, the weights, how many places
    for place, want, offset in zip(row, wanted, offsets, strict=False):
        weight = 1.0 if place.is_box else 4.0
        pool = (weight * (want - offset), weight, 1)
        while pools and pools[-1][0] / pools[-1][1] > pool[0] / pool[1]:
            before = pools.pop()
            pool = (before[0] + pool[0], before[1] + pool[1], before[2] + pool[2])
        pools.append(pool)
    starts = [total / weight for total, weight, count in pools for _ in range(count)]
    for place, start, offset in zip(row, starts, offsets, strict=False):
        place.middle = start + offset


def _set_tops(rows: Sequence[Sequence[_Place]], label_rows: Collection[int], stretch: float) -> list[float]:
    tops: list[float] = []
    y = 0.0
    for number, row in enumerate(rows):
        tops.append(y)
        is_by_label = number in label_rows or number + 1 in label_rows
        y += max(place.height for place in row) + stretch * (LABEL_GAP if is_by_label else GAP_Y)
    return tops


def _find_label(place: _Place, tops: Sequence[float], bottoms: Sequence[float]) -> Point:
    return place.middle, (tops[place.row] + bottoms[place.row]) / 2


def _draw_line(chain: Sequence[_Place], tops: Sequence[float], bottoms: Sequence[float]) -> list[Point]:
    first, last = chain[0], chain[-1]
    x = _find_port(first, first.below, chain[1])
    points = [(x, tops[first.row] + first.height), (x, bottoms[first.row])]
    for lane in chain[1:-1]:
        points += [(lane.middle, tops[lane.row]), (lane.middle, bottoms[lane.row])]
    points.append((_find_port(last, last.above, chain[-2]), tops[last.row]))
    return points


def _find_port(box: _Place, neighbours: Sequence[_Place], other: _Place) -> float:
    """Find the point on a box's side where the line to this neighbour starts: one point per neighbour, in their order."""
    place = sorted(neighbours, key=lambda neighbour: neighbour.index).index(other)
    return box.middle + box.width * ((place + 1) / (len(neighbours) + 1) - 0.5)
