"""Draw the README's figures: run the commands that they show, keep their pictures, and photograph pages where chromium is.

python -m figures.make_figures
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from circuits import cli
from circuits.pages.charts import Bar, Panel, line_panels, role_grid, stacked_bars
from circuits.pages.diff_figures import WRITERS
from circuits.studies.diff import EditDiff
from circuits.studies.run import Run

FIGURES = Path(__file__).resolve().parent
FACT = "The official language of France is French"
TARGET = "Spanish"
METHODS = {"rome@subject": "ROME", "ft-m": "FT-M", "memoe-scoped": "MEMoE-scoped"}
"""Of ROME the paper's own form: values stored at the subject's last token."""
BROWSER = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    # A picture is taken of the end of a transition, not of its middle.
    "--force-prefers-reduced-motion",
    "--virtual-time-budget=5000",
]

ONLY_THE_CIRCUIT = """<script>
kcircuit.ready.then(() => {
  document.querySelectorAll("header, footer, section:not(.circuit), .plots").forEach((part) => part.remove());
  document.querySelector("main").style.paddingTop = "24px";
  CHOOSE
});
</script>"""
CHOOSE = 'kcircuit.select([...document.querySelectorAll("#canvas .node")].findIndex((node) => node.textContent.startsWith("LABEL")));'


def command(*words: str) -> None:
    """Run a command of the project in this process; the figures end if it fails."""
    try:
        cli.main([*words])
    except SystemExit as stop:
        if stop.code:
            raise


def photograph(page: Path, picture: Path, size: tuple[int, int], script: str) -> None:
    """A picture of the page, once the script has run in it, in a window of fixed size; nothing where there is no browser."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        print(f"no chromium on this machine: {picture.name} stays as it was")
        return
    staged = page.with_name("photographed.html")
    head, _, tail = page.read_text(encoding="utf-8").rpartition("</body>")
    staged.write_text(f"{head}{script}</body>{tail}", encoding="utf-8")
    with tempfile.TemporaryDirectory() as profile:
        options = [*BROWSER, f"--window-size={size[0]},{size[1]}", f"--user-data-dir={profile}"]
        subprocess.run([browser, *options, f"--screenshot={picture}", staged.as_uri()], check=True, capture_output=True)
    print(f"wrote {picture}")


def write(name: str, text: str) -> None:
    (FIGURES / name).write_text(text, encoding="utf-8")
    print(f"wrote {FIGURES / name}")


def writers(edits: Sequence[EditDiff]) -> str:
    """Whose writes make up the new answer's logit, before an edit and after each."""
    first = edits[0]
    bars = [_bar("before the edit", first, after=False)]
    bars += [
        _bar(f"after {METHODS[each.method]}, layer {', '.join(map(str, each.layers))}", each, after=True)
        for each in edits
    ]
    title = f"Who writes “{first.target}” at the end of “{first.edited.before.fact.prompt}”"
    colours = {name: colour for _, name, colour in WRITERS}
    return stacked_bars(bars, title=title, x=f"logits of “{first.target}”", colours=colours)


def _bar(label: str, edit: EditDiff, *, after: bool) -> Bar:
    side = edit.edited.after if after else edit.edited.before
    shares = side.shares(edit.target)
    note = f"rank {side.path(edit.target).ranks[-1]:,}"
    if after:
        note += f"; edited node {_percent(shares.share('edited'))}, movers {_percent(shares.share('movers'))}"
    return Bar(label, {name: getattr(shares, field) for field, name, _ in WRITERS}, note)


def _percent(share: float) -> str:
    return f"{round(100 * share)} %".replace("-", "−")


def appearance(edits: Sequence[EditDiff]) -> str:
    """Where the new answer comes up and the old one goes, before an edit and after each."""
    before = edits[0].edited.before
    panels = []
    for answer, said in ((edits[0].target, "the new answer"), (edits[0].old, "the old answer")):
        series = {"before the edit": before.path(answer).ranks}
        series |= {f"after {METHODS[each.method]}": each.edited.after.path(answer).ranks for each in edits}
        panels.append(
            Panel(
                f"{answer}, {said}",
                "state of the residual stream",
                "rank (log)",
                before.path(answer).labels,
                {name: tuple(map(float, ranks)) for name, ranks in series.items()},
                log=True,
            )
        )
    return line_panels(panels)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        command("discover", "--fact", FACT, "--out", str(out / "france"))
        for method in METHODS:
            command("diff", "--edit", method, "--fact", FACT, "--to", TARGET, "--out", str(out / method))
        run = Run.load(out / "france")
        edits = [EditDiff.model_validate_json((out / method / "diff.json").read_text()) for method in METHODS]
        write("france-circuit.svg", (out / "france" / "circuit.svg").read_text(encoding="utf-8"))
        write("who-writes.svg", writers(edits))
        write("where-it-appears.svg", appearance(edits[:2]))
        if run.reading is not None and run.reading.roles is not None:
            roles = run.reading.roles
            title = f"Roles of factlm’s heads for {roles.relation}, told from {len(roles.facts)} facts"
            write("roles.svg", role_grid(roles, title=title, circuit=run.circuit))
            subject = [i for i, what in enumerate(run.reading.classes) if what == "subject"]
            movers = [each for each in run.reading.with_role("mover") if each.head in run.circuit.nodes]
            chosen = max(movers, key=lambda each: sum(each.attention[i] for i in subject), default=None)
            choose = CHOOSE.replace("LABEL", chosen.head.label) if chosen else ""
            script = ONLY_THE_CIRCUIT.replace("CHOOSE", choose)
            photograph(out / "france" / "report.html", FIGURES / "france-report.png", (1400, 1160), script)
        script = ONLY_THE_CIRCUIT.replace("CHOOSE", 'document.getElementById("components").remove();')
        photograph(out / "rome@subject" / "report.html", FIGURES / "rome-diff.png", (1400, 880), script)


if __name__ == "__main__":
    main()
