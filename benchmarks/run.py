"""Run the benchmarks and write ``benchmarks/results.json`` and ``figures/benchmark.svg``.

    python benchmarks/run.py                 all parts but the slow ones
    python benchmarks/run.py factlm scaling  these parts
    python benchmarks/run.py page            the page and the figure again, from the results
    python benchmarks/run.py equality        every decision of both engines on 108 searches, an hour the first time
    python benchmarks/run.py medium          the GPT-2-medium shape, minutes to tens of minutes
    python benchmarks/run.py smollm2         one fact on a real model, twice: minutes

Each part replaces its own entry in the results; the others stay.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import profiling
import torch
from agreement import agreement
from scatter import scatter_svg
from shapes import likely_facts, random_gpt2

from circuits.choices import counted
from circuits.datasets import load_relations
from circuits.engines.memory import matmul_speed
from circuits.engines.sparse import SparseEngine
from circuits.facts import Fact
from circuits.model import Model
from circuits.studies import bench
from circuits.studies.roofline import real_searches

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
PAGE = HERE / "README.md"
RESULTS_HERE = "<!-- results: written by run.py -->", "<!-- end of results -->"
PROFILE_HERE = "<!-- profile: written by run.py -->", "<!-- end of profile -->"
FIGURE = HERE.parent / "figures" / "benchmark.svg"
TAU_RANDOM = 3e-5
"""Keeps about 3 % of the edges of the GPT-2-small-shaped model."""


def factlm() -> dict[str, Any]:
    """Reference and fast engine on the first known fact of each of 12 relations."""
    return bench.compare(Model.default(), bench.first_facts(load_relations(), 12), tau=0.01, progress=print).to_json()


def equality() -> dict[str, Any]:
    """Both engines on 12 facts, with each ablation and three thresholds: 108 searches, merged edges."""
    model, relations = Model.default(), load_relations()
    rows = list(
        agreement(
            model,
            bench.first_facts(relations, 12),
            relations,
            taus=(0.02, 0.07, 0.2),
            granularity="node",
            references=HERE / ".cache",
            progress=lambda line: print(line, flush=True),
        )
    )
    return {
        "searches": len(rows),
        "granularity": "node",
        "taus": sorted({row.tau for row in rows}),
        "decisions": sum(row.decisions for row in rows),
        "tried": sum(row.tried for row in rows),
        "differing": sum(row.differing for row in rows),
        "near_ties": sum(row.near_ties for row in rows),
        "largest_score_difference": max(row.largest_score_difference for row in rows),
        "rows": [asdict(row) for row in rows],
    }


def profile() -> dict[str, Any]:
    """Where the fast engine's time goes on the facts of ``factlm``, and what its matrix products alone would take."""
    model, facts = Model.default(), bench.first_facts(load_relations(), 12)
    shares = profiling.where_time_goes(model, facts, 0.01)
    started = time.process_time()
    searches = [bench.timed(model, (fact,), 0.01, SparseEngine)[0] for fact in facts]
    seconds = time.process_time() - started
    flops = profiling.operations(model, facts, 0.01)
    return {
        "shares": shares,
        "processor_seconds": seconds,
        "tried": sum(search.tried for search in searches),
        "evaluations": sum(search.evaluations for search in searches),
        "operations": flops,
        "seconds_of_products_at_full_speed": flops / matmul_speed(torch.device("cpu"), 0.5, time.process_time),
    }


def small() -> dict[str, Any]:
    """One 8-token fact on a random model of GPT-2 small's shape, all 32,491 edges."""
    return _random(12, 12)


def medium() -> dict[str, Any]:
    """One 8-token fact on a random model of GPT-2 medium's shape, all 231,877 edges."""
    return _random(24, 16)


def smollm2() -> dict[str, Any]:
    """One fact on a real model, merged edges, tau 0.05."""
    facts = [Fact("The official language of France is", "France", "French")]
    return real_searches(Model.load("smollm2"), facts, tau=0.05, granularity="node", progress=print)


def scaling() -> dict[str, Any]:
    """Time over layers x heads, and over facts; vocabulary of 1,000, so that the nodes' own work shows."""
    sizes = [_random(n_layers, n_heads, d_vocab=1000, d_head=16) for n_layers, n_heads in ((6, 8), (12, 12), (24, 16))]
    facts = [_random(6, 8, d_vocab=1000, d_head=16, n_facts=n) for n in (1, 5, 20)]
    return {"sizes": sizes, "facts": facts}


