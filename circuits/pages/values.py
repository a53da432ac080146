"""What a run's page tells its script: nodes, edges, lenses and patterns, as JSON."""

from collections.abc import Callable, Iterable
from typing import Any

from circuits.analysis.lens import NodeReadout, TokenScore
from circuits.graph import Edge, Node
from circuits.pages.contents import Page, roles_on
from circuits.pages.overview import GUTTER, OPEN_WIDTH, STRONGEST, Overview
from circuits.pages.page import figure_values, number
from circuits.pages.plots import KIND_NAMES, layer_activity, trajectory_plot
from circuits.pages.style import (
    printable,
    score_unit,
    token_text,
)

TOP = 5
"""Heads and neurons that an MLP's panel names."""


def values_of(
    page: Page, nodes: tuple[Node, ...], edges: tuple[Edge, ...], overview: Overview | None = None
) -> dict[str, Any]:
    lens = {readout.node: readout for readout in page.readouts}
    roles, patterns = page.reading.roles if page.reading else None, _patterns(page)
    named, mlps = roles_on(page), _mlps(page)
    writes = {each.node: round(each.logits[0], 2) for each in page.reading.writes} if page.reading else {}
    index, passing = {node: i for i, node in enumerate(nodes)}, set(page.circuit.pruned().edges)
    return {
        "map": _map(overview) if overview else None,
        "answer": token_text(page.answer),
        "unit": score_unit(page.circuit),
        "tokens": [token_text(token) for token in page.attention.tokens] if page.attention else [],
        "nodes": [
            {
                "name": node.name,
                "label": node.label,
                "kind": KIND_NAMES[node.kind],
                "lens": _lens(lens[node], page.answer) if node in lens else None,
                "role": named.get(node, ""),
                "verdict": printable(str(roles.of(node))) if roles and node in named else None,
                "attention": patterns.get(node),
                "answer": mlps.get(node),
                "writes": writes.get(node),
                **(
                    {"layer": node.layer, "head": node.kind == "head", "lane": overview.lane_of.get(node)}
                    if overview
                    else {}
                ),
            }
            for node in nodes
        ],
        "edges": [
            {
                "from": index[edge.writer],
                "to": index[edge.reader.node],
                "slot": edge.reader.slot or "",
                "score": number(page.circuit.score(edge)),
                "live": edge in passing,
                **({"curve": overview.curve(edge.writer, edge.reader.node)} if overview else {}),
            }
            for edge in edges
        ],
        "trajectory": {
            "labels": [printable(label) for label in page.trajectory.labels],
            "ranks": list(page.trajectory.ranks),
            "probabilities": [number(value) for value in page.trajectory.probabilities],
        },
        "plots": {
            "trajectory": figure_values(trajectory_plot(page.trajectory, page.answer), height=440),
            "activity": figure_values(layer_activity(page.circuit), height=440),
        },
    }


def _map(overview: Overview) -> dict[str, Any]:
    sides = [side for left, right, _ in overview.lanes.values() for side in (left, right)]
    return {
        "width": round(overview.width),
        "rows": overview.rows,
        "left": min(sides, default=GUTTER),
        "right": max(sides, default=GUTTER),
        "wide": OPEN_WIDTH,
        "strongest": STRONGEST,
    }


def _patterns(page: Page) -> dict[Node, list[list[float]]]:
    """For every head whose pattern was read: its rows, to the per mille."""
    patterns = page.attention.patterns if page.attention else ()
    return {each.head: [[round(weight, 3) for weight in row] for row in each.rows] for each in patterns}


def _mlps(page: Page) -> dict[Node, dict[str, Any]]:
    """What every MLP writes of the answer, which heads feed that write, and which of its neurons make it, in logits."""
    return {
        each.mlp: {
            "writes": round(each.contribution, 2),
            "without": each.rank_before,
            "with": each.rank_after,
            "feeders": [[feeder.head.label, round(feeder.effect, 2)] for feeder in each.feeders[:TOP]],
            "neurons": [
                [
                    neuron.index,
                    round(neuron.contribution, 2),
                    [token_text(score.token) for score in neuron.promoted[:3]],
                ]
                for neuron in each.neurons[:TOP]
            ],
        }
        for each in (page.reading.mlps if page.reading else ())
    }


def _lens(readout: NodeReadout, answer: str) -> dict[str, Any]:
    """Each token with its logit, and whether it is the answer: of the promoted ones the answer's rank says which."""

    def rows(entries: Iterable[TokenScore], is_answer: Callable[[int, TokenScore], bool]) -> list[list[object]]:
        return [
            [token_text(entry.token), round(entry.logit, 3), is_answer(i, entry)] for i, entry in enumerate(entries, 1)
        ]

    return {
        "rank": readout.answer_rank,
        "probability": number(readout.answer_probability),
        "promoted": rows(readout.promoted, lambda place, _: place == readout.answer_rank),
        "suppressed": rows(readout.suppressed, lambda _, entry: entry.token.strip() == answer.strip()),
    }
