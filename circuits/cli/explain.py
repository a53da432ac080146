"""``kcircuit explain``: why an answer is wrong, what demonstrations add, what is known backwards, what two hops see of an edit, and
where they fail."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from circuits.cli.app import JsonOption, app, require_file, require_writable_folder, typed_command
from circuits.cli.options import asks
from circuits.cli.progress import SEARCHES, carried_out
from circuits.records import write_files
from circuits.studies.explain_specs import ExplainFactSpec, InContextSpec, MultiHopSpec, SurveySpec, TwoHopSpec
from circuits.studies.names import find_study
from circuits.studies.options import command

explain = typer.Typer(
    help="What a failure, demonstrations, a reversal or an edit of one hop does to the circuit.", no_args_is_help=True
)

app.add_typer(explain, name="explain")

OutOption = Annotated[Path | None, typer.Option(help="Folder for result.json and report.html.")]


@explain.command()
@asks(ExplainFactSpec)
def hallucination(asked: dict[str, Any], out: OutOption = None, as_json: JsonOption = False) -> None:
    """Why the model gives a wrong object: no effective mover, or one that selects wrong information."""
    _explain("hallucination", asked, out, as_json)


@explain.command()
@asks(InContextSpec)
def icl(asked: dict[str, Any], out: OutOption = None, as_json: JsonOption = False) -> None:
    """Which heads demonstrations add, what these attend to, and whether the gain hangs on them."""
    _explain("icl", asked, out, as_json)


@explain.command()
@asks(ExplainFactSpec)
def reverse(asked: dict[str, Any], out: OutOption = None, as_json: JsonOption = False) -> None:
    """Whether a fact is known from its object too, and by the same circuit."""
    _explain("reverse", asked, out, as_json)


@explain.command("multi-hop", hidden=True)
@explain.command()
@asks(MultiHopSpec)
def multihop(asked: dict[str, Any], out: OutOption = None, as_json: JsonOption = False) -> None:
    """Edit one hop and ask the question in two: which answer wins."""
    _explain("multihop", asked, out, as_json)


@explain.command()
@asks(TwoHopSpec)
def twohop(
    asked: dict[str, Any],
    out: Annotated[
        Path | None, typer.Option(help="Folder that keeps what is done, and twohop.json; a stopped run continues.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write the results page (Markdown) to this file, its pictures beside it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Where a question in two hops fails: is the bridge there, and which patches give the answer?"""
    if out is not None:
        require_writable_folder(out, "twohop.json")
    require_file(page, "--page")
    from circuits.pages import twohop as pages
    from circuits.pages.tables import show, write_page
    from circuits.studies.explain.repairs import repair_shares
    from circuits.studies.explain.twohop import TWO_HOP

    spec = TwoHopSpec(**asked)
    at, rows = carried_out(TWO_HOP, spec, "questions", folder=None if out is None else out / "rows")
    record = json.dumps(pages.as_json(rows, at.model, spec.seed), ensure_ascii=False)
    if out is not None:
        write_files(out, {"twohop.json": record + "\n"})
    if page is not None:
        made_by = command(["explain", "twohop"], spec, more=("--page", str(page)))
        write_page(page, pages.page(rows, at.model, made_by, page.stem, spec.seed))
        write_files(page.parent, pages.figures(rows, page.stem))
    if as_json:
        typer.echo(record)
        return
    if spec.subject is not None:
        typer.echo("\n".join(map(str, rows)))
    else:
        show(pages.counts(rows), width=190)
        show(pages.repairs(repair_shares(rows, seed=spec.seed)), width=190)
    if page is not None:
        typer.echo(f"\nWrote {page}")


@explain.command()
@asks(SurveySpec)
def survey(
    asked: dict[str, Any],
    out: Annotated[
        Path | None, typer.Option(help="Folder for survey.json and survey.md; a stopped survey continues.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Several cases of each behaviour, and which of the paper's claims their numbers bear out."""
    if out is not None:
        require_writable_folder(out, "survey.json")
    spec = SurveySpec(**asked)
    from circuits.studies.explain.survey import SURVEY

    _, found = carried_out(
        SURVEY,
        spec,
        "behaviours",
        folder=None if out is None else out / "rows",
        searches=None if out is None else out / SEARCHES,
    )
    record = [each.model_dump() for each in found]
    if out is not None:
        cases = ["\n".join([str(each), "", *(f"    {case}" for case in each.cases)]) for each in found]
        text = json.dumps(record, indent=1, ensure_ascii=False)
        write_files(out, {"survey.json": text + "\n", "survey.md": "\n\n".join(cases) + "\n"})
    typer.echo(json.dumps(record, ensure_ascii=False) if as_json else "\n\n".join(map(str, found)))


def _explain(name: str, asked: dict[str, Any], out: Path | None, as_json: bool) -> None:
    """The one case of the study of that name: its verdict, and the page of its two circuits."""
    if out is not None:
        require_writable_folder(out, "result.json")
    named = find_study(name)
    spec = named.spec(**asked)
    _, (found,) = carried_out(named.load(), spec, "cases", searches=None if out is None else out / SEARCHES)
    if out is not None:
        from circuits.pages.explain import render_explained

        page = render_explained(found, command=typed_command())
        write_files(out, {"result.json": found.model_dump_json(indent=1) + "\n", "report.html": page})
    if as_json:
        record = found.model_dump(mode="json", exclude={"diff"})
        typer.echo(json.dumps({**record, "diff": found.diff.summary()}, ensure_ascii=False))
        return
    typer.echo(str(found))
    if out is not None:
        typer.echo(f"\nOpen {out / 'report.html'}")
