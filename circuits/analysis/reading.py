"""Everything that the analysis says of one fact, as one frozen value: what a report shows and a story is told from."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from circuits.analysis.attribution import SINK, PositionClass, TargetError, read_sources, readout, targets
from circuits.analysis.cuts import cut_readings
from circuits.analysis.lens import TokenScore, Trajectory, read_nodes, trajectory
from circuits.analysis.mlps import AnswerMlp, read_mlps
from circuits.analysis.roles import Role, Roles
from circuits.analysis.tracing import head_nodes, open_parts, traces
from circuits.analysis.writes import Write, direct_writes
from circuits.facts import Fact
from circuits.graph import Node
from circuits.model import Model
from circuits.model.spans import SpanError, spans


@dataclass(frozen=True, slots=True)
class HeadOnFact:
    """One head on this prompt, at the last position (paper 2, Table 3 and Figure 1, right)."""

    head: Node
    role: Role
    attention: tuple[float, ...]
    """To every token of the prompt; sums to 1."""
    write: tuple[float, ...]
    """The share of its write that it draws from every token: attention times value, by length."""
    subject_cut: float
    """Fall of the answer against the relation's other objects when its reading of the subject is cut here, in logits."""
    relation_cut: float
    """Fall of the relation's range against the vocabulary when its reading of the relation is cut here, in logits."""
    promoted: tuple[TokenScore, ...]
    suppressed: tuple[TokenScore, ...]

    @property
    def sink(self) -> float:
        """Of its attention, what rests on the first token, whatever stands there."""
        return self.attention[SINK]


@dataclass(frozen=True, slots=True)
class Reading:
    """One fact in one model: its tokens, the answer's way, the heads with a role, every MLP's part."""

    fact: Fact
    tokens: tuple[str, ...]
    classes: tuple[PositionClass, ...]
    """Of each token; empty where the subject has no token before the last."""
    trajectory: Trajectory
    mlps: tuple[AnswerMlp, ...]
    roles: Roles | None
    """None where no roles can be told; ``unread`` says why."""
    heads: tuple[HeadOnFact, ...] = ()
    """The heads with a role, the largest effect first."""
    unread: str = ""
    writes: tuple[Write, ...] = ()
    """What every node writes of the answer by itself, in logits; one number each."""

    @property
    def decider(self) -> AnswerMlp | None:
        """The first MLP whose write takes the answer to rank 1."""
        return next((each for each in self.mlps if each.puts_on_top), None)

    def drawn(self, shares: Sequence[float], which: str) -> float:
        """Of shares of every token, those of one class of positions together."""
        return sum(share for share, own in zip(shares, self.classes, strict=True) if own == which)

    def with_role(self, *roles: Role) -> tuple[HeadOnFact, ...]:
        """Heads with one of these roles, the largest effect over the relation first."""
        return tuple(each for each in self.heads if each.role in roles)


@torch.no_grad()
def read_fact(
    model: Model, fact: Fact, roles: Roles | None, objects: Sequence[str] = (), *, unread: str = "", top: int = 10
) -> Reading:
    """The reading of ``fact``; ``roles`` are those of its relation, whose range is ``objects``.

    Args:
        unread: why there are no roles, in a clause.

    Raises:
        circuits.model.transformer.UnsupportedArchitecture: the model does not show its weights.
    """
    tokens = tuple(model.token_text(token) for token in model.tokens(fact).prompt)
    path, mlps = trajectory(model, fact), read_mlps(model, fact)
    writes = direct_writes(model, fact, (fact.object,))
    if roles is None:
        return Reading(fact, tokens, (), path, mlps, None, (), unread, writes)
    try:
        found = [spans(model, fact)]
        labelled = [verdict.head for verdict in roles.labelled]
        (sources,) = read_sources(model, (fact,), [*labelled, Node(0, "head", 0)], objects)
    except (SpanError, TargetError) as error:
        return Reading(fact, tokens, (), path, mlps, roles, (), str(error), writes)
    parts, wanted = open_parts(model, (fact,)), targets(model, (fact,), objects, found)
    subject, relation = cut_readings(model, parts, traces(model, (fact,), parts), found, readout(parts, wanted))
    index = {head: i for i, head in enumerate(head_nodes(parts))}
    heads = tuple(
        HeadOnFact(
            head=verdict.head,
            role=verdict.role,
            attention=source.attention,
            write=source.write,
            subject_cut=float(subject.answer[index[verdict.head], 0, wanted.answers[0]]),
            relation_cut=float(relation.range[index[verdict.head], 0]),
            promoted=lens.promoted,
            suppressed=lens.suppressed,
        )
        for verdict, source, lens in zip(
            roles.labelled, sources[:-1], read_nodes(model, fact, labelled, top=top), strict=True
        )
    )
    return Reading(fact, tokens, sources[0].classes, path, mlps, roles, heads, writes=writes)
