"""Laws of explanations: what they refuse, what an edit that does nothing changes, and verdicts that follow from their evidence."""

import pytest
import torch

from circuits.analysis.trace import open_parts, replay_by_running, traces
from circuits.behaviours.edits import (
    EditDidNotTake,
    MethodRow,
    choose_prompts,
    claims,
    diff_edit,
    edited_nodes,
    make_edit,
)
from circuits.behaviours.hallucination import MoverPull, _verdict, explain_hallucination, wrong_object
from circuits.behaviours.icl import _Silence, demonstrated, explain_icl
from circuits.behaviours.multihop import find_case, multi_hop
from circuits.behaviours.reverse import explain_reverse, reversed_fact
from circuits.behaviours.sides import BehaviourError, Bench, known, make_bench, relation_of
from circuits.datasets import load_relations
from circuits.datasets.manifest import Manifest
from circuits.editing import EditProvenance, LowRank, WeightEdit
from circuits.evaluation import whole_model
from circuits.facts import EditRequest, Fact
from circuits.graph import Node
from circuits.model import ContextError, Model
from circuits.network import value_matrix
from circuits.runs import RunSpec

FRANCE = Fact("The official language of France is", "France", "French", "country_language")
SPEC = RunSpec(facts=(FRANCE,), tau=0.1)


@pytest.fixture(scope="module")
def model():
    return Model.default()


@pytest.fixture(scope="module")
def relations():
    return load_relations()


@pytest.fixture(scope="module")
def bench(relations):
    return Bench(relations, SPEC)


def nothing(model: Model) -> WeightEdit:
    """An edit whose delta is zero."""
    matrix = model.weight(value_matrix(1))
    delta = LowRank(torch.zeros(matrix.shape[0], 1), torch.zeros(1, matrix.shape[1]))
    provenance = EditProvenance("rome", model.name, model.weights, requests=(EditRequest.of(FRANCE, "Spanish"),))
    return WeightEdit({value_matrix(1): delta}, provenance)


# ---- edits -----------------------------------------------------------------------------------------------------------


def test_an_edit_that_does_nothing_changes_no_circuit_and_did_not_take(model, relations, bench):
    prompts = choose_prompts(model, FRANCE, "Spanish", relations)
    with pytest.raises(EditDidNotTake, match="'Spanish' ranks"):
        diff_edit(model, nothing(model), FRANCE, "Spanish", prompts, bench)
    found = (
        diff_edit(model, nothing(model), FRANCE, "Spanish", prompts, bench, kinds=("neighbour",), force=True)
        if (prompts.neighbour)
        else None
    )
    assert found is not None
    neighbour = found.diffs["neighbour"]
    assert (neighbour.lost, neighbour.gained, neighbour.changed) == ((), (), ())
    assert neighbour.edge_jaccard == 1
    assert neighbour.before.paths == neighbour.after.paths
    assert found.leaked is False


def test_an_edit_that_takes_puts_the_new_object_first_and_names_the_node_it_changed(model, relations, bench):
    edit = make_edit(model, FRANCE, "Spanish", "ft-m")
    prompts = choose_prompts(model, FRANCE, "Spanish", relations)
    found = diff_edit(model, edit, FRANCE, "Spanish", prompts, bench, kinds=("edited",))
    assert found.took
    assert found.edited.after.path("Spanish").ranks[-1] == 1
    assert found.edited.before.path("French").ranks[-1] == 1
    assert found.edited.after.edited == edited_nodes(edit, model)
    assert all(Node(layer, "mlp").name in found.edited.after.edited for layer in found.layers)
    shares = found.edited.after.shares("Spanish")
    assert shares.total == pytest.approx(sum(found.edited.after.written("Spanish").values()))
    assert "probability" in found.story()[0]


