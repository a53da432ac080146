"""Draw the README's figures: run the demo's fact, keep its graph, and photograph its page where chromium is installed.

python figures/make_figures.py
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

FIGURES = Path(__file__).resolve().parent
FACT = "The official language of France is French"
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
    "--window-size=1400,1700",
    "--virtual-time-budget=5000",
]


def photograph(page: Path, picture: Path) -> None:
    """A picture of the page in a browser of fixed size; nothing where there is no browser."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        print(f"no chromium on this machine: {picture.name} stays as it was")
        return
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, *BROWSER, f"--user-data-dir={profile}", f"--screenshot={picture}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)
    print(f"wrote {picture}")


def main() -> None:
    from circuits import cli

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "france"
        try:
            cli.main(["discover", "--fact", FACT, "--out", str(out)])
        except SystemExit as stop:
            if stop.code:
                raise
        shutil.copy(out / "circuit.svg", FIGURES / "france-circuit.svg")
        photograph(out / "report.html", FIGURES / "france-report.png")


if __name__ == "__main__":
    main()
