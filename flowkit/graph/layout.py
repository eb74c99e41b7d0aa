"""Where boxes and edges stand in a picture: layers from top to bottom, no edge through a box.

Boxes are put in layers by what they wait for, and in a layer by the middle of their neighbours (Sugiyama, Tagawa and
Toda 1981). An edge over several layers gets a lane of its own in each. Slanted lines run only in the gaps between
layers, and vertical ones only in the column of their own box or lane, so no line can cross a box.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

GAP_X = 28.0
GAP_Y = 44.0
LANE = 14.0
"""The width of an edge's own column."""

SWEEPS = 6
"""How often the order in the layers is improved."""

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Layout:
    """The upper left corner of every box, the points of every edge, and the size of the whole."""

    corners: Mapping[str, Point]
    lines: Mapping[tuple[str, str], Sequence[Point]]
    width: float
    height: float


@dataclass(slots=True)
class _Place:
    """A box, or a lane of an edge, in its layer; edges are (above, below) by name."""

    name: str
    layer: int
    width: float
    height: float
    above: list[str] = field(default_factory=list[str])
    below: list[str] = field(default_factory=list[str])
    x: float = 0.0


def arrange(sizes: Mapping[str, tuple[float, float]], edges: Sequence[tuple[str, str]]) -> Layout:
    """Place boxes of these sizes; `edges` lead from earlier to later names, in the order of `sizes`."""
    places = _make_places(sizes, edges)
    chains = _add_lanes(places, edges)
    layers = _order(places)
    width = _set_columns(layers)
    tops, heights = _set_rows(layers)
    corners = {name: (places[name].x, tops[places[name].layer]) for name in sizes}
    lines = {edge: _draw_line(chain, places, tops, heights) for edge, chain in chains.items()}
    return Layout(corners, lines, width, tops[-1] + heights[-1] if tops else 0.0)


def _make_places(sizes: Mapping[str, tuple[float, float]], edges: Sequence[tuple[str, str]]) -> dict[str, _Place]:
    depth = dict.fromkeys(sizes, 0)
    order = {name: number for number, name in enumerate(sizes)}
    for first, second in sorted(edges, key=lambda edge: order[edge[0]]):
        depth[second] = max(depth[second], depth[first] + 1)
    return {name: _Place(name, depth[name], width, height) for name, (width, height) in sizes.items()}


def _add_lanes(places: dict[str, _Place], edges: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[str]]:
    chains: dict[tuple[str, str], list[str]] = {}
    for first, second in edges:
        chain = [first]
        for layer in range(places[first].layer + 1, places[second].layer):
            # A name that no box can have: ids never hold a line break.
            lane = _Place(f"{first}\n{second}\n{layer}", layer, LANE, 0.0)
            places[lane.name] = lane
            chain.append(lane.name)
        chain.append(second)
        for above, below in pairwise(chain):
            places[above].below.append(below)
            places[below].above.append(above)
        chains[first, second] = chain
    return chains


def _order(places: Mapping[str, _Place]) -> list[list[_Place]]:
    """The places of every layer from left to right."""
    layers: list[list[_Place]] = [[] for _ in range(1 + max((place.layer for place in places.values()), default=-1))]
    for place in places.values():
        layers[place.layer].append(place)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            index = {place.name: number for row in layers for number, place in enumerate(row)}

            def middle(place: _Place, index: dict[str, int] = index, down: bool = down) -> float:
                neighbours = place.above if down else place.below
                if not neighbours:
                    return index[place.name]
                return sum(index[name] for name in neighbours) / len(neighbours)

            layer.sort(key=middle)
    return layers


def _set_columns(layers: Sequence[Sequence[_Place]]) -> float:
    """Give every place its x; layers are centred under one another."""
    widths = [sum(place.width for place in layer) + GAP_X * (len(layer) - 1) for layer in layers]
    width = max(widths, default=0.0)
    for layer, own in zip(layers, widths, strict=True):
        x = (width - own) / 2
        for place in layer:
            place.x = x
            x += place.width + GAP_X
    return width


def _set_rows(layers: Sequence[Sequence[_Place]]) -> tuple[list[float], list[float]]:
    heights = [max(place.height for place in layer) for layer in layers]
    tops: list[float] = []
    y = 0.0
    for height in heights:
        tops.append(y)
        y += height + GAP_Y
    return tops, heights


def _draw_line(
    chain: Sequence[str], places: Mapping[str, _Place], tops: Sequence[float], heights: Sequence[float]
) -> list[Point]:
    first, last = places[chain[0]], places[chain[-1]]
    start = _port(first, first.below, chain[1], places)
    points = [(start, tops[first.layer] + first.height), (start, tops[first.layer] + heights[first.layer])]
    for name in chain[1:-1]:
        lane = places[name]
        x = lane.x + lane.width / 2
        points += [(x, tops[lane.layer]), (x, tops[lane.layer] + heights[lane.layer])]
    points.append((_port(last, last.above, chain[-2], places), tops[last.layer]))
    return points


def _port(place: _Place, neighbours: Sequence[str], name: str, places: Mapping[str, _Place]) -> float:
    """Where on a box's edge the line to this neighbour begins: side by side, in the order of the neighbours."""
    ordered = sorted(neighbours, key=lambda other: places[other].x)
    return place.x + place.width * (ordered.index(name) + 1) / (len(ordered) + 1)
