"""Conjunction: "a r" -> "p", "a s" -> "q", "b r" -> "u", "b s" -> "v". An MLP that needs subject and relation: an AND.

Directions: 0-1 which subject (a, b), 2 "a subject", 3-4 which relation (r, s), 5 "a relation", 6-7 the moved subject,
8-11 the answer.

a0.h0 moves the subject to the relation's position. m0 has a hidden unit for each pair: relu(moved subject + relation
- 1), 1 if both came and 0 if either is missing, and writes 6 into the pair's answer. Six edges. Unlike in an OR,
whichever part is ablated first, its loss shows.

Zero ablation. Without ``input->m0``, ``a0.h0->m0``, ``a0.h0``'s value or ``m0->logits`` all eight logits are 0: S =
log 8 - log(1 + 7 e^-6) = 2.06 nats. Without query or key the moved subject is 1/2 and the unit too: the logit is 3, S
= 0.28 nats.

Resample ablation, "b s" for "a r", so that both parts change. Query and key stay the same; four edges are left. Each
makes another pair's unit fire: S = 6 nats.
"""

from circuits.facts import Fact
from circuits.planted.base import Draft, Planted, edges

SUBJECT, IS_SUBJECT = range(0, 2), range(2, 3)
RELATION, IS_RELATION = range(3, 5), range(5, 6)
MOVED, ANSWER = range(6, 8), range(8, 12)


def conjunction() -> Planted:
    made = Draft("a b r s p q u v", d_stream=12, n_ctx=2, d_head=2, d_mlp=4)
    for i, word in enumerate("ab"):
        made.embed(word, SUBJECT[i], IS_SUBJECT[0])
    for i, word in enumerate("rs"):
        made.embed(word, RELATION[i], IS_RELATION[0])
    made.head("a0.h0", query=IS_RELATION, key=IS_SUBJECT, value=SUBJECT, writes=MOVED)
    for pair in range(4):
        made.unit(0, pair, {MOVED[pair // 2]: 1.0, RELATION[pair % 2]: 1.0}, -1.0, {ANSWER[pair]: 6.0})
    made.answers(p=ANSWER[0], q=ANSWER[1], u=ANSWER[2], v=ANSWER[3])
    prompts, answers = ("a r", "a s", "b r", "b s"), "pquv"
    facts = tuple(Fact(prompt, prompt[0], answer) for prompt, answer in zip(prompts, answers, strict=True))
    return Planted(
        name="conjunction",
        title="an MLP that joins subject and relation",
        model=made.model("conjunction", {"a0.h0", "m0"}, seed=6),
        facts=facts,
        corrupted=tuple(reversed(facts)),
        edges={
            "zero": edges("input->a0.h0<q> input->a0.h0<k> input->a0.h0<v> a0.h0->m0 input->m0 m0->logits"),
            "resample": edges("input->a0.h0<v> a0.h0->m0 input->m0 m0->logits"),
        },
    )
