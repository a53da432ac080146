"""Recall: "a is" -> "p". A knowledge circuit in miniature: an MLP looks the answer up at the subject, a head moves it.

Directions: 0-2 which subject (a, b, c), 3 "a subject", 4 "is", 5-7 the looked-up object (p, q, r), 8-10 the answer.

m0 looks up as in `lookup`: hidden unit i is relu(direction i), and writes 1 into 5 + i, at the subject's position.
a1.h0 attends from "is" (query in 4) to the subject (key in 3), and moves the object, 6 times, from 5-7 to 8-10.
Nothing else writes or reads these directions: five edges, of which the value is the only one that m0 feeds.

Zero ablation. Each edge but query and key leaves all seven logits at 0: S = log 7 - log(1 + 6 e^-6) = 1.93 nats;
without query or key the head attends to both positions alike and the answer's logit is 3: S = 0.25 nats.

Resample ablation, "b is" for "a is": query and key are the same, and three edges are left, each S = 6 nats.
"""

from circuits.facts import Fact
from circuits.planted.base import Draft, Planted, edges

SUBJECT, IS_SUBJECT, IS, OBJECT, ANSWER = range(0, 3), range(3, 4), range(4, 5), range(5, 8), range(8, 11)


def recall() -> Planted:
    made = Draft("a b c is p q r", d_stream=11, n_ctx=2, d_head=3, d_mlp=3)
    for i, word in enumerate("abc"):
        made.embed(word, SUBJECT[i], IS_SUBJECT[0])
        made.unit(0, i, {SUBJECT[i]: 1.0}, 0.0, {OBJECT[i]: 1.0})
    made.embed("is", IS[0])
    made.answers(p=ANSWER[0], q=ANSWER[1], r=ANSWER[2])
    made.head("a1.h0", query=IS, key=IS_SUBJECT, value=OBJECT, writes=ANSWER, strength=6.0)
    facts = tuple(Fact(f"{word} is", word, answer) for word, answer in zip("abc", "pqr", strict=True))
    return Planted(
        name="recall",
        title="an MLP that looks up and a head that moves",
        model=made.model("recall", {"m0", "a1.h0"}, seed=5),
        facts=facts,
        corrupted=(facts[1], facts[2], facts[0]),
        edges={
            "zero": edges("input->m0 m0->a1.h0<v> input->a1.h0<q> input->a1.h0<k> a1.h0->logits"),
            "resample": edges("input->m0 m0->a1.h0<v> a1.h0->logits"),
        },
    )
