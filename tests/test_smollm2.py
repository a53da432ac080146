"""A real model: SmolLM2-135M loads as what it is, keeps a massive first position, and knows facts."""

import torch

from circuits.evaluation import whole_model
from circuits.evaluation.answers import known
from circuits.facts import Fact, Relations
from circuits.graph import Shape
from circuits.model import Model, library
from circuits.model.batch import Batch
from circuits.studies.explain.sides import Bench
from circuits.studies.specs import RunSpec

SENTENCE = "The official language of France is French, and Tokyo is the capital of Japan."
FRANCE = Fact("The official language of France is", "France", "French")


def sentence(model: Model) -> Batch:
    assert model.vocabulary.bos is not None
    return Batch.of_prompts(torch.tensor([[model.vocabulary.bos, *model.vocabulary.encode(SENTENCE)]]))


def test_it_is_what_the_library_says(smollm2: Model) -> None:
    entry = next(entry for entry in library.entries() if entry.name == "smollm2")
    assert smollm2.shape == Shape(30, 9) == Shape(entry.layers or 0, entry.heads or 0)
    assert smollm2.graph().n_edges == 123_211
    assert smollm2.bos == entry.bos == "<|endoftext|>"
    assert smollm2.quantisation == "Q4_1"
    assert smollm2.weights == "5bf586bf3b11ca984287b9a047ce03dfebcd8b59ac86d8e169bb8440f3a4709d"


def test_its_probabilities_are_those_of_transformers(smollm2: Model) -> None:
    import transformers

    folder = str(library.find("smollm2"))
    original = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = original(sentence(smollm2).ids).logits.log_softmax(-1)
    torch.testing.assert_close(smollm2.logits(sentence(smollm2)).log_softmax(-1), expected, rtol=0, atol=2e-3)


def test_its_stream_is_the_sum_of_its_writers_though_the_first_position_is_massive(smollm2: Model) -> None:
    outputs = smollm2.node_outputs(sentence(smollm2))
    stream = outputs.sum(0) + smollm2.biases.sum(0)
    torch.testing.assert_close(smollm2.readout(stream), smollm2.logits(sentence(smollm2)), rtol=1e-3, atol=1e-2)
    norms = outputs.norm(dim=-1).amax(0)[0]  # the largest write of each position
    assert norms[0] > 20 * norms[1:].max()


def test_it_knows_the_running_example_and_most_official_languages(smollm2: Model, relations: Relations) -> None:
    assert whole_model(smollm2, [FRANCE]).rank.value == 1
    languages = relations["country_language"].facts()[:30]
    assert len(known(smollm2, languages)) >= 27
    # The control: with the answers dealt to other countries it knows few.
    wrong = [Fact(a.prompt, a.subject, b.object) for a, b in zip(languages, reversed(languages), strict=True)]
    assert len(known(smollm2, wrong)) < 15


def test_its_heads_are_read_by_what_they_write_of_though_most_of_them_rest_on_the_first_token(
    smollm2: Model, relations: Relations
) -> None:
    """Paper 2's running example: a head that moves the subject to the last token. By attention alone, two in three heads read the first."""
    fact = Fact(FRANCE.prompt, FRANCE.subject, FRANCE.object, "country_language")
    heads = [node for node in smollm2.graph().nodes if node.kind == "head"]
    readings = Bench(relations, RunSpec(facts=(fact,))).readings(smollm2, fact, heads)
    resting = [each for each in readings if each.sink >= 0.5]
    assert len(resting) > len(heads) / 2
    assert sum(each.reads == "first" for each in readings) < len(heads) / 5
    (mover,) = (each for each in readings if each.head == "a23.h4")
    assert mover.reads == "subject"
    assert mover.share > 0.9
    assert mover.copies
    assert mover.promotes == " France"
