"""What an edit does to the circuit of the fact, and of the facts beside it (paper 2, section 5 and Figure 4).

The same edited model is asked four prompts: the edited one, the same in other words, a neighbour (another subject of the
relation, with the same object where there is one: the paper's "Windows Server"), and a fact of another relation.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from circuits.behaviours.sides import BehaviourError, Bench, known, make_bench, relation_of, template_of
from circuits.diffs import CircuitDiff, Floor, Side, floor_of, random_floor
from circuits.editing import Edit, WeightEdit
from circuits.editing.adapter import AdapterEdit
from circuits.editing.chain import EditChain
from circuits.editing.methods import METHODS, default_hyper
from circuits.evaluation import whole_model
from circuits.facts import EditRequest, Fact, Relation, Relations
from circuits.graph import Node
from circuits.metrics import Measurement
from circuits.model import Model
from circuits.network import layer_of
from circuits.runs import RunSpec

PromptKind = Literal["edited", "paraphrase", "neighbour", "unrelated"]
PROMPT_KINDS: tuple[PromptKind, ...] = ("edited", "paraphrase", "neighbour", "unrelated")
WRITTEN_DIRECTLY = 0.5
"""An answer of whose logit the edited nodes write this share is said to be written by them."""


class EditDidNotTake(BehaviourError):
    """An edit after which the model still does not give the new object."""


class EditDiff(BaseModel):
    """One edit, and the circuits of the prompts before and after it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    layers: tuple[int, ...]
    statement: str
    """What the edited model is to say."""
    target: str
    old: str
    rank: int
    """Of the target after the edit, at the edited prompt."""
    diffs: dict[PromptKind, CircuitDiff]
    """A prompt that the dataset does not offer is left out."""

    @property
    def took(self) -> bool:
        return self.rank == 1

    @property
    def edited(self) -> CircuitDiff:
        return self.diffs["edited"]

    @property
    def leaked(self) -> bool | None:
        """Whether the neighbour is now given the target too; None without a neighbour."""
        neighbour = self.diffs.get("neighbour")
        return None if neighbour is None else neighbour.after.path(self.target).ranks[-1] == 1

    def story(self) -> tuple[str, ...]:
        """What happened, in sentences, each with the number it rests on."""
        where = "layer " + ", ".join(str(layer) for layer in self.layers)
        shares, path = self.edited.after.shares(self.target), self.edited.after.path(self.target)
        lines = [
            f"{self.method} at {where}: {self.target!r} is "
            + (f"first from {path.decided} on" if path.decided else f"ranked {path.ranks[-1]:,}")
            + f", probability {path.probabilities[-1]:.3f} (before the edit "
            f"{self.edited.before.path(self.target).probabilities[-1]:.3f})."
        ]
        if shares.total > 0:
            lines.append(
                f"Of the {shares.total:.1f} logits of {self.target!r} at the last token, the edited nodes write "
                f"{shares.share('edited'):.0%}, mover heads {shares.share('movers'):.0%}, other heads "
                f"{shares.share('heads'):.0%}, other MLPs {shares.share('mlps'):.0%}: "
                + (
                    "the edited MLP writes it directly."
                    if shares.share("edited") >= WRITTEN_DIRECTLY
                    else "it is carried to the last token or built there by later nodes."
                )
            )
        for change in self.edited.head_changes[:4]:
            lines.append(f"{change}.")
        neighbour = self.diffs.get("neighbour")
        if neighbour is not None:
            after = neighbour.after.path(self.target).probabilities[-1]
            before = neighbour.before.path(self.target).probabilities[-1]
            lines.append(
                f"At the neighbour {neighbour.before.fact.prompt!r} the target "
                + ("now wins" if self.leaked else "does not win")
                + f" (probability {before:.3f} before, {after:.3f} after)."
            )
        return tuple(lines)

    def __str__(self) -> str:
        return "\n".join(self.story())


class Prompts(BaseModel):
    """The prompts that an edit is watched at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    edited: Fact
    paraphrase: Fact | None
    neighbour: Fact | None
    unrelated: Fact | None

    def items(self) -> list[tuple[PromptKind, Fact]]:
        found: list[tuple[PromptKind, Fact | None]] = [(kind, getattr(self, kind)) for kind in PROMPT_KINDS]
        return [(kind, fact) for kind, fact in found if fact is not None]


def choose_prompts(model: Model, fact: Fact, target: str, relations: Relations) -> Prompts:
    """The first fitting ones in the dataset's order, among facts that the model knows best (rank 1)."""
    relation = relation_of(fact, relations)
    index = template_of(fact, relation)
    paraphrase = None
    if index is not None:
        others = [relation.fact(fact.subject, i) for i in range(len(relation.templates)) if i != index]
        ranks = whole_model(model, others).rank.per_example if others else ()
        paraphrase = next((each for each, rank in zip(others, ranks, strict=True) if rank == 1), None)
    neighbours = [
        each
        for each in known(model, relation, index or 0, rank=1)
        if each.subject != fact.subject and each.object != target
    ]
    neighbour = next((each for each in neighbours if each.object == fact.object), neighbours[0] if neighbours else None)
    return Prompts(
        edited=fact, paraphrase=paraphrase, neighbour=neighbour, unrelated=_unrelated(model, fact, relations)
    )


