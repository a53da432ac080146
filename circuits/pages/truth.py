"""The page of results: one table an ablation, and what the rows mean. Made by ``kcircuit groundtruth --out``."""

import math
from collections.abc import Sequence

from circuits.evaluation.recovery import Recovery
from circuits.planted import Planted

HEAD = """# Discovery methods against known circuits

Made by `kcircuit groundtruth{options} --out FILE`; change it there.

Each cell is **precision / recall / AUROC** over edges. Precision and recall are of the edges that the method keeps:
those whose score reaches tau, for methods whose scores are in the metric's unit (ACDC, exact, EAP, EAP-IG); the best
as many as there are true edges, for those without a unit (IFR, random), which helps them. `–` means that nothing was
kept. AUROC is the chance that a true edge scores higher than another, ties counting half; it asks for no threshold.
`random` is the mean of 20 draws.

`acdc` goes by the signed rule of [Knowledge Circuits](https://arxiv.org/abs/2405.17969): remove an edge if that
raises the loss by less than tau. `acdc absolute` looks at the magnitude; so do all others.

## Transformers made by hand

Two layers, two heads each, 46 edges, without norm (`circuits/planted/`: each file derives its edges and what each is
worth). What is not in the circuit has random weights and writes where nobody in the circuit reads. Loss: MatchNLL.
The true edges depend on the ablation: under zero ablation every edge that the weights connect matters; under
resampling those that carry something else on the corrupted prompt.
"""

WHY = """
### What happens with OR, and why

`either` answers if *one* of two heads says so: {true} true edges. Under zero ablation ACDC finds {acdc} of them, all
of one head and the way from it to the logits, and nothing that is not true. It tries the later head first; the other
one stands in for it, removing it costs nothing, and so it goes. From then on the first head is all there is, and each
of its edges is worth keeping. Which head stays is decided by the order of the search alone. Removing single edges
from the whole model (`exact`) finds {exact}: neither head is needed while the other is there. EAP finds {eap}: where
both heads speak, the OR is flat and so is the slope. Integrated gradients walk through the place where it is not
flat, and rank the true edges well (AUROC {ig_auroc}), though only {ig} of them reach tau.

This is no fault of a search but of the question: "what does the answer lose without this edge?" has the answer
"nothing" for every part of an OR. A circuit found so is *sufficient* and free of superfluous edges, but not
*complete*: the completeness test, which knocks the same edges out of model and circuit, tells the two apart, because
without a0.h0 the model still answers and the circuit does not.

Under resampling all {resampled} edges of `either` are found. That is luck of the ablation: on the corrupted prompt a
head does not fall silent but argues for another answer, and that is a loss that the other head cannot make good. An
ablation that put a neutral value there would see the OR as zero ablation does.

An AND has no such trouble: all edges of `conjunction` are found, whichever part goes first is missed.

### Suppression

In `suppression` one head works against the answer. The signed rule removes it and is glad of it: {signed} of
{suppressed} edges are left, and the circuit beats the model. `acdc absolute` keeps all of them. A circuit that "does
better than the model" has often lost edges of this kind.

### What else the tables say

* Where nothing is redundant and nothing suppressive, ACDC and `exact` find the true edges exactly under either
  ablation.
* EAP misses queries and keys of sharp attention under zero ablation: at the clean run the softmax is saturated and
  its slope is zero.
* IFR asks who writes much, not who matters: the heads outside the circuit write much.
"""

COMPILED = """
## Transformers compiled from programs

Compiled with Tracr from programs of known meaning, with edge lists from their weights and from exhaustive replacement
of single edges (read from the folder that `KCIRCUIT_TRACR` names; not part of this repository). Bidirectional,
without norm, up to 6 layers; `xproportion` puts out a number. Each method is compared with the list of the ablation
that it applies, not counting the output at BOS. ACDC and `exact` measure squared error at all other positions, with
tau {tau:g}; EAP and EAP-IG measure MatchNLL where the output is a word and squared error where it is a number; their
scores are cut at the same tau. For resampling every prompt takes values from {donors} others at least as long, drawn
by chance.
"""

