"""HookEngine runs what a circuit says: checked against the models alone, and against edges replaced by hand."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from circuits.circuit import Circuit, Provenance
from circuits.engines.ablation import PROMPTS, Ablation, AblationError, mean_outputs
from circuits.engines.hook import HookEngine
from circuits.engines.sparse import SparseEngine
from circuits.facts import Fact
from circuits.graph import Edge, Granularity, Graph, Node, Slot
from circuits.model import Batch, Model
from circuits.model.taps import ReaderKind, Taps, WriterKind
from tests.models import MASSIVE, massive_model, random_plain_model, word_fact

LoadModel = Callable[..., Model]

MODELS = ["gpt2", "llama", "qwen3", "neox", "mistral"]
GRANULARITIES: list[Granularity] = ["qkv", "node"]

FACTS = (
    word_fact("3 1 4 1 5 9", "26"),
    word_fact("2 7", "18"),
    word_fact("1 6 1 8 0 3", "39"),
    word_fact("5 7", "7 2"),
)
"""Two prompts of six words, one of two with a one-word answer, one of two with an answer of two words."""
CORRUPTED = (
    word_fact("8 1 4 2 5 9", "0"),
    word_fact("9 9", "0"),
    word_fact("0 6 1 8 0 4", "0"),
    word_fact("6 7", "0 0"),
)
REFERENCE = (word_fact("11 12 13", "14"), word_fact("15 16 17", "18"), word_fact("19", "20"))

ABLATIONS = {
    "zero": Ablation(),
    "mean": Ablation("mean", reference=REFERENCE),
    "resample": Ablation("resample", corrupted=CORRUPTED),
}


def assert_same(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def own_answer_logits(model: Model, fact: Fact) -> Tensor:
    """The model's logits at the answer's positions, asked for one fact and with no engine."""
    tokens = model.tokens(fact)
    return model.logits(Batch.of_prompts(torch.tensor([tokens.forced])))[0, len(tokens.prompt) - 1 :]


def replaced(model: Model, ablation: str, fact: Fact, corrupted: Fact) -> Tensor:
    """What every writer's ablated edges carry for one fact, worked out here: [writer, pos or 1, d_model]."""
    tokens = model.tokens(fact)
    match ablation:
        case "zero":
            return torch.zeros(len(model.graph().writers), 1, model.network.d_model)
        case "mean":
            runs = [
                model.node_outputs(Batch.of_prompts(torch.tensor([model.tokens(other).forced])))[:, 0]
                for other in REFERENCE
            ]
            first = torch.stack([run[:, 0] for run in runs]).mean(0)
            later = torch.cat([run[:, 1:] for run in runs], 1).mean(1)
            return torch.stack([first, *[later] * (len(tokens.forced) - 1)], 1)
        case _:
            ids = model.tokens(corrupted).prompt + tokens.answer[:-1]
            return model.node_outputs(Batch.of_prompts(torch.tensor([ids])))[:, 0]


