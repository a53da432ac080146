"""The table of what editing methods do to circuits, and the paper's claims about it, as Markdown."""

from collections.abc import Sequence

from circuits.pages.tables import grid, markdown
from circuits.studies.columns import cells, columns
from circuits.studies.diff_table import MethodRow
from circuits.studies.edit_specs import DiffSpec
from circuits.studies.explain.verdict import Claim


def table_text(rows: Sequence[MethodRow], said: Sequence[Claim], spec: DiffSpec) -> str:
    shown = columns(MethodRow)
    head, tail = list(shown)[:2], list(shown)[2:]
    lines = [
        (
            *cells(row, head),
            f"{row.took} of {row.n}",
            *cells(row, tail[:-1]),
            f"{cells(row, tail[-1:])[0]} of {row.neighbours}",
        )
        for row in rows
    ]
    header = [*(shown[name].name for name in head), "took", *(shown[name].name for name in tail)]
    return "\n".join(
        [
            f"Edits of {rows[0].n} facts in {spec.model}, each by itself, tau {spec.tau:g} nats, seed {spec.seed}. Means over "
            "the edits that took. The Jaccard index is of the circuits before and after at the edited prompt, against the "
            "unedited model's at the prompt and a paraphrase, and against random circuits of these sizes. Who writes: shares "
            "of the new object's logit at the last token. Movers turned: edits after which the relation's mover heads write "
            "more of the new object, where they wrote more of the old one. First: the sub-layer from which the new object "
            "stays first, counted from the edited MLP.",
            "",
            markdown(grid(header, lines, left=2)),
            "",
            "Claims of paper 2, section 5:",
            "",
            *(f"- {claim}" for claim in said),
            "",
        ]
    )
