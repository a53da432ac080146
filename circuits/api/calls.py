"""What one calls: discover, explain, table, known_facts, models, load."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal, overload

from circuits.api.models import ANY, model_named, model_of
from circuits.api.run import LiveRun
from circuits.api.table import LiveTable
from circuits.datasets import load_relations, named, relations_for
from circuits.datasets.manifest import manifest_of
from circuits.discovery.budget import Budget
from circuits.editing import load_edit
from circuits.evaluation import known
from circuits.facts import Fact, FactError, Relation, Relations, parse_fact
from circuits.model import Model, library
from circuits.model.library import Entry
from circuits.studies.diff import make_edit
from circuits.studies.explain.hallucination import Hallucination, explain_hallucination, find_hallucination
from circuits.studies.explain.icl import InContext, explain_icl, find_icl
from circuits.studies.explain.multihop import EditedHop, MultiHop, find_case, multi_hop
from circuits.studies.explain.reverse import Reversal, explain_reverse, find_reverse
from circuits.studies.options import SpecError
from circuits.studies.run import Run
from circuits.studies.runs import run
from circuits.studies.specs import RunSpec, TableSpec
from circuits.studies.study import Watch
from circuits.studies.table.table import make_table

Behaviour = Literal["hallucination", "icl", "reverse", "multihop"]


def discover(
    fact: str | Fact | Sequence[Fact],
    *,
    model: Model | Path | str = "factlm",
    subject: str | None = None,
    object: str | None = None,
    certificate: bool = True,
    budget: str | None = None,
    **settings: Any,
) -> LiveRun:
    """Find the knowledge circuit of a fact: the edges between heads and MLPs that its answer cannot do without.

    >>> import circuits as kc
    >>> run = kc.discover("The official language of France is French", tau=0.1, certificate=False)
    >>> print(run.circuit)
    Circuit of 41 of 3,628 edges (1.1%), 16 nodes, in factlm
    >>> run.ask("The official language of Spain is").answer
    'Spanish'

    Args:
        fact: a sentence that ends with its object, ``"prompt => object"``, a `Fact`, or several facts of one relation.
        model: factlm, smollm2, a folder, a GGUF file, a hub name; or a `Model`.
        subject: of a sentence, as spelled in it; the dataset's, by default.
        object: of a sentence, where it is more than its last word.
        certificate: test too whether the circuit of a single fact recalls it; takes about as long as the search.
        budget: end the search after ``"60s"`` or ``"5000 circuits"``; what it has not decided stays, and ``run.unfinished`` says so.
        settings: any other field of `RunSpec`: ``tau`` in nats, ``method``, ``ablation``, ``granularity``, ``with_edit``,
            ``device``, ``seed``, ``force``, ...

    Returns:
        The run: its ``circuit`` (scores in nats), ``certificate``, ``story``, ``heads()``, ``ask(...)``, ``edit(...)``, ``export(...)``.

    Raises:
        circuits.facts.FactError: no fact can be read from the sentence.
        circuits.studies.search.UnknownFactError: the model does not recall it, and ``force`` is off.
        circuits.studies.options.SpecError: settings that make no sense.
        circuits.discovery.budget.BudgetError: no such amount.
    """
    watch = Watch(budget=None if budget is None else Budget.parse(budget))
    loading = {name: settings[name] for name in ("device", "dtype", "processing") if name in settings}
    name = model.name if isinstance(model, Model) else str(model)
    spec = RunSpec(facts=ANY, model=name, **loading)
    loaded = model if isinstance(model, Model) else model_of(spec)
    relations = relations_for(loaded.profile)
    facts = _facts(fact, relations, subject, object)
    own = {"relation": facts[0].relation} if len(facts) > 1 else {}
    spec = RunSpec(facts=facts, model=name, **own, **settings)
    with nullcontext(loaded) if spec.with_edit is None else load_edit(Path(spec.with_edit)).on(loaded) as asked:
        found = run(spec, relations, model=asked, read=True, certified=certificate, watch=watch)
    return LiveRun.of(found, loaded)


def load(folder: Path | str) -> LiveRun:
    """Read a saved run.

    Args:
        folder: of `kcircuit discover --out`, or of ``run.save``.

    Returns:
        The run; its model is loaded when it is first asked.

    Raises:
        circuits.studies.run.RunFileError: no run there, or not a whole one.
    """
    return LiveRun.of(Run.load(folder))


@overload
def explain(behaviour: Literal["hallucination"], *asked: str, **settings: Any) -> Hallucination: ...
@overload
def explain(behaviour: Literal["icl"], *asked: str, **settings: Any) -> InContext: ...
@overload
def explain(behaviour: Literal["reverse"], *asked: str, **settings: Any) -> Reversal: ...
@overload
def explain(behaviour: Literal["multihop"], *asked: str, **settings: Any) -> MultiHop: ...
def explain(
    behaviour: Behaviour,
    *asked: str,
    model: Model | Path | str = "factlm",
    method: str = "rome@subject",
    **settings: Any,
) -> Hallucination | InContext | Reversal | MultiHop:
    """Why an answer is wrong, what demonstrations add, what is known backwards, what two hops see of an edit.

    >>> import circuits as kc
    >>> kc.explain("reverse", "The capital city of France is Paris", tau=0.1, granularity="node").rank_backward
    1

    Args:
        behaviour: hallucination, icl, reverse or multihop.
        asked: the case; found among what the model was taught where it is left out. Of hallucination and reverse the fact; of
            icl the relation and the subject; of multihop the relation that is edited, the second relation, the subject, and
            its new object.
        model: a name, or a `Model`.
        method: of the edit of multihop.
        settings: ``tau`` in nats, ``seed``, ``ablation`` and other fields of `RunSpec`, for the circuits' searches.

    Returns:
        The case with its ``verdict`` (a conclusion with evidence, or "inconclusive" with the reason) and its ``diff`` of two
        circuits; `str` tells it.

    Raises:
        circuits.studies.options.SpecError: no such behaviour, or too few words for it.
        circuits.studies.explain.verdict.BehaviourError: the case shows no such behaviour, or none was found.
    """
    loaded = model_named(model)
    relations, manifest = relations_for(loaded.profile), manifest_of(loaded.profile)
    spec = RunSpec(facts=ANY, model=loaded.name, **settings)
    expected = {"hallucination": 1, "reverse": 1, "icl": 2, "multihop": 4}
    if behaviour not in expected:
        raise SpecError(f"expected a behaviour of {', '.join(expected)}, got {behaviour!r}")
    if len(asked) not in (0, expected[behaviour]):
        raise SpecError(
            f"{behaviour} asks for {expected[behaviour]} words, or none to find a case, got {len(asked)}: {asked}"
        )
    match behaviour, asked:
        case "hallucination", ():
            return find_hallucination(loaded, relations, manifest, spec)
        case "hallucination", (fact,):
            return explain_hallucination(loaded, parse_fact(fact, relations.values()), relations, spec)
        case "reverse", ():
            return find_reverse(loaded, relations, manifest, spec)
        case "reverse", (fact,):
            return explain_reverse(loaded, parse_fact(fact, relations.values()), relations, spec)
        case "icl", ():
            return find_icl(loaded, relations, manifest, spec)
        case "icl", (relation, subject):
            return explain_icl(loaded, _relation(relation, relations), subject, relations, spec)
        case _:
            hop = EditedHop(*asked) if asked else find_case(loaded, relations, manifest)
            first, _ = _relation(hop.first, relations), _relation(hop.second, relations)
            made = make_edit(loaded, first.fact(hop.subject), hop.target, method, seed=spec.seed)
            return multi_hop(loaded, made, hop, relations, spec, method=method)


def table(
    relations: str | Sequence[str] = "all",
    *,
    model: Model | Path | str = "factlm",
    folder: Path | str | None = None,
    **settings: Any,
) -> LiveTable:
    """One circuit a relation: its size, and its Hit@10 alone beside the model's and random circuits' (paper 2, Table 1).

    >>> import circuits as kc
    >>> made = kc.table("country_language", n_val=2, n_test=2, taus=(0.1,), draws=1)
    >>> [row.relation for row in made.rows]
    ['country_language']

    Args:
        relations: all, or names; also files of relations.
        model: a name, or a `Model`.
        folder: finished rows are kept there, and not made again.
        settings: fields of `TableSpec`: ``n_val`` and ``n_test`` facts, ``taus`` in nats, ``method``, ``draws``, ``seed``, ...

    Returns:
        The table: ``rows``, ``to_json()``; shows itself, and ``export(...)`` writes its page.

    Raises:
        circuits.facts.FactError: no such relation.
        circuits.studies.options.SpecError: settings that make no sense.
    """
    loaded = model_named(model)
    spec = TableSpec(model=loaded.name, **settings)
    asked = () if relations == "all" else (relations,) if isinstance(relations, str) else tuple(relations)
    known = relations_for(loaded.profile, *asked)
    chosen = [one for name in asked for one in _relations(name, known)] if asked else list(known.values())
    made = make_table(spec, chosen, known, loaded, folder=None if folder is None else Path(folder))
    return LiveTable(made.spec, made.weights, made.rows, made.skipped)


def known_facts(relation: str, *, model: Model | Path | str = "factlm", rank: int = 10) -> tuple[Fact, ...]:
    """The facts of a relation that a model knows.

    >>> import circuits as kc
    >>> print(kc.known_facts("country_language", rank=1)[0])
    The official language of France is => French

    Args:
        relation: a name of the dataset, or a file of one relation.
        model: a name, or a `Model`.
        rank: the first token of the answer ranks so high or higher.

    Returns:
        Facts, in the dataset's order.

    Raises:
        circuits.facts.FactError: no such relation.
    """
    loaded = model_named(model)
    return known(loaded, _relation(relation, relations_for(loaded.profile, relation)).facts(), rank=rank)


def models() -> tuple[Entry, ...]:
    """The models that go by a name.

    >>> import circuits as kc
    >>> [entry.name for entry in kc.models() if entry.present][0]
    'factlm'

    Returns:
        An entry each: ``name``, whether it is ``present`` on this machine, architecture, layers, heads.
    """
    return tuple(library.entries())


def _facts(
    fact: str | Fact | Sequence[Fact], relations: Relations, subject: str | None, object: str | None
) -> tuple[Fact, ...]:
    if isinstance(fact, str):
        return (parse_fact(fact, relations.values(), subject=subject, object=object),)
    if subject is not None or object is not None:
        raise FactError("subject and object belong to a sentence; a Fact has its own")
    return (fact,) if isinstance(fact, Fact) else tuple(fact)


def _relations(name: str, relations: Relations) -> list[Relation]:
    names = named(relations, name)
    if not names:
        raise FactError(
            f"no relation called {name!r} in the dataset, and no file of relations; it has {', '.join(load_relations())}"
        )
    return [relations[each] for each in names]


def _relation(name: str, relations: Relations) -> Relation:
    found = _relations(name, relations)
    if len(found) > 1:
        raise FactError(f"{name} holds {len(found)} relations; name one: {', '.join(each.name for each in found)}")
    return found[0]
