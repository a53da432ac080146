"""Suppression: "a is" -> "a", though one head works against it.

As in `copying`, but both heads of layer 0 do the same: a0.h0 writes 5 times the subject into the answer, a0.h1 -2
times. The answer's logit is 3, the others' 0. Eight edges, four a head.

Zero ablation. Removing ``a0.h1->logits`` raises the answer's logit to 5: S = log(1 + 3 e^-5) - log(1 + 3 e^-3) =
-0.12 nats. The sign is the point: a rule that removes an edge if S < tau removes it gladly, and with it all that
leads there; one that looks at |S| keeps it. ``a0.h0->logits`` leaves the answer at -2: S = log(1 + 3 e^2) - log(1 + 3
e^-3) = 3.00 nats. Without a query or a key a head writes half.

Resample ablation, "b is" for "a is": the values alone differ, as in `copying`. With the suppressing head on b, the
logits are 5 for a and -2 for b: S = -0.12 nats again.
"""

from circuits.planted.base import Planted, edges
from circuits.planted.copying import ANSWER, CORRUPTED, FACTS, IS, IS_SUBJECT, SUBJECT, draft


def suppression() -> Planted:
    made = draft()
    made.head("a0.h0", query=IS, key=IS_SUBJECT, value=SUBJECT, writes=ANSWER, strength=5.0)
    made.head("a0.h1", query=IS, key=IS_SUBJECT, value=SUBJECT, writes=ANSWER, strength=-2.0)
    return Planted(
        name="suppression",
        title="a head that copies and one that suppresses",
        model=made.model("suppression", {"a0.h0", "a0.h1"}, seed=2),
        facts=FACTS,
        corrupted=CORRUPTED,
        edges={
            "zero": edges(
                "input->a0.h0<q> input->a0.h0<k> input->a0.h0<v> a0.h0->logits "
                "input->a0.h1<q> input->a0.h1<k> input->a0.h1<v> a0.h1->logits"
            ),
            "resample": edges("input->a0.h0<v> a0.h0->logits input->a0.h1<v> a0.h1->logits"),
        },
        tau=0.05,
        suppressive=True,
    )
