"""Laws of explanations: what they refuse, what an edit that does nothing changes, and verdicts that follow from their evidence."""

from dataclasses import replace

import pytest
import torch

from circuits.analysis.attribution import apart_from_sink
from circuits.analysis.tracing import open_parts, replay_by_running, traces
from circuits.datasets import load_relations
from circuits.datasets.manifest import Manifest
from circuits.editing import EditProvenance, LowRank, Resources, WeightEdit
from circuits.evaluation import AlikeAnswers, whole_model
from circuits.evaluation.roles import known_facts, relation_roles
from circuits.facts import EditRequest, Fact, Relation
from circuits.graph import Node
from circuits.model import Batch, ContextError, Model
from circuits.model.network import value_matrix
from circuits.model.spans import Spans
from circuits.studies.diff import EditDidNotTake, Prompts, choose_prompts, diff_edit, edited_nodes, make_edit
from circuits.studies.diff_table import (
    DIFF_TABLE,
    NEIGHBOURS,
    EditNumbers,
    FactsToEdit,
    claims,
    method_row,
    method_rows,
)
from circuits.studies.edit_specs import DiffSpec
from circuits.studies.explain.cases import AT_MOST, Ground
from circuits.studies.explain.compare import diff_runs, differing_field
from circuits.studies.explain.demonstrations import (
    DRAWS,
    ReadingCuts,
    WithoutWrites,
    demonstrated,
    demonstration_positions,
)
from circuits.studies.explain.hallucination import MoverPull, _verdict, explain_hallucination, wrong_object
from circuits.studies.explain.icl import _circuit_heads, explain_icl
from circuits.studies.explain.multihop import find_case, multi_hop
from circuits.studies.explain.reverse import explain_reverse, reverse_facts, reversed_fact
from circuits.studies.explain.sides import Bench, Benches, make_bench, relation_of
from circuits.studies.explain.survey import survey_reverses
from circuits.studies.explain.verdict import BehaviourError
from circuits.studies.runs import run
from circuits.studies.specs import RunSpec
from circuits.studies.sweep import sweep
from tests.models import plain_model, zero_weights
from tests.planted_heads import FACTS as PLANTED
from tests.planted_heads import ROLES as PLANTED_ROLES
from tests.planted_heads import planted

FRANCE = Fact("The official language of France is", "France", "French", "country_language")
SPEC = RunSpec(facts=(FRANCE,), tau=0.1)


@pytest.fixture(scope="module")
def model():
    return Model.default()


@pytest.fixture(scope="module")
def relations():
    return load_relations()


@pytest.fixture(scope="module", autouse=True)
def roles_told_once():
    """The roles of a relation's heads are the same whenever they are told, and take most of a test's time."""
    told = {}

    def remembered(model, relation, relations, **options):
        asked = (model.weights, relation.name, *sorted(options.items()))
        if asked not in told:
            told[asked] = relation_roles(model, relation, relations, **options)
        return told[asked]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("circuits.evaluation.roles.relation_roles", remembered)
        yield


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
        diff_edit(model, nothing(model), "Spanish", prompts, bench)
    found = (
        diff_edit(model, nothing(model), "Spanish", prompts, bench, kinds=("neighbour",), force=True)
        if (prompts.neighbour)
        else None
    )
    assert found is not None
    neighbour = found.diffs["neighbour"]
    assert (neighbour.lost, neighbour.gained) == ((), ())
    assert neighbour.edges_before == neighbour.edges_after
    assert neighbour.edge_jaccard == 1
    assert neighbour.before.paths == neighbour.after.paths
    assert found.leaked is False


