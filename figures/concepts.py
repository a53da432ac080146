"""Draw the figures of the concepts' pages (docs/concepts): python -m figures.concepts.

The graph and its cut edges are drawn of the graph alone; the answer's way and the heads of what `kcircuit discover` finds in factlm.
"""

import html
import tempfile
from collections.abc import Sequence
from pathlib import Path

from circuits.analysis.reading import HeadOnFact, Reading
from circuits.circuit import Circuit, Provenance
from circuits.graph import Graph, Shape
from circuits.pages.charts import Panel, line_panels
from circuits.pages.picture import circuit_picture
from circuits.pages.style import FILLS, FONT, GRID, NEUTRAL, SLOT_COLOURS, token_text
from circuits.studies.run import Run
from figures.make_figures import FACT, command, write

INK = "#16191E"


def graph() -> str:
    """Every edge of a model of two layers with two heads each."""
    graph = Graph(Shape(2, 2), "qkv")
    full = Circuit.full(graph, Provenance("a model of 2 layers × 2 heads", ""))
    return circuit_picture(full, title=f"2 layers × 2 heads: all {full.n_edges} edges")


def lens(reading: Reading) -> str:
    """The paper's Figure 3: rank and probability of the answer after every sub-layer."""
    path = reading.trajectory
    ranks = {"at the last token": path.ranks, "at the subject’s last token": path.ranks_at_subject}
    return line_panels(
        [
            Panel(
                f"Rank of “{reading.fact.object}”",
                "after",
                "rank (log)",
                path.labels,
                {name: tuple(map(float, values)) for name, values in ranks.items()},
                log=True,
            ),
            Panel(
                "Its probability",
                "after",
                "probability",
                path.labels,
                {"at the last token": path.probabilities},
                limits=(0.0, 1.0),
            ),
        ]
    )


def heads(reading: Reading, chosen: Sequence[HeadOnFact]) -> str:
    """The paper's Figure 1, right: where special heads look, what they draw their write from, and what it promotes."""
    left, cell, row = 190, 96, 118
    width, height = left + cell * len(reading.tokens) + 24, 34 + row * len(chosen)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="Special heads at “{html.escape(reading.fact.prompt)}”" font-family="{html.escape(FONT)}" font-size="12" '
        f'fill="{NEUTRAL}">'
    ]
    for i, token in enumerate(reading.tokens):
        x = left + cell * (i + 0.5)
        parts.append(f'<text x="{x:.0f}" y="22" text-anchor="middle" font-size="13">{_text(token)}</text>')
    for k, each in enumerate(chosen):
        y, (fill, outline) = 40 + row * k, FILLS[each.role]
        parts.append(
            f'<rect x="12" y="{y}" width="104" height="46" rx="9" fill="{fill}" stroke="{outline}"/>'
            f'<text x="64" y="{y + 20}" text-anchor="middle" fill="{INK}" font-weight="650">{each.head.label}</text>'
            f'<text x="64" y="{y + 36}" text-anchor="middle" fill="{INK}" font-size="11">{each.role}</text>'
        )
        for name, shares, at in (("looks at", each.attention, y), ("draws from", each.write, y + 26)):
            parts.append(f'<text x="{left - 6}" y="{at + 15}" text-anchor="end" font-size="9">{name}</text>')
            for i, share in enumerate(shares):
                x = left + cell * i
                parts.append(
                    f'<rect x="{x + 2}" y="{at}" width="{cell - 4}" height="22" rx="4" fill="{GRID}"/>'
                    f'<rect x="{x + 2}" y="{at}" width="{cell - 4}" height="22" rx="4" fill="{outline}" fill-opacity="{share:.2f}"/>'
                    f'<text x="{x + cell / 2:.0f}" y="{at + 15}" text-anchor="middle" fill="{INK if share > 0.5 else NEUTRAL}">'
                    f"{share:.0%}</text>"
                )
        promoted = ", ".join(f"“{_text(score.token)}”" for score in each.promoted[:5])
        parts.append(f'<text x="{left + 2}" y="{y + 68}">its write promotes {promoted}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def ablation() -> str:
    """One reader's input as the sum of its senders' writes, one edge cut and carrying something else."""
    senders = ("Input", "L0H0", "L0H1", "MLP0")
    kinds = ("input", "head", "head", "mlp")
    width, height, cut = 760, 268, 2
    blue, red = SLOT_COLOURS["q"], SLOT_COLOURS["k"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="A reader’s input with one edge ablated" font-family="{html.escape(FONT)}" font-size="12" fill="{NEUTRAL}">',
        '<text x="22" y="22">senders</text><text x="196" y="22">what each edge carries to the reader</text>'
        '<text x="604" y="22">reader</text>',
    ]
    for i, (name, kind) in enumerate(zip(senders, kinds, strict=True)):
        y, (fill, outline) = 38 + 58 * i, FILLS[kind]
        dashes = ' stroke-dasharray="6 4"' if i == cut else ""
        parts += [
            f'<rect x="20" y="{y}" width="84" height="38" rx="9" fill="{fill}" stroke="{outline}"/>',
            f'<text x="62" y="{y + 23}" text-anchor="middle" fill="{INK}" font-weight="650">{name}</text>',
            f'<path d="M104 {y + 19}H470C520 {y + 19} 520 145 570 145" fill="none" stroke="{red if i == cut else blue}" '
            f'stroke-width="2"{dashes}/>',
        ]
        said = "0, a mean, or what it writes on another prompt" if i == cut else "what it writes in this run"
        parts.append(f'<text x="196" y="{y + 13}">{said}</text>')
    fill, outline = FILLS["head"]
    parts += [
        f'<circle cx="580" cy="145" r="13" fill="none" stroke="{NEUTRAL}"/><path d="M573 145h14M580 138v14" stroke="{NEUTRAL}"/>',
        f'<path d="M593 145h27" stroke="{NEUTRAL}" stroke-width="2"/>',
        f'<rect x="620" y="122" width="118" height="46" rx="9" fill="{fill}" stroke="{outline}"/>',
        f'<text x="679" y="142" text-anchor="middle" fill="{INK}" font-weight="650">L1H0</text>',
        f'<text x="679" y="158" text-anchor="middle" fill="{INK}" font-size="11">its query input</text>',
        f'<text x="196" y="{38 + 58 * cut + 34}" fill="{red}">L0H1→L1H0&lt;q&gt; is ablated</text>',
    ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(token: str) -> str:
    return html.escape(token_text(token))


def main() -> None:
    write("graph.svg", graph())
    write("ablation.svg", ablation())
    with tempfile.TemporaryDirectory() as folder:
        command("discover", "--fact", FACT, "--out", folder)
        reading = Run.load(Path(folder)).reading
    if reading is None:
        raise RuntimeError("expected a run with its reading, got none")
    write("lens.svg", lens(reading))
    # One head of each role, the one of largest effect.
    firsts = {each.role: each for each in reversed(reading.heads)}
    chosen = [firsts[role] for role in ("relation", "mover", "carrier") if role in firsts]
    write("special-heads.svg", heads(reading, chosen))


if __name__ == "__main__":
    main()
