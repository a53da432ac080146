"""Copying: "a is" -> "a". One head moves the word before "is" to the answer.

Directions: 0-2 which subject (a, b, c), 3 "a subject", 4 "is", 5-7 the answer a, b, c.

The head a0.h1 has its query in direction 4, its key in direction 3, its value in 0-2, and writes 4 times the value
into 5-7, which only the unembedding reads. So at "is" it attends to the subject, and the answer's logit is 4, the
three other words' 0. Written by anyone else, 5-7 hold nothing, and nobody else writes what the head reads: four
edges.

Zero ablation. Without ``a0.h1->logits`` or ``<v>`` all four logits are 0: S = log 4 - log(1 + 3 e^-4) = 1.33 nats.
Without ``<q>`` or ``<k>`` the head attends to both positions alike and writes 2: S = log(1 + 3 e^-2) - log(1 + 3
e^-4) = 0.29 nats.

Resample ablation, "b is" for "a is". At "is" the query is the same, and so is the key of a subject, whichever: two
edges stay without effect. The value carries the other subject: S = log(e^4 + 3) - log(1 + 3 e^-4) = 4 nats for
``<v>`` and for ``->logits``.
"""

from circuits.facts import Fact
from circuits.planted.base import Draft, Planted, edges

SUBJECT, IS_SUBJECT, IS, ANSWER = range(0, 3), range(3, 4), range(4, 5), range(5, 8)
FACTS = tuple(Fact(f"{word} is", word, word) for word in "abc")
CORRUPTED = (FACTS[1], FACTS[2], FACTS[0])


def draft(*, d_stream: int = 8, d_mlp: int = 4) -> Draft:
    """The words and what they write; `circuits.planted.either` and `suppression` start from here too."""
    made = Draft("a b c is", d_stream=d_stream, n_ctx=2, d_head=3, d_mlp=d_mlp)
    for i, word in enumerate("abc"):
        made.embed(word, SUBJECT[i], IS_SUBJECT[0])
    made.embed("is", IS[0])
    made.answers(a=ANSWER[0], b=ANSWER[1], c=ANSWER[2])
    return made


def copying() -> Planted:
    made = draft()
    made.head("a0.h1", query=IS, key=IS_SUBJECT, value=SUBJECT, writes=ANSWER, strength=4.0)
    return Planted(
        name="copying",
        title="a head that copies",
        model=made.model("copying", {"a0.h1"}, seed=1),
        facts=FACTS,
        corrupted=CORRUPTED,
        edges={
            "zero": edges("input->a0.h1<q> input->a0.h1<k> input->a0.h1<v> a0.h1->logits"),
            "resample": edges("input->a0.h1<v> a0.h1->logits"),
        },
    )
