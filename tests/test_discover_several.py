"""`discover` with several facts: the single runs, each in a folder of its own, and a page that opens them."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from circuits import cli
from circuits.cli.app import Stopped
from circuits.facts import FactError
from circuits.pages.tables import grid, to_html
from circuits.studies.run import Run
from tests.commands import fails, succeeds

command = importlib.import_module("circuits.cli.discover")
FACTS = {"w1-w2-w3-w4-w5": "w1 w2 w3 w4 => w5", "w6-w3-w4-w7": "w6 w3 w4 => w7"}


@pytest.fixture
def search(model_folder) -> list[str]:
    """The arguments of a quick search in a small random model."""
    more = "--subject w3 --force --tau 0.3 --granularity node --no-certificate"
    return ["discover", "--model", str(model_folder("gpt2")), *more.split()]


@pytest.fixture
def both(search) -> list[str]:
    return [*search, *(word for fact in FACTS.values() for word in ("--fact", fact))]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_fact_has_the_files_of_the_run_alone_and_a_line_that_opens_them(search, both, capsys, tmp_path):
    said = json.loads(succeeds([*both, "--out", str(tmp_path / "both"), "--json"], capsys))
    page = (tmp_path / "both" / "index.html").read_text()
    assert re.findall(r'href="([^"]+\.html)"', page) == [f"{name}/report.html" for name in FACTS]
    for (name, fact), one in zip(FACTS.items(), said, strict=True):
        alone = json.loads(succeeds([*search, "--fact", fact, "--out", str(tmp_path / name), "--json"], capsys))
        assert {**alone, "seconds": 0} == {**one, "seconds": 0}
        assert files(tmp_path / "both" / name) == files(tmp_path / name)
        assert "index.html" not in files(tmp_path / name)
    # The control: they are not one circuit twice.
    assert Run.load(tmp_path / "w6-w3-w4-w7").circuit != Run.load(tmp_path / "w1-w2-w3-w4-w5").circuit


def test_what_is_done_before_a_stop_stays_and_is_not_done_again(both, capsys, tmp_path, monkeypatch):
    search, searched = command._Maker.searched, list[str]()

    def stops_at_the_second(maker, spec, *more) -> Iterator[Run]:
        searched.append(spec.facts[0].statement)
        if len(searched) == 2:
            raise Stopped("stopped")
        yield from search(maker, spec, *more)

    monkeypatch.setattr(command._Maker, "searched", stops_at_the_second)
    command_line = [*both, "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as stop:
        cli.main(command_line)
    assert stop.value.code == 130
    first, second = (tmp_path / name for name in FACTS)
    before = files(first)
    assert "w1-w2" in (tmp_path / "index.html").read_text()
    assert not (second / "run.json").exists()
    assert "w6 w3" in succeeds(command_line, capsys)
    assert files(first) == before
    assert searched == ["w1 w2 w3 w4 w5", "w6 w3 w4 w7", "w6 w3 w4 w7"]
    # The control: other settings are another search.
    succeeds([*command_line, "--seed", "1"], capsys)
    assert searched[3:] == ["w1 w2 w3 w4 w5", "w6 w3 w4 w7"]


def test_a_fact_that_fails_loses_no_other_and_is_named(both, capsys, tmp_path, monkeypatch):
    search = command._Maker.searched

    def knows_one(maker, spec, *more) -> Iterator[Run]:
        if spec.facts[0].subject != "w3" or spec.facts[0].object == "w5":
            raise FactError("the model does not know it")
        yield from search(maker, spec, *more)

    monkeypatch.setattr(command._Maker, "searched", knows_one)
    assert "1 of 2 facts have no circuit" in fails([*both, "--out", str(tmp_path)], capsys)
    page = (tmp_path / "index.html").read_text()
    assert "w1 w2 w3 w4 w5: the model does not know it" in page
    assert re.findall(r'href="([^"]+\.html)"', page) == ["w6-w3-w4-w7/report.html"]
    assert Run.load(tmp_path / "w6-w3-w4-w7").circuit.n_edges
    told = json.loads((tmp_path / "facts.json").read_text())
    assert [one.get("error") for one in told] == ["the model does not know it", None]


def test_what_belongs_to_one_fact_or_to_one_result_is_refused(both, capsys, tmp_path):
    assert "--object belongs to a single --fact" in fails([*both, "--object", "w5"], capsys)
    (tmp_path / "run.json").write_text("{}")
    assert "holds a run" in fails([*both, "--out", str(tmp_path)], capsys)


def test_a_line_of_a_table_opens_an_address_whatever_is_in_it():
    html = to_html(grid(("fact", "edges"), [("a & b", "1"), ("c", "2")]), links=['x "y"/report.html'])
    assert '<a href="x%20%22y%22/report.html">a &amp; b</a>' in html
    assert html.count("<a ") == 1
