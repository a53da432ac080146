"""The package in Python: what it offers is complete, told, quick to import, and answers as the studies below it do."""

import ast
import doctest
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import circuits as kc
from circuits.analysis.roles import RoleError
from circuits.editing import EditError
from circuits.facts import FactError
from circuits.studies.options import SpecError

QUICK: dict[str, Any] = {"tau": 0.1, "granularity": "node", "certificate": False}
FACT = "The official language of France is French"
ROOT = Path(kc.__file__).parent


@pytest.fixture(scope="module")
def france() -> kc.LiveRun:
    return kc.discover(FACT, **QUICK)


# ---- what is offered -------------------------------------------------------------------------------------------------


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_loads_no_torch_and_takes_under_a_second() -> None:
    code = "import time, sys; t = time.process_time(); import circuits; dir(circuits); "
    code += "print(time.process_time() - t, 'torch' in sys.modules)"
    seconds, torch = python(code).split()
    assert float(seconds) < 1
    assert torch == "False"


def test_tab_shows_the_public_names_and_each_is_there() -> None:
    assert set(dir(kc)) == {*kc.__all__, "__version__"}
    for name in kc.__all__:
        assert getattr(kc, name) is not None
    with pytest.raises(AttributeError, match=r"no attribute 'disciver'; it offers .*discover"):
        _ = kc.disciver  # type: ignore[attr-defined]


