"""Pictures that no script draws, of a run and of two sides compared: they show wherever an image does."""

from collections.abc import Mapping

from circuits.analysis.lens import Trajectory
from circuits.pages.charts import Bar, Panel, line_panels, stacked_bars
from circuits.pages.diff_figures import WRITERS
from circuits.studies.diffs import CircuitDiff


def ranks_still(answer: str, paths: Mapping[str, Trajectory]) -> str:
    """The answer's rank after every sub-layer of the whole model, a line a path, as SVG."""
    return line_panels([_ranks(f"Where “{answer}” comes up", paths)])


def answers_still(diff: CircuitDiff) -> str:
    """The rank of every answer that is followed, after every sub-layer, on both sides, as SVG."""
    panels = []
    for answer in diff.before.answers:
        panels.append(_ranks(f"“{answer}”", {side.label: side.path(answer) for side in (diff.before, diff.after)}))
    return line_panels(panels)


def writers_still(diff: CircuitDiff) -> str:
    """Whose writes make up each answer's logit at the last token, on both sides, as SVG."""
    bars = [
        Bar(
            f"{answer}, {side.label}",
            {name: getattr(side.shares(answer), field) for field, name, _ in WRITERS},
            f"rank {side.path(answer).ranks[-1]:,}",
        )
        for answer in diff.before.answers
        for side in (diff.before, diff.after)
    ]
    colours = {name: colour for _, name, colour in WRITERS}
    return stacked_bars(bars, title="Who writes the answers at the last token", x="logits", colours=colours)


def _ranks(title: str, paths: Mapping[str, Trajectory]) -> Panel:
    first = next(iter(paths.values()))
    series = {name: tuple(float(rank) for rank in path.ranks) for name, path in paths.items()}
    return Panel(title, "state of the residual stream", "rank (log)", first.labels, series, log=True)
