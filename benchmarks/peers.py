"""ACDC by others on the same weights, prompts, threshold and ablation, timed in the same run.

    python benchmarks/peers.py               three facts of factlm: minutes (and the environment's installation the first time)
    python benchmarks/peers.py --facts 12

auto-circuit 1.0.1 (UFO-101/auto-circuit, the newest on the index) has an environment of its own in ``benchmarks/.cache``, with the
same torch. It searches by the KL from the whole model and ablates by another prompt, so both do. It tries edges in the order of a
Python set, which differs from run to run: it is timed once as it comes, and once with its set in the order that ACDC's specification
has, which leaves nothing that could make the circuits differ but rounding.

Each fact is searched by both, one after the other, on one thread. Writes ``peers`` in ``results.json``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from run import write

from circuits.circuit import Circuit, jaccard
from circuits.datasets import load_relations
from circuits.datasets.corrupted import corrupted
from circuits.discovery.acdc import AcdcOptions, search
from circuits.discovery.traversal import Traversal
from circuits.engines import Ablation, HookEngine, SparseEngine
from circuits.facts import Fact
from circuits.graph import Graph, Node, Reader
from circuits.metrics import KL
from circuits.model import Model
from circuits.model.transformer import Components
from circuits.studies import bench

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE / ".cache" / "peers"
REQUIRED = (f"torch=={torch.__version__}", "auto-circuit==1.0.1", "transformer-lens<3", "numpy>=2", "pandas>=2.2.3")
"""auto-circuit asks for TransformerLens from 1.13 on and cannot load the third: it wraps modules that are no longer there."""
TAU = 0.01
BASE, EXPONENT = 1, -2
"""The same threshold as auto-circuit is told it: ``BASE * 10**EXPONENT``."""
SAME = 1e-3
"""Largest difference of a logit at which two copies of a model count as the same."""


def environment() -> Path:
    """The Python of the peers' environment, made where it is missing."""
    python = ENVIRONMENT / "bin" / "python"
    if not (ENVIRONMENT / "installed").exists():
        print(f"installing {', '.join(REQUIRED)} in {ENVIRONMENT}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *REQUIRED], check=True)
        (ENVIRONMENT / "installed").touch()
    return python


# ---- the same model and graph, in the peer's words -------------------------------------------------------------------


def lens_names(model: Model) -> dict[str, Any]:
    """Weights and configuration of a model of GPT-2's architecture, by TransformerLens' names."""
    parts: Components = model.network.components(model.n_ctx)  # type: ignore[attr-defined]
    first, W_pos = parts.blocks[0], parts.W_pos
    assert W_pos is not None, "a model whose positions are not embedded"
    n_heads, d_model, d_head = first.attention.W_Q.shape
    weights = {"embed.W_E": parts.W_E, "pos_embed.W_pos": W_pos, "unembed.W_U": parts.W_U, "unembed.b_U": parts.b_U}
    norms = {"ln_final": parts.final}
    for layer, block in enumerate(parts.blocks):
        own = f"blocks.{layer}"
        weights |= {f"{own}.attn.{name}": getattr(block.attention, name) for name in ("W_Q", "W_K", "W_V", "W_O")}
        weights |= {f"{own}.attn.{name}": getattr(block.attention, name) for name in ("b_Q", "b_K", "b_V")}
        weights |= {f"{own}.mlp.{name}": getattr(block.mlp, name) for name in ("W_in", "b_in", "W_out", "b_out")}
        weights[f"{own}.attn.b_O"] = parts.b_O[layer]
        norms |= {f"{own}.ln1": block.attention.norm, f"{own}.ln2": block.mlp.norm}
    for name, norm in norms.items():
        assert norm.kind == "layer", f"{name} is no layer norm"
        assert norm.weight is not None
        assert norm.bias is not None
        weights |= {f"{name}.w": norm.weight, f"{name}.b": norm.bias}
    cfg = {
        "n_layers": len(parts.blocks),
        "n_heads": n_heads,
        "d_model": d_model,
        "d_head": d_head,
        "d_mlp": first.mlp.W_in.shape[1],
        "d_vocab": parts.d_vocab,
        "n_ctx": len(W_pos),
        "act_fn": first.mlp.activation,
        "normalization_type": "LN",
        "eps": parts.final.eps,
        "use_attn_result": True,
        "use_split_qkv_input": True,
        "use_hook_mlp_in": True,
        "device": "cpu",
    }
    return {"cfg": cfg, "weights": {name: tensor.contiguous() for name, tensor in weights.items()}}


def source_name(node: Node) -> str:
    match node.kind:
        case "head":
            return f"A{node.layer}.{node.head}"
        case "mlp":
            return f"MLP {node.layer}"
        case _:
            return "Resid Start"


def reader_name(reader: Reader) -> str:
    match reader.node.kind:
        case "head":
            assert reader.slot is not None
            return f"{source_name(reader.node)}.{reader.slot.upper()}"
        case "mlp":
            return source_name(reader.node)
        case _:
            return "Resid End"


def edge_names(graph: Graph) -> list[tuple[str, str]]:
    """All edges in ACDC's order."""
    return [
        (source_name(graph.writers[writer]), reader_name(graph.readers[reader]))
        for writer, reader in Traversal(graph).edges
    ]


# ---- one fact --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timed:
    seconds: float
    processor_seconds: float
    kept: frozenset[tuple[str, str]]


def ours(model: Model, fact: Fact, other: Fact, kind: type[SparseEngine] | type[HookEngine]) -> Timed:
    began, cpu = time.perf_counter(), time.process_time()
    engine = kind(model, (fact,), ablation=Ablation("resample", corrupted=(other,)), metric=KL)
    scores, _ = search(engine, AcdcOptions(TAU), provenance=bench.provenance_of(model, TAU), force=True)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    circuit: Circuit = scores.above(TAU)
    kept = {(source_name(edge.writer), reader_name(edge.reader)) for edge in circuit}
    return Timed(seconds, cpu, frozenset(kept))


def theirs(python: Path, model: Model, fact: Fact, other: Fact) -> tuple[Timed, Timed]:
    """(as it comes, in ACDC's order).

    Raises:
        RuntimeError: its copy of the model gives other logits.
    """
    prompts = {"clean": model.tokens(fact).prompt, "corrupt": model.tokens(other).prompt}
    jobs = [
        {**prompts, "base": BASE, "exponent": EXPONENT, "order": order}
        for order in ([], edge_names(model.graph("qkv")))
    ]
    with TemporaryDirectory() as folder:
        torch.save(lens_names(model), Path(folder) / "model.pt")
        (Path(folder) / "job.json").write_text(json.dumps(jobs), encoding="utf-8")
        command = [str(python), str(HERE / "peer_auto_circuit.py"), folder]
        alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        quiet = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
        done = subprocess.run(command, env=alone | quiet, stdout=subprocess.PIPE, text=True, check=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    (batch,) = model.batches((fact,))
    own = model.logits(batch)[0, -1]
    off = float((own - torch.tensor(found[0]["logits"])).abs().max())
    if not off < SAME:
        raise RuntimeError(f"{fact.prompt}: its copy of {model.name} gives logits that are off by {off:.1e}")
    as_it_comes, in_order = (
        Timed(one["seconds"], one["processor_seconds"], frozenset(map(tuple, one["kept"]))) for one in found
    )
    return as_it_comes, in_order


def compared(python: Path, model: Model, fact: Fact, other: Fact) -> dict[str, Any]:
    fast, (as_it_comes, in_order) = (
        ours(model, fact, other, SparseEngine),
        theirs(python, model, fact, other),
    )
    reference = ours(model, fact, other, HookEngine)
    row = {
        "fact": str(fact),
        "corrupted": other.prompt,
        "edges": model.graph("qkv").n_edges,
        "kept": len(fast.kept),
        "seconds": fast.seconds,
        "processor_seconds": fast.processor_seconds,
        "reference": {
            "processor_seconds": reference.processor_seconds,
            "differing": len(fast.kept ^ reference.kept),
        },
        "auto_circuit": {
            "seconds": as_it_comes.seconds,
            "processor_seconds": as_it_comes.processor_seconds,
            "kept": len(as_it_comes.kept),
            "jaccard": jaccard(fast.kept, as_it_comes.kept),
        },
        "auto_circuit_in_order": {
            "seconds": in_order.seconds,
            "processor_seconds": in_order.processor_seconds,
            "kept": len(in_order.kept),
            "jaccard": jaccard(fast.kept, in_order.kept),
            "differing": [" -> ".join(edge) for edge in sorted(fast.kept ^ in_order.kept)],
        },
    }
    print(json.dumps(row), flush=True)
    return row


def same_length(model: Model, fact: Fact, other: Fact) -> bool:
    """What auto-circuit asks of two prompts; and of the fact, one token to its answer."""
    own, foreign = model.tokens(fact), model.tokens(other)
    return len(own.answer) == 1 and len(own.prompt) == len(foreign.prompt)


def peers(n: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    python, model, relations = environment(), Model.default(), load_relations()
    pairs = [(fact, corrupted(fact, relations, model)) for fact in bench.first_facts(relations, 4 * n)]
    pairs = [(fact, other) for fact, other in pairs if same_length(model, fact, other)][:n]
    ours(model, *pairs[0], SparseEngine)
    rows = [compared(python, model, fact, other) for fact, other in pairs]

    def median(ratio: str) -> float:
        return statistics.median(row[ratio]["processor_seconds"] / row["processor_seconds"] for row in rows)

    return {
        "model": model.name,
        "tau": TAU,
        "metric": "KL",
        "ablation": "resample",
        "facts": len(rows),
        "median_processor_seconds": statistics.median(row["processor_seconds"] for row in rows),
        "median_ratio_auto_circuit": median("auto_circuit"),
        "median_ratio_auto_circuit_in_order": median("auto_circuit_in_order"),
        "median_ratio_reference": median("reference"),
        "median_jaccard_auto_circuit": statistics.median(row["auto_circuit"]["jaccard"] for row in rows),
        "decisions_differing_in_order": sum(len(row["auto_circuit_in_order"]["differing"]) for row in rows),
        "rows": rows,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facts", type=int, default=3)
    asked = parser.parse_args()
    write("peers", lambda: peers(asked.facts))
