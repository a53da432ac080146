"""A transformer whose heads do what their names say, by construction: the oracle for roles."""

import torch

from circuits.facts import Fact
from circuits.graph import Node
from circuits.model import Model
from tests.models import plain_model, zero_weights

N_SUBJECTS = 8
N_FILLERS = 24
WORDS = ("the", "language", "of", "is", *(f"s{i}" for i in range(N_SUBJECTS)), *(f"o{i}" for i in range(N_SUBJECTS)))
VOCABULARY = (*WORDS, *(f"f{i}" for i in range(N_FILLERS)))

SUBJECT = torch.arange(N_SUBJECTS)
"""Dimensions of the stream: which subject a token is; the same moved to the last token; the logits of objects; of fillers; two
flags that heads look for."""
MOVED, OUT = SUBJECT + N_SUBJECTS, SUBJECT + 2 * N_SUBJECTS
FILLER = 3 * N_SUBJECTS + torch.arange(N_FILLERS)
IS_SUBJECT, IS_RELATION, SINK = (3 * N_SUBJECTS + N_FILLERS + i for i in range(3))

ROLES = {
    "mover": Node(0, "head", 0),
    "relation": Node(0, "head", 1),
    "mixture": Node(0, "head", 2),
    "suppressor": Node(0, "head", 3),
    "carrier": Node(0, "head", 4),
    "idle": Node(0, "head", 5),
    "noisy": Node(0, "head", 6),
}
"""Carrier: a mover that writes the subject in a form that only the MLP after it turns into the answer. Idle: attends to the
subject, writes nothing. Noisy: reads everything evenly, writes at random."""

FACTS = tuple(
    Fact(f"{words} s{i} is", f"s{i}", f"o{i}", "language")
    for i, words in enumerate(["the language of", "the of language"] * (N_SUBJECTS // 2))
)
OBJECTS = tuple(fact.object for fact in FACTS)


def planted(seed: int = 0, *, shy: bool = False, sink: bool = False) -> Model:
    """One layer, seven heads and an MLP. Every subject's object follows from it with its own strength.

    ``sink``: a BOS token is put before every prompt, with a massive entry in a dimension of its own. Every head but the noisy
    one gives it e^4 times what it gives the token it looks for, and reads nothing there; values are longer by as much. The
    carrier's write also names the subject's own token.

    ``shy``: the mover gives the subject e^-2 times what it gives any other token, and its values are 30 times as long.
    """
    generator = torch.Generator().manual_seed(seed)
    d_head = N_SUBJECTS + 1
    weights = zero_weights(
        n_layers=1,
        n_heads=len(ROLES),
        d_model=SINK + 1,
        d_head=d_head,
        d_mlp=N_SUBJECTS,
        d_vocab=len(VOCABULARY) + sink,
        n_ctx=16,
    )
    embed, unembed = weights["embed.W_E"], weights["unembed.W_U"]
    first = VOCABULARY.index("s0")
    embed[first + SUBJECT, SUBJECT] = 1
    embed[first + SUBJECT, IS_SUBJECT] = 1
    embed[VOCABULARY.index("language"), IS_RELATION] = 1
    unembed[OUT, VOCABULARY.index("o0") + SUBJECT] = 1
    unembed[FILLER, VOCABULARY.index("f0") + torch.arange(N_FILLERS)] = 1
    W_K, W_V, W_O = (weights[f"blocks.0.attn.W_{name}"] for name in "KVO")
    query = torch.zeros(len(ROLES), d_head)
    # A head looks for what its key reads: 8 logits more for such a token than for others.
    query[:, 0] = 8
    for name, flags in {
        "mover": [IS_SUBJECT],
        "relation": [IS_RELATION],
        "mixture": [IS_SUBJECT, IS_RELATION],
        "suppressor": [IS_SUBJECT],
        "carrier": [IS_SUBJECT],
        "idle": [IS_SUBJECT],
    }.items():
        W_K[ROLES[name].head, flags, 0] = 1
    slots = torch.arange(N_SUBJECTS)
    if shy:
        query[ROLES["mover"].head, 0] = -2
    strengths = 1 + 0.5 * torch.rand(N_SUBJECTS, generator=generator)
    for name, size in (("mover", 2.0), ("mixture", 1.5), ("suppressor", -1.0)):
        head = ROLES[name].head
        W_V[head, SUBJECT, slots], W_O[head, slots, OUT] = 1, size * strengths
    if shy:
        W_V[ROLES["mover"].head] *= 30
    for name, size in (("relation", 2.0), ("mixture", 1.5)):
        head = ROLES[name].head
        W_V[head, IS_RELATION, N_SUBJECTS] = 1
        W_O[head, N_SUBJECTS, OUT] = size
    carrier, noisy = ROLES["carrier"].head, ROLES["noisy"].head
    if sink:
        embed[len(VOCABULARY), SINK] = 1000
        W_K[:noisy, SINK, 0] = 1.5 / 1000
        unembed[MOVED, first + SUBJECT] = 1
    W_V[carrier, SUBJECT, slots], W_O[carrier, slots, MOVED] = 1, 1.0
    weights["blocks.0.mlp.W_in"][MOVED, slots] = 1
    weights["blocks.0.mlp.W_out"][slots, OUT] = 3 * strengths
    if sink:
        W_V[:noisy] *= 1 + float(torch.tensor(4.0).exp())
    W_V[noisy] = 0.3 * torch.randn(W_V[noisy].shape, generator=generator)
    W_O[noisy] = 0.3 * torch.randn(W_O[noisy].shape, generator=generator)
    weights["blocks.0.attn.b_Q"] = query
    if sink:
        W_V[noisy, SINK] = 0
        return plain_model(weights, " ".join((*VOCABULARY, "<s>")), bos=len(VOCABULARY))
    return plain_model(weights, " ".join(VOCABULARY))
