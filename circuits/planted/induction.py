"""Induction: "a p b q a" -> "p". Two heads in composition (Elhage et al. 2021): what came after the last a?

Words BOS a b p q. Directions: 0-4 the word, 5-10 the position (0-5), 11-15 the word before, 16-20 the answer.

a0.h0 attends from position i (query in 6-10) to position i - 1 (key in 5-9), and writes the word there as "the word
before" (11-15). a1.h1 attends from a word (query in 0-4) to where it is "the word before" (key in 11-15), and writes
the word there, 8 times, as the answer. So the key of a1.h1 is the only thing that a0.h0 feeds: seven edges. BOS
stands at position 0, which has no word before.

Zero ablation. Without a value, or without ``a1.h1->logits``, all five logits are 0: S = log 5 - log(1 + 4 e^-8) =
1.61 nats. Without a query or a key of a1.h1, or any edge of a0.h0, the attention of a1.h1 is spread over many words,
and the answer no longer stands out: S > 0.9 nats.

Resample ablation, "b q a p b" for "a p b q a". Positions are the same, so a0.h0 keeps query and key; five edges are
left. Query and key of a1.h1 both carry another word: either alone leads astray, and both together would lead back.
"""

from circuits.facts import Fact
from circuits.planted.base import Draft, Planted, edges

WORD, POSITION, BEFORE, ANSWER = range(0, 5), range(5, 11), range(11, 16), range(16, 21)


def induction() -> Planted:
    made = Draft("BOS a b p q", d_stream=21, n_ctx=6, d_head=5, d_mlp=4, bos=0)
    for i, word in enumerate(made.words.split()):
        made.embed(word, WORD[i])
        made.answers(**{word: ANSWER[i]})
    made.position(POSITION[0])
    made.head("a0.h0", query=POSITION[1:], key=POSITION[:-1], value=WORD, writes=BEFORE)
    made.head("a1.h1", query=WORD, key=BEFORE, value=WORD, writes=ANSWER, strength=8.0)
    facts = (Fact("a p b q a", "a", "p"), Fact("b q a p b", "b", "q"))
    return Planted(
        name="induction",
        title="two heads in composition",
        model=made.model("induction", {"a0.h0", "a1.h1"}, seed=7),
        facts=facts,
        corrupted=tuple(reversed(facts)),
        edges={
            "zero": edges(
                "input->a0.h0<q> input->a0.h0<k> input->a0.h0<v> a0.h0->a1.h1<k> input->a1.h1<q> input->a1.h1<v> a1.h1->logits"
            ),
            "resample": edges("input->a0.h0<v> a0.h0->a1.h1<k> input->a1.h1<q> input->a1.h1<v> a1.h1->logits"),
        },
    )