class WithoutEdge(Taps):
    """One read, changed by hand: what its sender wrote is taken out, and the replacement put in."""

    def __init__(self, graph: Graph, edge: Edge, replacement: Tensor) -> None:
        self.edge, self.replacement = edge, replacement
        self.slots = (
            ("q", "k", "v") if graph.granularity == "node" and edge.reader.node.kind == "head" else (edge.reader.slot,)
        )
        self.written: Tensor | None = None
        self.changed = 0

    def write(self, kind: WriterKind, layer: int, value: Tensor) -> None:
        sender = self.edge.writer
        if (kind, layer) == (sender.kind, sender.layer):
            self.written = value[:, :, sender.head] if kind == "head" else value

    def read(self, kind: ReaderKind, layer: int, slot: Slot | None, value: Tensor) -> Tensor:
        receiver = self.edge.reader.node
        if (kind, layer) != (receiver.kind, receiver.layer) or slot not in self.slots:
            return value
        assert self.written is not None
        value, self.changed = value.clone(), self.changed + 1
        part = value[:, :, receiver.head] if kind == "head" else value
        part += self.replacement - self.written
        return value


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_the_full_circuit_is_the_model(
    small_model: LoadModel, name: str, granularity: Granularity, ablation: str
) -> None:
    model = small_model(name)
    engine = HookEngine(model, FACTS, granularity=granularity, ablation=ABLATIONS[ablation])
    for fact, logits in zip(FACTS, engine.answer_logits(engine.graph.legal), strict=True):
        assert_same(logits, own_answer_logits(model, fact))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_empty_circuit_reads_only_what_the_ablation_says(
    small_model: LoadModel, name: str, granularity: Granularity
) -> None:
    model = small_model(name)
    biases = model.biases.sum(0)
    for kind, ablation in ABLATIONS.items():
        engine = HookEngine(model, FACTS, granularity=granularity, ablation=ablation)
        nothing = engine.answer_logits(np.zeros_like(engine.graph.legal))
        for fact, corrupted, logits in zip(FACTS, CORRUPTED, nothing, strict=True):
            if kind == "resample":  # everything comes from the corrupted prompt: this is the model on it
                tokens, other = model.tokens(fact), model.tokens(corrupted)
                ids = torch.tensor([other.prompt + tokens.answer[:-1]])
                expected = model.logits(Batch.of_prompts(ids))[0, len(other.prompt) - 1 :]
            else:
                state = replaced(model, kind, fact, corrupted).sum(0) + biases
                expected = model.readout(state)[-len(logits) :].expand(logits.shape)
            assert_same(logits, expected)
            assert (
                logits - own_answer_logits(model, fact)
            ).abs().max() > 0.05  # the control: it is no longer the model


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_removing_one_edge_changes_one_read_by_the_senders_write(
    small_model: LoadModel, name: str, granularity: Granularity, ablation: str
) -> None:
    model = small_model(name)
    engine = HookEngine(
        model, FACTS[:2], granularity=granularity, ablation=Ablation(ABLATIONS[ablation].kind, REFERENCE, CORRUPTED[:2])
    )
    graph, changes = engine.graph, []
    edges = Circuit.full(graph, Provenance("", "")).edges
    chosen = np.random.default_rng(0).choice(len(edges), 3, replace=False)
    for edge in [edges[i] for i in chosen]:
        mask = graph.legal.copy()
        mask[graph.writer_index(edge.writer), graph.reader_index(edge.reader)] = False
        for fact, corrupted, logits in zip(FACTS, CORRUPTED, engine.answer_logits(mask), strict=False):
            tokens = model.tokens(fact)
            carried = replaced(model, ablation, fact, corrupted)[graph.writer_index(edge.writer)]
            by_hand = WithoutEdge(graph, edge, carried)
            expected = model.run(Batch.of_prompts(torch.tensor([tokens.forced])), by_hand)[0, len(tokens.prompt) - 1 :]
            assert by_hand.changed == len(by_hand.slots)
            assert_same(logits, expected)
            changes.append(float((logits - own_answer_logits(model, fact)).abs().max()))
    assert max(changes) > 0.01  # the control: removing edges does something


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_a_batch_gives_the_numbers_that_its_members_give_alone(
    small_model: LoadModel, name: str, ablation: str
) -> None:
    model = small_model(name)
    graph = model.graph()
    mask = graph.legal & (np.random.default_rng(1).random(graph.legal.shape) < 0.6)

    def nll(rows: Sequence[int]) -> np.ndarray:
        setting = Ablation(ABLATIONS[ablation].kind, REFERENCE, tuple(CORRUPTED[row] for row in rows))
        return HookEngine(model, [FACTS[row] for row in rows], ablation=setting).nll(mask)

    together = nll(range(4))
    assert np.allclose(together, [nll([row])[0] for row in range(4)], atol=1e-5)
    assert np.allclose(together[[3, 0, 2, 1]], nll([3, 0, 2, 1]), atol=1e-5)
    assert len({round(float(value), 3) for value in together}) == 4


