"""Options: a spec's fields are a command's options, and the command that a spec prints asks for that spec."""

import shlex
import subprocess
import sys
from typing import Annotated, Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from circuits import cli
from circuits.cli.app import app
from circuits.cli.options import asks
from circuits.facts import Fact
from circuits.studies import edit_specs, explain_specs, specs
from circuits.studies.options import Asked, Option, command, declared, read_taus, write_taus

FACT = Fact("a is", "a", "b")


class Spec(Asked):
    name: Annotated[str, Option("A name.", short="N")] = "x"
    n: Annotated[int, Option("A number.", least=1)] = 3
    loud: Annotated[bool, Option("A flag.")] = False
    taus: Annotated[tuple[float, ...], Option("Some.", flag="tau", read=read_taus, write=write_taus)] = (0.01, 0.1)
    settings: Annotated[tuple[str, ...], Option("Many.", flag="set")] = ()
    level: Annotated[float | None, Option("Maybe.")] = None
    worked_out: int = 7


def asked_by(words: list[str]) -> dict[str, Any]:
    """What a command whose options are the spec's is told."""
    told: list[dict[str, Any]] = []
    own = typer.Typer()

    @own.command()
    @asks(Spec)
    def command(asked: dict[str, Any], out: Annotated[str, typer.Option()] = "here") -> None:
        told.append({**asked, "out": out})

    result = CliRunner().invoke(own, words)
    assert result.exit_code == 0, result.output
    return told[0]


words = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1).filter(lambda text: text[0] != "-")
all_specs = st.builds(
    Spec,
    name=words,
    n=st.integers(1, 10**6),
    loud=st.booleans(),
    taus=st.lists(st.sampled_from([0.001, 0.02, 0.5, 3.0]), min_size=1, unique=True).map(tuple),
    settings=st.lists(words).map(tuple),
    level=st.none() | st.floats(0, 10),
)


@given(all_specs)
def test_the_printed_command_asks_for_the_spec_that_printed_it(spec: Spec):
    line = shlex.split(command([], spec, more=("--out", "there")))
    assert line[0] == "kcircuit"
    told = asked_by(line[1:])
    assert told.pop("out") == "there"
    assert Spec(**told) == spec


def test_a_command_without_options_asks_for_the_defaults_and_prints_none():
    assert Spec(**{name: value for name, value in asked_by([]).items() if name != "out"}) == Spec()
    assert command(["study"], Spec()) == "kcircuit study"
    assert command(["study"], Spec(loud=True, n=4), leave_out=("n",)) == "kcircuit study --loud"
    assert "worked_out" not in [each.field for each in declared(Spec)]


@pytest.mark.parametrize(
    ("words", "spec"),
    [
        (["discover"], specs.RunSpec(facts=(FACT,), tau=0.5, absolute=True)),
        (["table"], specs.TableSpec(taus=(0.5,), n_val=3)),
        (["stability"], specs.StabilitySpec(facts=(FACT,), draws=3, seed=2)),
        (["edit", "sweep-layers"], edit_specs.LayersSpec(method="ft-m", settings=("lr=1",))),
        (["edit", "compare"], edit_specs.CompareSpec(fluency_samples=0, eval_at="immediate")),
        (["edit", "trace"], edit_specs.TraceSpec(every=3)),
        (["edit"], edit_specs.EditSpec(to="b", force=True)),
        (["edit", "eval"], edit_specs.EvalSpec(restrain_each=True, layer="3")),
        (["diff"], edit_specs.DiffSpec(edit="rome", corpus="texts", settings=("lr=1",))),
        (["heads"], explain_specs.HeadsSpec(relation="all", checked=True)),
        (["explain", "hallucination"], explain_specs.ExplainFactSpec(fact="a b c", tau=0.5)),
        (["explain", "icl"], explain_specs.InContextSpec(find=True, wording="bare", shots=2)),
        (["explain", "multihop"], explain_specs.MultiHopSpec(find=True, corpus="texts", settings=("lr=1",), layer=1)),
        (["explain", "twohop"], explain_specs.TwoHopSpec(find=True, first="a", n=2)),
        (["explain", "survey"], explain_specs.SurveySpec(n=2, edit="memit", with_edit="there")),
        (["groundtruth"], specs.TruthSpec(compiled=True)),
    ],
)
def test_every_studys_options_are_its_commands(words: list[str], spec: Asked):
    shown = CliRunner().invoke(app, [*words, "--help"])
    assert shown.exit_code == 0
    for each in declared(type(spec)):
        assert each.flag in shown.output
        assert each.option.help.split()[0] in shown.output
    printed = command(words, spec)
    assert all(word in shown.output for word in shlex.split(printed) if word.startswith("--"))


def test_one_option_has_one_meaning_in_every_study():
    kinds: dict[str, set[str]] = {}
    studies = (
        specs.RunSpec,
        specs.TableSpec,
        specs.StabilitySpec,
        edit_specs.LayersSpec,
        edit_specs.CompareSpec,
        edit_specs.TraceSpec,
        edit_specs.EditSpec,
        edit_specs.EvalSpec,
        edit_specs.DiffSpec,
    )
    for spec in studies:
        for each in declared(spec):
            kinds.setdefault(each.field, set()).add(str(each.kind))
    # How many edges: RunSpec takes a number too. A trace is always restrained, an evaluation need not be.
    assert {name for name, found in kinds.items() if len(found) > 1} <= {"edges", "restrain"}


def test_help_names_no_place_outside_the_repository_and_loads_no_torch():
    code = "import sys\nfrom circuits import cli\ntry:\n    cli.main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code, "groundtruth", "--help"], capture_output=True, text=True, check=True
    )
    assert ".." not in done.stdout.replace("...", "")
    assert "KCIRCUIT_TRACR" in done.stdout


def test_a_choice_that_there_is_not_is_refused_by_the_spec(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cli.main(["table", "--granularity", "half"])
    assert capsys.readouterr().err == "error: granularity: Input should be 'qkv' or 'node', got 'half'\n"
