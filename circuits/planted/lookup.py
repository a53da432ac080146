"""Lookup: "a" -> "p". An MLP that maps words to other words, as MLPs are thought to store facts (Geva et al. 2021).

Directions: 0-2 the word (a, b, c), 3-5 the answer (p, q, r).

Hidden unit i of m0 is relu(direction i), and writes 5 into direction 3 + i. Two edges: ``input->m0`` and
``m0->logits``. Without either all six logits are 0: S = log 6 - log(1 + 5 e^-5) = 1.76 nats. On the prompt "b" the
unit of the other word fires: with resample ablation the same two edges, each S = 5 nats.
"""

from circuits.facts import Fact
from circuits.planted.base import Draft, Planted, edges

WORD, ANSWER = range(0, 3), range(3, 6)


def lookup() -> Planted:
    made = Draft("a b c p q r", d_stream=6, n_ctx=2, d_head=2, d_mlp=3)
    for i, word in enumerate("abc"):
        made.embed(word, WORD[i])
        made.unit(0, i, {WORD[i]: 1.0}, 0.0, {ANSWER[i]: 5.0})
    made.answers(p=ANSWER[0], q=ANSWER[1], r=ANSWER[2])
    facts = tuple(Fact(word, word, answer) for word, answer in zip("abc", "pqr", strict=True))
    true = edges("input->m0 m0->logits")
    return Planted(
        name="lookup",
        title="an MLP that looks up",
        model=made.model("lookup", {"m0"}, seed=4),
        facts=facts,
        corrupted=(facts[1], facts[2], facts[0]),
        edges={"zero": true, "resample": true},
    )