def test_an_edit_to_an_object_that_begins_as_the_old_one_does_is_refused_not_taken_for_done(model, relations, bench):
    """After " United" either is first, whatever an edit did; the control is an object that begins otherwise."""
    city = Fact("The country in which the city of New York lies is", "New York", "United States", "city_country")
    assert whole_model(model, (replace(city, object="United Kingdom"),)).rank.value == 1
    for target, error, words in (
        ("United Kingdom", AlikeAnswers, "'United States' and 'United Kingdom' begin with the same token"),
        ("France", EditDidNotTake, "'France' ranks"),
    ):
        prompts = Prompts(edited=city, paraphrase=None, neighbour=None, unrelated=None)
        with pytest.raises(error, match=words):
            diff_edit(model, nothing(model), target, prompts, bench)
    neighbour = choose_prompts(model, city, "United Kingdom", relations).neighbour
    assert neighbour is not None
    assert not neighbour.object.startswith("United")


def test_a_wrong_answer_that_begins_as_the_right_one_does_is_no_right_one(model, relations):
    said_to_be_british = Fact(
        "The country in which the city of New York lies is", "New York", "United Kingdom", "city_country"
    )
    with pytest.raises(AlikeAnswers, match="'United Kingdom' and 'United States' begin with the same token"):
        wrong_object(model, said_to_be_british, relations["city_country"])
    with pytest.raises(BehaviourError, match="rightly with 'United States'"):
        wrong_object(model, replace(said_to_be_british, object="United States"), relations["city_country"])


def test_an_edit_that_takes_puts_the_new_object_first_and_names_the_node_it_changed(model, relations, bench):
    edit = make_edit(model, FRANCE, "Spanish", "ft-m")
    prompts = choose_prompts(model, FRANCE, "Spanish", relations)
    found = diff_edit(model, edit, "Spanish", prompts, bench, kinds=("edited",))
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
        f
        for f in known_facts(model, relations["country_language"], rank=1)
        if f.object == "French" and f.subject != "France"
    ]
    assert prompts.neighbour.object == "French" if same else True
    assert prompts.paraphrase.prompt != FRANCE.prompt
    assert prompts.unrelated.relation != FRANCE.relation
    asked = [fact for _, fact in prompts.items()]
    assert whole_model(model, asked).rank.per_example == (1,) * len(asked)


def edit_of(method: str, i: int, **values) -> EditNumbers:
    fixed = {
        "layers": (1,),
        "took": True,
        "share_edited": 0.2,
        "movers_before": -1.0,
        "movers_after": -1.0,
        "delay": 2,
        "leaked": 0,
    }
    rest = dict.fromkeys(("edge_jaccard", "paraphrase_jaccard", "random_jaccard", "share_movers", "share_others"), 0.2)
    return EditNumbers(method=method, statement=f"fact {i}", **{**rest, **fixed, "neighbours": 3, **values})


def test_a_claim_about_methods_is_decided_on_the_same_facts_and_layers_alone():
    direct = {"share_edited": 0.8, "delay": 0, "leaked": 3}
    rome = [edit_of("rome", i, movers_after=1.0) for i in range(12)]
    ft_m = [edit_of("ft-m", i, **direct) for i in range(12)]
    assert [claim.verdict for claim in claims((*rome, *ft_m))] == ["holds"] * 4
    turned = [replace(each, method="ft-m" if each.method == "rome" else "rome") for each in (*rome, *ft_m)]
    assert [claim.verdict for claim in claims(turned)] == ["does not"] * 4
    # Few facts, or the methods' own layers, which differ, decide nothing.
    assert {claim.verdict for claim in claims((*rome[:8], *ft_m[:8]))} == {"undecided"}
    elsewhere = [replace(each, layers=(5,)) for each in ft_m]
    assert {claim.verdict for claim in claims((*rome, *elsewhere))} == {"undecided"}
    assert "no control" in str(claims((*rome, *elsewhere))[0])
    assert claims(()) == claims([replace(each, took=False) for each in (*rome, *ft_m)]) == ()


def test_a_survey_without_a_control_decides_nothing():
    curse = survey_reverses((), 5, 96).claims[0]
    assert curse.verdict == "undecided"
    assert str(curse).startswith("Undecided: a fact that is known in one direction")
    assert "5 of 96" in curse.numbers