def test_a_random_circuit_is_the_sum_over_its_edges_worked_out_by_hand() -> None:
    """On a PlainNetwork of one layer and two heads: every read written out."""
    model = random_plain_model(3, n_layers=1)
    weights = getattr(model.network, "weights")  # noqa: B009
    fact = word_fact("2 4 1", "5")
    graph = model.graph()
    mask = np.zeros_like(graph.legal)
    for name in ["input->a0.h0<q>", "input->a0.h0<v>", "input->a0.h1<k>", "a0.h0->m0", "input->logits", "m0->logits"]:
        mask[graph.edge(name)] = True
    x = weights["embed.W_E"][[2, 4, 1]] + weights["pos_embed.W_pos"][:3]
    zero, bias = torch.zeros(3, 6), {name: value for name, value in weights.items() if ".b_" in name}
    heads = []
    for head, (q_in, k_in, v_in) in enumerate([(x, zero, x), (zero, x, zero)]):
        q, k, v = (
            read @ weights[f"blocks.0.attn.W_{slot}"][head] + bias[f"blocks.0.attn.b_{slot}"][head]
            for slot, read in zip("QKV", (q_in, k_in, v_in), strict=True)
        )
        scores = (q @ k.T).masked_fill(torch.ones(3, 3, dtype=torch.bool).triu(1), -torch.inf)
        heads.append(scores.softmax(-1) @ v @ weights["blocks.0.attn.W_O"][head])
    b_o = bias["blocks.0.attn.b_O"]
    hidden = ((heads[0] + b_o) @ weights["blocks.0.mlp.W_in"] + bias["blocks.0.mlp.b_in"]).relu()
    mlp = hidden @ weights["blocks.0.mlp.W_out"] + bias["blocks.0.mlp.b_out"]
    logits = (x + mlp + b_o) @ weights["unembed.W_U"]
    engine = HookEngine(model, [fact])
    assert_same(engine.answer_logits(mask)[0][0], logits[-1])
    assert float(engine.nll(mask)[0]) == pytest.approx(float(-logits[-1].log_softmax(-1)[5]), abs=1e-5)
    assert not torch.allclose(engine.answer_logits(graph.legal)[0][0], logits[-1], atol=0.05)


@pytest.mark.parametrize("name", ["gpt2", "neox"])
def test_node_granularity_is_the_split_circuit_with_all_three_slots(small_model: LoadModel, name: str) -> None:
    model = small_model(name)
    merged = Graph(model.shape, "node")
    mask = merged.legal & (np.random.default_rng(2).random(merged.legal.shape) < 0.5)
    split = np.stack([mask[:, merged.readers_of(reader.node)[0]] for reader in model.graph().readers], 1)
    one, other = HookEngine(model, FACTS, granularity="node"), HookEngine(model, FACTS)
    assert np.allclose(one.nll(mask), other.nll(split), atol=1e-6)


def test_nll_without_is_the_nll_of_the_circuit_without_those_edges(small_model: LoadModel) -> None:
    engine = HookEngine(small_model("gpt2"), FACTS)
    kept = engine.graph.legal & (np.random.default_rng(3).random(engine.graph.legal.shape) < 0.8)
    before, reader = kept.copy(), len(engine.graph.readers) - 1
    removals = [[0], [0, 3], [], [7]]
    got = engine.nll_without(kept, reader, removals)
    assert got.shape == (4, len(FACTS))
    for row, removal in zip(got, removals, strict=True):
        smaller = kept.copy()
        smaller[removal, reader] = False
        assert np.array_equal(row, engine.nll(smaller))
    assert np.array_equal(kept, before)
    assert not np.allclose(got[0], got[2])


