"""The full certificate: lines graded by stated bars, the tests of a circuit as a hypothesis, and every search that doubts it."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from circuits.circuit import Circuit, Provenance
from circuits.discovery import METHODS
from circuits.discovery.acdc import acdc
from circuits.engines.hook import HookEngine
from circuits.evaluation.hypotheses import equivalence, independence, inflated_worth, sign_test, superfluous
from circuits.evaluation.lines import Line, graded, of_number, of_share, of_values, verdict_of
from circuits.facts import Fact
from circuits.metrics import Share
from circuits.pages.certificate import HEADER, cells, lines_section
from circuits.studies import certify
from circuits.studies.certify import CERTIFICATE, Sample, lines_of
from circuits.studies.certify_specs import CertifySpec
from circuits.studies.checks import Examined, tried_otherwise
from circuits.studies.run import Run
from circuits.studies.search import search
from circuits.studies.specs import RunSpec
from circuits.studies.sweep import Folder, sweep
from tests.commands import succeeds
from tests.test_about_the_fact import RELATIONS
from tests.test_certificate import FACTS, GRAPH, LOOKUP, MODEL, SAME

# ---- lines -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "side", "grade"),
    [
        (0.8, 0.9, "at least", "passed"),
        (0.79, 0.9, "at least", "undecided"),
        (0.6, 0.79, "at least", "failed"),
        (0.6, 0.8, "at most", "passed"),
        (0.79, 0.81, "at most", "undecided"),
        (0.81, 0.9, "at most", "failed"),
        (math.nan, math.nan, "at most", "undecided"),
    ],
)
def test_a_line_passes_only_if_all_of_its_interval_is_on_the_right_side_of_the_bar(
    low: float, high: float, side: str, grade: str
) -> None:
    assert graded(low, high, side, 0.8) == grade  # type: ignore[arg-type]


def test_few_cases_cannot_pass_what_many_of_the_same_share_do() -> None:
    assert of_share("c", "w", Share(1, 1), "at least", 0.5).grade == "undecided"
    assert of_share("c", "w", Share(20, 20), "at least", 0.5).grade == "passed"
    assert of_share("c", "w", Share(0, 0), "at least", 0.5).grade == "undecided"
    assert of_values("c", "w", [], "at least", 0.5).grade == "undecided"
    assert of_values("c", "w", [0.9, 0.95], "at least", 0.5).grade == "passed"
    assert of_number("c", "w", 0.4, "at least", 0.5).grade == "failed"


def test_the_verdict_is_the_worst_grade_and_what_is_told_has_no_say() -> None:
    good, told = of_number("c", "w", 1.0, "at least", 1.0), Line("c", "w", 3.0)
    open_, bad = of_share("c", "w", Share(1, 1), "at least", 0.5), of_number("c", "w", 0.0, "at least", 1.0)
    assert verdict_of([good, told]) == "passed"
    assert verdict_of([good, told, open_]) == "undecided"
    assert verdict_of([open_, bad, good]) == "failed"


def test_the_card_has_every_line_under_its_header() -> None:
    line = of_share("specificity", "own answers", Share(3, 12), "at least", 0.5, chance=0.25)
    assert dict(zip(HEADER, cells(line), strict=True)) == {
        "check": "specificity", "what": "own answers", "value": "0.25", "interval": "[0.0889, 0.532]", "n": "12", "chance": "0.25",
        "bar": "at least 0.5", "grade": "undecided",
    }  # fmt: skip
    card = lines_section([line, of_number("a", "b", 0.0, "at least", 1.0)])
    assert 'class="card certificate failed"' in card
    assert "[0.0889, 0.532]" in card


# ---- a circuit as a hypothesis -----------------------------------------------------------------------------------------------


def test_the_sign_test_is_exact() -> None:
    assert sign_test(0, 5) == 2 / 32
    assert sign_test(7, 8) == sign_test(1, 8) == 2 * 9 / 256
    assert sign_test(5, 10) == 1
    assert sign_test(0, 0) == 1


def test_equivalence_is_refuted_where_one_outdoes_the_other_and_ties_count_for_neither() -> None:
    model = [1.0] * 12
    worse = equivalence([2.0] * 12, model)
    assert (worse.statistic, worse.n, worse.p) == (0, 12, 2 / 2**12)
    even = equivalence([0.5, 2.0] * 6, model)
    assert (even.statistic, even.p) == (0.5, 1)
    assert equivalence(model, model).n == 0
    assert equivalence(model, model).p == 1


def test_independence_is_refuted_where_the_rest_follows_the_model_in_any_way_and_not_by_chance() -> None:
    rng = np.random.default_rng(0)
    model = rng.normal(size=40)
    # Uncorrelated with the model, and a function of it.
    assert independence((model**2).tolist(), model.tolist()).p < 0.01
    by_chance = [independence(rng.normal(size=20).tolist(), rng.normal(size=20).tolist(), seed=i).p for i in range(20)]
    assert np.mean([p < 0.05 for p in by_chance]) <= 0.2
    assert 0.25 < np.mean(by_chance) < 0.75
    # Constant scores tell nothing of anything.
    assert independence([1.0] * 9, model[:9].tolist()).p == 1


def test_superfluous_edges_change_no_more_than_random_ones_added() -> None:
    assert superfluous([0.5, 0.01, -0.4, 0.0], [0.0, 0.1]) == 2
    assert superfluous([0.5, 0.01], []) == 0
    engine = HookEngine(MODEL, FACTS[3:4])
    # Nothing but the four edges writes: what is added, and cut again, is worth nothing, or is m1's.
    reference = inflated_worth(engine, circuit((*LOOKUP, *SAME)), draws=8)
    assert len(reference) == 8
    assert max(reference) == pytest.approx(0, abs=1e-6)


# ---- the study, on a model whose circuits are known (tests.test_certificate) ---------------------------------------------------


def circuit(names: tuple[str, ...]) -> Circuit:
    kept = np.zeros_like(GRAPH.legal)
    for name in names:
        kept[GRAPH.edge(name)] = True
    return Circuit(GRAPH, kept, Provenance("by hand", "00"))


def asked(fact: Fact, names: tuple[str, ...], **more: object) -> tuple[CertifySpec, Examined]:
    run = RunSpec.model_validate({"facts": (fact,), "engine": "hook", **more})
    spec = CertifySpec(run=run, circuit=str(names), draws=4, random=20, others=2)
    return spec, Examined(MODEL, RELATIONS, circuit(names))


def certified(fact: Fact, names: tuple[str, ...], **more: object) -> dict[str, Line]:
    spec, bench = asked(fact, names, **more)
    rows = {one.case: one.row for one in sweep(CERTIFICATE, spec, context=bench) if one.row is not None}
    return {line.what.split(";")[0]: line for line in lines_of(bench.circuit, rows)}


def test_a_circuit_that_looks_its_subject_up_passes_every_check_but_that_it_outdoes_the_model() -> None:
    lines = certified(FACTS[3], LOOKUP)
    grades = {what: line.grade for what, line in lines.items()}
    assert {what for what, grade in grades.items() if grade == "undecided"} >= {
        # One relation, one wording, one fact: none to ask.
        "circuits of other relations that give this answer",
        "edge Jaccard, in other words",
        "edge Jaccard of two bootstrap circuits (facts and wordings drawn again)",
    }
    # m1 takes from the other subjects' answers, so the circuit without it outdoes the model on all but s0.
    (refuted,) = [what for what, grade in grades.items() if grade == "failed"]
    assert refuted.startswith("equivalence")
    assert lines[refuted].value == pytest.approx(11 / 12)
    assert lines["other subjects that get their own answer"].value == 1
    assert lines["other subjects that get their own answer"].chance == pytest.approx(1 / 11)
    assert lines["the circuit found without its edges gives the answer too"].value == 0
    assert lines["random halves of it that the model does without"].grade == "passed"
    assert lines["edges worth 0.01 nats or more"].value == 1
    assert lines["edge Jaccard, order reversed"].value == lines["edge Jaccard, tau times 2"].value == 1
    assert lines["NDF"].value > 0.9 > lines["NDF"].chance


def test_a_circuit_that_another_can_take_the_place_of_is_not_unique_and_one_that_says_the_same_to_all_not_specific() -> (
    None
):
    lines = certified(FACTS[0], SAME)
    assert lines["the circuit found without its edges gives the answer too"].grade == "failed"
    assert lines["random halves of it that the model does without"].value == 1
    assert lines["other subjects that get their own answer"].grade == "failed"
    assert lines["other subjects that get this fact’s answer"].value == 1
    assert lines["the model without it loses the answer"].grade == "failed"
    # What the search finds again has the edges of the look-up too.
    assert lines["edge Jaccard, tau times 2"].value == 0.5


def test_bootstrap_samples_are_facts_with_wordings_and_those_alike_are_searched_once() -> None:
    spec, bench = asked(FACTS[3], LOOKUP, siblings=FACTS[4:6])
    drawn = [case.asked[1] for case in CERTIFICATE.cases(spec, bench) if case.name.startswith("draw")]
    assert 2 <= len(drawn) <= 4
    assert len(set(drawn)) == len(drawn)
    for sample in drawn:
        assert isinstance(sample, Sample)
        assert len(sample.picks) == 3
        assert all(0 <= fact < 3 and wording == 0 for fact, wording in sample.picks)
    line = certified(FACTS[3], LOOKUP, siblings=FACTS[4:6])[
        "edge Jaccard of two bootstrap circuits (facts and wordings drawn again)"
    ]
    assert (line.value, line.n, line.grade) == (1, len(drawn), "passed")


TWIN = replace(acdc, name="twin")


def test_searches_in_another_order_are_asked_of_every_method_with_a_threshold_whatever_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(METHODS.homes, "twin", f"{__name__}:TWIN")
    backwards, names = dict[str, np.ndarray](), dict[str, set[str]]()
    for method in ("acdc", "twin", "eap"):
        spec, bench = asked(FACTS[0], LOOKUP, method=method)
        backwards[method] = tried_otherwise(spec.run, bench, reverse_senders=True).kept
        names[method] = {case.name for case in CERTIFICATE.cases(spec, bench)}
    assert (backwards["twin"] == backwards["acdc"]).all()
    assert names["twin"] == names["acdc"] > names["eap"]
    # The control: one without a threshold has no order, and gives the circuit that it always gives.
    assert (backwards["eap"] == search(asked(FACTS[0], LOOKUP, method="eap")[0].run, RELATIONS, MODEL).kept).all()


def test_a_certificate_that_was_stopped_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, bench = asked(FACTS[3], LOOKUP)
    first = list(sweep(CERTIFICATE, spec, context=bench, store=Folder(tmp_path)))
    monkeypatch.setattr(certify, "search", lambda *_, **__: pytest.fail("a search was made again"))
    again = list(sweep(CERTIFICATE, spec, context=bench, store=Folder(tmp_path)))
    assert all(outcome.kept for outcome in again)
    rows = [{one.case: one.row for one in outcomes if one.row is not None} for outcomes in (first, again)]
    texts = [json.dumps([line.to_json() for line in lines_of(bench.circuit, each)]) for each in rows]
    assert texts[0] == texts[1]


# ---- the command -------------------------------------------------------------------------------------------------------------


def test_certify_prints_every_line_and_puts_them_on_the_page(
    model_folder: Callable[[str], Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fact = ["--fact", "w1 w2 w3 w4 => w5", "--subject", "w3", "--model", str(model_folder("gpt2")), "--force"]

    quick = json.loads(succeeds(["discover", *fact, "--tau", "0.05", "--out", str(tmp_path), "--json"], capsys))[
        "certificate"
    ]
    options = ["--n", "2", "--random", "3", "--others", "1"]
    found = json.loads(succeeds(["certify", str(tmp_path), *options, "--json"], capsys))
    assert found.keys() >= quick.keys() - {"verdict"}
    assert found["verdict"] in ("failed", "undecided")
    assert {line["check"] for line in found["lines"]} >= {
        "sufficiency", "specificity", "necessity", "minimality", "faithfulness", "Shi et al.", "uniqueness", "another relation",
        "stability",
    }  # fmt: skip
    assert all(line.keys() >= {"value", "low", "high", "n", "chance", "bar", "grade"} for line in found["lines"])
    lines = Run.load(tmp_path).lines
    assert [line.to_json() for line in lines] == found["lines"]
    assert lines_section(lines) in (tmp_path / "report.html").read_text()