def edited(**values) -> EditNumbers:
    numbers = {
        "edge_jaccard": 0.5,
        "paraphrase_jaccard": None,
        "random_jaccard": 0.1,
        "share_edited": 0.2,
        "share_movers": 0.3,
    }
    others = {"share_others": 0.5, "movers_before": -1.0, "movers_after": 1.0, "delay": 0, "leaked": 1, "neighbours": 4}
    fixed = {"method": "rome", "statement": "a is b", "layers": (1,), "took": True}
    return EditNumbers(**{**fixed, **numbers, **others, **values})


def test_a_methods_row_is_the_mean_over_the_edits_that_took():
    found = (
        edited(),
        edited(movers_after=-0.5, delay=3, leaked=0, paraphrase_jaccard=0.4),
        edited(movers_before=2.0, share_edited=float("nan"), delay=-1),
        edited(took=False, edge_jaccard=1.0, leaked=4, delay=None),
    )
    made = method_row("rome", found)
    assert (made.n, made.took, made.edge_jaccard, made.paraphrase_jaccard, made.share_edited) == (4, 3, 0.5, 0.4, 0.2)
    # Movers that favoured the new object already cannot turn to it: one of two turns.
    assert made.movers_turned == 0.5
    assert made.first_at_edited_layer == pytest.approx(2 / 3)
    assert made.leaked == pytest.approx(2 / 12)
    nothing = method_row("rome", (edited(took=False),))
    assert nothing.took == 0
    assert nothing.edge_jaccard != nothing.edge_jaccard


def test_the_table_edits_each_fact_with_each_method(model, relations):
    spec = DiffSpec(edit="ft-m", tau=SPEC.tau)
    facts = FactsToEdit(Benches(model, relations, spec.run_spec()), ((FRANCE, "Spanish"),), Resources())
    (outcome,) = sweep(DIFF_TABLE, spec, context=facts)
    assert outcome.row is not None
    (row,), (each,) = method_rows(spec, [outcome.row]), outcome.row.edits
    assert (each.method, each.statement) == ("ft-m", "The official language of France is Spanish")
    assert (row.method, row.n, row.took) == ("ft-m", 1, 1)
    assert each.share_edited + each.share_movers + each.share_others == pytest.approx(1)
    assert 0 <= each.leaked <= each.neighbours == NEIGHBOURS


# ---- roles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [0, 1])
def test_a_run_and_a_diff_of_the_same_fact_name_every_head_alike(model, relations, template):
    fact = relations["country_language"].fact("France", template)
    reading = run(RunSpec(facts=(fact,), method="ifr", edges="40", seed=3), relations, model=model, read=True).reading
    assert reading is not None
    assert reading.roles is not None
    heads = [node for node in model.graph().nodes if node.kind == "head"]
    spec = SPEC.model_copy(update={"seed": 3})
    in_diff = make_bench(model, fact, relations, spec).readings(model, fact, heads)
    in_run = {verdict.head.name: verdict.role for verdict in reading.roles.heads}
    assert {each.head: each.role for each in in_diff} == in_run
    assert set(in_run.values()) > {"other"}


# ---- two runs --------------------------------------------------------------------------------------------------------


def test_two_runs_that_differ_in_one_field_are_compared_without_a_search_of_their_circuits(model, relations):
    before, after = (
        run(RunSpec(facts=(FRANCE,), method="ifr", edges=edges), relations, model=model) for edges in ("40", "80")
    )
    found = diff_runs(before, after, relations, load=lambda _: model)
    assert found.differs == "edges"
    assert (found.before.circuit, found.after.circuit) == (before.circuit, after.circuit)
    assert (found.before.label, found.after.label) == ("edges 40", "edges 80")
    assert found.before.paths == found.after.paths
    assert [floor.name for floor in found.floors] == [
        "the first run's circuit of a paraphrase",
        "random circuits of these sizes",
    ]
    with pytest.raises(BehaviourError, match="differ in nothing"):
        diff_runs(before, before, relations)
    other = after.model_copy(update={"spec": after.spec.model_copy(update={"seed": 7})})
    with pytest.raises(BehaviourError, match="these differ in edges, seed"):
        diff_runs(before, other, relations)
    elsewhere = after.model_copy(update={"spec": before.spec.model_copy(update={"model": "gpt2"})})
    with pytest.raises(BehaviourError, match="runs on one model, got factlm and gpt2"):
        diff_runs(before, elsewhere, relations)
    with nothing(model).on(model) as edited, pytest.raises(BehaviourError, match="do the run again"):
        diff_runs(before, after, relations, load=lambda _: edited)