def _random(n_layers: int, n_heads: int, *, n_facts: int = 1, **shape: int) -> dict[str, Any]:
    model = random_gpt2(n_layers, n_heads, **shape)
    told = time.monotonic()

    def progress(state: Any) -> None:
        nonlocal told
        if time.monotonic() - told > 30:
            told = time.monotonic()
            print(f"{model.name}: {state.done:,} of {state.total:,} edges, {state.kept:,} kept", flush=True)

    search, _, _ = bench.timed(model, likely_facts(model, n_facts), TAU_RANDOM, SparseEngine, progress)
    result = {
        "layers": n_layers,
        "heads": n_heads,
        "tau": TAU_RANDOM,
        **asdict(search),
        "peak_bytes": bench.peak_bytes(),
    }
    print(result, flush=True)
    return result


def _processor() -> str:
    """The processor's own name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processor": _processor(),
        "torch": torch.__version__,
        "gflops": round(matmul_speed(torch.device("cpu"), 0.5) / 1e9),
    }


PARTS = {
    "factlm": factlm,
    "equality": equality,
    "profile": profile,
    "small": small,
    "scaling": scaling,
    "medium": medium,
    "smollm2": smollm2,
}


def draw(results: dict[str, Any]) -> str:
    """Seconds against edges tried times circuit size, on logarithmic axes: one SVG, written by hand."""
    searches = [("GPT-2 small", results["small"])] if "small" in results else []
    searches += [("GPT-2 medium", results["medium"])] if "medium" in results else []
    for row in results.get("scaling", {}).get("sizes", []):
        searches.append((f"{row['layers']} x {row['heads']}, narrow", row))
    return scatter_svg([(name, row["tried"], row["seconds"]) for name, row in searches], x="edges tried", y="seconds")


def tables(results: dict[str, Any]) -> str:
    """The results in the words of the page: markdown."""
    rows = []
    if found := results.get("factlm"):
        ratios = sorted(pair["reference"]["seconds"] / pair["fast"]["seconds"] for pair in found["searches"])
        rows += [
            ("factlm: median ratio", "150", f"{found['median_ratio']:.0f} ({ratios[0]:.0f} to {ratios[-1]:.0f})"),
            ("factlm: median seconds a fact", "0.5", f"{found['median_seconds']:.3f}"),
            ("factlm: median seconds a fact, reference", "", f"{found['median_seconds_reference']:.2f}"),
            ("factlm: decisions differing", "0", f"{found['decisions_differing']} ({found['near_ties']} near ties)"),
        ]
    if found := results.get("equality"):
        counts = f"{found['differing']} of {found['decisions']:,}, {found['near_ties']} near ties"
        rows.append((f"factlm: decisions differing in {found['searches']} searches", "0", counts))
    if found := results.get("smollm2"):
        what = f"smollm2, one fact, {found['searches'][0]['fast']['edges']:,} merged edges, tau {found['tau']:g}"
        rows += [
            (f"{what}: seconds, {found['threads']} threads", "", f"{found['search_seconds']:.0f}"),
            (f"{what}: decisions differing from plain products", "0", f"{found['decisions_differing']}"),
            (f"{what}: share of the roofline", "60 %", f"{found['roofline_share']:.0%}"),
            (f"{what}: peak memory", "3 GB", f"{found['peak_bytes'] / 1e9:.1f} GB"),
        ]
    if found := results.get("peers"):
        what = (
            f"auto-circuit beside this, {counted(found['facts'], 'fact')} of {found['model']}, KL, tau {found['tau']:g}"
        )
        times = f"{found['median_processor_seconds']:.2f} s here; by hooks {found['median_ratio_reference']:.0f} times as long"
        rows += [
            (f"{what}: times as long", "", f"{found['median_ratio_auto_circuit_in_order']:.0f} ({times})"),
            (f"{what}, in one order: decisions differing", "0", f"{found['decisions_differing_in_order']}"),
            (f"{what}, in its own order: edges in common", "", f"{found['median_jaccard_auto_circuit']:.0%}"),
        ]
    for name, seconds, memory in (("small", "60", "4 GB"), ("medium", "1200", "8 GB")):
        if found := results.get(name):
            shape = f"GPT-2 {name}'s shape, {found['edges']:,} edges"
            counts = f"{found['tried']:,} tried, {found['kept']:,} kept, {found['near_ties']} near ties"
            rows += [
                (
                    f"{shape}: seconds, {found['machine']['threads']} threads",
                    seconds,
                    f"{found['seconds']:.0f} ({counts})",
                ),
                (f"{shape}: peak memory", memory, f"{found['peak_bytes'] / 1e9:.1f} GB"),
            ]
    lines = ["| benchmark | target | measured |", "|---|---|---|", *("| " + " | ".join(row) + " |" for row in rows)]
    scaling = results.get("scaling", {})
    if scaling:
        lines += [
            "",
            "| layers x heads, one fact | edges | tried | kept | seconds | ms a tried edge |",
            "|---|---|---|---|---|---|",
        ]
        for row in scaling["sizes"]:
            each = 1e3 * row["seconds"] / row["tried"]
            lines.append(
                f"| {row['layers']} x {row['heads']} | {row['edges']:,} | {row['tried']:,} | {row['kept']:,} "
                f"| {row['seconds']:.1f} | {each:.2f} |"
            )
        lines += ["", "| facts, 6 x 8 | tried | kept | seconds | ms a tried edge and fact |", "|---|---|---|---|---|"]
        for row in scaling["facts"]:
            each = 1e3 * row["seconds"] / row["tried"] / row["facts"]
            lines.append(f"| {row['facts']} | {row['tried']:,} | {row['kept']:,} | {row['seconds']:.1f} | {each:.2f} |")
    lines += ["", "Measured:", ""]
    for name, found in results.items():
        m = found["machine"]
        load = "" if found["load"] is None else f", load {found['load']}"
        lines.append(
            f"* {name}: {found['date']}, {m['threads']} threads of {m['cores']} cores ({m['processor']}, {m['gflops']} billion "
            f"operations a second in a large product), torch {m['torch']}{load}."
        )
    return "\n".join(lines)


def profile_table(found: dict[str, Any]) -> str:
    """Where the time goes: markdown."""
    each = 1e3 * found["processor_seconds"] / found["tried"]
    floor = found["seconds_of_products_at_full_speed"] / found["processor_seconds"]
    lines = [
        f"{found['tried']:,} edges tried in 12 searches, {found['evaluations']:,} circuits run, {each:.2f} ms of one core a tried "
        f"edge. The matrix products are {found['operations'] / 1e9:.0f} billion operations: at the speed of a large product they "
        f"alone would take {floor:.0%} of that time.",
        "",
        "| what for | share of the processor's time |",
        "|---|---|",
        *(f"| {kind} | {share:.1%} |" for kind, share in found["shares"].items()),
    ]
    return "\n".join(lines)


def _between(page: str, marks: tuple[str, str], text: str) -> str:
    """The page with that text between the two marks."""
    before, _, rest = page.partition(marks[0])
    _, _, after = rest.partition(marks[1])
    return f"{before}{marks[0]}\n\n{text}\n\n{marks[1]}{after}"


def _read() -> dict[str, Any]:
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def write(name: str, part: Callable[[], dict[str, Any]]) -> None:
    """Replace one entry of the results by what that part finds now, with the machine, the date and the load, and draw the page again."""
    found = {**part(), "machine": machine(), "date": time.strftime("%Y-%m-%d"), "load": round(os.getloadavg()[1], 1)}
    # Read anew: parts may run side by side, and each replaces its own entry alone.
    RESULTS.write_text(json.dumps({**_read(), name: found}, indent=1) + "\n", encoding="utf-8")
    page()


def main(names: list[str]) -> None:
    for name in [] if names == ["page"] else names or ["factlm", "profile", "small", "scaling"]:
        write(name, PARTS[name])
    page()


def page() -> None:
    results = _read()
    if results.keys() & {"small", "medium", "scaling"}:
        FIGURE.parent.mkdir(exist_ok=True)
        FIGURE.write_text(draw(results), encoding="utf-8")
    page = _between(PAGE.read_text(encoding="utf-8"), RESULTS_HERE, tables(results))
    if "profile" in results:
        page = _between(page, PROFILE_HERE, profile_table(results["profile"]))
    PAGE.write_text(page, encoding="utf-8")
    print(f"wrote {RESULTS} and the tables of {PAGE}")


if __name__ == "__main__":
    main(sys.argv[1:])
