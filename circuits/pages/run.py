"""One run as one HTML file that opens from disk, offline: the circuit to click through, the plots, the settings."""

from string import Template

from circuits.analysis.attention import PromptAttention
from circuits.analysis.roles import Role
from circuits.circuit import Circuit
from circuits.discovery import METHODS
from circuits.graph import Edge, Node
from circuits.pages.certificate import certificate_section, lines_section
from circuits.pages.contents import Page, page_of, roles_on
from circuits.pages.drawing import Dress, circuit_svg, legend
from circuits.pages.layout import place
from circuits.pages.overview import LARGE, STRONGEST, Overview, overview_svg, survey
from circuits.pages.page import asset, pairs, plain, shared
from circuits.pages.plots import KIND_NAMES
from circuits.pages.story import heads_section, story_section
from circuits.pages.style import (
    SLOT_COLOURS,
    SLOT_NAMES,
    node_words,
    score_unit,
    strongest,
)
from circuits.pages.values import values_of
from circuits.studies.diffs import RESTS
from circuits.studies.run import Run

MAX_DRAWN = 5000
"""Edges on a page at most, the strongest."""


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
    overview = survey(page.circuit, nodes, roles_on(page), resting(page.attention)) if len(edges) > LARGE else None
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
            data=values_of(page, nodes, edges, overview),
            js=asset("common.js") + asset("overview.js") * (overview is not None) + asset("page.js"),
        ),
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


def _unit_heading(circuit: Circuit) -> str:
    unit = score_unit(circuit)
    return f", {unit}" if unit else ""


def _score_sentence(circuit: Circuit) -> str:
    method = METHODS.get(circuit.provenance.method)
    return plain(method.score) if method else "as its method gave it"


def _legend(page: Page) -> str:
    roles: set[Role] = {role for node, role in roles_on(page).items() if node in page.circuit.nodes}
    told = page.reading is not None and page.reading.roles is not None
    keys = [
        ("head", "other attention head" if told else "attention head"),
        ("mlp", "MLP"),
        *([("bypass", KIND_NAMES["bypass"])] if page.circuit.graph.shape.bypasses else []),
        ("ends", "input and logits"),
    ]
    return legend(keys, roles)


def _else(page: Page) -> str:
    return "an object of the relation that is" if page.objects else "the token it promotes most"


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
        f"it writes, where that is among the first ten, else {_else(page)}. Click one "
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
        lines=node_words(page.readouts, page.objects),
        roles=roles_on(page),
        told=page.reading is not None and page.reading.roles is not None,
    )


def _drawing(page: Page, nodes: tuple[Node, ...], edges: tuple[Edge, ...]) -> str:
    lines, layout = node_words(page.readouts, page.objects), place(page.circuit, edges)

    def edge_class(edge: Edge) -> str:
        return (edge.reader.slot or "whole") + (" negative" if page.circuit.score(edge) < 0 else "")

    return circuit_svg(
        page.circuit,
        layout,
        nodes,
        edges,
        label="The circuit, input at the bottom. Arrow keys move between its components; they are listed beside it, too.",
        edge_class=edge_class,
        dress=Dress(lambda node: [("", lines[node])] if node in lines else (), roles=roles_on(page)),
    )


def _slot_boxes(edges: tuple[Edge, ...]) -> str:
    present = {edge.reader.slot for edge in edges}
    return "\n".join(
        f'<label class="{slot or "whole"}"><input type="checkbox" value="{slot or ""}" checked>'
        f'<span class="swatch"></span>{SLOT_NAMES[slot]}</label>'
        for slot in SLOT_COLOURS
        if slot in present
    )
