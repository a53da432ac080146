"""Laws of a release: one version, which the tag gives; a changelog in its order; a citation that tools read."""

import os
import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import yaml

import circuits

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_is_the_installed_distributions_and_stands_in_no_file():
    assert circuits.__version__ == version("kcircuit")
    assert "__version__" in dir(circuits)
    assert "version" in PROJECT["project"]["dynamic"]
    assert PROJECT["tool"]["hatch"]["version"]["source"] == "vcs"
    assert not re.search(r"__version__\s*=", (ROOT / "circuits" / "__init__.py").read_text(encoding="utf-8"))


def test_the_changelog_tells_of_what_is_unreleased_first_and_of_every_tag_in_falling_order():
    heads = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert heads[0] == "Unreleased"
    told = [tuple(int(part) for part in head.split()[0].split(".")) for head in heads[1:]]
    assert told == sorted(told, reverse=True)
    tags = subprocess.run(["git", "tag", "--list", "v*"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert {tag.removeprefix("v") for tag in tags} <= {head.split()[0] for head in heads}


def test_the_citation_has_what_its_format_asks_for_and_the_projects_licence():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert (cited["cff-version"], cited["type"]) == ("1.2.0", "software")
    assert cited["license"] == PROJECT["project"]["license"]
    assert all(reference["authors"] and reference["url"] for reference in cited["references"])


def test_everything_that_an_sdist_names_is_there_and_the_check_can_be_run():
    assert all((ROOT / name).exists() for name in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
    assert os.access(ROOT / ".ci" / "release-check", os.X_OK)
    assert subprocess.run(["bash", "-n", str(ROOT / ".ci" / "release-check")]).returncode == 0
    assert "release-check:" in (ROOT / "Makefile").read_text(encoding="utf-8")
