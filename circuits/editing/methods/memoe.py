"""MEMoE: new facts in a mixture of experts beside one MLP, routed by knowledge anchors (paper 3).

Every weight of the model stays as it is; the experts and their router are trained so that each request's answer follows its
prompt. Paper 3 says nothing of the loss, the optimiser, lambda, the noise, or the coefficient of the load balance, and its
code was not published: `MemoeOptions` names each of these choices.

``memoe`` is the paper's: the bypass speaks at every token of every prompt, and nothing but the experts' routing keeps it from
what was not edited. ``memoe-scoped`` is this project's: the bypass is silent wherever no edited subject has been named, and
is trained to leave texts of the model's own about that subject as they are. So a prompt that calls the subject by
another name is out of its scope by construction.
"""

from collections.abc import Sequence
from functools import partial

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

__all__ = ["MemoeOptions", "memoe", "memoe_scoped"]


def _run(
    name: str,
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
    made = provenance(name, model, requests, options, seed, (curve,))
    return RoutedEdit(layer, experts, routing, recogniser, made)


def _defaults(model: Model) -> Settings:
    """In the middle: paper 3's best layer of 32 is the 16th."""
    return {"layer": model.shape.n_layers // 2}


def _scoped(model: Model) -> Settings:
    return {**_defaults(model), "anchors": "so far", "scoped": True, "keep": 1.0}


memoe: Method[MemoeOptions, RoutedEdit] = Method(
    "memoe", partial(_run, "memoe"), MemoeOptions, frozenset({"recogniser"}), _defaults, "routed"
)
memoe_scoped: Method[MemoeOptions, RoutedEdit] = Method(
    "memoe-scoped", partial(_run, "memoe-scoped"), MemoeOptions, frozenset({"recogniser"}), _scoped, "routed"
)


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
