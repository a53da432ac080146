"""Every command once on SmolLM2-135M: what it costs, and what it says.

    python benchmarks/smollm2.py               the commands that have no result yet, one after another; then the page
    python benchmarks/smollm2.py facts diff    these, again
    python benchmarks/smollm2.py page          the page's table from what is kept

What a command printed, its processor seconds and its largest memory are kept in ``benchmarks/.cache/smollm2``, and its pages
beside them. Seconds are of the processor, user and system, on one thread: they do not hang on what else the machine does.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuits.records import read_json, write_whole

HERE = Path(__file__).resolve().parent
KEPT = HERE / ".cache" / "smollm2"
PAGE = HERE.parent / "data" / "results" / "smollm2.md"
TABLE_HERE = "<!-- table: written by benchmarks/smollm2.py -->", "<!-- end of table -->"
FRANCE = "The official language of France is French"
COARSE = "--granularity node --tau 0.05"
"""Merged edges and a threshold five times the default, about a minute a search. A larger one takes longer: at 0.5 the circuit of the
running example has 2,978 edges for 562, and tries 27,503 cuts for 14,816, since a search that keeps little of its model guesses worse."""


@dataclass(frozen=True)
class Run:
    """A command, and what its JSON says in a few words."""

    name: str
    words: str
    says: Callable[[Any], str]
    fact: bool = False
    """Whether it asks about the running example."""
    out: bool = True
    """Whether it writes pages."""

    @property
    def folder(self) -> Path:
        return KEPT / self.name

    @property
    def result(self) -> Path:
        return KEPT / f"{self.name}.json"

    def command(self) -> list[str]:
        words = self.words.replace("RUN", str(KEPT / "discover")).split()
        fact = ["--fact", FRANCE] if self.fact else []
        where = ["--out", str(self.folder)] if self.out else []
        return [*words, *fact, *where, "--json"]

    def shown(self) -> str:
        """As a person would type it."""
        return (
            "kcircuit "
            + self.words.replace("RUN", "runs/france-smollm2")
            + (f' --fact "{FRANCE}"' if self.fact else "")
        )


def of_facts(rows: Any) -> str:
    known: dict[str, int] = {}
    for row in rows:
        known[row["relation"]] = known.get(row["relation"], 0) + (row["rank"] <= 10)
    ranks = [row["rank"] for row in rows]
    said = f"{len(ranks):,} facts, {sum(known.values()):,} known, {ranks.count(1):,} first"
    return said + (
        f"; 20 or more known of {sum(n >= 20 for n in known.values())} of {len(known)} relations"
        if len(known) > 1
        else ""
    )


def of_search(run: Any) -> str:
    return (
        f"{run['edges_kept']:,} of {run['edges_total']:,} edges; rank {run['rank_model']:g} in the model, "
        f"{run['rank_circuit']:g} in the circuit"
    )


def of_heads(found: Any) -> str:
    roles = [head["role"] for head in found["heads"]]
    told = {role: roles.count(role) for role in dict.fromkeys(roles) if role != "other"}
    return f"over {found['n_facts']} facts: " + ", ".join(f"{n} {role}" for role, n in told.items())


def of_assessment(found: Any) -> str:
    return (
        f"NLL {found['nll_circuit']:.3f} in the circuit, {found['nll_model']:.3f} in the model; "
        f"{found['minimality']['share_minimal']:.0%} of the edges are worth {found['minimality']['tau']:g} nats or more"
    )


def of_edit(found: Any) -> str:
    target = found["edit"]["target"]
    return (
        f"p({found['target']}) {target['probability_before']:.4f} before, {target['probability_after']:.3f} after; "
        + _exactly(found)
    )


def of_edits(found: Any) -> str:
    return f"over {found['n']} facts: {_exactly(found)}"


def _exactly(found: Any) -> str:
    measured = {row["metric"]: row for row in found["metrics"] if row["way"] == "exact" and row["kind"] is None}
    return ", ".join(f"{name} {row['after']:.0f} %" for name, row in measured.items())


def of_explanation(found: Any) -> str:
    return found["verdict"]["conclusion"]


def of_stability(found: Any) -> str:
    return (
        ", ".join(f"{row['change']} {row['edges_jaccard']:.2f}" for row in found["changes"]) + " (Jaccard over edges)"
    )


def of_table(found: Any) -> str:
    return "; ".join(f"{row['relation']}: {row['edges']} edges" for row in found["rows"])


def of_beginnings(rows: Any) -> str:
    named = ((f"`{row['bos']}`" if row["bos"] else "nothing").replace("|", "\\|") for row in rows)
    return ", ".join(f"{name} {row['hit10']:.0%}" for name, row in zip(named, rows, strict=True)) + " (Hit@10)"


def of_survey(found: Any) -> str:
    def of(row: Any) -> str:
        kept, n = row["top_mover_kept"], len(row["templates"])
        return f"{row['relation']}: the same strongest mover in {kept:.0%} of {n} wordings, effects correlate at {row['correlation']:.2f}"

    return "; ".join(map(of, found["relations"]))


def of_diff(found: Any) -> str:
    (each,) = found if isinstance(found, list) else (found,)
    return "; ".join(
        f"{kind}: {diff['edges_kept']:,} edges in both, Jaccard {diff['edge_jaccard']:.2f}"
        for kind, diff in each["diffs"].items()
    )


def ended(_: Any) -> str:
    return "done"


RUNS = (
    Run("facts-of-a-relation", "facts --relation country_language --model smollm2", of_facts, out=False),
    Run("facts", "facts --model smollm2", of_facts, out=False),
    Run("check", "models check smollm2 --n 100", of_beginnings, out=False),
    Run("heads", "heads --relation country_language --model smollm2", of_heads, out=False),
    Run("discover", f"discover --model smollm2 {COARSE}", of_search, fact=True),
    Run("eap-ig", "discover --model smollm2 --method eap-ig", of_search, fact=True),
    Run("evaluate", "evaluate RUN --draws 3", of_assessment, out=False),
    Run("export", "export RUN --format graphml", ended, out=False),
    Run("ft-m", "edit --model smollm2 --method ft-m --to German", of_edit, fact=True),
    Run("rome", "edit --model smollm2 --method rome --to German", of_edit, fact=True),
    Run("memit", "edit --model smollm2 --method memit --to German", of_edit, fact=True),
    Run("memoe", "edit --model smollm2 --method memoe --to German", of_edit, fact=True),
    Run("memoe-scoped", "edit --model smollm2 --method memoe-scoped --to German", of_edit, fact=True),
    Run("edit-eval", "edit eval --model smollm2 --method ft-m --n 5", of_edits, out=False),
    Run("diff", f"diff --model smollm2 --edit ft-m --to German {COARSE}", of_diff, fact=True),
    Run(
        "hallucination",
        f"explain hallucination --find --relation country_language --model smollm2 {COARSE}",
        of_explanation,
    ),
    Run("icl", f"explain icl --find --relation country_language --model smollm2 {COARSE}", of_explanation),
    Run("reverse", f"explain reverse --find --relation country_capital_city --model smollm2 {COARSE}", of_explanation),
    Run("multihop", f"explain multihop --find --edit ft-m --model smollm2 {COARSE}", of_explanation),
    Run(
        "table", f"table --relations country_language --n-val 3 --n-test 5 --draws 2 --model smollm2 {COARSE}", of_table
    ),
    Run("stability", f"stability --draws 10 --model smollm2 {COARSE}", of_stability, fact=True),
    Run(
        "discover-20",
        f"discover --relation country_language --n 20 --model smollm2 {COARSE}",
        of_search,
    ),
    Run(
        "survey",
        "heads --relation country_language,country_capital_city,landmark_country --n 20 --model smollm2",
        of_survey,
        out=False,
    ),
)


def measure(run: Run) -> None:
    """Run it in a process of its own, and keep what it printed beside what it cost."""
    KEPT.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    with tempfile.TemporaryFile() as printed, (KEPT / f"{run.name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "circuits.cli", *run.command()], stdout=printed, stderr=log, env=environment
        )
        _, status, used = os.wait4(process.pid, 0)
        printed.seek(0)
        content = printed.read().decode()
    code = os.waitstatus_to_exitcode(status)
    failed = (KEPT / f"{run.name}.log").read_text(encoding="utf-8").strip().splitlines()[-1:] if code else []
    kept = {
        "command": run.shown(),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "wall_seconds": round(time.perf_counter() - began, 1),
        "peak_bytes": used.ru_maxrss * 1024,
        "load": os.getloadavg()[0],
        "date": time.strftime("%Y-%m-%d"),
        "failed": failed,
        "result": json.loads(content) if content.strip() and not code else None,
    }
    write_whole(run.result, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    print(f"{run.name}: {kept['cpu_seconds']} s, {kept['peak_bytes'] / 1e9:.2f} GB, {failed or 'done'}", flush=True)


def line(run: Run) -> str:
    if not run.result.exists():
        return ""
    kept = read_json(run.result)
    said = "; ".join(kept["failed"]) if kept["failed"] else run.says(kept["result"])
    return f"| `{run.shown()}` | {kept['cpu_seconds']:.0f} | {kept['peak_bytes'] / 1e9:.1f} | {said} |\n"


def page() -> None:
    """The table on the page, again."""
    table = "| command | seconds | GB | what it says |\n|---|---|---|---|\n" + "".join(map(line, RUNS))
    begin, end = TABLE_HERE
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    machine = f"One thread of {os.cpu_count()} cores ({platform.processor() or platform.machine()})."
    write_whole(PAGE, f"{before}{begin}\n\n{table}\n{machine}\n\n{end}{after}")


def main(asked: list[str]) -> None:
    unknown = set(asked) - {run.name for run in RUNS} - {"page"}
    if unknown:
        raise SystemExit(f"expected {', '.join(run.name for run in RUNS)} or page, got {', '.join(sorted(unknown))}")
    for run in RUNS:
        if run.name in asked or (not asked and not run.result.exists()):
            measure(run)
    if PAGE.exists():
        page()


if __name__ == "__main__":
    main(sys.argv[1:])