def _unrelated(model: Model, fact: Fact, relations: Relations) -> Fact | None:
    own = relation_of(fact, relations)
    for relation in relations.values():
        if relation.kind == own.kind and relation.domain != own.domain and relation.range != own.range:
            found = known(model, relation, rank=1)
            if found:
                return found[0]
    return None


def edited_nodes(edit: Edit, model: Model) -> tuple[str, ...]:
    """The nodes whose weights the edit changes, or that it adds."""
    match edit:
        case WeightEdit():
            return tuple(Node(layer_of(name, model.shape.n_layers), "mlp").name for name in sorted(edit.deltas))
        case AdapterEdit():
            return (Node(edit.layer, "bypass").name,)
        case EditChain():
            return tuple(dict.fromkeys(name for part in edit.parts for name in edited_nodes(part, model)))
    raise TypeError(f"no way to tell which nodes a {type(edit).__name__} changes")


def make_edit(
    model: Model, fact: Fact, target: str, method: str, *, layers: Sequence[int] | None = None, seed: int = 0
) -> Edit:
    """The method's edit of one fact, at its default layers or these."""
    settings = {} if layers is None else {"layers": tuple(layers)}
    request = EditRequest.of(fact, target)
    return METHODS[method](model, (request,), hyper=default_hyper(method, model, **settings), seed=seed)


def diff_edit(
    model: Model,
    edit: Edit,
    fact: Fact,
    target: str,
    prompts: Prompts,
    bench: Bench,
    *,
    before: dict[PromptKind, Side] | None = None,
    kinds: Sequence[PromptKind] = PROMPT_KINDS,
    force: bool = False,
) -> EditDiff:
    """The circuits of the prompts before and after the edit.

    Args:
        before: the sides of the unedited model, where another edit of the same fact needed them already.
        force: also for an edit that did not take.

    Raises:
        EditDidNotTake: the target is not first after the edit, and ``force`` is off.
    """
    asked = Fact(fact.prompt, fact.subject, target, fact.relation)
    before = {} if before is None else before
    nodes = edited_nodes(edit, model)
    diffs: dict[PromptKind, CircuitDiff] = {}
    with edit.on(model) as edited:
        answers = whole_model(edited, (asked,))
        rank = int(answers.rank.value)
        if rank != 1 and not force:
            raise EditDidNotTake(
                f"the edit did not take: after {edit.provenance.method}, {target!r} ranks {rank} at {fact.prompt!r} (probability "
                f"{answers.probability.value:.3f}); try another layer or method, or --force to see its circuits all the same"
            )
        for kind, original in prompts.items():
            if kind not in kinds:
                continue
            changed = original if kind in ("neighbour", "unrelated") else _with(original, target)
            follow = (target, original.object)
            if kind not in before:
                before[kind] = bench.side(model, original, follow, label="before")
            after = bench.side(edited, changed, follow, label=f"after {edit.provenance.method}", edited=nodes)
            diffs[kind] = CircuitDiff(
                differs="edit", before=before[kind].model_copy(update={"edited": nodes}), after=after
            )
    floors = _floors(diffs, prompts, bench, model)
    diffs = {kind: diff.model_copy(update={"floors": (*floors, _random(diff))}) for kind, diff in diffs.items()}
    layers = tuple(sorted({int(node[1:]) for node in nodes}))
    return EditDiff(
        method=edit.provenance.method,
        layers=layers,
        statement=asked.statement,
        target=target,
        old=fact.object,
        rank=rank,
        diffs=diffs,
    )


def _with(fact: Fact, answer: str) -> Fact:
    return Fact(fact.prompt, fact.subject, answer, fact.relation)


def _random(diff: CircuitDiff) -> Floor:
    return random_floor(diff.before.circuit, diff.after.circuit)


def _floors(diffs: dict[PromptKind, CircuitDiff], prompts: Prompts, bench: Bench, model: Model) -> tuple[Floor, ...]:
    """The unedited model's circuits of the same fact in two wordings: what a change of words alone does."""
    if "edited" not in diffs or prompts.paraphrase is None:
        return ()
    other = diffs["paraphrase"].before.circuit if "paraphrase" in diffs else bench.circuit(model, prompts.paraphrase)
    return (floor_of("the unedited model's circuit of the paraphrase", diffs["edited"].before.circuit, other),)


# ---- many facts ------------------------------------------------------------------------------------------------------


