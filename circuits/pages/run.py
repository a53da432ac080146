"""One run as one HTML file that opens from disk, offline: the circuit to click through, the plots, the settings."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from string import Template
from typing import Any

from circuits.analysis.attention import PromptAttention
from circuits.analysis.lens import NodeReadout, TokenScore, Trajectory
from circuits.analysis.reading import Reading
from circuits.analysis.roles import Role
from circuits.analysis.story import Sentence
from circuits.choices import MetricName
from circuits.circuit import Circuit
from circuits.discovery import METHODS
from circuits.evaluation.lines import Line
from circuits.graph import Edge, Node
from circuits.pages.certificate import certificate_section, lines_section
from circuits.pages.drawing import Dress, circuit_svg, legend
from circuits.pages.layout import place
from circuits.pages.overview import GUTTER, LARGE, OPEN_WIDTH, STRONGEST, Overview, overview_svg, survey
from circuits.pages.page import asset, figure_values, number, pairs, plain, shared
from circuits.pages.plots import KIND_NAMES, layer_activity, trajectory_plot
from circuits.pages.story import heads_section, story_section
from circuits.pages.style import (
    SLOT_COLOURS,
    SLOT_NAMES,
    node_words,
    printable,
    score_unit,
    strongest,
    token_text,
)
from circuits.pages.verdict import verdict
from circuits.studies.diffs import RESTS
from circuits.studies.run import Run

MAX_DRAWN = 5000
"""Edges on a page at most, the strongest."""

TOP = 5
"""Heads and neurons that an MLP's panel names."""

METRICS: dict[MetricName, str] = {
    "matchnll": "MatchNLL",
    "kl": "KL from the whole model",
    "contrast": "NLL of the answer among the relation's objects",
}


@dataclass(frozen=True)
class Page:
    """What one page shows. ``numbers`` and ``settings`` are (name, value) pairs, shown as they stand."""

    title: str
    """The fact, as a heading."""
    subtitle: str
    circuit: Circuit
    readouts: tuple[NodeReadout, ...]
    trajectory: Trajectory
    answer: str
    """The answer, as it is shown."""
    numbers: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    command: str
    """What a reader types to make the page again."""
    reading: Reading | None = None
    """What heads and MLPs do for this fact, where it was asked for."""
    story: tuple[Sentence, ...] = ()
    attention: PromptAttention | None = None
    """Of the circuit's heads over the prompt."""
    verdict: tuple[str, ...] = ()
    """What the model answers and what the circuit does, in sentences that come first."""
    certificate: Mapping[str, Any] | None = None
    """The quick one."""
    lines: tuple[Line, ...] = ()
    """The full certificate's, which stands in place of the quick one."""


def render(run: Run) -> str:
    """A saved run as one HTML text that opens from disk, offline: see `draw`. No model is needed."""
    return draw(page_of(run))


def draw(page: Page) -> str:
    """The page as one HTML text that loads nothing: styles, scripts, values and plotly.js are inside.

    The same page gives the same bytes. Every string of ``page`` is shown as text, never read as markup.
    A circuit of more than `LARGE` edges is drawn as an overview; of one of more than `MAX_DRAWN`, the strongest are on the
    page, and it says so.
    """
    edges = strongest(page.circuit, MAX_DRAWN)
    nodes = tuple(sorted({edge.writer for edge in edges} | {edge.reader.node for edge in edges}))
    overview = survey(page.circuit, nodes, _roles(page), resting(page.attention)) if len(edges) > LARGE else None
    return Template(asset("page.html")).substitute(
        title=plain(page.title),
        description=plain(" ".join(page.verdict) or page.subtitle),
        subtitle=plain(page.subtitle),
        model=plain(page.circuit.provenance.model),
        verdict="".join(f"<p>{plain(sentence)}</p>" for sentence in page.verdict),
        cards=pairs(page.numbers),
        certificate=lines_section(page.lines) if page.lines else certificate_section(page.certificate),
        summary=_summary(page),
        story=story_section(page.story),
        heads=heads_section(page.reading, page.circuit.nodes),
        slots=_slot_boxes(edges),
        legend=_legend(page),
        caption=_caption(page, len(edges), overview is not None),
        svg=_drawing(page, nodes, edges) if overview is None else _overview(page, overview, nodes),
        trajectory_caption=_trajectory_caption(page),
        trajectory_label=plain(_trajectory_sentence(page)),
        activity_label=plain(_activity_sentence(page.circuit)),
        unit=_unit_heading(page.circuit),
        settings=pairs(page.settings),
        command=plain(page.command, keep_newlines=True),
        css=asset("page.css"),
        **shared(
            heading="The circuit",
            find_hint="L3H5, mover, token…",
            drawing="drawing",
            data=_data(page, nodes, edges, overview),
            js=asset("common.js") + asset("overview.js") * (overview is not None) + asset("page.js"),
        ),
    )


