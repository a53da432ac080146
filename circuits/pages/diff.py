"""A diff as one HTML file that opens from disk, offline: the two circuits side by side or overlaid."""

from collections.abc import Sequence
from string import Template
from typing import Any

import numpy as np

from circuits.analysis.roles import Role
from circuits.circuit import Circuit
from circuits.evaluation.edits.superficial import Audit
from circuits.graph import Edge, Graph, Node, Shape
from circuits.pages.diff_figures import lines, trajectories, who_writes
from circuits.pages.drawing import Dress, Words, circuit_svg, legend
from circuits.pages.layout import Placement, place
from circuits.pages.page import asset, figure_values, number, pairs, plain, shared, signed
from circuits.pages.plots import KIND_NAMES
from circuits.pages.sides import SideNames, headline
from circuits.pages.style import ROLE_COLOURS, SCORE_UNIT, printable, strongest
from circuits.pages.superficial import audit_section
from circuits.studies.diffs import CircuitDiff, Side
from circuits.studies.explain.verdict import Verdict

DRAWN = 800
"""Edges drawn at most, the strongest of either circuit: every one is a line of its own in two drawings."""


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


def render_diff(
    diff: CircuitDiff,
    *,
    verdict: str | Verdict = "",
    others: Sequence[CircuitDiff] = (),
    audit: Audit | None = None,
    command: str = "",
) -> str:
    """The page as one HTML text that loads nothing. The same diff gives the same bytes.

    Args:
        verdict: what was concluded, with its evidence; or text, whose lines are shown as they stand.
        others: the same change seen at other prompts, as a table.
        audit: what the edited model says after prefixes.
        command: what a reader types to make the page again.
    """
    both = union(diff.before.circuit, diff.after.circuit)
    edges = strongest(both, DRAWN)
    layout = place(both, edges)
    nodes = tuple(sorted(layout.places))
    names = SideNames.of(diff)
    pair = "" if names.one_reading else f", {names.before} → {names.after}"
    cards = [
        *((f"rank of “{answer}”{pair}", _change(diff, answer)) for answer in diff.before.answers),
        (
            f"edges in both / {names.lost} / {names.gained}",
            f"{len(diff.kept):,} / {len(diff.lost):,} / {len(diff.gained):,}",
        ),
        ("edges in common (Jaccard index)", f"{diff.edge_jaccard:.2f}"),
        *((f"the same, {floor.name}", f"{floor.edge_jaccard:.2f}") for floor in diff.floors),
        ("components in common", f"{diff.node_jaccard:.2f}"),
    ]
    provenance = diff.after.circuit.provenance
    settings = [
        ("model", f"{provenance.model}, {provenance.processing}"),
        *(
            (f"weights{name}", side.circuit.provenance.weights[:12])
            for name, side in ((("", diff.after),) if names.one_reading else _weights(diff, names))
        ),
        ("method", provenance.method),
        *((name, str(value)) for name, value in sorted(provenance.settings.items())),
        ("seed", str(provenance.seed)),
    ]
    return Template(asset("diff.html")).substitute(
        title=plain(headline(diff)),
        eyebrow="Before and after"
        if diff.differs == "edit"
        else plain(f"{_sentence_case(names.before)}, {names.after}"),
        subtitle=plain(_subtitle(diff)),
        model=plain(provenance.model),
        cards=pairs(cards),
        verdict=_verdict(verdict),
        legend=_legend(diff, nodes),
        states=_state_boxes(diff),
        caption=_caption(both, len(edges)),
        before_label=plain(_sentence_case(diff.before.label)),
        after_label=plain(_sentence_case(diff.after.label)),
        both_label=plain(f"{_sentence_case(diff.before.label)} and {diff.after.label}, overlaid"),
        svg=_drawing(diff, both, layout, nodes, edges),
        heads=_heads_that_have_a_role(diff) if names.one_reading else _heads_that_differ(diff, names),
        others=_others(others) + ("" if audit is None else audit_section(audit)),
        unit=SCORE_UNIT,
        settings=pairs(settings),
        command=_command(command),
        css=asset("page.css") + asset("diff.css"),
        **shared(
            heading="The circuits",
            find_hint=f"L3H5, mover, {names.lost}…",
            drawing="drawings",
            data=_data(diff, both, nodes, edges),
            js=asset("common.js") + asset("diff.js"),
        ),
    )


# ---- text ------------------------------------------------------------------------------------------------------------


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


def _subtitle(diff: CircuitDiff) -> str:
    """The sides by their labels, each with its answer where they have one prompt and two answers."""
    sides = (diff.before, diff.after)
    apart = diff.before.fact.prompt == diff.after.fact.prompt and diff.before.fact.object != diff.after.fact.object
    before, after = (f"{side.label} “{side.fact.object}”" if apart else side.label for side in sides)
    return f"{_sentence_case(before)} → {after}: what differs is the {diff.differs}"


def _change(diff: CircuitDiff, answer: str) -> str:
    return " → ".join(f"{side.path(answer).ranks[-1]:,}" for _, _, side in lines(diff))


def _weights(diff: CircuitDiff, names: SideNames) -> tuple[tuple[str, Side], ...]:
    return ((f", {names.before}", diff.before), (f", {names.after}", diff.after))


