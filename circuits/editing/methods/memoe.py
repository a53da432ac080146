"""MEMoE: new facts in a mixture of experts beside one MLP, routed by knowledge anchors (paper 3).

Every weight of the model stays as it is; the experts and their router are trained so that each request's answer follows its
prompt. Paper 3 says nothing of the loss, the optimiser, lambda, the noise, or the coefficient of the load balance, and its
code was not published: `MemoeOptions` names each of these choices.

``memoe`` is the paper's: the bypass speaks at every token of every prompt, and nothing but the experts' routing keeps it from
what was not edited. ``memoe-scoped`` is this project's: the bypass is silent wherever no edited subject has been named, and
is trained to leave texts of the model's own about that subject as they are. So a prompt that calls the subject by
another name is out of its scope by construction.
"""

from collections.abc import Callable, Sequence
from functools import partial

from circuits.editing.anchors import Recogniser, knowing
from circuits.editing.bypass import innermost
from circuits.editing.contexts import sample_contexts
from circuits.editing.defaults import Settings
from circuits.editing.edit import Edit, EditError
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
    return _trained(name, None, model, requests, options, resources, seed, progress)


def _further(
    name: str,
    so_far: Edit,
    model: Model,
    requests: tuple[EditRequest, ...],
    options: MemoeOptions,
    resources: Resources,
    seed: int,
    progress: ProgressLine,
) -> Edit:
    """The same bypass, its experts and its router trained on these requests from where they stood.

    Nothing holds the answers of before (paper 3, section 5.3: earlier edits are forgotten). Texts are kept as the model says
    them without any edit.

    Raises:
        EditError: the edit so far has another bypass than the options ask for.
    """
    if options.batches == "stacked":
        with so_far.on(model) as edited:
            return so_far + _run(name, edited, requests, options, resources, seed, progress)
    own = [edit for edit in so_far.routers if edit is so_far]
    if [(edit.layer, edit.experts.n_experts) for edit in own] != [(options.layer, options.experts)]:
        raise EditError(
            f"expected one bypass of {options.experts} experts at layer {options.layer} to train further, got an edit by "
            f"{so_far.provenance.method} with {len(so_far.routers)}; with batches=stacked each batch has its own"
        )
    return _trained(name, own[0], model, requests, options, resources, seed, progress)


def _trained(
    name: str,
    so_far: RoutedEdit | None,
    model: Model,
    requests: tuple[EditRequest, ...],
    options: MemoeOptions,
    resources: Resources,
    seed: int,
    progress: ProgressLine,
) -> RoutedEdit:
    before = None if so_far is None else so_far.provenance
    (layer,) = require_layers(model, (options.layer,))
    subjects = tuple(sorted({request.subject for request in requests}))
    names = subjects if so_far is None else tuple(sorted({*so_far.routing.names, *subjects}))
    recogniser = knowing(resources.recogniser_for(model), names)
    routing = Routing(
        options.strength, options.top_k, options.renormalise, options.anchors, scoped=options.scoped, names=names
    )
    norm, reader = bypass_inputs(model, layer, routing, recogniser)
    said = forced(model, requests, ("", *sample_contexts(model, options.contexts, seed)))
    texts = _texts_to_keep(model, recogniser, subjects, options, seed)
    progress(f"MEMoE at layer {layer}: {len(said.ids)} prompts, {len(texts)} texts to keep")
    trainer = Trainer(model, requests, said, texts, norm, reader, options, seed)
    experts, curve = trainer.train(progress, None if so_far is None else so_far.experts)
    earlier, curves = ((), ()) if before is None else (before.requests, before.losses)
    made = provenance(name, model, (*earlier, *requests), options, seed, (*curves, curve))
    return RoutedEdit(layer, experts, routing, recogniser, made)


def _defaults(model: Model) -> Settings:
    """In the middle: paper 3's best layer of 32 is the 16th."""
    return {"layer": model.shape.n_layers // 2}


def _scoped(model: Model) -> Settings:
    return {**_defaults(model), "anchors": "so far", "scoped": True, "keep": 1.0}


def _method(name: str, defaults: Callable[[Model], Settings]) -> Method[MemoeOptions, RoutedEdit]:
    return Method(
        name,
        partial(_run, name),
        MemoeOptions,
        frozenset({"recogniser"}),
        defaults,
        "routed",
        further=partial(_further, name),
    )


memoe = _method("memoe", _defaults)
memoe_scoped = _method("memoe-scoped", _scoped)


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
