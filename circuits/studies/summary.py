"""A run in one row: what ``discover --json`` prints, and what a sweep over many facts keeps of each."""

from dataclasses import dataclass
from typing import Annotated, Any

from circuits.analysis.reading import Reading
from circuits.circuit import Circuit
from circuits.discovery import find_method
from circuits.records import to_json
from circuits.studies.columns import Column
from circuits.studies.run import Run

ALWAYS = frozenset({"bos", "quantisation", "noise", "nll_empty", "rank_empty"})
"""Fields that are said even where there is no value; others without one were not asked for."""


@dataclass(frozen=True, slots=True)
class SpecialHead:
    """A head with an established role for the fact's relation, on this prompt (paper 2, Table 3).

    Attention and shares of the write are sums over the tokens of the subject, or of the relation; falls are in logits.
    """

    head: str
    role: str
    in_circuit: bool
    attention_subject: float
    attention_relation: float
    attention_sink: float
    write_subject: float
    write_relation: float
    answer_fall: float
    range_fall: float
    promoted: tuple[str, ...]


def special_heads(reading: Reading, circuit: Circuit) -> tuple[SpecialHead, ...]:
    inside = set(circuit.nodes)
    return tuple(
        SpecialHead(
            head=each.head.name,
            role=each.role,
            in_circuit=each.head in inside,
            attention_subject=reading.drawn(each.attention, "subject"),
            attention_relation=reading.drawn(each.attention, "relation"),
            attention_sink=each.sink,
            write_subject=reading.drawn(each.write, "subject"),
            write_relation=reading.drawn(each.write, "relation"),
            answer_fall=each.subject_cut,
            range_fall=each.relation_cut,
            promoted=tuple(score.token for score in each.promoted),
        )
        for each in reading.heads
    )


@dataclass(frozen=True, slots=True)
class StoryLine:
    """A sentence of the fact's story, and the numbers that it says."""

    text: str
    numbers: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run in a few numbers. NLL in nats; ranks and hits are means over the facts."""

    model: str
    fact: Annotated[str, Column("fact")]
    method: str
    edges_total: int
    edges_kept: Annotated[int, Column("edges")]
    nodes_kept: Annotated[int, Column("nodes")]
    nll_model: Annotated[float, Column("NLL, nats", digits=3)]
    nll_circuit: Annotated[float, Column("of the circuit", digits=3)]
    rank_model: Annotated[int | float, Column("rank")]
    rank_circuit: Annotated[int | float, Column("by the circuit")]
    hit10_model: float
    hit10_circuit: float
    evaluations: Annotated[int, Column("evaluations")]
    engine: str
    near_ties: int
    bos: str | None
    quantisation: str | None
    noise: float | None
    nll_empty: float | None
    rank_empty: int | float | None
    edges_asked: int | None = None
    unfinished: str | None = None
    edges_decided: int | None = None
    edges_to_decide: int | None = None
    prefilter: str | None = None
    candidates: int | None = None
    nll_start: float | None = None
    edges_full_search: int | None = None
    share_filtered_out: float | None = None
    share_lost: float | None = None
    edges_extra: int | None = None
    certificate: dict[str, Any] | None = None
    test_facts: int | None = None
    hit10_test_model: float | None = None
    hit10_test_circuit: float | None = None
    tau: Annotated[float | None, Column("tau, nats", digits=4)] = None
    heads: tuple[SpecialHead, ...] | None = None
    story: tuple[StoryLine, ...] | None = None
    circuit: dict[str, Any] | None = None
    """What its file holds, in rows that are kept; a run has it in a file of its own."""

    def to_json(self) -> dict[str, Any]:
        """By field; those that were not asked for are left out."""
        return {name: value for name, value in to_json(self).items() if value is not None or name in ALWAYS}


def summary_of(run: Run) -> Summary:
    """The run in one row, with what its heads do and the story, where it was read."""
    return Summary(
        **run.summary(),
        tau=run.spec.tau if find_method(run.spec.method).has_threshold else None,
        heads=run.reading and special_heads(run.reading, run.circuit),
        story=run.reading and tuple(StoryLine(each.text, dict(each.numbers)) for each in run.story),
    )
