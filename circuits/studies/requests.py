"""What edits are made of: requests that the model knows, or a file's, with its answers before them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from circuits.datasets import relations_for
from circuits.datasets.counterfact import load_counterfact
from circuits.datasets.knowedit import load_knowedit
from circuits.datasets.mquake import load_mquake
from circuits.datasets.zsre import load_zsre
from circuits.editing import Corpus, Resources
from circuits.editing.own_texts import own_corpus
from circuits.evaluation.edits import EditCase, FluencySetting, prepare
from circuits.evaluation.edits.cases import Written
from circuits.evaluation.edits.regimes import in_cases
from circuits.evaluation.edits.targets import known_requests
from circuits.evaluation.edits.unrelated import unrelated
from circuits.evaluation.general import UnrelatedText
from circuits.facts import EditRequest
from circuits.model import Model
from circuits.studies.edit_specs import WhichEdits
from circuits.studies.options import AskedError
from circuits.studies.study import Watch

CASE_KINDS = ("counterfact", "zsre-alt", "zsre-true", "knowedit", "mquake")
UNSEEN_EPOCH = 1
UNSEEN_SEED = 10**6
"""Draws that no second moments are on: theirs begin at 0."""
SPARE = 4
"""Texts written for each that is wanted: some name what an edit is about."""
QUIET = FluencySetting(n_samples=0)
"""No text is sampled."""


@dataclass(frozen=True)
class Unedited:
    """A model before its edits: what it is to be edited to, with its own answers, and what methods may ask for."""

    model: Model
    cases: tuple[EditCase, ...]
    resources: Resources

    @classmethod
    def of(
        cls,
        model: Model,
        spec: WhichEdits,
        n: int,
        fluency: FluencySetting = QUIET,
        *,
        written: Written = "nothing",
        probed: Callable[[EditRequest], EditRequest] | None = None,
        watch: Watch,
    ) -> "Unedited":
        """``n`` cases of the spec's, put to the model; by default no text is sampled for its fluency.

        Args:
            probed: adds to what each request asks.

        Raises:
            AskedError: too few requests.
        """
        resources = resources_of(spec.corpus)
        requests = requests_of(model, spec.cases, n, spec.seed, notice=watch.notice)
        requests = requests if probed is None else tuple(map(probed, requests))
        watch.progress(0, 1, f"asking {model.name} before the edits")
        cases = prepare(model, requests, fluency, written=written)
        return cls(model, cases, resources)

    def beside(self, n: int, text: str | None, watch: Watch) -> "Unedited":
        """The same, with ``n`` documents that name nothing of any request, on which general ability is measured.

        Of that file; or of factlm's training text, another epoch than second moments are taken over; or what the unedited model
        writes from nothing, with other draws than those. Only a file is text that no part of the model was made from.

        Raises:
            AskedError: there are fewer.
        """
        if text is not None:
            corpus = Corpus.from_file(Path(text))
        elif self.model.unedited.profile.corpus is not None:
            corpus = Corpus.of_factlm(UNSEEN_EPOCH)
        else:
            corpus = own_corpus(
                self.model.unedited,
                n_texts=SPARE * n,
                seed=UNSEEN_SEED,
                cache=self.resources.cache,
                progress=lambda line: watch.progress(0, 1, line),
            )
        documents = unrelated(corpus.documents, [case.request for case in self.cases])
        found = UnrelatedText.of(corpus.name, self.model, documents, n)
        if len(found.rows) < n:
            raise AskedError(
                f"expected {n} documents of {corpus.name} that name nothing of an edit, found {len(found.rows)}; ask for fewer "
                "with --general, or give a longer --text"
            )
        return replace(self, cases=tuple(replace(case, unrelated=found) for case in self.cases))

    def first(self, n: int) -> tuple[EditCase, ...]:
        """The requests of the first ``n`` cases; a request of no case is one of its own."""
        return tuple(one for case in in_cases(self.cases, lambda one: one.request.case)[:n] for one in case)


def resources_of(corpus: Path | str | None) -> Resources:
    """What methods may ask for; with second moments on that text, where one is named."""
    return Resources(None if corpus is None else Corpus.from_file(Path(corpus)))


def requests_of(
    model: Model, cases: str | None, n: int, seed: int, *, notice: Callable[[str], None] = lambda _: None
) -> tuple[EditRequest, ...]:
    """``n`` requests: facts of the dataset that the model knows, or those of the first ``n`` cases of a file, ``KIND:FILE``.

    Args:
        notice: told of cases of the file that make no request.

    Raises:
        AskedError: no such kind, or too few cases.
    """
    if cases is None:
        return known_requests(model, relations_for(model.profile), n, seed=seed)
    requests = _from_file(cases, n, lambda line: notice(f"skipped: {line}"))
    found = len(in_cases(requests, lambda request: request.case))
    if found < n:
        raise AskedError(f"expected {n} edit requests in {cases}, found {found}; ask for fewer with --n")
    return requests


def _from_file(cases: str, n: int, skip: Callable[[str], None]) -> tuple[EditRequest, ...]:
    kind, colon, name = cases.partition(":")
    if not colon or kind not in CASE_KINDS:
        raise AskedError(f"expected --cases KIND:FILE, KIND one of {', '.join(CASE_KINDS)}, got {cases!r}")
    path = Path(name)
    match kind:
        case "counterfact":
            return load_counterfact(path, skip=skip, limit=n)
        case "knowedit":
            return load_knowedit(path, skip=skip, limit=n)
        case "mquake":
            return tuple(request for case in load_mquake(path, skip=skip, limit=n) for request in case)
        case _:
            return load_zsre(path, target="alt" if kind == "zsre-alt" else "true", skip=skip, limit=n)
