"""Laws of diffs: what is kept, lost and gained; inversion; files; and who writes an answer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from circuits.analysis.lens import Trajectory
from circuits.analysis.writes import Write, direct_writes
from circuits.circuit import Circuit, Provenance, jaccard
from circuits.facts import Fact
from circuits.graph import Graph, Node, Shape
from circuits.model import Batch, Model
from circuits.studies.diffs import CircuitDiff, DiffError, HeadReading, Side
from circuits.studies.floors import floor_of, random_floor

HERE = Provenance("tiny", "ab" * 32, method="acdc", settings={"tau": 0.1}, seed=3, facts=("The sky => blue",))
SKY = Fact("The sky is", "sky", "blue")
SMALL = Graph(Shape(2, 1))
EDITED = Graph(Shape(2, 1, bypasses=(1,)))


def circuit(names: str, graph: Graph = SMALL, first_score: float = 1.0) -> Circuit:
    kept, scores = np.zeros_like(graph.legal), np.full(graph.legal.shape, np.nan)
    for i, name in enumerate(names.split()):
        kept[graph.edge(name)], scores[graph.edge(name)] = True, first_score + i
    return Circuit(graph, kept, HERE, scores)


def path(*ranks: int) -> Trajectory:
    return Trajectory(tuple(f"s{i}" for i in range(len(ranks))), ranks, tuple(1 / rank for rank in ranks))


def reading(head: str, role: str, promotes: str) -> HeadReading:
    return HeadReading(head=head, role=role, reads="subject", share=0.9, attention=0.7, sink=0.1, promotes=promotes)


def side(
    found: Circuit, label: str = "before", heads: dict[str, tuple[str, str]] | None = None, edited: tuple[str, ...] = ()
) -> Side:
    return Side(
        label=label,
        fact=SKY,
        circuit_json=found.to_json(),
        answers=("blue", "green"),
        paths=(path(9, 2, 1), path(1, 1, 7)),
        writes=tuple(Write(node, (float(i), -1.0)) for i, node in enumerate(found.graph.writers)),
        heads=tuple(reading(head, *values) for head, values in (heads or {}).items()),
        edited=edited,
    )


def diff(before: str, after: str, **choices) -> CircuitDiff:
    return CircuitDiff(differs="edit", before=side(circuit(before)), after=side(circuit(after), "after"), **choices)


masks = st.integers(0, 2**SMALL.n_edges - 1)


def from_bits(bits: int) -> Circuit:
    kept = np.zeros_like(SMALL.legal)
    for i, (writer, reader) in enumerate(np.argwhere(SMALL.legal)):
        kept[writer, reader] = bits >> i & 1
    return Circuit(SMALL, kept, HERE)


@settings(max_examples=30, deadline=None)
@given(masks, masks)
def test_kept_and_lost_make_the_first_circuit_kept_and_gained_the_second(left, right):
    before, after = from_bits(left), from_bits(right)
    found = CircuitDiff(differs="tau", before=side(before), after=side(after, "after"))
    assert {*found.kept, *found.lost} == {edge.name for edge in before.edges}
    assert {*found.kept, *found.gained} == {edge.name for edge in after.edges}
    assert not set(found.kept) & set(found.lost)
    assert found.edge_jaccard == pytest.approx(((before & after).n_edges or 0) / max(1, (before | after).n_edges)) or (
        not before.n_edges and not after.n_edges
    )


@settings(max_examples=20, deadline=None)
@given(masks, masks)
def test_seen_from_the_other_side_what_was_lost_is_gained(left, right):
    before, after = side(from_bits(left)), side(from_bits(right), "after")
    there, back = (CircuitDiff(differs="tau", before=a, after=b) for a, b in ((before, after), (after, before)))
    assert (back.gained, back.lost) == (there.lost, there.gained)
    assert (back.nodes_gained, back.nodes_lost) == (there.nodes_lost, there.nodes_gained)


def test_a_hand_worked_diff():
    found = diff("input->m0 m0->logits", "input->m1 m0->logits")
    assert found.kept == ("m0->logits",)
    assert found.lost == ("input->m0",)
    assert found.gained == ("input->m1",)
    assert (found.nodes_lost, found.nodes_gained) == ((), ("m1",))
    assert found.edge_jaccard == pytest.approx(1 / 3)
    # input, m0, logits against input, m1, m0, logits.
    assert found.node_jaccard == pytest.approx(3 / 4)


def test_a_node_that_only_the_edited_model_has_is_gained():
    before, after = circuit("input->m1 m1->logits"), circuit("input->x1 x1->logits", EDITED)
    found = CircuitDiff(differs="edit", before=side(before), after=side(after, "after", edited=("x1",)))
    assert found.nodes_gained == ("x1",)
    assert found.gained == ("input->x1", "x1->logits")


def test_a_diff_survives_its_json():
    found = diff(
        "input->m0 m0->logits",
        "input->m1 m1->logits",
        floors=(random_floor(circuit("input->m0"), circuit("input->m1")),),
    )
    assert CircuitDiff.model_validate_json(found.model_dump_json()) == found


def test_heads_of_either_circuit_that_write_an_answer_otherwise_are_listed():
    found = circuit("a1.h0->logits a0.h0->m0")
    before = side(found, heads={"a0.h0": ("mover", " Rome"), "a1.h0": ("relation", " Rome")})
    after = side(found, "after", heads={"a0.h0": ("mover", " Rome"), "a1.h0": ("relation", " Paris")})
    # Writers in order: input, a0.h0, m0, a1.h0, m1 write 0, 1, 2, 3, 4 logits of blue; a1.h0 now writes 5.
    writes = tuple(each if each.node.name != "a1.h0" else Write(each.node, (5.0, -1.0)) for each in after.writes)
    after = after.model_copy(update={"writes": writes})
    (change,) = CircuitDiff(differs="edit", before=before, after=after).head_changes
    assert change.size == 2
    assert str(change) == (
        "L1H0 (relation): gave no object (subject, 90% of its write, 70% of its attention), now gives "
        "no object (subject, 90% of its write, 70% of its attention); "
        "it writes 'blue' +3.0 to +5.0, 'green' -1.0 to -1.0 logits"
    )
    without = circuit("a0.h0->m0").to_json()
    elsewhere = [Side.model_validate({**each.model_dump(), "circuit_json": without}) for each in (before, after)]
    assert CircuitDiff(differs="edit", before=elsewhere[0], after=elsewhere[1]).head_changes == ()


def test_a_head_that_gives_another_object_is_listed_with_what_it_did_and_does_now():
    """Paper 2, section 5: the head that copied "Controller" extracts "Intel" from the subject after the edit."""
    found = circuit("a1.h0->logits a0.h0->m0")
    copied = reading("a1.h0", "mover", " Controller").model_copy(update={"copies": True, "object": "AMD", "lead": 0.1})
    extracts = reading("a1.h0", "mover", " chip").model_copy(update={"object": "Intel", "lead": 2.0})
    before = side(found).model_copy(update={"heads": (copied,)})
    after = side(found, "after").model_copy(update={"heads": (extracts,)})
    (change,) = CircuitDiff(differs="edit", before=before, after=after).head_changes
    assert str(change).startswith(
        "L1H0 (mover): copied 'Controller' from the subject (90% of its write, 70% of its attention), "
        "now extracts 'Intel' from the subject (90% of its write, 70% of its attention, +2.0 logits); it writes 'blue' +3.0 to +3.0"
    )
    assert CircuitDiff(differs="edit", before=before, after=before).head_changes == ()
    elsewhere = extracts.model_copy(update={"reads": "last"})
    assert (
        elsewhere.words() == "draws 'Intel' from the last token (90% of its write, 70% of its attention, +2.0 logits)"
    )


def test_where_an_answer_first_appears_is_read_from_its_path():
    found = side(circuit("input->m0"))
    assert [found.path(answer).decided for answer in ("blue", "green")] == ["s2", None]
    with pytest.raises(DiffError, match="expected one of the answers blue, green, got 'red'"):
        found.path("red")


def test_every_node_is_counted_once_in_the_shares_of_an_answer():
    found = side(circuit("input->m0"), heads={"a1.h0": ("mover", " Rome")}, edited=("m1",)).shares("blue")
    # Writers in order: input, a0.h0, m0, a1.h0, m1 write 0, 1, 2, 3, 4.
    assert (found.input, found.heads, found.mlps, found.movers, found.edited) == (0, 1, 2, 3, 4)
    assert found.share("edited") == pytest.approx(4 / 10)
    assert np.isnan(side(circuit("input->m0")).shares("green").share("mlps"))


def test_sides_that_cannot_be_compared_are_refused():
    big = Graph(Shape(3, 1))
    with pytest.raises(ValidationError, match="models of one shape"):
        CircuitDiff(differs="edit", before=side(circuit("input->m0")), after=side(circuit("input->m0", big), "after"))
    with pytest.raises(ValidationError, match="one granularity"):
        CircuitDiff(
            differs="edit",
            before=side(circuit("input->m0")),
            after=side(circuit("input->m0", Graph(Shape(2, 1), "node")), "after"),
        )
    other = side(circuit("input->m0"), "after").model_copy(update={"answers": ("blue", "red")})
    with pytest.raises(ValidationError, match="same answers"):
        CircuitDiff(differs="edit", before=side(circuit("input->m0")), after=other)


def test_floors_of_a_circuit_with_itself_is_one_and_of_random_ones_is_near_the_share_of_edges():
    whole = Circuit.full(SMALL, HERE)
    assert floor_of("itself", whole, whole).edge_jaccard == 1
    assert random_floor(whole, whole).edge_jaccard == 1
    graph = Graph(Shape(4, 4))
    kept = graph.legal & (np.random.default_rng(0).random(graph.legal.shape) < 0.1)
    sparse = Circuit(graph, kept, HERE)
    # Two independent tenths share about 0.1 * 0.1 of all edges, and together hold about 0.19.
    assert random_floor(sparse, sparse).edge_jaccard == pytest.approx(0.01 / 0.19, abs=0.02)
    assert random_floor(sparse, sparse) == random_floor(sparse, sparse)
    assert jaccard(set(), set()) == 1


def test_direct_writes_and_biases_add_up_to_the_answers_logit():
    model = Model.default()
    fact = Fact("The capital city of Italy is", "Italy", "Rome")
    import torch

    from circuits.analysis.tracing import open_parts

    parts = open_parts(model, (fact,))
    written = sum(write.logits[0] for write in direct_writes(model, fact, ("Rome",)))
    ids = model.tokens(fact)
    logits = model.logits(Batch.of_prompts(torch.tensor([ids.prompt])))[0, -1]
    token = ids.answer[0]
    direction = parts.W_U[:, token] - parts.W_U.mean(1)
    final = model.node_outputs(Batch.of_prompts(torch.tensor([ids.prompt])))[:, 0, -1].sum(0) + model.biases.sum(0)
    biases = float(parts.final.share(model.biases.sum(0), final) @ direction + parts.b_U[token] - parts.b_U.mean())
    if parts.final.bias is not None:
        biases += float(parts.final.bias @ direction)
    assert written + biases == pytest.approx(float(logits[token] - logits.mean()), abs=1e-3)


def test_the_printed_form_names_what_came_and_went():
    text = str(diff("input->m0 m0->logits", "input->m1 m1->logits"))
    assert "0 kept, 2 lost, 2 gained" in text
    assert "lost MLP0; gained MLP1" in text
    assert "blue: before: first from s2" in text
    assert "Input→MLP1" in diff("input->m0", "input->m1")._repr_html_()
    assert Node(1, "mlp").name == "m1"