def test_an_edit_and_its_new_object_are_one_difference():
    edited = SPEC.model_copy(
        update={"with_edit": "an-edit", "facts": (Fact(FRANCE.prompt, "France", "Spanish", FRANCE.relation),)}
    )
    assert differing_field(SPEC, edited) == "with_edit"
    elsewhere = edited.model_copy(update={"facts": (Fact("The language of France is", "France", "Spanish"),)})
    with pytest.raises(BehaviourError, match="differ in facts, with_edit"):
        differing_field(SPEC, elsewhere)
    assert differing_field(SPEC, SPEC.model_copy(update={"tau": 0.5, "force": True, "engine": "hook"})) == "tau"


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
    bare, full = demonstrated(relations["country_capital_city"], "Italy", ("France", "Japan"), "bare")
    assert bare.prompt == "Italy:"
    assert full.prompt == "France: Paris; Japan: Tokyo; Italy:"
    assert bare.object == full.object == "Rome"


def test_a_stated_demonstration_names_the_relation_as_the_papers_does(relations):
    asked, full = demonstrated(relations["adj_comparative"], "big", ("small", "tall"))
    template = relations["adj_comparative"].templates[0]
    assert asked.prompt == template.format("big")
    assert (
        full.prompt == f"{template.format('small')} smaller. {template.format('tall')} taller. {template.format('big')}"
    )
    assert full.object == "bigger"


@pytest.mark.parametrize("bos", [0, None])
def test_demonstrations_are_what_stands_before_the_question_and_the_first_position_is_apart(bos):
    model = plain_model(
        {**zero_weights(n_layers=1, n_heads=1, d_model=2, d_head=1, d_mlp=1, d_vocab=9, n_ctx=12)},
        "<s> a b c d e f g .",
        bos=bos,
    )
    question, full = Fact("a b d", "d", "e"), Fact("a b c e . a b d", "d", "e")
    there = demonstration_positions(model, question, full)
    # With a BOS token the demonstration's five words are at 1 to 5; without one the first of them is where attention rests.
    assert list(there) == [1, 2, 3, 4, 5] if bos is not None else [1, 2, 3, 4]


def test_a_sink_is_no_demonstration_whether_it_is_one_or_not():
    """Heads that rest on the first position and draw nothing from it read no demonstrations; one that draws from them does."""
    model = planted(sink=True)
    question = PLANTED[2]
    full = Fact(
        f"{PLANTED[3].prompt} {PLANTED[3].object} {question.prompt}", question.subject, question.object, "language"
    )
    found = {each.head: each for each in _circuit_heads(model, question, full, list(PLANTED_ROLES.values()), set())}
    carrier, idle = found[PLANTED_ROLES["carrier"].name], found[PLANTED_ROLES["idle"].name]
    # Two subjects stand in the prompt and the carrier looks at both alike.
    assert carrier.demonstrations == pytest.approx(0.5)
    assert carrier.attention < 0.05
    assert {token.strip() for token, share in carrier.reads if share > 0.4} == {PLANTED[3].subject, question.subject}
    assert idle.demonstrations == 0


