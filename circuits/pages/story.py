"""The page's parts about one fact's heads: its story in sentences, and the table of special heads (paper 2, Table 3)."""

from collections.abc import Sequence

from circuits.analysis.reading import Reading
from circuits.analysis.roles import MIN_EFFECT, MIN_READING
from circuits.analysis.story import Sentence
from circuits.graph import Node
from circuits.pages.page import plain, signed
from circuits.pages.style import token_text
from circuits.studies.diffs import RESTS

TOP = 6


def story_section(story: Sequence[Sentence]) -> str:
    """The story as a section of the page, each sentence with its numbers; empty without one."""
    if not story:
        return ""
    items = "\n".join(f"<li>{plain(sentence.text)}{_numbers(sentence.numbers)}</li>" for sentence in story)
    return (
        '<section class="card" aria-labelledby="story-heading">\n<h2 id="story-heading">How the fact is recalled</h2>\n'
        '<p class="caption">Written from the measurements of the whole model; each sentence lists the numbers that it rests on.</p>\n'
        f'<ol class="story">\n{items}\n</ol>\n</section>\n'
    )


def _numbers(numbers: Sequence[tuple[str, float]]) -> str:
    if not numbers:
        return ""
    listed = "; ".join(f"{plain(name)} {value:.4g}" for name, value in numbers)
    return f'<span class="rests-on">{listed}</span>'


def heads_section(reading: Reading | None, inside: Sequence[Node]) -> str:
    """The heads with a role as a table: what they attend to here, what their cut does, what they promote; empty without any.

    ``inside`` are the circuit's nodes; a head outside it is said to be.
    """
    if reading is None or not reading.heads or reading.roles is None:
        return ""
    roles, n_tokens = reading.roles, len(reading.tokens)
    head_row = "".join(f'<th scope="col" class="tok">{plain(token_text(token))}</th>' for token in reading.tokens)
    rows = []
    for each in reading.heads:
        verdict = roles.of(each.head)
        cells = "".join(
            f'<td class="tok" style="--share:{min(part, 1):.3f}" title="of its write {part:.1%}, attention {weight:.1%}">'
            f'{_share(part) or "&nbsp;"}<span class="soft">{_share(weight)}</span></td>'
            for weight, part in zip(each.attention, each.write, strict=True)
        )
        tokens = " ".join(f"<code>{plain(token_text(score.token))}</code>" for score in each.promoted[:TOP])
        outside = "" if each.head in inside else '<br><span class="soft">not in the circuit</span>'
        rows.append(
            f'<tr><th scope="row">{each.head.label}{outside}</th><td><span class="role {each.role}">{each.role}</span></td>{cells}'
            f'<td class="num">{reading.drawn(each.write, "subject"):.0%} <span class="soft">'
            f"{reading.drawn(each.attention, 'subject'):.0%}</span></td>"
            f'<td class="num{" rests" if each.sink >= RESTS else ""}">{each.sink:.0%}</td>'
            f'<td class="num">{signed(each.subject_cut)}</td><td class="num">{signed(each.relation_cut)}</td>'
            f'<td class="promoted">{tokens}</td></tr>\n'
            f'<tr class="why"><td colspan="{n_tokens + 7}">{plain(str(verdict))}</td></tr>'
        )
    return (
        '<section class="card" aria-labelledby="heads-heading">\n<h2 id="heads-heading">Special heads</h2>\n'
        f'<p class="caption">Heads with an established role for {plain(roles.relation)}, told from {len(roles.facts)} facts. '
        "Under each token: of what the head writes at the last token, the share that it draws from there (attention times value, "
        "by length), and in grey its attention there, in per cent. “Rests” is its attention to the first token, which it "
        "gives whatever stands there (a sink). Falls are in logits on this prompt, when the head’s "
        "reading of the subject (of the relation) is cut: of the answer against the relation’s other objects, and of the "
        f"whole range against the vocabulary. {_bars(reading)}</p>\n"
        '<div class="scroll" tabindex="0" role="region" aria-labelledby="heads-heading"><table id="heads"><thead><tr>'
        f'<th scope="col">Head</th><th scope="col">Role</th>{head_row}<th scope="col" class="num">From subject</th>'
        '<th scope="col" class="num">Rests</th>'
        '<th scope="col" class="num">Answer falls</th>'
        '<th scope="col" class="num">Range falls</th><th scope="col">Promotes</th></tr></thead><tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>\n</section>\n"
    )


def _bars(reading: Reading) -> str:
    """What a word of the column “Role” takes, where one that has a bar of its own occurs."""
    if not reading.with_role("mover", "mixture", "suppressor"):
        return ""
    return (
        f"A head is called a mover only if it draws at least {MIN_READING:.0%} of its write from the subject, cutting that costs "
        f"the answer at least {MIN_EFFECT:g} logits, and what it takes from there itself reads as the answer, each beyond chance "
        "over the facts; one whose part does not read as the answer is a carrier."
    )


def _share(weight: float) -> str:
    return f"{100 * weight:.0f}" if weight >= 0.005 else ""
