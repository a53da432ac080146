"""Write ``data/results/diff.md`` from what two commands found.

kcircuit diff --edit rome@subject,rome,ft-m,ft-l,memit,memoe-scoped --n 30 --out runs/edits
kcircuit explain survey --n 8 --out runs/survey
python data/write_diff_page.py runs/edits runs/survey
"""

import json
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent / "results" / "diff.md"


def page(edits: Path, survey: Path) -> str:
    surveys = json.loads((survey / "survey.json").read_text(encoding="utf-8"))
    n_cases = max(len(each["cases"]) for each in surveys)
    table = (edits / "table.md").read_text(encoding="utf-8").rstrip()
    lines = [
        "# What edits, failures and demonstrations do to circuits",
        "",
        f"Written by `python data/write_diff_page.py` from `kcircuit diff --edit {','.join(_methods(edits))} --n {_n(edits)}` and "
        f"`kcircuit explain survey --n {n_cases}`. What claims of paper 2, sections 5 and 6, come to on factlm: "
        "none is decided by so few cases, without a control, or between methods at different layers; [claims, each beside a "
        "control](claims.md) are.",
        "",
        "## Edits of single facts",
        "",
        "`rome@subject` stores its value at the subject's last token, as the paper has it; `rome` is what works best on factlm, a "
        "value at the prompt's end.",
        "",
        table,
    ]
    for each in surveys:
        counted = ", ".join(f"{name} ({count})" for name, count in each["conclusions"].items())
        claims = [
            f"- {claim['verdict'].capitalize()}: {claim['claim']} ({claim['numbers']})." for claim in each["claims"]
        ]
        behaviour = each["behaviour"]
        cases = [f"- {case}" for case in each["cases"]]
        lines += [
            "",
            f"## {behaviour[0].upper()}{behaviour[1:]}",
            "",
            f"Verdicts: {counted}.",
            "",
            *claims,
            "",
            "Cases:",
            "",
        ]
        lines += cases
    return "\n".join(lines) + "\n"


def _rows(edits: Path) -> list[dict[str, object]]:
    return json.loads((edits / "table.json").read_text(encoding="utf-8"))["rows"]


def _methods(edits: Path) -> list[str]:
    return [str(row["method"]) for row in _rows(edits)]


def _n(edits: Path) -> object:
    return _rows(edits)[0]["n"]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"expected the folders of the table and of the survey, got {len(sys.argv) - 1} arguments\n\n{__doc__}")
    PAGE.write_text(page(Path(sys.argv[1]), Path(sys.argv[2])), encoding="utf-8")
    print(f"wrote {PAGE}")