def test_the_prompts_of_an_edit_are_known_and_the_neighbour_has_the_same_object_where_one_does(model, relations):
    prompts = choose_prompts(model, FRANCE, "Spanish", relations)
    assert prompts.neighbour is not None
    assert prompts.paraphrase is not None
    assert prompts.unrelated is not None
    assert prompts.neighbour.subject != "France"
    same = [
        f for f in known(model, relations["country_language"], rank=1) if f.object == "French" and f.subject != "France"
    ]
    assert prompts.neighbour.object == "French" if same else True
    assert prompts.paraphrase.prompt != FRANCE.prompt
    assert prompts.unrelated.relation != FRANCE.relation
    asked = [fact for _, fact in prompts.items()]
    assert whole_model(model, asked).rank.per_example == (1,) * len(asked)


def row(method: str, **values) -> MethodRow:
    numbers = dict.fromkeys(
        ("edge_jaccard", "paraphrase_jaccard", "random_jaccard", "share_edited", "share_movers", "share_others"), 0.2
    )
    fixed = {"layers": (1,), "n": 3, "took": 3, "first_at_edited_layer": 0.0, "leaked": 0.0, "neighbours": 3}
    return MethodRow(method=method, **{**numbers, **fixed, **values})


def test_a_claim_holds_or_not_as_the_tables_numbers_say():
    said = claims((row("rome", leaked=0.1), row("ft-m", leaked=0.9, share_edited=0.8, first_at_edited_layer=1.0)))
    assert [claim.holds for claim in said] == [True, True, True, True]
    said = claims((row("rome", leaked=0.9, share_edited=0.7), row("ft-m")))
    assert [claim.holds for claim in said] == [False, False, False, False]
    assert claims(()) == ()


# ---- hallucination ---------------------------------------------------------------------------------------------------


def test_a_fact_that_the_model_answers_rightly_is_no_hallucination(model, relations):
    with pytest.raises(BehaviourError, match="rightly with 'French'"):
        explain_hallucination(model, FRANCE, relations, SPEC)


def test_a_fact_outside_the_dataset_has_no_neighbours_to_be_compared_with(model, relations):
    stray = Fact("The sky is", "sky", "blue")
    with pytest.raises(BehaviourError, match="of a relation in the dataset"):
        relation_of(stray, relations)


def test_a_wrong_answer_is_explained_by_the_object_that_the_model_gives(model, relations):
    # What is right is turned round: the fact is asked with another object than the model's own.
    false = Fact(FRANCE.prompt, "France", "Spanish", "country_language")
    assert wrong_object(model, false, relations["country_language"]) == "French"
    found = explain_hallucination(model, false, relations, SPEC)
    assert found.wrong == "French"
    assert found.diff.before.path("French").ranks[-1] == 1
    assert found.verdict.conclusion in ("a mover selects wrong information", "no effective mover", "inconclusive")


def pull(right: float, wrong: float, recalled: float = 4.0) -> MoverPull:
    return MoverPull(head="a3.h1", right=right, wrong=wrong, recalled=recalled)


@pytest.mark.parametrize(
    ("pulls", "conclusion"),
    [
        ((pull(0.1, 3.5),), "a mover selects wrong information"),
        ((pull(0.2, 0.1),), "no effective mover"),
        ((pull(3.9, 0.1),), "inconclusive"),
        ((pull(3.0, 3.05),), "inconclusive"),
        ((), "inconclusive"),
    ],
)
def test_the_verdict_on_a_wrong_answer_follows_from_what_the_movers_pull_towards(pulls, conclusion):
    verdict = _verdict(FRANCE, "Spanish", "L3 attn", pulls)
    assert verdict.conclusion == conclusion
    assert verdict.conclusive == (conclusion != "inconclusive")


# ---- in-context learning ---------------------------------------------------------------------------------------------


def test_demonstrations_are_pairs_of_the_relation_before_the_bare_question(relations):
    bare, full = demonstrated(relations["country_capital_city"], "Italy", ("France", "Japan"))
    assert bare.prompt == "Italy:"
    assert full.prompt == "France: Paris; Japan: Tokyo; Italy:"
    assert bare.object == full.object == "Rome"


