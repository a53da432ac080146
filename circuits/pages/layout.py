"""Where a circuit's nodes and edges stand: rows by depth, few crossings within a row.

Units: x counts columns from the left, y counts rows from the bottom; one row a sub-layer (heads, then the MLP above them),
and no row for a sub-layer that the circuit does not use. The MLPs, bypasses, the input and the logits form one column on the
right, so that the edges between them run as arcs outside the heads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from circuits.circuit import Circuit
from circuits.graph import Edge, Node, Slot

Point = tuple[float, float]

PORTS: Mapping[Slot | None, float] = {"q": -0.2, "k": 0.0, "v": 0.2, None: 0.0}
"""How far from a node's middle each slot is entered, in columns: q, k and v edges of one pair stay apart."""

HALF_WIDTH, HALF_HEIGHT = 0.41, 0.29
"""Half of a node's size, in columns and in rows."""

MAX_COUNTED = 1200
"""Crossings are counted among this many edges at most: the count takes time and memory in its square."""

SWEEPS = 16


@dataclass(frozen=True)
class Placement:
    """The place of every node. ``rows[y]`` names the sub-layer at height y; ``columns`` is the width of the heads' part."""

    places: Mapping[Node, Point]
    rows: tuple[tuple[int, str], ...]
    """(layer, "heads" | "mlp" | "bypass" | "input" | "logits") of each row, from the bottom."""
    columns: float

    @property
    def spine(self) -> float:
        """x of the column on the right: input, MLPs, bypasses, logits."""
        return self.columns + 0.75

    def curve(self, edge: Edge) -> tuple[Point, Point, Point, Point]:
        """The four control points of the edge's cubic Bezier curve, from the writer's top to the reader's bottom."""
        (x0, y0), (x1, y1) = self.places[edge.writer], self.places[edge.reader.node]
        span = y1 - y0
        x1 += PORTS[edge.reader.slot]
        y0, y1 = y0 + HALF_HEIGHT, y1 - HALF_HEIGHT
        bow = 0.0
        if span > 1 and abs(x1 - x0) < 0.5:
            # An edge past nodes of its own column bows out: right of the spine, left of a head.
            bow = 0.35 + 0.5 * span**0.5 if x0 >= self.spine else -(0.35 + 0.04 * span)
        lift = 0.45 * (y1 - y0)
        return (x0, y0), (x0 + bow, y0 + lift), (x1 + bow, y1 - lift), (x1, y1)

    def right(self, edge: Edge) -> float:
        """x of the rightmost point of the edge's curve: one of its ends, or its middle where it bows out."""
        (x0, _), (x1, _), (x2, _), (x3, _) = self.curve(edge)
        return max(x0, x3, (x0 + 3 * x1 + 3 * x2 + x3) / 8)


def place(circuit: Circuit, edges: Sequence[Edge] | None = None) -> Placement:
    """A place for every node that ``edges`` (default: the circuit's) touch.

    Barycentre ordering (Sugiyama, Tagawa and Toda 1981): each sweep moves the heads of a row towards their neighbours, near
    rows counting more; the sweep with the fewest crossings wins. Never more crossings than `index_order`.
    """
    edges = circuit.edges if edges is None else edges
    start = index_order(circuit, edges)
    best, fewest = start, crossings(start, edges)
    neighbours = _neighbours(start, edges)
    current = start
    for _ in range(SWEEPS):
        if not fewest:
            break
        current = _sweep(current, neighbours)
        count = crossings(current, edges)
        if count < fewest:
            best, fewest = current, count
    return best


