"""Before and after: what differs between two circuits, and between the models that they were found in.

A `Side` is a circuit with what was read from its model on one prompt; a `CircuitDiff` is two of them. Sides may stand in
different graphs (an edit's bypass is a node that the unedited model lacks), so edges are compared by name.
"""

import html
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from circuits.analysis.lens import Trajectory
from circuits.analysis.writes import Write
from circuits.circuit import Circuit, jaccard
from circuits.facts import Fact
from circuits.graph import label_of
from circuits.studies.floors import Floor

LARGE = 12
"""Edges listed in the printed form."""
RESTS = 0.5
"""Of its attention, what a head has on the first position when it is said to rest there."""
CHANGED = 0.5
"""Logits. A head whose write of a followed answer changes by less does what it did."""


class DiffError(ValueError):
    """Two sides that cannot be compared."""


class HeadReading(BaseModel):
    """What one head does on this prompt, beside the role that it has for the relation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: str
    role: str
    """The verdict over many facts (`circuits.analysis.roles.Role`)."""
    reads: str
    """The class of positions that it draws most of its write from, the sink apart: subject, relation or last. ``first`` where it draws
    less than `circuits.analysis.roles.MIN_READING` from each of them: what it writes is what the sink holds."""
    share: float
    """Of the whole write, what it draws from there: attention times value, by length."""
    attention: float
    """Of its attention, what goes there."""
    sink: float
    """Of its attention, what rests on the prompt's first position, whatever stands there."""
    promotes: str
    """The token that its write promotes most."""
    copies: bool = False
    """Whether that is the token that it draws most of its write from, the sink apart."""
    object: str | None = None
    """The object of the relation that its write favours most; None outside a relation."""
    lead: float = 0.0
    """Logits. By how much, against the mean of the relation's other objects."""

    @property
    def gives(self) -> str | None:
        """The object that it gives: the favoured one, if the lead says anything."""
        return self.object if self.lead >= CHANGED else None

    def words(self, *, past: bool = False) -> str:
        """What it does in a clause: it extracts an object from the subject, copies a token, or gives no object."""
        where = {"first": "first token", "last": "last token"}.get(self.reads, self.reads)
        rest = f", {self.sink:.0%} resting on the first token" if self.sink >= RESTS and self.reads != "first" else ""
        share = f"{self.share:.0%} of its write, {self.attention:.0%} of its attention{rest}"
        if self.copies:
            return f"{'copied' if past else 'copies'} {self.promotes.strip()!r} from the {where} ({share})"
        if self.gives is not None:
            verb = ("extracted" if past else "extracts") if self.reads == "subject" else ("drew" if past else "draws")
            return f"{verb} {self.gives!r} from the {where} ({share}, {self.lead:+.1f} logits)"
        return f"gave no object ({where}, {share})" if past else f"gives no object ({where}, {share})"

    def __str__(self) -> str:
        return f"{self.words()}; promotes {self.promotes.strip()!r}"


class Side(BaseModel):
    """A circuit, and its model on one prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    """What tells this side from the other: "before", "after ROME at layer 3"."""
    fact: Fact
    circuit_json: dict[str, Any]
    answers: tuple[str, ...]
    """The objects that are followed; the same ones, in the same order, on both sides."""
    paths: tuple[Trajectory, ...]
    """For each answer, its rank and probability after every sub-layer of the whole model."""
    writes: tuple[Write, ...]
    """For each node of the model's graph, the logits that it writes of each answer."""
    heads: tuple[HeadReading, ...] = ()
    edited: tuple[str, ...] = ()
    """Nodes whose weights an edit changed, or that it added."""

    @model_validator(mode="after")
    def _whole(self) -> "Side":
        if len(self.paths) != len(self.answers):
            raise ValueError(f"expected a path for each of {len(self.answers)} answers, got {len(self.paths)}")
        if any(len(write.logits) != len(self.answers) for write in self.writes):
            raise ValueError("expected every node's writes to hold one logit an answer")
        return self

    @cached_property
    def circuit(self) -> Circuit:
        return Circuit.from_json(self.circuit_json)

    def head(self, name: str) -> HeadReading | None:
        return next((each for each in self.heads if each.head == name), None)

    def answer_index(self, answer: str) -> int:
        if answer not in self.answers:
            raise DiffError(f"expected one of the answers {', '.join(self.answers)}, got {answer!r}")
        return self.answers.index(answer)

    def path(self, answer: str) -> Trajectory:
        return self.paths[self.answer_index(answer)]

    def written(self, answer: str) -> dict[str, float]:
        """Node name to logits of the answer."""
        index = self.answer_index(answer)
        return {write.node.name: write.logits[index] for write in self.writes}

    def shares(self, answer: str) -> "WriteShares":
        """Who writes the answer: the edited nodes, the mover heads, the other heads, the other MLPs, the input."""
        movers = {each.head for each in self.heads if each.role in ("mover", "mixture")}
        total = dict.fromkeys(WriteShares.model_fields, 0.0)
        for write in self.writes:
            node, logits = write.node, write.logits[self.answer_index(answer)]
            if node.name in self.edited:
                total["edited"] += logits
            elif node.name in movers:
                total["movers"] += logits
            else:
                total[{"head": "heads", "input": "input"}.get(node.kind, "mlps")] += logits
        return WriteShares(**total)