def test_demonstrations_longer_than_the_context_are_refused(model, relations):
    with pytest.raises(ContextError):
        explain_icl(model, relations["country_capital_city"], "France", relations, SPEC, shots=60)


def test_what_is_answered_without_demonstrations_gains_nothing_from_them(model, relations):
    relation = relations["country_continent"]
    bare = [demonstrated(relation, subject, ())[0] for subject in relation.subjects]
    ranks = whole_model(model, bare).rank.per_example
    answered = next(fact.subject for fact, rank in zip(bare, ranks, strict=True) if rank == 1)
    with pytest.raises(BehaviourError, match="without demonstrations"):
        explain_icl(model, relation, answered, relations, SPEC)


def test_silencing_a_head_at_the_last_position_is_cutting_its_whole_write_there(model):
    parts = open_parts(model, (FRANCE,))
    (trace,) = traces(model, (FRANCE,), parts)
    head = Node(2, "head", 3)
    write = trace.writes[model.graph().writer_index(head)]
    cuts = [write[None] if layer == 2 else write[None][:0] for layer in range(model.shape.n_layers)]
    expected = model.readout(replay_by_running(model, trace, cuts)[0])
    silenced = model.run(trace.ids, _Silence((head,), trace.n_pos - 1, parallel=False), n_prompt=trace.n_pos)
    torch.testing.assert_close(silenced[:, -1], expected, atol=1e-4, rtol=1e-4)
    untouched = model.run(trace.ids, _Silence((), trace.n_pos - 1, parallel=False), n_prompt=trace.n_pos)
    assert not torch.allclose(untouched[:, -1], expected, atol=1e-3)


# ---- the reverse, and two hops ---------------------------------------------------------------------------------------


def test_a_fact_reversed_asks_for_the_subject_from_the_object(relations):
    relation = next(relation for relation in relations.values() if relation.reverse_templates)
    subject = relation.subjects[0]
    fact = reversed_fact(relation, subject)
    assert fact.object == subject
    assert relation.object_of(subject) in fact.prompt


def test_a_fact_not_known_forward_has_no_reverse_to_explain(model, relations):
    relation = next(relation for relation in relations.values() if relation.reverse_templates)
    right = known(model, relation, rank=1)[0]
    wrong = next(object_ for object_ in relation.objects if object_ != right.object)
    with pytest.raises(BehaviourError):
        explain_reverse(model, Fact(right.prompt, right.subject, wrong, relation.name), relations, SPEC)


def test_the_verdict_on_two_hops_names_the_answer_that_wins(model, relations):
    first, second, subject, target = find_case(model, relations, Manifest.load())
    edit = make_edit(model, relations[first].fact(subject), target, "ft-m")
    found = multi_hop(model, edit, first, second, subject, target, relations, SPEC)
    two = found.asked["two hops"]
    assert found.asked["one hop"].winner == "edited object"
    if two.winner != "another token":
        answers = {
            "second-hop answer": found.second_hop_answer,
            "edited object": found.edited_object,
            "old answer": found.old_answer,
        }
        best = max(two.probability_after, key=lambda answer: two.probability_after[answer])
        assert best == answers[two.winner]
        assert found.verdict.conclusion == two.winner
    same = next(
        other
        for other in relations[second].subjects
        if other in relations[first].objects
        and other != relations[first].object_of(subject)
        and relations[second].object_of(other) == found.old_answer
    )
    with pytest.raises(BehaviourError, match="same object"):
        multi_hop(model, edit, first, second, subject, same, relations, SPEC)


def test_roles_are_told_once_a_bench_and_movers_are_named_in_its_readings(model, relations):
    bench = make_bench(model, relations["country_language"], relations, SPEC)
    assert bench.roles is not None
    heads = [node for node in model.graph().nodes if node.kind == "head"]
    readings = bench.readings(model, FRANCE, heads)
    assert [each.head for each in readings] == [head.name for head in heads]
    movers = {verdict.head.name for verdict in bench.roles.with_role("mover", "mixture")}
    assert {each.head for each in readings if each.role in ("mover", "mixture")} == movers
