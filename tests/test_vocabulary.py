"""One vocabulary at the shell: the same thing is asked for by the same option, in the same words, wherever it can be asked for."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from circuits import cli  # noqa: F401  # enters the commands
from circuits.cli.app import app
from circuits.discovery.acdc import NoiseError
from circuits.facts import Fact
from circuits.studies import certify_specs, claims_specs, edit_specs, explain_specs, specs
from circuits.studies.claims.claim import Laboratory
from circuits.studies.explain.sides import Bench
from circuits.studies.loading import load_asked
from circuits.studies.study import Study
from tests.commands import fails, succeeds
from tests.models import word_fact

FACT = Fact("a is", "a", "b")
READS_A_MODEL = ("--device", "--dtype", "--with-edit")
OWN_EDIT = "it makes edits of its own; edits on top of edits are `edit eval --regime sequential:N`"
EXCEPTIONS = {
    **{(name, "--with-edit"): OWN_EDIT for name in ("diff", "claims", "edit", "edit eval", "edit compare")},
    **{(name, "--with-edit"): OWN_EDIT for name in ("edit sweep-layers", "edit trace")},
    ("role-errors", "--with-edit"): "it deals the model's own weights anew, after which there is no edit",
    ("bench", "--with-edit"): "it times engines, and an edit changes no time",
    ("models check", "--with-edit"): "it asks how a model as it is distributed should begin",
}
SAME_WORDS = ("--model", *READS_A_MODEL, "--json", "--granularity", "--engine", "--absolute", "--corpus", "--find")


def commands() -> Iterator[tuple[str, Any]]:
    """(its words, the command), of all."""

    def within(command: Any, words: list[str]) -> Iterator[tuple[str, Any]]:
        subs = getattr(command, "commands", {})
        if words and (command.params or not subs):
            yield " ".join(words), command
        for name, sub in subs.items():
            yield from within(sub, [*words, name])

    return within(typer.main.get_command(app), [])


def flags(command: Any) -> set[str]:
    return {flag for parameter in command.params for flag in parameter.opts}


EVERY = dict(commands())
READERS = [name for name, command in EVERY.items() if "--model" in flags(command)] + ["models check"]


@pytest.mark.parametrize("option", READS_A_MODEL)
@pytest.mark.parametrize("name", READERS)
def test_every_command_that_reads_a_model_says_where_in_what_numbers_and_with_what_edit(name: str, option: str):
    assert (option in flags(EVERY[name])) == ((name, option) not in EXCEPTIONS)


def test_the_exceptions_are_of_commands_that_there_are():
    assert {name for name, _ in EXCEPTIONS} <= set(READERS)


@pytest.mark.parametrize("option", SAME_WORDS)
def test_one_option_is_explained_in_the_same_words_everywhere(option: str):
    found: dict[tuple[str, ...], list[str]] = {}
    for name, command in EVERY.items():
        for one in command.params:
            if option in one.opts and name not in ("sweep", "evaluate"):  # several models; the circuit's own model
                found.setdefault((str(one.help), *one.opts), []).append(name)
    assert len(found) == 1, found


# ---- what the words do -----------------------------------------------------------------------------------------------


HALF: dict[str, Any] = {"dtype": "bfloat16"}


def test_every_search_of_every_study_is_in_the_numbers_that_were_asked_for(small_model: Callable[..., Any]):
    assert explain_specs.ExplainFactSpec(fact="a b", **HALF).run_spec().dtype == "bfloat16"
    assert edit_specs.DiffSpec(**HALF).run_spec().dtype == "bfloat16"
    assert specs.StabilitySpec(facts=(FACT,), **HALF).run_spec(None).dtype == "bfloat16"
    assert specs.TableSpec(**HALF).run_spec("r", (FACT,)).dtype == "bfloat16"
    assert certify_specs.CriteriaSpec(**HALF).asks_for(facts=(FACT,)).dtype == "bfloat16"
    lab = Laboratory(small_model("gpt2"), {}, claims_specs.ClaimsSpec(**HALF))
    assert lab.run_spec((FACT,)).dtype == "bfloat16"


def test_the_model_that_is_asked_for_is_held_in_those_numbers(model_folder: Callable[[str], Path]):
    asked: dict[str, Any] = {"model": str(model_folder("gpt2"))}
    half, full = (load_asked(edit_specs.WhichEdits(**asked, **more)) for more in (HALF, {}))
    assert (half.biases.dtype, full.biases.dtype) == (torch.bfloat16, torch.float32)
    # Rows are kept under the digest of the weights, which tells numbers apart where a spec's own digest does not.
    assert half.weights != full.weights


def test_numbers_that_there_are_not_are_refused_in_a_line(capsys: pytest.CaptureFixture[str]):
    said = fails(["facts", "--dtype", "float16"], capsys)
    assert said == "error: dtype: Input should be 'float32' or 'bfloat16', got 'float16'\n"


def test_facts_asks_the_model_in_half_precision(model_folder: Callable[[str], Path], capsys):
    rank = ["facts", "--relation", "country_language", "--model", str(model_folder("gpt2"))]
    half, full = (succeeds([*rank, "--dtype", kind, "--json"], capsys) for kind in ("bfloat16", "float32"))
    assert half != full == succeeds([*rank, "--json"], capsys)


def test_what_rounding_would_decide_is_refused_in_explanations_too(small_model: Callable[..., Any]):
    model, fact = small_model("gpt2"), word_fact("3 1 4 1 5 9", "26")
    asked = specs.RunSpec(facts=(fact,), tau=1e-7)
    with pytest.raises(NoiseError, match="rounding alone moves"):
        Bench({}, asked).circuit(model, fact, "it")
    # The control: a threshold that can be told from rounding.
    assert Bench({}, asked.model_copy(update={"tau": 0.05})).circuit(model, fact, "it").graph == model.graph()


# ---- what was kept before a field came -------------------------------------------------------------------------------


def nothing(*_: Any) -> Any:
    return None


STUDY: Study[Any, Any, Any, Any] = Study("it", str, nothing, nothing, nothing)
OLD = [
    specs.StabilitySpec(facts=(FACT,)),
    specs.TableSpec(),
    certify_specs.CriteriaSpec(),
    claims_specs.ClaimsSpec(),
    edit_specs.CompareSpec(),
    edit_specs.DiffSpec(),
    explain_specs.SurveySpec(),
]


@pytest.mark.parametrize("spec", OLD, ids=lambda spec: type(spec).__name__)
def test_a_field_that_came_later_decides_a_row_only_where_it_is_not_what_it_was_before(spec: specs.Asked):
    assert spec.later
    decided = STUDY.decides(spec)
    assert not decided.keys() & spec.later
    for name, other in {"dtype": "bfloat16", "with_edit": "there"}.items():
        if name in spec.later:
            assert STUDY.decides(spec.model_copy(update={name: other}))[name] == other
    # The control: a field that was there all along decides at its default too.
    assert decided["model"] == "factlm"