# ---- from a run to what its page shows -------------------------------------------------------------------------------


def _dequantised(run: Run) -> str:
    return "" if run.quantisation is None else f", dequantised from {run.quantisation}"


def _choice(run: Run) -> list[tuple[str, str]]:
    """How the edges were chosen: what means something to the method, and nothing else."""
    settings, sign = run.spec.settings, "absolute" if run.spec.absolute else "signed"
    if "tau" in settings:
        rows = [("tau", f"{settings['tau']:g} nats, {sign}")]
    else:
        asked = run.summary()["edges_asked"]
        rows = [
            (
                "edges",
                f"the best by score ({sign}), at most {asked:,} ({settings['edges']}), on paths from input to logits",
            )
        ]
    if "steps" in settings:
        rows.append(("steps of integrated gradients", str(settings["steps"])))
    if run.prefiltered:
        passed = f"{run.prefiltered.method}, {run.prefiltered.candidates:,} edges let through ({settings['keep']})"
        if loss := run.prefiltered.loss:
            passed += f"; of the full search’s {loss.full:,} edges, {loss.share_lost:.1%} are not in this circuit"
        rows.append(("prefilter", passed))
    return rows


def _unsaid(run: Run) -> bool:
    return len(run.spec.facts) == 1 and run.model_answers.rank.value > 1


def page_of(run: Run) -> Page:
    """The values that the page shows, from the saved run alone."""
    spec, summary = run.spec, run.summary()
    fact, circuit = spec.facts[0], run.circuit
    numbers = [
        ("edges kept", f"{circuit.n_edges:,} of {circuit.graph.n_edges:,}"),
        ("components kept", f"{len(circuit.nodes)} of {len(circuit.graph.nodes)}"),
        (f"rank of the answer, circuit alone; whole model {summary['rank_model']:,}", f"{summary['rank_circuit']:,}"),
        (
            f"negative log-likelihood of the answer in nats, circuit alone; whole model {summary['nll_model']:.3f}",
            f"{summary['nll_circuit']:.3f}",
        ),
        (
            f"answers among the first 10 (Hit@10), circuit alone; whole model {summary['hit10_model']:.2f}",
            f"{summary['hit10_circuit']:.2f}",
        ),
    ]
    if "hit10_test_circuit" in summary:
        said = f"Hit@10 on {summary['test_facts']} other facts, circuit alone; whole model {summary['hit10_test_model']:.2f}"
        numbers.append((said, f"{summary['hit10_test_circuit']:.2f}"))
    settings = [
        ("model", f"{spec.model} (weights {circuit.provenance.weights[:12]}, {spec.processing})"),
        ("facts", "; ".join(fact.statement for fact in spec.facts)),
        ("method", spec.method),
        *_choice(run),
        ("ablation", spec.ablation),
        ("granularity", spec.granularity),
        ("weights", f"{spec.processing}, {spec.dtype} on {spec.device}{_dequantised(run)}"),
        ("prompts begin with", run.bos or "nothing"),
        ("metric", "the published code's, diluted over the prompt (kc)" if spec.compat else METRICS[spec.metric]),
        *([("built beside", "; ".join(other.statement for other in spec.siblings))] if spec.siblings else []),
        ("engine", f"{run.engine}, {run.evaluations:,} evaluations, {run.near_ties} near ties"),
        ("seed", str(spec.seed)),
        ("versions", ", ".join(f"{name} {version}" for name, version in run.versions.items())),
    ]
    return Page(
        title=f"“{summary['fact']}”, which the model does not say" if _unsaid(run) else summary["fact"],
        subtitle=f"Prompt “{fact.prompt}”, answer “{fact.object}”"
        + (f"; one of {len(spec.facts)} facts, whose lens and trajectory are shown" if len(spec.facts) > 1 else ""),
        circuit=circuit,
        readouts=run.readouts,
        trajectory=run.trajectory,
        answer=fact.object,
        numbers=tuple(numbers),
        settings=tuple(settings),
        command=run.command(),
        reading=run.reading,
        story=run.story,
        attention=run.attention,
        verdict=verdict(run),
        certificate=summary.get("certificate"),
        lines=run.lines,
    )