def index_order(circuit: Circuit, edges: Sequence[Edge] | None = None) -> Placement:
    """Heads of a row in the order of their index, evenly spread: where `place` starts, and its control."""
    edges = circuit.edges if edges is None else edges
    touched = {edge.writer for edge in edges} | {edge.reader.node for edge in edges}
    by_row: dict[tuple[int, int], list[Node]] = {}
    for node in sorted(touched, key=lambda node: (*_depth(node), node.head)):
        by_row.setdefault(_depth(node), []).append(node)
    columns = float(max([4, *(len(row) for row in by_row.values())]))
    places: dict[Node, Point] = {}
    rows = []
    for y, row in enumerate(by_row.values()):
        head = row[0].kind == "head"
        rows.append((row[0].layer, "heads" if head else row[0].kind))
        for i, node in enumerate(row):
            places[node] = (columns * (i + 0.5) / len(row) if head else columns + 0.75, float(y))
    return Placement(places, tuple(rows), columns)


def crossings(layout: Placement, edges: Sequence[Edge]) -> int:
    """How many pairs of edges cross, drawn as straight lines; pairs that share an end do not count."""
    ends = sorted({(layout.places[edge.writer], layout.places[edge.reader.node]) for edge in edges[:MAX_COUNTED]})
    if not ends:
        return 0
    points = np.array(ends)
    start, stop = points[:, 0], points[:, 1]
    # Segments i and j cross if each one's ends lie strictly on both sides of the other.
    apart = _side(start, stop, start) * _side(start, stop, stop) < 0
    return int((apart & apart.T).sum()) // 2


def _side(
    start: Float[np.ndarray, "edge 2"], stop: Float[np.ndarray, "edge 2"], point: Float[np.ndarray, "point 2"]
) -> Float[np.ndarray, "edge point"]:
    """Sign of the side of line start-stop on which each point lies; 0 on the line."""
    along = stop - start
    offset = point[None] - start[:, None]
    cross = along[:, None, 0] * offset[..., 1] - along[:, None, 1] * offset[..., 0]
    return np.sign(np.where(np.abs(cross) < 1e-9, 0.0, cross))


def _depth(node: Node) -> tuple[int, int]:
    return node.layer, {"mlp": 1, "bypass": 2}.get(node.kind, 0)


def _neighbours(layout: Placement, edges: Sequence[Edge]) -> dict[Node, list[tuple[Node, float]]]:
    near: dict[Node, list[tuple[Node, float]]] = {node: [] for node in layout.places}
    for edge in edges:
        a, b = edge.writer, edge.reader.node
        weight = 1 / (layout.places[b][1] - layout.places[a][1])
        near[a].append((b, weight))
        near[b].append((a, weight))
    return near


def _sweep(layout: Placement, neighbours: Mapping[Node, Sequence[tuple[Node, float]]]) -> Placement:
    places = dict(layout.places)
    heads: dict[float, list[Node]] = {}
    for node, (_, y) in places.items():
        if node.kind == "head":
            heads.setdefault(y, []).append(node)
    for y, row in heads.items():
        wish = {
            node: sum(places[other][0] * weight for other, weight in neighbours[node])
            / sum(weight for _, weight in neighbours[node])
            for node in row
        }
        row = sorted(row, key=lambda node: (wish[node], node.head))
        even = layout.columns * (np.arange(len(row)) + 0.5) / len(row)
        # Halfway between the wish and an even spread: wishes alone would pile all nodes up beside the spine.
        wanted = 0.5 * even + 0.5 * np.array([wish[node] for node in row])
        for node, x in zip(row, _spread(wanted, layout.columns), strict=True):
            places[node] = (x, y)
    return Placement(places, layout.rows, layout.columns)


def _spread(wanted: Float[np.ndarray, "node"], columns: float) -> list[float]:
    """The places nearest to ``wanted`` (least squares) that are a column apart, within the heads' part.

    With x_i = z_i + i the gaps ask that z never falls: pooling adjacent violators solves that.
    """
    blocks: list[tuple[float, int]] = []
    for i, target in enumerate(wanted):
        mean, size = float(target) - i, 1
        while blocks and blocks[-1][0] > mean:
            other, count = blocks.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        blocks.append((mean, size))
    level = [mean for mean, size in blocks for _ in range(size)]
    top = columns - 0.5 - (len(wanted) - 1)
    return [round(min(max(z, 0.5), top) + i, 4) for i, z in enumerate(level)]
