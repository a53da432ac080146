"""From a model and a prompt to one side of a diff: the circuit, and what is read from the model beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from circuits.analysis.attribution import SINK, TargetError, apart_from_sink, readout, targets, written_shares
from circuits.analysis.lens import read_nodes, trajectories
from circuits.analysis.roles import MIN_READING, Roles
from circuits.analysis.tracing import open_parts, traces
from circuits.analysis.writes import direct_writes
from circuits.circuit import Circuit
from circuits.evaluation import require_distinct_beginnings
from circuits.evaluation.roles import roles_for, template_of
from circuits.facts import Fact, FactError, Relation, Relations, parse_fact
from circuits.graph import Node
from circuits.model import Model
from circuits.model.spans import SpanError, spans
from circuits.model.transformer import UnsupportedArchitecture
from circuits.studies.diffs import CircuitDiff, HeadReading, Side
from circuits.studies.explain.verdict import BehaviourError
from circuits.studies.floors import Floor, random_floor
from circuits.studies.search import search
from circuits.studies.specs import RunSpec
from circuits.studies.study import Watch


@dataclass(frozen=True)
class Bench:
    """What every side of a comparison shares: the dataset, the settings of the search, and the relation's roles."""

    relations: Relations
    spec: RunSpec
    """Facts aside."""
    roles: Roles | None = None
    watch: Watch = field(default_factory=Watch)
    """Told of each search, which is kept in its folder where it has one."""

    def side(
        self,
        model: Model,
        fact: Fact,
        answers: Sequence[str],
        *,
        label: str,
        edited: Sequence[str] = (),
        circuit: Circuit | None = None,
    ) -> Side:
        """The circuit of ``fact`` in ``model``, and the ``answers`` followed through the model.

        The circuit, unless there is one already, is built whether the model knows the fact or not: what a model says
        wrongly has one too.

        Raises:
            circuits.evaluation.AlikeAnswers: two answers begin with one token; what is followed are first tokens.
        """
        answers = tuple(dict.fromkeys(answers))
        require_distinct_beginnings(model, fact.prompt, answers)
        circuit = circuit or self.circuit(model, fact, label)
        asked = [Fact(fact.prompt, fact.subject, answer, fact.relation) for answer in answers]
        return Side(
            label=label,
            fact=fact,
            circuit_json=circuit.to_json(),
            answers=answers,
            paths=trajectories(model, asked),
            writes=direct_writes(model, fact, answers),
            heads=self.readings(model, fact, [node for node in circuit.graph.nodes if node.kind == "head"]),
            edited=tuple(edited),
        )

    def circuit(self, model: Model, fact: Fact, label: str) -> Circuit:
        """Raises:
        circuits.discovery.acdc.NoiseError: rounding would decide at the spec's tau, and its ``force`` is off.
        circuits.discovery.state.Interrupted: on Ctrl-C.
        """
        spec = self.spec.model_copy(update={"facts": (fact,), "test_facts": (), "relation": None})
        return search(spec, self.relations, model, self.watch.at(f"{label}, {fact.prompt!r}"))

    @torch.no_grad()
    def readings(self, model: Model, fact: Fact, heads: Sequence[Node]) -> tuple[HeadReading, ...]:
        """What each head reads and gives on this prompt; none where its subject has no tokens of its own.

        A head reads what it draws its write from (attention times value). The first position is set apart, because attention
        rests there whatever stands there.
        """
        objects = _range(fact, self.relations)
        try:
            found = spans(model, fact)
            wanted = targets(model, (fact,), objects, [found])
            parts = open_parts(model, (fact,))
        except (SpanError, TargetError, UnsupportedArchitecture):
            return ()
        (trace,) = traces(model, (fact,), parts)
        graph = model.graph()
        writes = trace.writes[[graph.writer_index(head) for head in heads], 0]
        leads = readout(parts, wanted).versus_others(parts.final.share(writes, trace.final))
        names = {model.vocabulary.encode(" " + name)[0]: name for name in reversed((fact.object, *objects))}
        classes, tokens = apart_from_sink(found), [model.token_text(token) for token in trace.ids[0].tolist()]
        heard = [i for i, own in enumerate(classes) if own != "first"]
        drawn = {layer: written_shares(trace, parts, layer)[0].tolist() for layer in {head.layer for head in heads}}
        role = {verdict.head: verdict.role for verdict in self.roles.heads} if self.roles else {}
        readings = []
        for head, lens, lead in zip(heads, read_nodes(model, fact, heads, top=1), leads.tolist(), strict=True):
            weights, shares = trace.attention[head.layer, 0, head.head].tolist(), drawn[head.layer][head.head]
            by_class = {
                which: sum(shares[i] for i in heard if classes[i] == which) for which in ("subject", "relation", "last")
            }
            best = max(by_class, key=lambda which: by_class[which])
            reads = best if by_class[best] >= MIN_READING else "first"
            promotes, favoured = lens.promoted[0].token, max(range(len(lead)), key=lambda i: lead[i])
            source = tokens[max(heard, key=lambda i: shares[i])]
            readings.append(
                HeadReading(
                    head=head.name,
                    role=role.get(head, "other"),
                    reads=reads,
                    share=sum(share for share, own in zip(shares, classes, strict=True) if own == reads),
                    attention=sum(weight for weight, own in zip(weights, classes, strict=True) if own == reads),
                    sink=weights[SINK],
                    promotes=promotes,
                    copies=reads != "first" and promotes.strip() == source.strip(),
                    object=names.get(wanted.objects[favoured]) if objects else None,
                    lead=lead[favoured] if objects else 0.0,
                )
            )
        return tuple(readings)


