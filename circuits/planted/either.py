"""Either: "a is" -> "a" if either of two heads says so: an OR, and with it redundancy.

As in `copying`, but both heads of layer 0 move the subject, not to the answer but to directions 8-10, where their
writes add up to s = 2. The MLP of layer 0 turns s into min(s, 1) by two hidden units a subject, relu(s) - relu(s -
1), and writes 6 times that into the answer. So one head is as good as two. Nine edges by the weights: q, k, v of both
heads, both heads to m0, and m0 to the logits.

Zero ablation. Without one head s is 1, and the answer the same: S = 0. Without a query or a key a head writes 1/2: S
= 0 as well. Only ``m0->logits`` matters alone. ACDC tries a0.h1 first, pays nothing and drops it; after that a0.h0 is
all there is, and stays: half of the truth. Ablating one edge at a time finds m0->logits alone, and gradients vanish
too, because min(s, 1) is flat at s = 2. No method that asks for one edge at a time, from the whole model, can see an
OR.

Resample ablation, "b is" for "a is". A head on the wrong subject does not only lack a's evidence, it brings b's: both
answers have 6, and S = log 2 nats. So this ablation shows each head; it would not if the corrupted value were
neutral.
"""

from circuits.planted.base import Planted, edges
from circuits.planted.copying import CORRUPTED, FACTS, IS, IS_SUBJECT, SUBJECT, draft

ANSWER = range(5, 8)
MOVED = range(8, 11)


def either() -> Planted:
    made = draft(d_stream=11, d_mlp=6)
    for head in ("a0.h0", "a0.h1"):
        made.head(head, query=IS, key=IS_SUBJECT, value=SUBJECT, writes=MOVED)
    for i in range(3):
        made.unit(0, 2 * i, {MOVED[i]: 1.0}, 0.0, {ANSWER[i]: 6.0})
        made.unit(0, 2 * i + 1, {MOVED[i]: 1.0}, -1.0, {ANSWER[i]: -6.0})
    heads = "input->a0.h{0}<q> input->a0.h{0}<k> input->a0.h{0}<v> a0.h{0}->m0 "
    return Planted(
        name="either",
        title="an OR of two heads",
        model=made.model("either", {"a0.h0", "a0.h1", "m0"}, seed=3),
        facts=FACTS,
        corrupted=CORRUPTED,
        edges={
            "zero": edges(heads.format(0) + heads.format(1) + "m0->logits"),
            "resample": edges("input->a0.h0<v> a0.h0->m0 input->a0.h1<v> a0.h1->m0 m0->logits"),
        },
        redundant=True,
    )
