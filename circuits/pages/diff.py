"""A diff as one HTML file that opens from disk, offline: the two circuits side by side or overlaid."""

from collections.abc import Sequence
from string import Template

from circuits.evaluation.edits.superficial import Audit
from circuits.pages.diff_figures import lines
from circuits.pages.page import asset, pairs, plain, signed
from circuits.pages.pair import pair, sentence_case
from circuits.pages.sides import SideNames, headline
from circuits.pages.superficial import audit_section
from circuits.studies.diffs import CircuitDiff


def render_diff(
    diff: CircuitDiff,
    *,
    verdict: str = "",
    others: Sequence[CircuitDiff] = (),
    audit: Audit | None = None,
    command: str = "",
) -> str:
    """The page as one HTML text that loads nothing. The same diff gives the same bytes.

    Args:
        verdict: what was concluded, whose lines are shown as they stand.
        others: the same change seen at other prompts, as a table.
        audit: what the edited model says after prefixes.
        command: what a reader types to make the page again.
    """
    names = SideNames.of(diff)
    sides = "" if names.one_reading else f", {names.before} → {names.after}"
    cards = [
        *((f"rank of “{answer}”{sides}", _change(diff, answer)) for answer in diff.before.answers),
        (
            f"edges in both / {names.lost} / {names.gained}",
            f"{len(diff.kept):,} / {len(diff.lost):,} / {len(diff.gained):,}",
        ),
        ("edges in common (Jaccard index)", f"{diff.edge_jaccard:.2f}"),
        *((f"the same, {floor.name}", f"{floor.edge_jaccard:.2f}") for floor in diff.floors),
        ("components in common", f"{diff.node_jaccard:.2f}"),
    ]
    return Template(asset("diff.html")).substitute(
        title=plain(headline(diff)),
        description=plain(" ".join(verdict.split()) or _subtitle(diff)),
        eyebrow="Before and after"
        if diff.differs == "edit"
        else plain(f"{sentence_case(names.before)}, {names.after}"),
        subtitle=plain(_subtitle(diff)),
        cards=pairs(cards),
        verdict=_verdict(verdict),
        heads=_heads_that_have_a_role(diff) if names.one_reading else _heads_that_differ(diff, names),
        others=_others(others) + ("" if audit is None else audit_section(audit)),
        **pair(diff, command),
    )


# ---- text ------------------------------------------------------------------------------------------------------------


def _subtitle(diff: CircuitDiff) -> str:
    """The sides by their labels, each with its answer where they have one prompt and two answers."""
    sides = (diff.before, diff.after)
    apart = diff.before.fact.prompt == diff.after.fact.prompt and diff.before.fact.object != diff.after.fact.object
    before, after = (f"{side.label} “{side.fact.object}”" if apart else side.label for side in sides)
    return f"{sentence_case(before)} → {after}: what differs is the {diff.differs}"


def _change(diff: CircuitDiff, answer: str) -> str:
    return " → ".join(f"{side.path(answer).ranks[-1]:,}" for _, _, side in lines(diff))


def _verdict(text: str) -> str:
    return "".join(f"<p>{plain(line)}</p>" for line in text.splitlines()) or "<p>No verdict was asked for.</p>"


def _probability(value: float) -> str:
    return "< 0.001" if 0 < value < 0.001 else f"{value:.3f}"


def _heads_that_have_a_role(diff: CircuitDiff) -> str:
    """Each head with a role, what it does at this prompt, and in which of the circuits it is."""
    inside = [{node.name for node in side.circuit.nodes} for side in (diff.before, diff.after)]
    labels, names = {node.name: node.label for node in diff.after.circuit.graph.nodes}, SideNames.of(diff)
    written = {answer: diff.after.written(answer) for answer in diff.after.answers}
    heads = [each for each in diff.after.heads if each.role != "other"]
    if not heads:
        return _section("Heads with a role", '<p class="caption">No head has an established role for the relation.</p>')
    rows = ""
    for each in heads:
        own = [each.head in nodes for nodes in inside]
        where = "both" if all(own) else names.before if own[0] else names.after if own[1] else "neither"
        rows += (
            f'<tr><th scope="row">{plain(labels[each.head])}</th><td>{_role(each.role)}</td><td>{plain(where)}</td>'
            f"<td>{plain(str(each))}</td>"
            + "".join(f"<td class='num'>{signed(values[each.head])}</td>" for values in written.values())
            + "</tr>"
        )
    table = _table(("Head", "Role", "In the circuit of", "At this prompt"), diff.after.answers, rows)
    return _section("Heads with a role, at this prompt", table)


def _section(heading: str, content: str) -> str:
    return (
        f'<section class="card" aria-labelledby="heads-heading">\n<h2 id="heads-heading">{heading}</h2>\n<p class="caption">What '
        "each brings to the last token and from where, the token that it promotes most, and the logits that it writes of each "
        f"answer.</p>\n{content}\n</section>"
    )


def _table(columns: Sequence[str], answers: Sequence[str], rows: str) -> str:
    head = "".join(f'<th scope="col">{plain(sentence_case(name))}</th>' for name in columns)
    head += "".join(f'<th scope="col" class="num">writes {plain(answer)}, logits</th>' for answer in answers)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="heads-heading"><table><thead><tr>'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _heads_that_differ(diff: CircuitDiff, names: SideNames) -> str:
    heading = "Heads that do something else"
    if not diff.head_changes:
        none = '<p class="caption">No head of either circuit reads elsewhere or writes the answers otherwise.</p>'
        return _section(heading, none)
    rows = "".join(
        f'<tr><th scope="row">{plain(change.label)}</th><td>{_role(change.after.role)}</td>'
        f"<td>{plain(str(change.before))}</td><td>{plain(str(change.after))}</td>"
        + "".join(f"<td class='num'>{signed(before)} → {signed(after)}</td>" for _, before, after in change.written)
        + "</tr>"
        for change in diff.head_changes
    )
    return _section(heading, _table(("Head", "Role", names.before, names.after), diff.before.answers, rows))


def _role(role: str) -> str:
    return "" if role == "other" else f'<span class="role {plain(role)}">{plain(role)}</span>'


def _others(others: Sequence[CircuitDiff]) -> str:
    if not others:
        return ""
    rows = []
    for diff in others:
        cells = "; ".join(
            f"{plain(answer)} {_probability(diff.before.path(answer).probabilities[-1])} → "
            f"{_probability(diff.after.path(answer).probabilities[-1])}"
            for answer in diff.before.answers
        )
        rows.append(
            f"<tr><td>{plain(diff.before.fact.prompt)}</td><td>{cells}</td><td class='num'>{diff.edge_jaccard:.2f}</td>"
            f"<td class='num'>{len(diff.lost)}</td><td class='num'>{len(diff.gained)}</td></tr>"
        )
    return (
        '<section class="card" aria-labelledby="others-heading"><h2 id="others-heading">The same change at other prompts</h2>'
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="others-heading"><table><thead><tr><th scope="col">Prompt</th>'
        '<th scope="col">Probabilities</th><th scope="col" class="num">Edge Jaccard</th><th scope="col" class="num">Lost</th>'
        f'<th scope="col" class="num">Gained</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div></section>'
    )