def test_an_engine_counts_the_circuits_it_runs_and_repeats_itself_bit_for_bit(small_model: LoadModel) -> None:
    engine = HookEngine(small_model("gpt2"), FACTS)
    first, second = engine.nll(engine.graph.legal), engine.nll(engine.graph.legal)
    engine.nll_without(engine.graph.legal, 0, [[0], []])
    assert engine.evaluations == 4
    assert first.tobytes() == second.tobytes()


def test_only_answer_positions_count_and_a_long_answer_is_averaged(small_model: LoadModel) -> None:
    model, fact = small_model("gpt2"), FACTS[3]
    tokens = model.tokens(fact)
    log_p = model.logits(Batch.of_prompts(torch.tensor([tokens.forced])))[0].double().log_softmax(-1)
    last = len(tokens.prompt) - 1
    expected = -(log_p[last, tokens.answer[0]] + log_p[last + 1, tokens.answer[1]]) / 2
    engine = HookEngine(model, [fact])
    assert float(engine.nll(engine.graph.legal)[0]) == pytest.approx(float(expected), abs=1e-5)


def test_logits_that_are_no_numbers_are_refused() -> None:
    model = random_plain_model(0)
    getattr(model.network, "weights")["unembed.W_U"][0, 0] = torch.nan  # noqa: B009
    engine = HookEngine(model, [word_fact("1 2", "3")])
    with pytest.raises(FloatingPointError, match=r"by hand on 'w1 w2', got 1 of 6"):
        engine.nll(engine.graph.legal)


# ---- ablations and groups ----------------------------------------------------------------------------------------------


def test_the_mean_is_over_positions_not_over_prompts_and_the_first_position_has_its_own(small_model: LoadModel) -> None:
    model = small_model("gpt2")
    runs = [model.node_outputs(Batch.of_prompts(torch.tensor([model.tokens(fact).forced])))[:, 0] for fact in REFERENCE]
    later = torch.cat([run[:, 1:] for run in runs], 1)
    assert later.shape[1] == 3 + 3 + 1  # the words, and BOS before them
    found = mean_outputs(model, REFERENCE)
    assert found.later is not None
    torch.testing.assert_close(found.first, torch.stack([run[:, 0] for run in runs]).mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.later, later.mean(1), rtol=1e-5, atol=1e-5)
    of_means = torch.stack([run[:, 1:].mean(1) for run in runs]).mean(0)
    assert not torch.allclose(of_means, later.mean(1), atol=1e-3)


