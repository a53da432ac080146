"""MEMoE: new facts in a mixture of experts beside one MLP, routed by knowledge anchors (paper 3).

Every weight of the model stays as it is; the experts and their router are trained so that each request's answer follows its
prompt. Paper 3 says nothing of the loss, the optimiser, lambda, the noise, the coefficient of the load balance, or
what keeps the adapter quiet on other inputs, and its code was not published: `MemoeOptions` names each of these choices.
"""

from collections.abc import Sequence

from circuits.editing.anchors import Recogniser, knowing
from circuits.editing.bypass import innermost
from circuits.editing.contexts import sample_contexts
from circuits.editing.defaults import Settings
from circuits.editing.forward import require_layers
from circuits.editing.memoe_training import MemoeOptions, Trainer
from circuits.editing.method import Method, ProgressLine, provenance
from circuits.editing.own_texts import nothing, sample_texts, texts_about
from circuits.editing.prompts import forced
from circuits.editing.resources import Resources
from circuits.editing.routed import RoutedEdit, Routing, bypass_inputs
from circuits.facts import EditRequest
from circuits.model import Model
from circuits.model.network import ComponentNetwork

__all__ = ["MemoeOptions", "memoe"]


def _run(
    model: Model,
    requests: tuple[EditRequest, ...],
    options: MemoeOptions,
    resources: Resources,
    seed: int,
    progress: ProgressLine,
) -> RoutedEdit:
    """One bypass for all the requests together. The recogniser is taught their subjects.

    Raises:
        EditError: no such layer, or a model that cannot be edited so.
    """
    (layer,) = require_layers(model, (options.layer,))
    subjects = tuple(sorted({request.subject for request in requests}))
    recogniser = knowing(resources.recogniser_for(model), subjects)
    routing = Routing(
        options.strength, options.top_k, options.renormalise, options.anchors, scoped=options.scoped, names=subjects
    )
    norm, reader = bypass_inputs(model, layer, routing, recogniser)
    said = forced(model, requests, ("", *sample_contexts(model, options.contexts, seed)))
    texts = _texts_to_keep(model, recogniser, subjects, options, seed)
    progress(f"MEMoE at layer {layer}: {len(said.ids)} prompts, {len(texts)} texts to keep")
    experts, curve = Trainer(model, requests, said, texts, norm, reader, options, seed).train(progress)
    made = provenance("memoe", model, requests, options, seed, (curve,))
    return RoutedEdit(layer, experts, routing, recogniser, made)


def _defaults(model: Model) -> Settings:
    """In the middle: paper 3's best layer of 32 is the 16th."""
    return {"layer": model.shape.n_layers // 2}


memoe = Method("memoe", _run, MemoeOptions, frozenset({"recogniser"}), _defaults, "routed")


def _texts_to_keep(
    model: Model, recogniser: Recogniser, subjects: Sequence[str], options: MemoeOptions, seed: int
) -> tuple[tuple[int, ...], ...]:
    """Texts of the model's own about each subject, and as many about anything if the bypass has no scope."""
    if not options.keep or not options.texts or not options.text_tokens:
        return ()
    network = ComponentNetwork(innermost(model).components(model.n_ctx), model.n_ctx)
    texts = texts_about(
        network, model.vocabulary, recogniser, subjects, each=options.texts, n_tokens=options.text_tokens, seed=seed
    )
    if options.scoped:
        return texts
    starts = [nothing(model.vocabulary)] * len(texts)
    return texts + sample_texts(network, starts, options.text_tokens, bos=model.vocabulary.bos, seed=seed + 1)
