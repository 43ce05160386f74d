"""Searches that end by what their machines cost, on a real Ray whose nodes have types; quick trainer."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from quick_run import SPACE, QuickRun
from ray.cluster_utils import Cluster
from rich.console import Console

import tunelab.tuning.run
from tunelab import journal
from tunelab.dry_run import plan_search
from tunelab.errors import UsageError
from tunelab.overview import look
from tunelab.search import search
from tunelab.spending import PRICES, Spending
from tunelab.storage import FolderStore
from tunelab.tuning import cost

pytestmark = [
    pytest.mark.ray,
    # Ray leaves sockets and log files to the garbage collector, and warns of its own future
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
OF = {"head": 360.0, "spot": 720.0, "other": 1e6}
"""Dollars an hour: ten and twenty cents a second."""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A Ray of a head and a spot machine, as Ray's launcher names them to it."""
    monkeypatch.setattr(tunelab.tuning.run, "TRAINER", "quick_trainer")
    path = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    monkeypatch.setenv("TUNELAB_QUICK_SECONDS", "0.2")
    monkeypatch.setenv("RAY_NODE_TYPE_NAME", "head")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    monkeypatch.setenv("RAY_NODE_TYPE_NAME", "spot")
    cluster.add_node(num_cpus=2)
    monkeypatch.delenv("RAY_NODE_TYPE_NAME")
    monkeypatch.setenv(PRICES, json.dumps(OF))
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def machines(cluster: Cluster) -> str:
    """Its address."""
    return str(cluster.address)


def test_money_ends_a_search_and_a_resume_counts_on(tmp_path: Path, machines: str) -> None:
    (tmp_path / "space.yaml").write_text(SPACE.replace("epochs: {max: 6, patience: 9}", "epochs: {max: 60}"))
    shown = io.StringIO()
    result = search(
        tmp_path / "space.yaml", storage=tmp_path, name="run", max_cost=2.5, time_budget=600.0,
        address=machines, console=Console(file=shown, width=200),
    )  # fmt: skip
    said = shown.getvalue()
    assert "600 s or 2.5 US dollars, 60 epochs" in said
    assert "of 2.5 US dollars] interrupted: " in said
    assert "Why the search ended: the maximum cost was reached." in said
    assert result.report["reason"] == "the maximum cost was reached"
    assert "the maximum cost was reached" in (result.folder / "report.html").read_text()
    records = journal.read(result.folder / "journal.jsonl")
    told = [(r["there"], r["dollars"]) for r in records if r["kind"] == "machines"]
    assert told == [({"head": 1, "spot": 1}, 1080.0)]
    assert {r["cause"] for r in records if r["kind"] == "end" and r["status"] == "interrupted"} == {
        "the maximum cost was reached"
    }
    spent = Spending(records).dollars()
    assert 2.5 <= spent < 2.5 + 20, "what ends a moment later costs a little more, on a busy machine more"
    told_of = look(FolderStore(result.folder))
    assert told_of.cost == pytest.approx(spent)
    assert f"Cost: {spent:.2f} of 2.5 US dollars" in told_of.lines()


def test_a_killed_run_counts_what_it_cost_before(tmp_path: Path, machines: str) -> None:
    run = QuickRun(folder=tmp_path, environment={"TUNELAB_QUICK_SECONDS": "0.2"})
    (tmp_path / "space.yaml").write_text(SPACE)
    words = ("search", "space.yaml", "--name", "run", "--address", machines, "--trials", "50", "--max-cost", "$9000")
    run.start(*words)
    run.wait_for(lambda records: sum(r["kind"] == "result" for r in records) >= 3)
    run.kill_all()
    before = run.records()
    spent = Spending(before).dollars()
    assert spent > 0.05

    assert run.start("resume", str(run.run), "--address", machines, "--max-cost", str(spent)).end() == 0, run.said
    new = run.records()[len(before) :]
    assert not {r["kind"] for r in new} & {"suggestion", "resumed", "start", "result"}
    assert new[-1]["reason"] == "the maximum cost was reached"

    # where no price is known the limit means nothing, and is not forgotten either
    run.environment[PRICES] = ""
    assert run.resume().end() == 2
    assert "what the machines here cost is not known" in run.said
    assert run.resume("--max-cost", "0").end() == 0, run.said
    assert [r["options"]["max_cost"] for r in run.records() if r["kind"] == "change"] == [spent, None]
    assert run.resume("--max-cost", "9").end() == 2
    assert "has used its test split, which answers once" in run.said


def test_a_machine_that_is_lost_costs_no_more(cluster: Cluster, machines: str) -> None:
    ray.init(machines, log_to_driver=False)
    cluster.add_node(num_cpus=1)
    assert cost.machines_there() == {"": 1, "head": 1, "spot": 1}, "one whose type nobody named"
    (spot,) = [n for n in cluster.worker_nodes if n.node_id in _of_type("spot")]
    cluster.remove_node(spot)
    until = time.monotonic() + 60
    while "spot" in cost.machines_there():
        assert time.monotonic() < until
        time.sleep(0.1)
    assert cost.machines_there() == {"": 1, "head": 1}


def _of_type(name: str) -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Labels"].get("ray.io/node-group") == name}


def test_a_dry_run_knows_how_long_the_money_lasts(tmp_path: Path, machines: str) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    shown = io.StringIO()
    found = plan_search(
        tmp_path / "space.yaml",
        storage=tmp_path,
        address=machines,
        max_cost=1.08,
        console=Console(file=shown, width=200),
    )
    assert found.forecast is not None, shown.getvalue()
    assert found.forecast.ends_by == "cost"
    assert "when its maximum cost is reached, with the machines that are there now" in shown.getvalue()


def test_without_prices_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PRICES, raising=False)
    (tmp_path / "space.yaml").write_text(SPACE)
    with pytest.raises(UsageError, match="--max-cost: 2: what the machines here cost is not known"):
        search(tmp_path / "space.yaml", storage=tmp_path, name="r", max_cost=2, console=quiet())
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("most", [0.0, -1.0, float("nan"), float("inf")])
def test_costs_that_are_none(tmp_path: Path, most: float) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    with pytest.raises(UsageError, match=f"--max-cost: {most:g} is not above zero"):
        search(tmp_path / "space.yaml", storage=tmp_path, name="r", max_cost=most, console=quiet())


def quiet() -> Console:
    return Console(file=io.StringIO(), width=150)
