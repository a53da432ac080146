"""Two circuits as one picture: side by side or overlaid, with the panel, the plots and the settings of both.

What the page of a diff and the page of an explanation have in common.
"""

from collections.abc import Sequence
from string import Template
from typing import Any

import numpy as np

from circuits.analysis.roles import Role
from circuits.circuit import Circuit
from circuits.graph import Edge, Graph, Node, Shape
from circuits.pages.diff_figures import trajectories, who_writes
from circuits.pages.drawing import Dress, Words, circuit_svg, legend
from circuits.pages.layout import Placement, place
from circuits.pages.page import asset, figure_values, number, pairs, plain, shared
from circuits.pages.plots import KIND_NAMES
from circuits.pages.sides import SideNames
from circuits.pages.style import ROLE_COLOURS, SCORE_UNIT, printable, strongest
from circuits.studies.diffs import CircuitDiff, Side

DRAWN = 800
"""The strongest edges of either circuit, as many of which are drawn, and few besides: every one is a line of its own in two drawings."""


def pair(diff: CircuitDiff, command: str) -> dict[str, str]:
    """What a page's template takes of two circuits, by name: the picture, the plots, the settings, the head and the end.

    Args:
        command: what a reader types to make the page again.
    """
    both = union(diff.before.circuit, diff.after.circuit)
    edges = _drawn(diff, both)
    layout = place(both, edges)
    nodes = tuple(sorted(layout.places))
    names = SideNames.of(diff)
    common = shared(
        heading="The circuits",
        find_hint=f"L3H5, mover, {names.lost}…",
        drawing="drawings",
        data=_data(diff, both, nodes, edges),
        js=asset("common.js") + asset("diff.js"),
    )
    picture = Template(asset("pair.html")).substitute(
        legend=_legend(diff, nodes),
        states=_state_boxes(diff),
        caption=_caption(both, len(edges)),
        before_label=plain(sentence_case(diff.before.label)),
        after_label=plain(sentence_case(diff.after.label)),
        both_label=plain(f"{sentence_case(diff.before.label)} and {diff.after.label}, overlaid"),
        svg=_drawing(diff, both, layout, nodes, edges),
        toolbar=common.pop("toolbar"),
        slider=common.pop("slider"),
    )
    return {
        **common,
        "model": plain(diff.after.circuit.provenance.model),
        "picture": picture,
        "plots": asset("pair_plots.html"),
        "settings": pairs(_settings(diff, names)),
        "command": command_section(command),
        "unit": SCORE_UNIT,
        "css": asset("page.css") + asset("diff.css"),
    }


def _drawn(diff: CircuitDiff, both: Circuit) -> tuple[Edge, ...]:
    """The strongest edges, and those by which a head with a role hangs together with the rest: its strongest in and out, however
    weak they are beside others."""
    ordered = strongest(both)
    chosen = set(ordered[:DRAWN])
    for head in _roles(diff):
        reads = (edge for edge in ordered if edge.reader.node == head)
        writes = (edge for edge in ordered if edge.writer == head)
        chosen |= {edge for edge in (next(reads, None), next(writes, None)) if edge is not None}
    return tuple(edge for edge in ordered if edge in chosen)


def _settings(diff: CircuitDiff, names: SideNames) -> list[tuple[str, str]]:
    provenance = diff.after.circuit.provenance
    weighed = (("", diff.after),) if names.one_reading else _weights(diff, names)
    return [
        ("model", f"{provenance.model}, {provenance.processing}"),
        *((f"weights{name}", side.circuit.provenance.weights[:12]) for name, side in weighed),
        ("method", provenance.method),
        *((name, str(value)) for name, value in sorted(provenance.settings.items())),
        ("seed", str(provenance.seed)),
    ]


def union(before: Circuit, after: Circuit) -> Circuit:
    """Every edge of either circuit, with its larger score in size, in a graph that holds both."""
    shape = before.graph.shape
    bypasses = tuple(sorted({*shape.bypasses, *after.graph.shape.bypasses}))
    graph = Graph(Shape(shape.n_layers, shape.n_heads, shape.parallel, bypasses), before.graph.granularity)
    kept, scores = np.zeros_like(graph.legal), np.full(graph.legal.shape, np.nan)
    for circuit in (before, after):
        for edge in circuit.edges:
            index, score = graph.edge(edge.name), circuit.score(edge)
            if np.isnan(scores[index]) or abs(score) > abs(scores[index]):
                scores[index] = score
            kept[index] = True
    return Circuit(graph, kept, after.provenance, scores)


def _legend(diff: CircuitDiff, nodes: Sequence[Node]) -> str:
    roles = _roles(diff)
    keys = [("head", "other attention head" if roles else "attention head"), ("mlp", "MLP")]
    if any(node.kind == "bypass" for node in nodes):
        keys.append(("bypass", KIND_NAMES["bypass"]))
    keys.append(("ends", "input and logits"))
    if any(node.name in diff.after.edited for node in nodes):
        keys.append(("edited", "edited"))
    return legend(keys, {roles[node] for node in nodes if node in roles})


