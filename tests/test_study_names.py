"""The table of studies: each is found by its name, asks for its spec, and is listed without torch."""

import subprocess
import sys

import pytest

from circuits.studies.names import STUDIES, NoSuchStudy, find_study
from circuits.studies.options import declared


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_found_by_its_own_name_and_has_options(name: str):
    named = find_study(name)
    assert named.load().name == name
    assert declared(named.spec)


def test_a_name_of_no_study_is_told_those_that_there_are():
    with pytest.raises(NoSuchStudy, match=r"no study called 'tables'; expected .*table"):
        find_study("tables")


def test_listing_studies_loads_no_torch():
    code = "import sys; from circuits.studies.names import STUDIES; assert STUDIES and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