def _verdict(verdict: str | Verdict) -> str:
    """The conclusion with its sentence, and the evidence as a table; text as its lines."""
    if isinstance(verdict, str):
        return "".join(f"<p>{plain(line)}</p>" for line in verdict.splitlines()) or "<p>No verdict was asked for.</p>"
    rows = "".join(
        f'<tr><th scope="row">{plain(each.name)}</th><td class="num">{plain(f"{each.value:.3g} {each.unit}".strip())}</td><td>'
        + ("" if each.against is None else plain(f"{each.against_name} {each.against:.3g} {each.unit}".strip()))
        + "</td></tr>"
        for each in verdict.evidence
    )
    table = f'<table class="evidence"><tbody>{rows}</tbody></table>' if rows else ""
    return f"<p>{plain(_sentence_case(verdict.conclusion))}</p><p>{plain(_sentence_case(verdict.sentence))}</p>{table}"


def _probability(value: float) -> str:
    return "< 0.001" if 0 < value < 0.001 else f"{value:.3f}"


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
    some = f" <strong>The {drawn:,} strongest of {total:,} edges are drawn.</strong>" if drawn < total else ""
    return (
        "Information flows upwards; the wider an edge, the larger its score. A head’s second line is the token it promotes most. "
        f"Click a component to compare what it does on both sides; drag to move, + and − to zoom.{some}"
    )


def _command(command: str) -> str:
    if not command:
        return ""
    return (
        f'<h3>The command that finds this again</h3><div class="command"><pre tabindex="0"><code id="command">{plain(command)}'
        '</code></pre><button type="button" id="copy">Copy</button></div>'
    )


def _heads_that_have_a_role(diff: CircuitDiff) -> str:
    """Each head with a role, what it does at this prompt, and in which of the circuits it is."""
    inside = [{node.name for node in side.circuit.nodes} for side in (diff.before, diff.after)]
    labels, names = {node.name: node.label for node in diff.after.circuit.graph.nodes}, SideNames.of(diff)
    written = {answer: diff.after.written(answer) for answer in diff.after.answers}
    heads = [each for each in diff.after.heads if each.role != "other"]
    if not heads:
        return _section("Heads with a role", '<p class="caption">No head has an established role for the relation.</p>')
    rows = ""
    for each in heads:
        own = [each.head in nodes for nodes in inside]
        where = "both" if all(own) else names.before if own[0] else names.after if own[1] else "neither"
        rows += (
            f'<tr><th scope="row">{plain(labels[each.head])}</th><td>{_role(each.role)}</td><td>{plain(where)}</td>'
            f"<td>{plain(str(each))}</td>"
            + "".join(f"<td class='num'>{signed(values[each.head])}</td>" for values in written.values())
            + "</tr>"
        )
    table = _table(("Head", "Role", "In the circuit of", "At this prompt"), diff.after.answers, rows)
    return _section("Heads with a role, at this prompt", table)


def _section(heading: str, content: str) -> str:
    return (
        f'<section class="card" aria-labelledby="heads-heading">\n<h2 id="heads-heading">{heading}</h2>\n<p class="caption">What '
        "each brings to the last token and from where, the token that it promotes most, and the logits that it writes of each "
        f"answer.</p>\n{content}\n</section>"
    )


def _table(columns: Sequence[str], answers: Sequence[str], rows: str) -> str:
    head = "".join(f'<th scope="col">{plain(_sentence_case(name))}</th>' for name in columns)
    head += "".join(f'<th scope="col" class="num">writes {plain(answer)}, logits</th>' for answer in answers)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="heads-heading"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _heads_that_differ(diff: CircuitDiff, names: SideNames) -> str:
    heading = "Heads that do something else"
    if not diff.head_changes:
        none = '<p class="caption">No head of either circuit reads elsewhere or writes the answers otherwise.</p>'
        return _section(heading, none)
    rows = "".join(
        f'<tr><th scope="row">{plain(change.label)}</th><td>{_role(change.after.role)}</td>'
        f"<td>{plain(str(change.before))}</td><td>{plain(str(change.after))}</td>"
        + "".join(f"<td class='num'>{signed(before)} → {signed(after)}</td>" for _, before, after in change.written)
        + "</tr>"
        for change in diff.head_changes
    )
    return _section(heading, _table(("Head", "Role", names.before, names.after), diff.before.answers, rows))


def _role(role: str) -> str:
    return "" if role == "other" else f'<span class="role {plain(role)}">{plain(role)}</span>'


def _others(others: Sequence[CircuitDiff]) -> str:
    if not others:
        return ""
    rows = []
    for diff in others:
        cells = "; ".join(
            f"{plain(answer)} {_probability(diff.before.path(answer).probabilities[-1])} → "
            f"{_probability(diff.after.path(answer).probabilities[-1])}"
            for answer in diff.before.answers
        )
        rows.append(
            f"<tr><td>{plain(diff.before.fact.prompt)}</td><td>{cells}</td><td class='num'>{diff.edge_jaccard:.2f}</td>"
            f"<td class='num'>{len(diff.lost)}</td><td class='num'>{len(diff.gained)}</td></tr>"
        )
    return (
        '<section class="card" aria-labelledby="others-heading"><h2 id="others-heading">The same change at other prompts</h2>'
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="others-heading"><table><thead><tr><th scope="col">Prompt</th>'
        '<th scope="col">Probabilities</th><th scope="col" class="num">Edge Jaccard</th><th scope="col" class="num">Lost</th>'
        f'<th scope="col" class="num">Gained</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div></section>'
    )


# ---- the drawing -----------------------------------------------------------------------------------------------------


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
        return [(when, reading.promotes) for when, reading in readings if reading is not None]

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


# ---- values for the page's script ------------------------------------------------------------------------------------


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