def _state_boxes(diff: CircuitDiff) -> str:
    counts = {"kept": len(diff.kept), "lost": len(diff.lost), "gained": len(diff.gained)}
    names = _state_names(diff)
    return "\n".join(
        f'<label><input type="checkbox" value="{state}" checked><span class="mark {state}"></span>{names[state]} ({count:,})</label>'
        for state, count in counts.items()
    )


def _state_names(diff: CircuitDiff) -> dict[str, str]:
    names = SideNames.of(diff)
    return {"kept": "in both", "lost": plain(names.lost), "gained": plain(names.gained)}


def _caption(both: Circuit, drawn: int) -> str:
    total = both.n_edges
    named = f", {drawn - DRAWN} more for heads with a role" if drawn > DRAWN else ""
    some = (
        f" <strong>The {min(drawn, DRAWN):,} strongest of {total:,} edges are drawn{named}.</strong>"
        if drawn < total
        else ""
    )
    return (
        "Information flows upwards; the wider an edge, the larger its score. A head’s second line is the object that it gives, if any. "
        f"Click a component for the token that it promotes most and what it does on both sides; drag to move, + and − to zoom.{some}"
    )


def command_section(command: str) -> str:
    if not command:
        return ""
    return (
        f'<h3>The command that finds this again</h3><div class="command"><pre tabindex="0"><code id="command">{plain(command)}'
        '</code></pre><button type="button" id="copy">Copy</button></div>'
    )


def _state(diff: CircuitDiff, edge: Edge) -> str:
    before, after = edge.name in diff.edges_before, edge.name in diff.edges_after
    return "kept" if before and after else "lost" if before else "gained"


def _roles(diff: CircuitDiff) -> dict[Node, Role]:
    """Heads with an established role, after the change."""
    named: dict[str, Role] = {role: role for role in ROLE_COLOURS}
    heads = {node.name: node for side in (diff.before, diff.after) for node in side.circuit.graph.nodes}
    return {
        heads[each.head]: named[each.role] for each in diff.after.heads if each.role in named and each.role != "other"
    }


def _drawing(diff: CircuitDiff, both: Circuit, layout: Placement, nodes: Sequence[Node], edges: Sequence[Edge]) -> str:
    """Both circuits in one drawing; the page's script shows one, the other, or both."""
    own = [{node.name for node in side.circuit.nodes} for side in (diff.before, diff.after)]

    def node_class(node: Node) -> str:
        state = "kept" if node.name in own[0] and node.name in own[1] else "lost" if node.name in own[0] else "gained"
        return f"{state} edited" if node.name in diff.after.edited else state

    def words(node: Node) -> Words:
        readings = [("was", diff.before.head(node.name)), ("is", diff.after.head(node.name))]
        return [(when, reading.gives) for when, reading in readings if reading is not None and reading.gives]

    return circuit_svg(
        both,
        layout,
        nodes,
        edges,
        label="Both circuits, input at the bottom. Arrow keys move between components; they are listed below, too.",
        edge_class=lambda edge: _state(diff, edge),
        dress=Dress(words, node_class, _roles(diff)),
        empty="Neither circuit has edges.",
    )


def _data(diff: CircuitDiff, both: Circuit, nodes: Sequence[Node], edges: Sequence[Edge]) -> dict[str, Any]:
    index, names = {node: i for i, node in enumerate(nodes)}, SideNames.of(diff)
    return {
        "unit": SCORE_UNIT,
        "names": {"before": names.before, "after": names.after, "one": names.one_reading},
        "states": _state_names(diff),
        "answers": [printable(answer) for answer in diff.before.answers],
        "nodes": [_node(diff, node) for node in nodes],
        "edges": [
            {
                "from": index[edge.writer],
                "to": index[edge.reader.node],
                "slot": edge.reader.slot or "",
                "state": _state(diff, edge),
                "size": number(abs(both.score(edge))),
                "before": number(diff.edges_before.get(edge.name, np.nan)),
                "after": number(diff.edges_after.get(edge.name, np.nan)),
            }
            for edge in edges
        ],
        "plots": {
            "trajectory": figure_values(trajectories(diff), height=460),
            "writes": figure_values(who_writes(diff), height=460),
        },
    }


def _node(diff: CircuitDiff, node: Node) -> dict[str, Any]:
    def of(side: Side) -> dict[str, Any]:
        reading = side.head(node.name)
        written = [write.logits for write in side.writes if write.node == node]
        return {
            "in": node in side.circuit.nodes,
            "does": None if reading is None else printable(str(reading)),
            "writes": [number(value) for value in written[0]] if written else None,
        }

    reading = diff.after.head(node.name)
    return {
        "name": node.name,
        "label": node.label,
        "kind": KIND_NAMES[node.kind],
        "role": "" if reading is None or reading.role == "other" else reading.role,
        "edited": node.name in diff.after.edited,
        "before": of(diff.before),
        "after": of(diff.after),
    }


def _weights(diff: CircuitDiff, names: SideNames) -> tuple[tuple[str, Side], ...]:
    return ((f", {names.before}", diff.before), (f", {names.after}", diff.after))


def sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]