def test_without_a_manifest_cases_are_drawn_from_the_dataset_and_found_by_asking(model, relations):
    some = {name: relations[name] for name in ("country_capital_city", "landmark_country", "country_language")}
    ground, again = Ground(some, None, 3), Ground(some, None, 3)
    assert ground.names() == tuple(some)
    assert ground.names("landmark_country") == ("landmark_country",)
    for name, relation in some.items():
        facts = ground.shown_rarely(name)
        assert facts == again.shown_rarely(name)
        assert len(facts) == min(AT_MOST, len(relation.pairs))
        assert set(facts) <= set(relation.facts())
    assert ground.shown_rarely("landmark_country") != Ground(some, None, 4).shown_rarely("landmark_country")
    hops = list(ground.two_hops())
    assert ("landmark_country", "country_language") in [(hop.first, hop.second) for hop in hops]
    assert all(
        some[hop.first].object_of(subject) in some[hop.second].subjects for hop in hops for subject in hop.rendered
    )
    first, second, subject, target = find_case(model, some, None)
    assert {first, second} <= set(some)
    assert whole_model(model, (some[first].fact(subject),)).rank.value == 1
    assert target != some[first].object_of(subject)
    both, forward_only = reverse_facts(model, relations, None, relation="country_capital_city")
    assert whole_model(model, (*both, *forward_only)).rank.value == 1


def test_a_manifest_says_where_cases_are_looked_for(relations):
    manifest = Manifest.load()
    ground = Ground(relations, manifest)
    plan = manifest.relations["country_language"]
    assert [fact.subject for fact in ground.shown_rarely("country_language")] == list(plan.tail)
    assert [fact.subject for fact in ground.shown_often("country_language")] == list(plan.head)
    assert list(ground.two_hops()) == list(manifest.two_hop)
    for _, asked, shown in ground.undemonstrated():
        assert not set(asked) & set(shown)


def test_demonstrations_longer_than_the_context_are_refused(model, relations):
    with pytest.raises(ContextError):
        explain_icl(model, relations["country_capital_city"], "France", relations, SPEC, shots=60)


def test_what_is_answered_without_demonstrations_gains_nothing_from_them(model, relations):
    relation = relations["country_continent"]
    bare = [demonstrated(relation, subject, (), "bare")[0] for subject in relation.subjects]
    ranks = whole_model(model, bare).rank.per_example
    answered = next(fact.subject for fact, rank in zip(bare, ranks, strict=True) if rank == 1)
    with pytest.raises(BehaviourError, match="without demonstrations"):
        explain_icl(model, relation, answered, relations, SPEC, wording="bare")


def test_a_cut_of_what_heads_carry_is_followed_as_the_reference_follows_it(model):
    parts = open_parts(model, (FRANCE,))
    (trace,) = traces(model, (FRANCE,), parts)
    write = trace.writes[model.graph().writer_index(Node(2, "head", 3))]
    cuts = [write[None] if layer == 2 else write[None][:0] for layer in range(model.shape.n_layers)]
    expected = model.readout(replay_by_running(model, trace, cuts)[0])
    lacking = torch.zeros(2, model.shape.n_layers, write.shape[-1])
    lacking[0, 2] = write[0]
    without = WithoutWrites(lacking, trace.n_pos - 1, parallel=False)
    found = model.run(Batch.of_prompts(trace.ids.expand(2, -1)), without)[:, -1]
    torch.testing.assert_close(found[:1], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[1:], model.logits(Batch.of_prompts(trace.ids))[:, -1], atol=1e-4, rtol=1e-4)