class MethodRow(BaseModel):
    """One method's edits of several facts. Shares are of the target's logit at the last token, means over the edits that took."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    layers: tuple[int, ...]
    n: int
    took: int
    edge_jaccard: float
    """Circuits before and after, at the edited prompt."""
    paraphrase_jaccard: float
    """The floor: circuits of the unedited model at the edited prompt and its paraphrase."""
    random_jaccard: float
    share_edited: float
    share_movers: float
    share_others: float
    first_at_edited_layer: float
    """Share of the edits whose target stays first from the edited layer's MLP on."""
    leaked: float
    """Share of the neighbours that are now given the target."""
    neighbours: int


def method_row(
    model: Model,
    facts: Sequence[tuple[Fact, str]],
    method: str,
    relations: Relations,
    spec: RunSpec,
    *,
    layers: Sequence[int] | None = None,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[MethodRow, tuple[EditDiff, ...]]:
    """Edit each (fact, new object) by itself and compare the circuits, at the edited prompt and a neighbour."""
    benches: dict[str, Bench] = {}
    found: list[EditDiff] = []
    for i, (fact, target) in enumerate(facts):
        relation: Relation = relation_of(fact, relations)
        if relation.name not in benches:
            benches[relation.name] = make_bench(model, relation, relations, spec)
        prompts = choose_prompts(model, fact, target, relations)
        edit = make_edit(model, fact, target, method, layers=layers, seed=seed)
        found.append(
            diff_edit(
                model, edit, fact, target, prompts, benches[relation.name], kinds=("edited", "neighbour"), force=True
            )
        )
        progress(f"{method}: {i + 1} of {len(facts)}")
    return _row(method, found), tuple(found)


def _row(method: str, found: Sequence[EditDiff]) -> MethodRow:
    took = [each for each in found if each.took]

    def mean(name: str, values: Sequence[float]) -> float:
        return Measurement(name, "", tuple(values)).value if values else float("nan")

    shares = [each.edited.after.shares(each.target) for each in took]
    shares = [each for each in shares if each.total > 0]
    leaks = [each.leaked for each in took if each.leaked is not None]
    floors = [{floor.name: floor.edge_jaccard for floor in each.edited.floors} for each in took]
    paraphrases = [v for each in floors for name, v in each.items() if "paraphrase" in name]
    return MethodRow(
        method=method,
        layers=found[0].layers if found else (),
        n=len(found),
        took=len(took),
        edge_jaccard=mean("edge Jaccard", [each.edited.edge_jaccard for each in took]),
        paraphrase_jaccard=mean("paraphrase", paraphrases),
        random_jaccard=mean("random", [v for each in floors for name, v in each.items() if "random" in name]),
        share_edited=mean("edited", [each.share("edited") for each in shares]),
        share_movers=mean("movers", [each.share("movers") for each in shares]),
        share_others=mean("others", [1 - each.share("edited") - each.share("movers") for each in shares]),
        first_at_edited_layer=mean("first there", [_first_there(each) for each in took]),
        leaked=mean("leaked", [float(leak) for leak in leaks]),
        neighbours=len(leaks),
    )


def _first_there(diff: EditDiff) -> float:
    return float(diff.edited.after.path(diff.target).decided in {f"L{layer} MLP" for layer in diff.layers})


class Claim(BaseModel):
    """One of paper 2's claims about edits, and whether it holds here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: str
    holds: bool
    numbers: str


def claims(rows: Sequence[MethodRow]) -> tuple[Claim, ...]:
    """Paper 2, section 5, put as comparisons of the table's numbers; those whose methods are in the table."""
    by_name = {row.method: row for row in rows}
    found = []
    for method in ("ft-m", "ft-l"):
        if method in by_name:
            row = by_name[method]
            found.append(
                Claim(
                    claim=f"{method.upper()} writes the new object directly: the edited MLP writes most of its logit",
                    holds=row.share_edited > 0.5,
                    numbers=f"edited MLP {row.share_edited:.0%}, mover heads {row.share_movers:.0%}",
                )
            )
    if "rome" in by_name:
        row = by_name["rome"]
        found.append(
            Claim(
                claim="ROME adds information at the subject, which heads and later MLPs carry to the last token",
                holds=row.share_edited < 0.5,
                numbers=f"edited MLP {row.share_edited:.0%}, mover heads {row.share_movers:.0%}",
            )
        )
    if "rome" in by_name and "ft-m" in by_name:
        rome, ft_m = by_name["rome"], by_name["ft-m"]
        found.append(
            Claim(
                claim="FT-M leaks into neighbours more than ROME does",
                holds=ft_m.leaked > rome.leaked,
                numbers=f"FT-M {ft_m.leaked:.0%}, ROME {rome.leaked:.0%} of neighbours given the new object",
            )
        )
        found.append(
            Claim(
                claim="after FT-M the new object is first from the edited layer on; after ROME it appears later",
                holds=ft_m.first_at_edited_layer > rome.first_at_edited_layer,
                numbers=f"from the edited layer's MLP on: FT-M {ft_m.first_at_edited_layer:.0%}, ROME {rome.first_at_edited_layer:.0%}",
            )
        )
    return tuple(found)