def test_a_mean_holds_the_outputs_of_few_prompts_at_once_however_many_it_is_over(
    small_model: LoadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, at_once = small_model("gpt2"), []
    reference = [word_fact(f"{i} {i + 1}", "0") for i in range(3 * PROMPTS + 1)]
    whole = model.node_outputs(Batch.of_prompts(torch.tensor([model.tokens(fact).forced for fact in reference])))
    node_outputs = model.node_outputs

    def counted(batch: Batch) -> Tensor:
        at_once.append(len(batch.ids))
        return node_outputs(batch)

    monkeypatch.setattr(model, "node_outputs", counted)
    found = mean_outputs(model, reference)
    assert at_once == [PROMPTS] * 3 + [1]
    torch.testing.assert_close(found.at(3)[:, 2], whole[:, :, 1:].mean((1, 2)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [HookEngine, SparseEngine])
def test_a_mean_does_not_carry_the_first_positions_massive_write_to_the_others(
    make: type[HookEngine | SparseEngine], small_model: LoadModel
) -> None:
    model = massive_model(small_model("llama"))
    facts = FACTS[:3]
    runs = [model.node_outputs(Batch.of_prompts(torch.tensor([model.tokens(fact).forced])))[:, 0] for fact in REFERENCE]
    m0 = model.graph().writer_index(Node(0, "mlp"))
    assert all(run[m0, 0].norm() == pytest.approx(MASSIVE, rel=0.01) and run[m0, 1:].norm() < 50 for run in runs)

    def cost(ablation: Ablation) -> np.ndarray:
        engine = make(model, facts, ablation=ablation)
        without = engine.graph.legal.copy()
        without[m0, -1] = False
        return engine.nll(without) - engine.nll(engine.graph.legal)

    # By hand: the answer is read at a later position, where m0's own write is small, and so is the mean of such writes.
    later = torch.cat([run[m0, 1:] for run in runs]).mean(0)
    across = torch.cat([run[m0] for run in runs]).mean(0)

    def by_hand(carried: Tensor) -> list[float]:
        costs = []
        for fact in facts:
            outputs = model.node_outputs(Batch.of_prompts(torch.tensor([model.tokens(fact).prompt])))[:, 0, -1]
            state = outputs.sum(0) + model.biases.sum(0)
            answer = model.tokens(fact).answer[0]
            before, after = (
                -model.readout(x).double().log_softmax(-1)[answer] for x in (state, state - outputs[m0] + carried)
            )
            costs.append(float(after - before))
        return costs

    assert cost(Ablation("mean", REFERENCE)) == pytest.approx(by_hand(later), abs=1e-3)
    # The control: a mean across the positions buries what all others write.
    assert max(abs(np.array(by_hand(across)) - by_hand(later))) > 1


def test_both_engines_run_circuits_of_a_model_with_a_massive_first_position_alike(small_model: LoadModel) -> None:
    model, rng = massive_model(small_model("llama")), np.random.default_rng(0)
    for ablation in ABLATIONS.values():
        slow, fast = (make(model, FACTS, ablation=ablation) for make in (HookEngine, SparseEngine))
        for share in (0.3, 0.7, 0.95):
            kept = slow.graph.legal & (rng.random(slow.graph.legal.shape) < share)
            assert fast.nll(kept) == pytest.approx(slow.nll(kept), abs=1e-3)


def test_a_reference_of_single_tokens_gives_no_mean_of_later_positions() -> None:
    model = random_plain_model(0)
    with pytest.raises(AblationError, match="every prompt of it is one token long"):
        HookEngine(model, [word_fact("1 2", "3")], ablation=Ablation("mean", (word_fact("1", "3"),)))
    HookEngine(model, [word_fact("1", "3")], ablation=Ablation("mean", (word_fact("1", "3"),)))


def test_ablations_without_the_prompts_they_need_are_refused(small_model: LoadModel) -> None:
    model = small_model("gpt2")
    with pytest.raises(AblationError, match="needs reference facts"):
        Ablation("mean")
    with pytest.raises(AblationError, match="needs a corrupted prompt for each fact"):
        Ablation("resample")
    with pytest.raises((AblationError, TypeError), match="'noise'"):  # beartype, where it is on, refuses it first
        Ablation("noise")  # type: ignore[arg-type]
    with pytest.raises(AblationError, match="expected 4 corrupted prompts, one a fact, got 3"):
        HookEngine(model, FACTS, ablation=Ablation("resample", corrupted=CORRUPTED[:3]))
    with pytest.raises(AblationError, match=r"'w9 w9' is 3 tokens long, and 'w3 w1 w4 w1 w5 w9' is 7"):
        HookEngine(model, FACTS[:1], ablation=Ablation("resample", corrupted=CORRUPTED[1:2]))


def test_facts_of_like_lengths_share_a_group_and_every_fact_has_its_row(small_model: LoadModel) -> None:
    groups = small_model("gpt2").batches(FACTS)
    assert [group.rows for group in groups] == [(0, 2), (1,), (3,)]
    assert [tuple(group.ids.shape) for group in groups] == [(2, 7), (1, 3), (1, 4)]
    assert [group.n_answer for group in groups] == [1, 1, 2]
    with pytest.raises(ValueError, match="at least one fact"):
        small_model("gpt2").batches([])