class WriteShares(BaseModel):
    """Logits of one answer by who writes them. Negative where they suppress it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    edited: float
    movers: float
    heads: float
    mlps: float
    input: float

    @property
    def total(self) -> float:
        return self.edited + self.movers + self.heads + self.mlps + self.input

    def share(self, who: Literal["edited", "movers", "heads", "mlps", "input"]) -> float:
        """Of the whole logit; NaN where that is not positive, because parts of it are then no shares."""
        return getattr(self, who) / self.total if self.total > 0 else math.nan


class HeadChange(BaseModel):
    """A head that does something else on this prompt than it did, or writes another amount of a followed answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    before: HeadReading
    after: HeadReading
    written: tuple[tuple[str, float, float], ...]
    """(answer, logits before, logits after)."""

    @property
    def size(self) -> float:
        """The largest change of what it writes, in logits."""
        return max(abs(after - before) for _, before, after in self.written)

    def __str__(self) -> str:
        role = "" if self.after.role == "other" else f" ({self.after.role})"
        writes = ", ".join(f"{answer!r} {before:+.1f} to {after:+.1f}" for answer, before, after in self.written)
        return (
            f"{self.label}{role}: {self.before.words(past=True)}, now {self.after.words()}; it writes {writes} logits"
        )


class CircuitDiff(BaseModel):
    """Two sides that differ in one thing, named by ``differs``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["kcircuit/diff"] = "kcircuit/diff"
    version: Literal[2] = 2
    """2: heads read by their writes, the sink apart."""
    differs: str
    """The one thing: "edit", "fact", "demonstrations"."""
    before: Side
    after: Side
    floors: tuple[Floor, ...] = ()

    @model_validator(mode="after")
    def _comparable(self) -> "CircuitDiff":
        before, after = self.before.circuit.graph, self.after.circuit.graph
        if before.granularity != after.granularity:
            raise ValueError(f"expected circuits of one granularity, got {before.granularity} and {after.granularity}")
        if (before.shape.n_layers, before.shape.n_heads) != (after.shape.n_layers, after.shape.n_heads):
            raise ValueError(f"expected circuits of models of one shape, got {before.shape} and {after.shape}")
        if self.before.answers != self.after.answers:
            raise ValueError(
                f"expected the same answers on both sides, got {self.before.answers} and {self.after.answers}"
            )
        return self

    # ---- edges and nodes -----------------------------------------------------------------------------------------

    @cached_property
    def _edges(self) -> tuple[dict[str, float], dict[str, float]]:
        """Name to score, of both circuits."""
        before, after = (
            {edge.name: side.circuit.score(edge) for edge in side.circuit.edges} for side in (self.before, self.after)
        )
        return before, after

    @property
    def edges_before(self) -> dict[str, float]:
        """Name to score."""
        return self._edges[0]

    @property
    def edges_after(self) -> dict[str, float]:
        return self._edges[1]

    @property
    def kept(self) -> tuple[str, ...]:
        """Edges in both circuits, in the first one's order."""
        before, after = self._edges
        return tuple(name for name in before if name in after)

    @property
    def lost(self) -> tuple[str, ...]:
        before, after = self._edges
        return tuple(name for name in before if name not in after)

    @property
    def gained(self) -> tuple[str, ...]:
        before, after = self._edges
        return tuple(name for name in after if name not in before)

    @property
    def nodes_lost(self) -> tuple[str, ...]:
        after = set(self.after.circuit.nodes)
        return tuple(node.name for node in self.before.circuit.nodes if node not in after)

    @property
    def nodes_gained(self) -> tuple[str, ...]:
        before = set(self.before.circuit.nodes)
        return tuple(node.name for node in self.after.circuit.nodes if node not in before)

    @property
    def edge_jaccard(self) -> float:
        return jaccard(*(set(edges) for edges in self._edges))

    @property
    def node_jaccard(self) -> float:
        return jaccard(*({node.name for node in side.circuit.nodes} for side in (self.before, self.after)))

    # ---- roles and answers ---------------------------------------------------------------------------------------

    @property
    def head_changes(self) -> tuple[HeadChange, ...]:
        """Heads of either circuit that give another object, or whose write of an answer changed by `CHANGED`; the largest change first."""
        nodes = {node.name: node for side in (self.before, self.after) for node in side.circuit.nodes}
        written = [(answer, self.before.written(answer), self.after.written(answer)) for answer in self.before.answers]
        changes = []
        for before in self.before.heads:
            after = self.after.head(before.head)
            if after is None or before.head not in nodes:
                continue
            writes = tuple((answer, old[before.head], new[before.head]) for answer, old, new in written)
            change = HeadChange(label=nodes[before.head].label, before=before, after=after, written=writes)
            if before.gives != after.gives or change.size >= CHANGED:
                changes.append(change)
        return tuple(sorted(changes, key=lambda change: (-change.size, change.label)))

    # ---- the same, seen otherwise --------------------------------------------------------------------------------

    def summary(self) -> dict[str, Any]:
        """The diff in a few numbers and lists."""
        return {
            "differs": self.differs,
            "before": self.before.label,
            "after": self.after.label,
            "fact": str(self.before.fact),
            "edges_before": self.before.circuit.n_edges,
            "edges_after": self.after.circuit.n_edges,
            "edges_kept": len(self.kept),
            "edges_lost": list(self.lost),
            "edges_gained": list(self.gained),
            "nodes_lost": list(self.nodes_lost),
            "nodes_gained": list(self.nodes_gained),
            "edge_jaccard": self.edge_jaccard,
            "node_jaccard": self.node_jaccard,
            "floors": [floor.model_dump() for floor in self.floors],
            "heads": [change.model_dump() for change in self.head_changes],
            "answers": {
                answer: {
                    side.label: {
                        "rank": side.path(answer).ranks[-1],
                        "probability": side.path(answer).probabilities[-1],
                        "first_from": side.path(answer).decided,
                        "written": side.shares(answer).model_dump(),
                    }
                    for side in (self.before, self.after)
                }
                for answer in self.before.answers
            },
        }

    def counted(self) -> tuple[str, ...]:
        """In lines: the edges and nodes that came and went against the floors, and where each answer is first."""
        lines = [
            f"{self.before.label} -> {self.after.label} ({self.differs} differs), {self.before.fact}",
            f"edges: {len(self.kept)} kept, {len(self.lost)} lost, {len(self.gained)} gained; Jaccard {self.edge_jaccard:.2f}"
            + "".join(f", {floor.name} {floor.edge_jaccard:.2f}" for floor in self.floors),
            f"nodes: lost {_listed(self.nodes_lost)}; gained {_listed(self.nodes_gained)}; Jaccard {self.node_jaccard:.2f}"
            + "".join(f", {floor.name} {floor.node_jaccard:.2f}" for floor in self.floors),
        ]
        for answer in self.before.answers:
            lines.append(f"{answer}: " + "; ".join(_path_words(side, answer) for side in (self.before, self.after)))
        return tuple(lines)

    def __str__(self) -> str:
        return "\n".join([*self.counted(), *(str(change) for change in self.head_changes)])

    def __repr__(self) -> str:
        return f"<CircuitDiff: {self.before.label} -> {self.after.label}, {len(self.lost)} edges lost, {len(self.gained)} gained>"

    def _repr_html_(self) -> str:
        """How a notebook shows it: the sentences, and the edges that came and went."""

        def column(title: str, names: Sequence[str], scores: dict[str, float]) -> str:
            strongest = sorted(names, key=lambda name: -np.nan_to_num(scores[name], nan=-math.inf))[:LARGE]
            rows = "".join(
                f"<tr><td>{html.escape(label_of(name))}</td><td>{scores[name]:.4f}</td></tr>" for name in strongest
            )
            return f"<table><tr><th>{title}</th><th>score, nats</th></tr>{rows}</table>"

        before, after = self._edges
        text = "<br>".join(html.escape(line) for line in str(self).splitlines())
        return f"<p>{text}</p>{column('lost', self.lost, before)}{column('gained', self.gained, after)}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(label_of, names)) if names else "none"


def _path_words(side: Side, answer: str) -> str:
    path = side.path(answer)
    start = f"first from {path.decided}" if path.decided else f"rank {path.ranks[-1]:,}"
    return f"{side.label}: {start}, probability {path.probabilities[-1]:.3f}"
