"""The metric that goes by a name, for facts of a dataset: what a search asks of its circuit."""

from collections.abc import Sequence

from circuits.choices import MetricName
from circuits.datasets.corrupted import CorruptionError
from circuits.facts import Fact, Relations
from circuits.metrics import KL, Metric, contrast
from circuits.model import Model


def metric_for(name: MetricName, facts: Sequence[Fact], relations: Relations, model: Model) -> Metric:
    """``matchnll``: the model's own, which is MatchNLL unless it puts out a number. ``kl``: to the whole model. ``contrast``: the
    answer among all objects of its fact's relation.

    Raises:
        CorruptionError: contrast for a fact of no relation of the dataset, or of one whose objects all begin alike.
    """
    match name:
        case "matchnll":
            return model.metric
        case "kl":
            return KL
        case "contrast":
            answers = [model.tokens(fact).answer for fact in facts]
            try:
                return contrast(answers, [_objects(fact, relations, model) for fact in facts])
            except ValueError as error:
                raise CorruptionError(f"{error}; use --metric matchnll or kl") from error


def _objects(fact: Fact, relations: Relations, model: Model) -> list[tuple[int, ...]]:
    if fact.relation is None or fact.relation not in relations:
        raise CorruptionError(
            f"{fact.prompt!r} is of no relation of the dataset, so there are no other objects to tell its answer from; "
            "use --metric matchnll or kl"
        )
    objects = dict.fromkeys(object_ for _, object_ in relations[fact.relation].pairs)
    # An object is spelled in tokens as the prompt's answer is, whatever the subject.
    return [model.tokens(Fact(fact.prompt, fact.subject, object_, fact.relation)).answer for object_ in objects]