def test_a_type_checker_sees_the_names_that_are_loaded_when_first_used() -> None:
    tree = ast.parse((ROOT / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == kc._HOME
    assert sorted(seen) == sorted(kc.__all__)


def functions() -> Iterator[tuple[str, Any]]:
    """The public functions, and the public methods of the room's own classes."""
    for name in kc.__all__:
        value = getattr(kc, name)
        if not inspect.isclass(value):
            yield name, value
        elif value.__module__.startswith("circuits.api"):
            for method, own in vars(value).items():
                if not method.startswith(("_", "model_")) and inspect.isfunction(own):
                    yield f"{name}.{method}", own


@pytest.mark.parametrize(("name", "function"), list(functions()), ids=[name for name, _ in functions()])
def test_a_public_function_says_what_it_takes_and_returns(name: str, function: Any) -> None:
    told = inspect.getdoc(function) or ""
    parameters = [one for one in inspect.signature(function).parameters if one != "self"]
    _, _, arguments = told.partition("Args:")
    for parameter in parameters:
        assert f"\n    {parameter}: " in arguments, parameter
    returns = inspect.signature(function).return_annotation
    assert returns is not inspect.Signature.empty
    assert "Returns:" in told or inspect.isgeneratorfunction(inspect.unwrap(function))


@pytest.mark.parametrize("name", [name for name in kc.__all__ if inspect.isclass(getattr(kc, name))])
def test_a_public_class_says_what_it_is_and_so_do_its_public_methods(name: str) -> None:
    kind = getattr(kc, name)
    assert (kind.__doc__ or "").strip()
    assert not (kind.__doc__ or "").startswith(f"{name}("), "the docstring that a dataclass has by itself"
    for base in kind.__mro__:
        for member, value in vars(base).items() if base.__module__.startswith("circuits") else ():
            own = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            if not member.startswith(("_", "model_")) and inspect.isfunction(own):
                assert inspect.getdoc(own), f"{name}.{member}"


@pytest.mark.parametrize("name", [name for name in kc.__all__ if ">>>" in (getattr(kc, name).__doc__ or "")])
def test_the_examples_of_a_public_name_give_what_they_show(name: str) -> None:
    for test in doctest.DocTestFinder(recurse=False).find(getattr(kc, name), name, globs={}):
        said: list[str] = []
        assert doctest.DocTestRunner().run(test, out=said.append).failed == 0, "".join(said)


def test_every_call_of_the_room_has_an_example() -> None:
    for name, function in functions():
        if "." not in name and function.__module__ == "circuits.api.calls" and name != "load":
            assert ">>> import circuits as kc" in function.__doc__, name


# ---- what it answers -------------------------------------------------------------------------------------------------


def test_discover_finds_the_circuit_that_a_spec_finds(france: kc.LiveRun) -> None:
    relations = kc.load_relations()
    spec = kc.RunSpec(facts=(kc.parse_fact(FACT, relations.values()),), tau=0.1, granularity="node")
    asked = kc.run(spec, relations, model=kc.Model.default(), read=True)
    assert france.circuit == asked.circuit
    assert france == asked or france.model_dump() == asked.model_dump()
    assert isinstance(france, kc.Run)


def test_a_run_shows_itself(france: kc.LiveRun) -> None:
    assert "edges" in repr(france)
    assert "<svg" in france._repr_html_()
    heads = france.heads()
    assert "mover head" in str(heads)
    assert {one.head for one in heads} == set(france.roles)
    assert "write from subject" in heads._repr_html_()
    assert heads[0].head.label in repr(heads)


def test_a_saved_run_is_asked_as_the_one_that_was_made(france: kc.LiveRun, tmp_path: Path) -> None:
    page = france.export(tmp_path)
    assert page.is_file()
    again = kc.load(tmp_path)
    assert again.circuit == france.circuit
    assert again.ask("The official language of Spain is") == france.ask("The official language of Spain is")


def test_asking_gives_the_likeliest_tokens_best_first(france: kc.LiveRun) -> None:
    said = france.ask("The official language of Spain is", n=3)
    assert said.answer == "Spanish"
    assert len(said.tokens) == 3
    assert list(said.probabilities) == sorted(said.probabilities, reverse=True)
    assert 0 < sum(said.probabilities) <= 1
    assert "Spanish" in str(said)
    assert "Spanish" in said._repr_html_()
    with pytest.raises(ValueError, match="at least one token"):
        france.ask("The official language of Spain is", n=0)


def test_an_edit_is_on_the_model_only_while_it_is_asked(france: kc.LiveRun, tmp_path: Path) -> None:
    prompt = france.fact.prompt
    edited = france.edit("Spanish", method="ft-m")
    assert edited.took
    assert edited.ask(prompt).answer == "Spanish"
    assert france.ask(prompt).answer == "French"
    assert "Spanish rank" in str(edited)
    assert "Spanish" in edited._repr_html_()
    folder = edited.save(tmp_path / "edit")
    after = kc.discover("The official language of France is Spanish", with_edit=str(folder), **QUICK)
    assert after.ask(prompt).answer == "Spanish"
    diff = edited.diff(kinds=("edited",))
    assert set(diff.diffs) == {"edited"}
    assert diff.target == "Spanish"
    assert diff.took


def test_two_runs_are_compared_by_the_one_field_in_which_they_differ(france: kc.LiveRun) -> None:
    coarse = kc.discover(FACT, **{**QUICK, "tau": 0.3})
    assert france.diff(coarse).differs == "tau"


def test_a_table_shows_itself_and_writes_its_page(tmp_path: Path) -> None:
    made = kc.table("country_language", n_val=1, n_test=1, taus=(0.3,), draws=1, granularity="node")
    assert "1 relation:" in str(made)
    assert "<table>" in made._repr_html_()
    assert made.export(tmp_path).read_text().startswith("<!doctype html>")


# ---- how it refuses --------------------------------------------------------------------------------------------------


def test_settings_that_make_no_sense_are_refused_in_a_line() -> None:
    with pytest.raises(SpecError, match=r"no setting called 'taus'; there are .*facts, .*tau") as caught:
        kc.discover(FACT, taus=0.1)
    assert "\n" not in str(caught.value)
    with pytest.raises(SpecError, match="tau must be a finite number of nats above 0, got -1"):
        kc.RunSpec(facts=(kc.Fact("a is", "a", "b"),), tau=-1)
    with pytest.raises(SpecError, match=r"ablation: .*'zero', 'mean' or 'resample', got 'none'"):
        kc.RunSpec(facts=(kc.Fact("a is", "a", "b"),), ablation="none")  # type: ignore[arg-type]


def test_what_cannot_be_asked_is_refused_with_what_could(france: kc.LiveRun) -> None:
    with pytest.raises(EditError, match="no editing method 'magic'"):
        france.edit("Spanish", method="magic")
    with pytest.raises(FactError, match="no relation called 'nope'"):
        kc.known_facts("nope")
    with pytest.raises(SpecError, match="icl asks for 2 words, or none"):
        kc.explain("icl", "country_language")
    unread = france.model_copy(update={"reading": None})
    with pytest.raises(RoleError, match="made without a reading"):
        kc.LiveRun.of(unread).heads()
