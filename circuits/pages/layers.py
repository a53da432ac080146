"""The results page of a sweep over layers: a table a method."""

from collections.abc import Sequence

from circuits.model import Model
from circuits.pages.tables import markdown, of_rows
from circuits.studies.edit_specs import LayersSpec
from circuits.studies.layers import LayerRow


def page(rows: Sequence[LayerRow], model: Model, spec: LayersSpec, command: str) -> str:
    """The Markdown text; ``command`` makes it again."""
    parts = [
        "# Edits layer by layer",
        f"Model {model.name} (weights {model.weights[:12]}), {spec.n} facts, seed {spec.seed}, written by `{command}`. Shares "
        "in percent, of answers all of whose tokens are the likeliest. Locality is the mean of three kinds, as wherever edits "
        "are compared: other subjects, other facts of the edited subject (also apart, in the next column), and unrelated "
        "facts. The site is the token at which ROME and MEMIT store a value: the subject's last or the prompt's. Seconds an "
        "edit depend on the machine. Besides layer and site, options are the defaults.",
    ]
    for method, regime in dict.fromkeys((row.method, row.regime) for row in rows):
        own = [row for row in rows if (row.method, row.regime) == (method, regime)]
        parts += [f"## {method}, {regime}", markdown(of_rows(own, left=2))]
    return "\n\n".join(parts) + "\n"