# ---- text ------------------------------------------------------------------------------------------------------------


def _summary(page: Page) -> str:
    circuit = page.circuit
    percent = 100 * circuit.n_edges / circuit.graph.n_edges
    share = f"{percent:.0f}" if percent >= 10 else f"{percent:.2g}"
    heads, mlps = sum(circuit.nodes_per_layer("head")), sum(circuit.nodes_per_layer("mlp"))
    shape = circuit.graph.shape
    return (
        f"The circuit keeps {circuit.n_edges:,} of the model’s {circuit.graph.n_edges:,} edges ({share} %) and passes "
        f"through {heads:,} of its {shape.n_layers * shape.n_heads:,} attention heads and {mlps:,} of its "
        f"{shape.n_layers:,} MLPs. {plain(_trajectory_sentence(page))}"
    )


def _trajectory_sentence(page: Page) -> str:
    answer, trajectory = page.answer.strip(), page.trajectory
    if trajectory.decided is not None:
        return (
            f"In the whole model, “{answer}” comes first among all tokens from {trajectory.decided} on, "
            f"with a final probability of {trajectory.probabilities[-1]:.3g}."
        )
    if not trajectory.ranks:
        return "No trajectory was measured."
    return (
        f"In the whole model, “{answer}” ends at rank {trajectory.ranks[-1]:,}, "
        f"with a probability of {trajectory.probabilities[-1]:.3g}."
    )


def _trajectory_caption(page: Page) -> str:
    return (
        f"Rank and probability of “{plain(page.answer.strip())}” when the residual stream at the prompt’s end is read as "
        "tokens (logit lens) after every attention and MLP block. Rank 1 is on top."
    )


def _activity_sentence(circuit: Circuit) -> str:
    heads, mlps, of = circuit.nodes_per_layer("head"), circuit.nodes_per_layer("mlp"), circuit.graph.shape.n_heads
    parts = [f"layer {i}: {n} of {of} heads, {m} of 1 MLP" for i, (n, m) in enumerate(zip(heads, mlps, strict=True))]
    return "Components used: " + "; ".join(parts)


def _roles(page: Page) -> dict[Node, Role]:
    """Heads with an established role."""
    roles = page.reading.roles if page.reading else None
    return {verdict.head: verdict.role for verdict in roles.labelled} if roles else {}


def _unit_heading(circuit: Circuit) -> str:
    unit = score_unit(circuit)
    return f", {unit}" if unit else ""


def _score_sentence(circuit: Circuit) -> str:
    method = METHODS.get(circuit.provenance.method)
    return plain(method.score) if method else "as its method gave it"


