"""What a user asks of the command line itself: what this machine has, and what a word can go on as."""

import json
import os
import subprocess
import sys

import pytest

from circuits import cli
from circuits.cli.doctor import USES, examine, lines


def test_doctor_names_versions_programs_models_threads_memory_and_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["doctor", "--json"])
    assert stop.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["models"]["factlm"]["present"]
    assert found["threads"] >= 1
    assert found["memory"] > 0
    assert {"dot", "chromium"} == set(found["programs"])
    assert isinstance(found["gpus"], list)


def test_what_is_missing_says_what_goes_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("circuits.cli.doctor.PACKAGES", ("torch", "no-such-package"))
    said = "\n".join(lines(examine()))
    for use in USES.values():
        assert use in said
    assert "no-such-package is not installed" in said


@pytest.mark.parametrize(
    ("typed", "offered"), [("dis", "discover"), ("discover --gran", "--granularity"), ("edit comp", "compare")]
)
def test_the_shell_completes_commands_and_options(typed: str, offered: str) -> None:
    words = ["kcircuit", *typed.split()]
    asked = {"_KCIRCUIT_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    code = "import sys; sys.argv = ['kcircuit']; from circuits.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **asked})
    assert offered in done.stdout.split(), done.stderr
