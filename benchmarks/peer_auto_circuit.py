"""The other side of `peers.py`, run in an environment of its own: auto-circuit's ACDC on weights and prompts that it is given.

    python peer_auto_circuit.py JOB

JOB is a folder with ``model.pt`` (``cfg`` and ``weights``, by TransformerLens' names) and ``job.json``. Each line printed is the
JSON of one search.
"""
# pyright: basic, reportMissingImports=false, reportCallIssue=false

import json
import sys
import time
from pathlib import Path

import torch
from auto_circuit.data import PromptDataLoader, PromptDataset
from auto_circuit.prune_algos import ACDC
from auto_circuit.utils.graph_utils import patchable_model
from ordered_set import OrderedSet
from transformer_lens import HookedTransformer, HookedTransformerConfig


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    saved = torch.load(folder / "model.pt", weights_only=True)
    for job in json.loads((folder / "job.json").read_text(encoding="utf-8")):
        # Anew for each: it leaves its masks set.
        model = HookedTransformer(HookedTransformerConfig(**saved["cfg"]))
        missing = model.load_state_dict(saved["weights"], strict=False).missing_keys
        assert not [name for name in missing if "mask" not in name and "IGNORE" not in name], missing
        model.eval().requires_grad_(requires_grad=False)
        print(json.dumps(searched(model, job)), flush=True)


def searched(model: HookedTransformer, job: dict) -> dict:
    clean, corrupt = torch.tensor([job["clean"]]), torch.tensor([job["corrupt"]])
    logits = model(clean)[0, -1].tolist()
    patchable = patchable_model(
        model, factorized=True, slice_output="last_seq", separate_qkv=True, device=torch.device("cpu")
    )
    if job["order"]:
        # It sorts a set by layer, stably: in this order within a layer, instead of by the hash.
        edges = {(edge.src.name, edge.dest.name): edge for edge in patchable.edges}
        patchable.edges = OrderedSet(edges[source, reader] for source, reader in job["order"])
    prompts = PromptDataLoader(
        PromptDataset(clean, corrupt, [torch.tensor([0])], [torch.tensor([1])]), seq_len=None, diverge_idx=0
    )
    began, cpu = time.perf_counter(), time.process_time()
    scores = ACDC.acdc_prune_scores(
        patchable, prompts, None, tao_exps=[job["exponent"]], tao_bases=[job["base"]], faithfulness_target="kl_div"
    )
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    kept = [
        (edge.src.name, edge.dest.name)
        for edge in patchable.edges
        if torch.isinf(scores[edge.dest.module_name][edge.patch_idx])
    ]
    return {
        "seconds": seconds,
        "processor_seconds": cpu,
        "edges": len(patchable.edges),
        "kept": kept,
        "logits": logits,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