def _legend(page: Page) -> str:
    roles: set[Role] = {role for node, role in _roles(page).items() if node in page.circuit.nodes}
    told = page.reading is not None and page.reading.roles is not None
    keys = [
        ("head", "other attention head" if told else "attention head"),
        ("mlp", "MLP"),
        *([("bypass", KIND_NAMES["bypass"])] if page.circuit.graph.shape.bypasses else []),
        ("ends", "input and logits"),
    ]
    return legend(keys, roles)


def _caption(page: Page, drawn: int, large: bool) -> str:
    total = page.circuit.n_edges
    if large:
        beyond = f" Of the circuit’s {total:,} edges the {drawn:,} strongest are on this page." if drawn < total else ""
        return (
            "Information flows upwards, a row a layer; MLPs are the rail on the right. An edge is what one component writes as "
            f"another reads it; the wider, the larger its score (dashed: negative), {_score_sentence(page.circuit)}. "
            f"<strong>The {min(drawn, STRONGEST)} strongest of {drawn:,} edges are drawn; the slider draws more.</strong> Click a "
            "component for all of its edges and its ways to the answer, a layer’s + to open it, a lane’s name for the "
            f"heads in it; drag to move, + and − to zoom.{beyond}"
        )
    some = f" <strong>The {drawn:,} strongest of {total:,} edges are drawn.</strong>" if drawn < total else ""
    return (
        "Information flows upwards. An edge is what one component writes as another reads it; the wider, the larger its score "
        f"(dashed: negative), {_score_sentence(page.circuit)}. A component’s second line is the answer with its rank in what "
        "it writes, where that is among the first ten, else the token it promotes most. Click one "
        f"to see more; drag to move, + and − to zoom.{some}"
    )


# ---- the drawing -----------------------------------------------------------------------------------------------------


def resting(attention: PromptAttention | None) -> set[Node]:
    """Heads that leave most of their attention from the last token on the first one, whatever stands there."""
    patterns = attention.patterns if attention else ()
    return {each.head for each in patterns if each.rows[-1][0] >= RESTS}


def _overview(page: Page, overview: Overview, nodes: tuple[Node, ...]) -> str:
    return overview_svg(
        overview,
        nodes,
        label="The circuit, input at the bottom. Arrow keys move between its components; they are listed beside it, too.",
        lines=node_words(page.readouts),
        roles=_roles(page),
        told=page.reading is not None and page.reading.roles is not None,
    )


def _drawing(page: Page, nodes: tuple[Node, ...], edges: tuple[Edge, ...]) -> str:
    lines, layout = node_words(page.readouts), place(page.circuit, edges)

    def edge_class(edge: Edge) -> str:
        return (edge.reader.slot or "whole") + (" negative" if page.circuit.score(edge) < 0 else "")

    return circuit_svg(
        page.circuit,
        layout,
        nodes,
        edges,
        label="The circuit, input at the bottom. Arrow keys move between its components; they are listed beside it, too.",
        edge_class=edge_class,
        dress=Dress(lambda node: [("", lines[node])] if node in lines else (), roles=_roles(page)),
    )


def _slot_boxes(edges: tuple[Edge, ...]) -> str:
    present = {edge.reader.slot for edge in edges}
    return "\n".join(
        f'<label class="{slot or "whole"}"><input type="checkbox" value="{slot or ""}" checked>'
        f'<span class="swatch"></span>{SLOT_NAMES[slot]}</label>'
        for slot in SLOT_COLOURS
        if slot in present
    )


# ---- values for the page's script ------------------------------------------------------------------------------------


def _data(
    page: Page, nodes: tuple[Node, ...], edges: tuple[Edge, ...], overview: Overview | None = None
) -> dict[str, Any]:
    lens = {readout.node: readout for readout in page.readouts}
    roles, patterns = page.reading.roles if page.reading else None, _patterns(page)
    named, mlps = _roles(page), _mlps(page)
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