def test_what_heads_carry_from_the_demonstrations_and_from_elsewhere_is_all_that_they_carry(model, relations):
    bare, full = demonstrated(relations["country_capital_city"], "Italy", ("France", "Japan"), "bare")
    cuts = ReadingCuts(model, full, demonstration_positions(model, bare, full), model.graph())
    parts = open_parts(model, (full,))
    (trace,) = traces(model, (full,), parts)
    first = model.graph().writer_index(Node(3, "head", 0))
    whole = trace.writes[first : first + model.shape.n_heads, 0]
    torch.testing.assert_close((cuts._there + cuts._elsewhere)[3], whole, atol=1e-4, rtol=1e-4)
    layer = [f"a3.h{head}" for head in range(8)]
    few, whole_layer = cuts.losses(["a3.h0"], seed=0), cuts.losses(layer, seed=0)
    assert len(few) == len(whole_layer) == 2 + DRAWS, "as many other heads are drawn from any layers"
    assert few == cuts.losses(["a3.h0"], seed=0)
    heads = [node.name for node in model.graph().nodes if node.kind == "head"]
    most = cuts.losses(heads[: len(heads) // 2 + 1], seed=0)
    assert len(most) == 2, "there are not as many other heads to draw"


# ---- the reverse, and two hops ---------------------------------------------------------------------------------------


def test_a_fact_reversed_asks_for_the_subject_from_the_object(relations):
    relation = next(relation for relation in relations.values() if relation.reverse_templates)
    subject = relation.subjects[0]
    fact = reversed_fact(relation, subject)
    assert fact.object == subject
    assert relation.object_of(subject) in fact.prompt


def test_a_fact_not_known_forward_has_no_reverse_to_explain(model, relations):
    relation = next(relation for relation in relations.values() if relation.reverse_templates)
    right = known_facts(model, relation, rank=1)[0]
    wrong = next(object_ for object_ in relation.objects if object_ != right.object)
    with pytest.raises(BehaviourError):
        explain_reverse(model, Fact(right.prompt, right.subject, wrong, relation.name), relations, SPEC)


def test_the_verdict_on_two_hops_names_the_answer_that_wins(model, relations):
    hop = find_case(model, relations, Manifest.load())
    first, second, subject, target = hop
    edit = make_edit(model, relations[first].fact(subject), target, "ft-m")
    found = multi_hop(model, edit, hop, relations, SPEC)
    two = found.asked["two hops"]
    assert found.asked["one hop"].winner == "edited object"
    assert two.winner_before == "old answer"
    assert found.saturated == (found.verdict.conclusion == "edited object")
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
        multi_hop(model, edit, hop._replace(target=same), relations, SPEC)


def test_a_head_is_said_to_read_what_it_writes_of_and_not_where_its_attention_rests():
    model, fact = planted(sink=True), PLANTED[2]
    pairs = tuple((each.subject, each.object) for each in PLANTED)
    relation = Relation("language", "language", "factual", "subject", "object", ("the language of {} is",), pairs)
    readings = Bench({"language": relation}, SPEC).readings(model, fact, list(PLANTED_ROLES.values()))
    read = dict(zip(PLANTED_ROLES, readings, strict=True))
    assert {name: read[name].reads for name in ("mover", "carrier", "suppressor", "relation")} == {
        "mover": "subject",
        "carrier": "subject",
        "suppressor": "subject",
        "relation": "relation",
    }
    for name in ("mover", "carrier", "suppressor", "relation"):
        assert read[name].share == pytest.approx(1)
        assert read[name].sink > 0.9
        assert read[name].attention < 0.05
    assert read["carrier"].copies
    assert read["carrier"].promotes.strip() == fact.subject
    assert not read["mover"].copies
    assert read["idle"].reads == "first"
    assert read["idle"].share == 0
    assert not read["idle"].copies
    assert "% resting on the first token" in read["mover"].words()


def test_the_first_position_is_apart_unless_it_is_all_there_is_of_the_subject():
    assert apart_from_sink(Spans((1,), (2, 3), 4)) == ("first", "subject", "relation", "relation", "last")
    assert apart_from_sink(Spans((0, 1), (2,), 3)) == ("first", "subject", "relation", "last")
    assert apart_from_sink(Spans((2,), (0, 1), 3)) == ("first", "relation", "subject", "last")
    assert apart_from_sink(Spans((0,), (1, 2), 3)) == ("subject", "relation", "relation", "last")


def test_roles_are_told_once_a_bench_and_movers_are_named_in_its_readings(model, relations):
    bench = make_bench(model, FRANCE, relations, SPEC)
    assert bench.roles is not None
    heads = [node for node in model.graph().nodes if node.kind == "head"]
    readings = bench.readings(model, FRANCE, heads)
    assert [each.head for each in readings] == [head.name for head in heads]
    movers = {verdict.head.name for verdict in bench.roles.with_role("mover", "mixture")}
    assert {each.head for each in readings if each.role in ("mover", "mixture")} == movers