COMPILED_WHY = """
True edges that ACDC or `exact` did not keep:

{missed}

Neither kept an edge that is not true{but}. Why:

* `input` here is token and position embedding together, and the lists have them apart. Ablating both at once need not
  do what ablating one does. a4.h1 of shuffle_dyck1 attends to all words by their positions, and by default to BOS, which
  it tells by its token. Without the position alone it falls back to BOS, and that matters; without both it attends to all
  alike, and the MLP after it, which asks whether anything was found at all, answers as before.
* Under mean ablation `input->a0.h0<q>` matters alone, but not once the key beside it has been averaged too, which
  only BOS would notice. ACDC removes the key first and then the query for nothing: redundancy between an edge that
  does not count and one that does.
* EAP on `xproportion` gives zero everywhere: the squared error is at its minimum on the clean run, and its gradient
  there is zero. Integrated gradients leave the minimum and find all.
"""


def _cell(row: Recovery) -> str:
    return " / ".join(_number(value) for value in (row.precision, row.recall, row.auroc))


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def table(rows: Sequence[Recovery]) -> str:
    """Methods down, circuits across, in the order in which they come up."""
    circuits = list(dict.fromkeys(row.circuit for row in rows))
    methods = list(dict.fromkeys(row.method for row in rows))
    cells = {(row.method, row.circuit): _cell(row) for row in rows}
    true = {row.circuit: row.n_true for row in rows}
    lines = [
        "| | " + " | ".join(f"{name} ({true[name]})" for name in circuits) + " |",
        "|---|" + "---|" * len(circuits),
    ]
    lines += [f"| {method} | " + " | ".join(cells[method, name] for name in circuits) + " |" for method in methods]
    return "\n".join(lines)


def tables(rows: Sequence[Recovery]) -> str:
    parts = []
    for ablation in dict.fromkeys(row.ablation for row in rows):
        parts.append(f"\n**{ablation.capitalize()} ablation** (in brackets: true edges)\n")
        parts.append(table([row for row in rows if row.ablation == ablation]))
    return "\n".join(parts) + "\n"


def page(
    planted: Sequence[Recovery], circuits: Sequence[Planted], compiled: Sequence[Recovery], *, tau: float, donors: int
) -> str:
    """The whole page as Markdown; without ``compiled`` rows, only the transformers made by hand."""
    made = "\n".join(f"* `{circuit.name}`: {circuit.title}" for circuit in circuits) + "\n"
    text = HEAD.format(options=" --compiled" if compiled else "") + "\n" + made + tables(planted) + _why(planted)
    if compiled:
        text += COMPILED.format(tau=tau, donors=donors) + tables(compiled) + _compiled_why(compiled)
    return text


def _why(rows: Sequence[Recovery]) -> str:
    by = {(row.circuit, row.ablation, row.method): row for row in rows}

    def found(circuit: str, ablation: str, method: str) -> int:
        row = by[circuit, ablation, method]
        return row.n_true - len(row.missed)

    either = by["either", "zero", "acdc"]
    return WHY.format(
        true=either.n_true,
        acdc=found("either", "zero", "acdc"),
        exact=found("either", "zero", "exact"),
        eap=found("either", "zero", "eap"),
        ig=found("either", "zero", "eap-ig-activations"),
        ig_auroc=_number(by["either", "zero", "eap-ig-activations"].auroc),
        resampled=found("either", "resample", "acdc"),
        signed=found("suppression", "zero", "acdc"),
        suppressed=by["suppression", "zero", "acdc"].n_true,
    )


def _compiled_why(rows: Sequence[Recovery]) -> str:
    of_these = [row for row in rows if row.method in ("acdc", "exact")]
    missed = [
        f"* {row.circuit}, {row.ablation}, {row.method}: {', '.join(f'`{edge}`' for edge in row.missed)}"
        for row in of_these
        if row.missed
    ]
    extra = [f"`{edge}` ({row.circuit}, {row.ablation}, {row.method})" for row in of_these for edge in row.extra]
    return COMPILED_WHY.format(missed="\n".join(missed) or "* none", but=" but " + ", ".join(extra) if extra else "")