def compared(differs: str, before: Side, after: Side, *floors: Floor) -> CircuitDiff:
    """The diff of two sides, its overlap beside these floors and, last, that of random circuits of the same sizes."""
    chance = random_floor(before.circuit, after.circuit)
    return CircuitDiff(differs=differs, before=before, after=after, floors=(*floors, chance))


def make_bench(model: Model, fact: Fact, relations: Relations, spec: RunSpec, watch: Watch | None = None) -> Bench:
    """The bench for ``fact`` and what stands beside it; its heads' roles are those that a run of it names, with the spec's seed.

    Where they cannot be told (too few known facts, one object), no head has a role.
    """
    return Bench(relations, spec, roles_for(model, fact, relations, seed=spec.seed).roles, watch or Watch())


@dataclass(frozen=True)
class Benches:
    """The bench of a fact, one for each relation and wording: what its heads' roles are takes as long as a search."""

    model: Model
    relations: Relations
    spec: RunSpec
    watch: Watch = field(default_factory=Watch)
    _made: dict[tuple[str | None, int], Bench] = field(default_factory=dict)

    def of(self, fact: Fact) -> Bench:
        relation = self.relations.get(fact.relation or "")
        asked = (fact.relation, 0 if relation is None else template_of(fact, relation) or 0)
        if asked not in self._made:
            self._made[asked] = make_bench(self.model, fact, self.relations, self.spec, self.watch)
        return self._made[asked]


def fact_of(text: str, relations: Relations) -> Fact:
    """A fact of the dataset, as typed.

    Raises:
        BehaviourError: it is none; it could not be compared with others of its relation.
    """
    try:
        return parse_fact(text, relations.values())
    except FactError as error:
        raise BehaviourError(
            f"expected a fact of a relation in the dataset (`kcircuit facts` lists them), got {text!r}: "
            + str(error).partition("; name it")[0]
        ) from error


def relation_of(fact: Fact, relations: Relations) -> Relation:
    """The fact's relation.

    Raises:
        BehaviourError: the dataset does not say which.
    """
    if fact.relation is None or fact.relation not in relations:
        raise BehaviourError(
            f"expected a fact of a relation in the dataset, because its neighbours are compared; {fact.prompt!r} is none: "
            "`kcircuit facts` lists them"
        )
    return relations[fact.relation]


def _range(fact: Fact, relations: Relations) -> tuple[str, ...]:
    return relations[fact.relation].objects if fact.relation and fact.relation in relations else ()
