"""Train factlm, the embedded model, from scratch on text rendered from ``data/facts``.

    python data/models/train_factlm.py            # trains, or resumes where it was stopped, then measures
    python data/models/train_factlm.py --help

Training has two phases. The first is plain next-token prediction. It leaves a shallow model: a head of the first layer
carries the subject to the last token, and the first MLP there looks the answer up. In large models the first layers
enrich the subject where it stands, and later ones read it (Geva et al., 2023), so the second phase adds a price on
attention in the first ``LOCAL_LAYERS`` layers to any token but a position's own and the first one.

Everything is seeded. A checkpoint is written after every epoch, and a stopped run continues from it with the same
numbers as one that was never stopped: there is no dropout, and an epoch's text and order depend on its number only.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from dealing import make_manifest
from measure_factlm import Reader, summary
from phases import LOCAL_LAYERS, PHASES, Phase
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from circuits.datasets import load_relations
from circuits.datasets.corpus import render_epoch
from circuits.datasets.manifest import Manifest
from circuits.facts import Relations

SEED = 0
EPOCHS_BETWEEN_MEASUREMENTS = 5
N_LAYERS, N_HEADS, D_MODEL, N_CTX, D_VOCAB = 6, 8, 192, 128, 4608
TOKENS_IN_A_BATCH = 3072
WARMUP_STEPS = 200
WEIGHT_DECAY = 0.1
GRADIENT_CLIP = 1.0
END = "<|endoftext|>"
OBJECT_WEIGHT = 200
"""Extra occurrences of every object in the text the tokenizer learns from, so that each of its words is one token."""


def train_tokenizer(relations: Relations, text: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE. A space is put before the first word, so that a word is the same token wherever it stands."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=D_VOCAB,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    objects = sorted({object_ for relation in relations.values() for object_ in relation.objects})
    tokenizer.train_from_iterator([*text, *objects * OBJECT_WEIGHT], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=N_CTX,
        clean_up_tokenization_spaces=False,
    )


def end_token(tokenizer: PreTrainedTokenizerFast) -> int:
    end = tokenizer.convert_tokens_to_ids(END)
    assert isinstance(end, int)
    return end


def make_model(tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    torch.manual_seed(SEED)
    end = end_token(tokenizer)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=N_CTX,
        n_embd=D_MODEL,
        n_layer=N_LAYERS,
        n_head=N_HEADS,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
    )
    return GPT2LMHeadModel(config)


def batches(documents: list[str], tokenizer: PreTrainedTokenizerFast, seed: str) -> Iterator[tuple[Tensor, Tensor]]:
    """(input ids, labels) of documents of like length; padding is on the right, where a causal model never sees it."""
    end = end_token(tokenizer)
    encoded = [[end, *ids, end][: N_CTX + 1] for ids in tokenizer(documents)["input_ids"]]
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    groups: list[list[int]] = [[]]
    for i in order:
        if (len(groups[-1]) + 1) * len(encoded[i]) > TOKENS_IN_A_BATCH:
            groups.append([])
        groups[-1].append(i)
    random.Random(seed).shuffle(groups)
    for group in groups:
        width = max(len(encoded[i]) for i in group)
        ids = torch.full((len(group), width), end)
        labels = torch.full((len(group), width), -100)
        for row, i in enumerate(group):
            n = len(encoded[i])
            ids[row, :n] = labels[row, :n] = torch.tensor(encoded[i])
        yield ids[:, :-1], labels[:, 1:]


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < WARMUP_STEPS:
        return peak * (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def attention_away(model: GPT2LMHeadModel, states: tuple[Tensor, ...]) -> Tensor:
    """(batch, position): attention to neither itself nor the first token, over the heads of the first layers.

    ``states`` are the residual streams that enter the layers, each (batch, position, d_model).
    """
    away = []
    for layer in range(LOCAL_LAYERS):
        block: Any = model.transformer.h[layer]
        query, key, _ = block.attn.c_attn(block.ln_1(states[layer])).split(D_MODEL, dim=-1)
        batch, n, _ = query.shape
        query, key = (x.view(batch, n, N_HEADS, -1).transpose(1, 2) for x in (query, key))
        scores = query @ key.transpose(-1, -2) / math.sqrt(D_MODEL // N_HEADS)
        pattern = scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf).softmax(-1)
        stays = pattern.diagonal(dim1=-2, dim2=-1) + pattern[..., 0]
        away.append((1 - stays)[..., 1:].mean(1))
    return torch.stack(away).mean(0)


def save_checkpoint(path: Path, model: GPT2LMHeadModel, optimizer: torch.optim.AdamW, state: dict[str, int]) -> None:
    tensors = {f"model.{name}": p.detach().clone() for name, p in model.named_parameters()}
    for i, p in enumerate(model.parameters()):
        for key in ("exp_avg", "exp_avg_sq", "step"):
            tensors[f"optimizer.{i}.{key}"] = optimizer.state[p][key].clone()
    part = path.with_suffix(".part")
    save_file(tensors, part, metadata={"state": json.dumps(state)})
    part.replace(path)


def load_checkpoint(path: Path, model: GPT2LMHeadModel, optimizer: torch.optim.AdamW) -> dict[str, int]:
    with safe_open(path, "pt") as file:
        state = json.loads(file.metadata()["state"])
    tensors = load_file(path)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(tensors[f"model.{name}"])
    for i, p in enumerate(model.parameters()):
        optimizer.state[p] = {key: tensors[f"optimizer.{i}.{key}"] for key in ("exp_avg", "exp_avg_sq", "step")}
    return state


def train(out: Path, work: Path) -> None:
    """Write the trained model, its tokenizer and its manifest to ``out``; keep checkpoints in ``work``."""
    relations = load_relations()
    manifest = make_manifest(relations, SEED)
    epochs = sum(phase.epochs for phase in PHASES)
    tokenizer = train_tokenizer(relations, render_epoch(relations, manifest, 0, PHASES[0].epochs))
    work.mkdir(parents=True, exist_ok=True)
    model = make_model(tokenizer)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {epochs} epochs", flush=True)
    first = 0
    for phase in PHASES:
        last = first + phase.epochs
        if not (work / phase.file).exists():
            # Tail facts are rendered so often in so many epochs: each phase spreads them over all epochs up to its end.
            texts = [(epoch, last) for epoch in range(first, last)]
            run_phase(phase, model, tokenizer, relations, manifest, texts, work)
            part = work / f"{phase.file}.part"
            save_file({name: p.detach().half() for name, p in model.named_parameters()}, part)
            part.replace(work / phase.file)
        load_weights(model, work / phase.file)
        first = last
    save(model, tokenizer, manifest, out)


def load_weights(model: GPT2LMHeadModel, path: Path) -> None:
    tensors = load_file(path)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(tensors[name])


def run_phase(
    phase: Phase,
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    relations: Relations,
    manifest: Manifest,
    texts: list[tuple[int, int]],
    work: Path,
) -> None:
    """Train ``model`` in place, one epoch for each (number, out of how many) of ``texts``."""
    decay = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}],
        lr=phase.peak_learning_rate,
        betas=(0.9, 0.98),
    )
    checkpoint = work / f"{phase.name}-checkpoint.safetensors"
    state = {"epoch": 0, "step": 0}
    if checkpoint.exists():
        state = load_checkpoint(checkpoint, model, optimizer)
        print(f"resuming after epoch {state['epoch']} from {checkpoint}", flush=True)
    per_epoch = sum(1 for _ in batches(render_epoch(relations, manifest, *texts[0]), tokenizer, "count"))
    steps = per_epoch * len(texts)
    print(f"phase {phase.name}: {per_epoch} steps an epoch, {len(texts)} epochs", flush=True)

    def losses(ids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(cross entropy, attention away from a position's own token): means over the tokens that have a label."""
        output = model(input_ids=ids, output_hidden_states=phase.locality_price > 0)
        loss = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        if phase.locality_price == 0:
            return loss, torch.zeros(())
        real = (labels != -100)[:, 1:]
        return loss, (attention_away(model, output.hidden_states) * real).sum() / real.sum()

    # Compiled for speed alone: the same mathematics, about 1.5 times as fast on two cores.
    forward = torch.compile(losses, dynamic=True)
    for index in range(state["epoch"], len(texts)):
        epoch, epochs = texts[index]
        model.train()
        started, total, total_away, tokens = time.time(), 0.0, 0.0, 0
        for ids, labels in batches(render_epoch(relations, manifest, epoch, epochs), tokenizer, f"{SEED}/{epoch}"):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(state["step"], steps, phase.peak_learning_rate)
            loss, away = forward(ids, labels)
            optimizer.zero_grad(set_to_none=True)
            (loss + phase.price(index) * away).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_CLIP)
            optimizer.step()
            n = int((labels != -100).sum())
            total, total_away = total + loss.item() * n, total_away + away.item() * n
            tokens, state["step"] = tokens + n, state["step"] + 1
        state["epoch"] = index + 1
        save_checkpoint(checkpoint, model, optimizer, state)
        seconds = time.time() - started
        left = (len(texts) - index - 1) * seconds / 60
        print(
            f"epoch {epoch + 1}/{epochs}  loss {total / tokens:.4f} nats/token  away {total_away / tokens:.4f}"
            f"  {tokens:,} tokens  {seconds:.0f} s  {left:.0f} min left",
            flush=True,
        )
        if (index + 1) % EPOCHS_BETWEEN_MEASUREMENTS == 0:
            print("  " + summary(Reader(model, tokenizer), relations, manifest), flush=True)


def save(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, manifest: Manifest, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out)
    tokenizer.save_pretrained(out)
    manifest.save(out / "manifest.json")
    print(f"wrote {out}")


def main() -> None:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=here / "factlm", help="folder of the finished model")
    parser.add_argument("--work", type=Path, default=here / "factlm-training", help="folder of the checkpoint")
    arguments = parser.parse_args()
    train(arguments.out, arguments.work)


if __name__ == "__main__":
    main()
