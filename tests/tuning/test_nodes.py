"""A search on Ray nodes of which one is lost: its trial goes on on another, and it is not counted against it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from quick_run import HERE, SPACE, QuickRun, check_run
from ray.cluster_utils import Cluster

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head that takes no trials."""
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)
    monkeypatch.setenv("TUNELAB_QUICK_SECONDS", "0.5")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_lost_node_is_never_counted_and_its_trial_goes_on_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    node = cluster.add_node(num_cpus=1)
    quick = QuickRun(folder=tmp_path, environment={"TUNELAB_QUICK_SECONDS": "0.5"})
    quick.start(
        "search", str(tmp_path / "space.yaml"), "--name", "run", "--trials", "2", "--concurrent", "1",
        "--max-failures", "0", "--address", cluster.address,
    )  # fmt: skip
    quick.wait_for(lambda records: sum(r["kind"] == "result" for r in records) >= 3)
    cluster.add_node(num_cpus=1)
    cluster.remove_node(node, allow_graceful=False)
    assert quick.end() == 0, quick.said
    assert check_run(quick.run).trials == 2
    failures = [(r["counts"], r["cause"]) for r in quick.records() if r["kind"] == "failure"]
    assert failures
    assert not any(counts for counts, _ in failures), "twice where it was placed there again before Ray knew"
    assert failures[0][1].startswith(("its node was lost (", "its process was lost: the connection "))
    assert {r["status"] for r in quick.records() if r["kind"] == "end"} <= {"finished", "stopped"}
