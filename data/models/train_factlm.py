"""Train factlm, the embedded model, from scratch on text rendered from ``data/facts``.

    python data/models/train_factlm.py            # trains, or resumes where it was stopped, then measures
    python data/models/train_factlm.py --help

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

import torch
from measure_factlm import Reader, summary
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from circuits.datasets import load_relations
from circuits.datasets.corpus import render_epoch
from circuits.datasets.manifest import Manifest, make_manifest
from circuits.facts import Relations

SEED = 0
EPOCHS_BETWEEN_MEASUREMENTS = 5
EPOCHS = 45
N_LAYERS, N_HEADS, D_MODEL, N_CTX, D_VOCAB = 6, 8, 192, 128, 4608
TOKENS_IN_A_BATCH = 3072
PEAK_LEARNING_RATE = 2e-3
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


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < WARMUP_STEPS:
        return PEAK_LEARNING_RATE * (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return PEAK_LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


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


def train(out: Path, work: Path, epochs: int) -> None:
    """Write the trained model, its tokenizer and its manifest to ``out``; keep checkpoints in ``work``."""
    relations = load_relations()
    manifest = make_manifest(relations, SEED)
    tokenizer = train_tokenizer(relations, render_epoch(relations, manifest, 0, epochs))
    model = make_model(tokenizer)
    decay = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}],
        lr=PEAK_LEARNING_RATE,
        betas=(0.9, 0.98),
    )
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = work / "checkpoint.safetensors"
    state = {"epoch": 0, "step": 0}
    if checkpoint.exists():
        state = load_checkpoint(checkpoint, model, optimizer)
        print(f"resuming after epoch {state['epoch']} from {checkpoint}")
    per_epoch = sum(1 for _ in batches(render_epoch(relations, manifest, 0, epochs), tokenizer, "count"))
    steps = per_epoch * epochs
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {per_epoch} steps an epoch, {epochs} epochs")
    # Compiled for speed alone: the same mathematics, about 1.5 times as fast on two cores.
    forward = torch.compile(model, dynamic=True)
    for epoch in range(state["epoch"], epochs):
        model.train()
        started, total, tokens = time.time(), 0.0, 0
        for ids, labels in batches(render_epoch(relations, manifest, epoch, epochs), tokenizer, f"{SEED}/{epoch}"):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(state["step"], steps)
            logits = forward(input_ids=ids).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_CLIP)
            optimizer.step()
            n = int((labels != -100).sum())
            total, tokens, state["step"] = total + loss.item() * n, tokens + n, state["step"] + 1
        state["epoch"] = epoch + 1
        save_checkpoint(checkpoint, model, optimizer, state)
        seconds = time.time() - started
        left = (epochs - epoch - 1) * seconds / 60
        print(
            f"epoch {epoch + 1}/{epochs}  loss {total / tokens:.4f} nats/token  {tokens:,} tokens"
            f"  {seconds:.0f} s  {left:.0f} min left",
            flush=True,
        )
        if (epoch + 1) % EPOCHS_BETWEEN_MEASUREMENTS == 0:
            print("  " + summary(Reader(model, tokenizer), relations, manifest), flush=True)
    save(model, tokenizer, manifest, out)


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
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    train(arguments.out, arguments.work, arguments.epochs)


if __name__ == "__main__":
    main()
