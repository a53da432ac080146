"""MEMoE: new facts in a mixture of experts beside one MLP, routed by knowledge anchors (paper 3).

Every weight of the model stays as it is; the experts and their router are trained so that each request's answer follows its
prompt. Paper 3 says nothing of the loss, the optimiser, lambda, the noise, the coefficient of the load balance, or
what keeps the adapter quiet on other inputs, and its code was not published: `MemoeHyper` names each of these choices.
"""

from collections.abc import Sequence

from circuits.datasets import load_relations
from circuits.editing.anchors import Gazetteer, Recogniser, knowing
from circuits.editing.bypass import AdapterEdit, Routing, bypass_inputs, innermost
from circuits.editing.contexts import sample_contexts
from circuits.editing.defaults import tuned
from circuits.editing.forward import require_layers
from circuits.editing.memoe_training import MemoeHyper, Trainer
from circuits.editing.method import ProgressLine, provenance, require_hyper, require_requests
from circuits.editing.moments import Statistics
from circuits.editing.own_texts import nothing, sample_texts, texts_about
from circuits.editing.prompts import forced
from circuits.facts import EditRequest
from circuits.model import Model
from circuits.model.network import ComponentNetwork

__all__ = ["MemoeHyper", "memoe"]


def memoe(
    model: Model,
    requests: Sequence[EditRequest],
    *,
    hyper: MemoeHyper | None = None,
    statistics: Statistics | None = None,
    seed: int = 0,
    progress: ProgressLine = lambda _: None,
    recogniser: Recogniser | None = None,
) -> AdapterEdit:
    """One bypass for all the requests together. ``statistics`` are not used.

    Args:
        recogniser: finds the anchors; by default a gazetteer of this project's entities. It is taught the requests'
            subjects in any case.

    Raises:
        EditError: contradicting requests, no such layer, or a model that cannot be edited so.
    """
    hyper = MemoeHyper(**tuned("memoe", model)) if hyper is None else hyper
    require_hyper(hyper, MemoeHyper, "memoe")
    requests = require_requests(requests)
    (layer,) = require_layers(model, (hyper.layer,))
    subjects = tuple(sorted({request.subject for request in requests}))
    recogniser = knowing(Gazetteer.of(load_relations()) if recogniser is None else recogniser, subjects)
    routing = Routing(
        hyper.strength, hyper.top_k, hyper.renormalise, hyper.anchors, scoped=hyper.scoped, names=subjects
    )
    norm, reader = bypass_inputs(model, layer, routing, recogniser)
    said = forced(model, requests, ("", *sample_contexts(model, hyper.contexts, seed)))
    texts = _texts_to_keep(model, recogniser, subjects, hyper, seed)
    progress(f"MEMoE at layer {layer}: {len(said.ids)} prompts, {len(texts)} texts to keep")
    experts, curve = Trainer(model, requests, said, texts, norm, reader, hyper, seed).train(progress)
    made = provenance("memoe", model, requests, hyper, seed, (curve,))
    return AdapterEdit(layer, experts, routing, recogniser, made)


def _texts_to_keep(
    model: Model, recogniser: Recogniser, subjects: Sequence[str], hyper: MemoeHyper, seed: int
) -> tuple[tuple[int, ...], ...]:
    """Texts of the model's own about each subject, and as many about anything if the bypass has no scope."""
    if not hyper.keep or not hyper.texts or not hyper.text_tokens:
        return ()
    network = ComponentNetwork(innermost(model).components(model.n_ctx), model.n_ctx)
    texts = texts_about(
        network, model.vocabulary, recogniser, subjects, each=hyper.texts, n_tokens=hyper.text_tokens, seed=seed
    )
    if hyper.scoped:
        return texts
    starts = [nothing(model.vocabulary)] * len(texts)
    return texts + sample_texts(network, starts, hyper.text_tokens, bos=model.vocabulary.bos, seed=seed + 1)
