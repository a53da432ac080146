"""A sweep on a Ray cluster: the rows of one process, though machines are lost; clear words where there is no Ray or no room."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from circuits import cli
from circuits.studies.cluster import Cluster, ClusterError
from circuits.studies.product import product
from circuits.studies.store import Database
from circuits.studies.study import Watch
from circuits.studies.sweep import Here, Where, sweep
from tests.toy_study import SQUARES, Spec

NUMBERS = (13, *range(200, 224))
SPECS = (Spec(NUMBERS), Spec(NUMBERS, exponent=3))


@pytest.fixture
def three_nodes() -> Iterator[Any]:
    """A cluster of three machines, each a process of this one, with a core each; joined."""
    ray = pytest.importorskip("ray", reason="no Ray: pip install 'kcircuit[cluster]'")
    make = pytest.importorskip("ray.cluster_utils").Cluster
    quiet = {"include_dashboard": False, "num_cpus": 1, "object_store_memory": 80_000_000}
    nodes = make(initialize_head=True, head_node_args=quiet)
    nodes.add_node(num_cpus=1, object_store_memory=80_000_000)
    nodes.lost = nodes.add_node(num_cpus=1, object_store_memory=80_000_000)
    ray.init(nodes.address, logging_level="ERROR", log_to_driver=False)
    try:
        yield nodes
    finally:
        ray.shutdown()
        nodes.shutdown()


def rows(path: Path) -> list[dict[str, Any]]:
    with Database(path, read_only=True) as store:
        return list(store.query('SELECT study, spec, weights, "case", row, error FROM results ORDER BY spec, "case"'))


def swept(folder: Path, where: Where, watch: Watch | None = None) -> Iterator[Any]:
    with Database(folder / "s.db") as store:
        yield from sweep(
            product(SQUARES), SPECS, folder / "log", where=where, store=store, watch=watch, failures="keep"
        )


def test_three_machines_of_which_one_is_lost_in_the_middle_keep_the_rows_of_one_process(
    tmp_path: Path, three_nodes: Any
):
    for name in ("here", "cluster"):
        (tmp_path / name).mkdir()
    list(swept(tmp_path / "here", Here()))
    told: list[str] = []
    log, lost = tmp_path / "cluster" / "log", False
    for done, _ in enumerate(swept(tmp_path / "cluster", Cluster(), Watch(told.append))):
        if not lost and len({line.split(" in ")[1] for line in log.read_text().splitlines()}) == 3:
            assert done < len(SPECS) * len(NUMBERS) / 2
            three_nodes.remove_node(three_nodes.lost, allow_graceful=False)
            lost = True
    assert lost
    assert any("died" in line for line in told)
    assert rows(tmp_path / "cluster/s.db") == rows(tmp_path / "here/s.db")
    # What had been answered was not done again: only what the lost one had.
    begun = [line.split(" in ")[0] for line in log.read_text().splitlines()]
    assert 0 <= len(begun) - len(SPECS) * len(NUMBERS) <= 2


def test_a_case_at_which_process_after_process_dies_fails_and_the_others_do_not(tmp_path: Path, three_nodes: Any):
    spec = Spec((2, 66, 4))
    outcomes = sweep(SQUARES, spec, tmp_path / "log", where=Cluster(actors=1), failures="keep")
    assert {outcome.case: outcome.kind for outcome in outcomes} == {"of 2": None, "of 66": "ProcessDied", "of 4": None}


def test_machines_hold_as_many_processes_as_their_scarcest_resource_and_none_is_refused():
    def node(cpu: float, memory: float, alive: bool = True) -> dict[str, Any]:
        return {"Alive": alive, "Resources": {"CPU": cpu, "memory": memory}}

    nodes = [node(8, 5e9), node(2, 64e9), node(8, 64e9, alive=False)]
    assert Cluster(memory=2 * 10**9).room(nodes) == 2 + 2
    assert Cluster(cpus=2).room(nodes) == 4 + 1
    with pytest.raises(ClusterError, match=r"has 1 cores, 0 GPUs and 100\.0 GB, .* there are 2"):
        Cluster(memory=100 * 10**9).room(nodes)
    with pytest.raises(ClusterError, match=r"0\.5 GPUs"):
        Cluster(gpus=0.5).room(nodes)


def test_without_ray_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SystemExit) as end:
        cli.main(["sweep", "discover", "--on", "ray"])
    assert end.value.code == 1
    assert "pip install 'kcircuit[cluster]'" in capsys.readouterr().err
