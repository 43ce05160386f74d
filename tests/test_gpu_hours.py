"""Searches that end by their GPU-hours, on a real Ray that was told to have GPUs; trials are of the quick trainer."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from quick_run import SPACE, QuickRun
from ray.cluster_utils import Cluster
from rich.console import Console

import tunelab.tuning.run
from tunelab import journal
from tunelab.errors import UsageError
from tunelab.overview import look
from tunelab.search import search
from tunelab.spending import Spending
from tunelab.storage import FolderStore

pytestmark = [
    pytest.mark.ray,
    # Ray leaves sockets and log files to the garbage collector, and warns of its own future
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
SECONDS = 8.0
"""GPU-seconds of the budget; two trials at once, which on a busy machine take seconds to their first result."""
HOURS = f"{SECONDS / 3600:g}"


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Ray that says it has two GPUs; its trials find the quick trainer, epochs of half a second."""
    monkeypatch.setattr(tunelab.tuning.run, "TRAINER", "quick_trainer")
    path = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
    monkeypatch.setenv("TUNELAB_QUICK_SECONDS", "0.5")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 2, "include_dashboard": False})
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


def test_gpu_hours_end_a_search_and_a_resume_counts_on(tmp_path: Path, two_gpus: str) -> None:
    (tmp_path / "space.yaml").write_text(SPACE.replace("epochs: {max: 6, patience: 9}", "epochs: {max: 60}"))
    shown = io.StringIO()
    result = search(
        tmp_path / "space.yaml", storage=tmp_path, name="run", gpu_hours=SECONDS / 3600, time_budget=600.0,
        address=two_gpus, console=Console(file=shown, width=200),
    )  # fmt: skip
    said = shown.getvalue()
    assert "on Ray at" in said
    assert f"600 s or {HOURS} GPU-hours, 60 epochs" in said
    assert f"of {HOURS} GPU-hours] interrupted: " in said
    assert "Why the search ended: the GPU-hours were used." in said
    assert result.exit_code == 0
    assert result.report["reason"] == "the GPU-hours were used"
    assert "the GPU-hours were used" in (result.folder / "report.html").read_text()
    records = journal.read(result.folder / "journal.jsonl")
    starts = [r for r in records if r["kind"] == "start"]
    assert {(r["trial"], r["gpus"]) for r in starts} >= {("0001", 1.0), ("0002", 1.0)}
    suggested = {r["trial"]: r["clock"] for r in records if r["kind"] == "suggestion"}
    first = {r["trial"]: r["clock"] for r in reversed(records) if r["kind"] == "result" and r["epoch"] == 1}
    assert all(suggested[r["trial"]] <= r["clock"] <= first.get(r["trial"], 1e9) for r in starts)
    assert {r["cause"] for r in records if r["kind"] == "end" and r["status"] == "interrupted"} == {
        "the GPU-hours were used"
    }
    assert records[-1]["reason"] == "the GPU-hours were used"
    used = Spending(records).hours() * 3600
    assert SECONDS <= used < SECONDS + 30, "two trials end a moment later, on a busy machine a longer one"
    told = look(FolderStore(result.folder))
    assert told.gpu_hours == pytest.approx(used / 3600)
    assert f"GPU-hours: {used / 3600:.2f} of {HOURS}" in told.lines()


def test_a_killed_run_counts_what_it_used_before(tmp_path: Path, two_gpus: str) -> None:
    run = QuickRun(folder=tmp_path, environment={"TUNELAB_QUICK_SECONDS": "0.5"})
    (tmp_path / "space.yaml").write_text(SPACE)
    words = ("search", "space.yaml", "--name", "run", "--address", two_gpus, "--trials", "50", "--gpu-hours", "9")
    run.start(*words)
    run.wait_for(lambda records: sum(r["kind"] == "result" for r in records) >= 3)
    run.kill_all()
    before = run.records()
    used = Spending(before).hours()
    assert used * 3600 > 0.5

    assert run.start("resume", str(run.run), "--address", two_gpus, "--gpu-hours", str(used)).end() == 0, run.said
    new = run.records()[len(before) :]
    assert not {r["kind"] for r in new} & {"suggestion", "resumed", "start", "result"}
    waited = {r["trial"] for r in before if r["kind"] == "wait"}
    ended = {r["trial"]: r["cause"] for r in new if r["kind"] == "end"}
    assert {cause for trial, cause in ended.items() if trial not in waited} == {"the GPU-hours were used"}
    assert all("not among the best" in cause for trial, cause in ended.items() if trial in waited)
    assert new[-1]["reason"] == "the GPU-hours were used"
    assert "Why the search ended: the GPU-hours were used." in run.said

    # where there is no GPU the limit means nothing, and is not forgotten either
    assert run.resume().end() == 2
    assert "trials use no GPU here, so that nothing would ever count" in run.said
    assert run.resume("--gpu-hours", "0").end() == 0, run.said
    assert [r["options"]["gpu_hours"] for r in run.records() if r["kind"] == "change"] == [used, None]
    assert run.resume("--gpu-hours", "9").end() == 2
    assert "has used its test split, which answers once" in run.said


def test_gpu_hours_of_trials_without_a_gpu_are_refused(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    for more in ({}, {"gpus_per_trial": 0.0}):
        with pytest.raises(
            UsageError, match=r"--gpu-hours: 2: trials use no GPU here, .* use --time-budget, or --gpus"
        ):
            search(
                tmp_path / "space.yaml", storage=tmp_path, name=f"r{len(more)}", gpu_hours=2, console=quiet(), **more
            )


@pytest.mark.parametrize("hours", [0.0, -1.0, float("nan"), float("inf")])
def test_gpu_hours_that_are_none(tmp_path: Path, hours: float) -> None:
    (tmp_path / "space.yaml").write_text(SPACE)
    with pytest.raises(UsageError, match=f"--gpu-hours: {hours:g} is not above zero"):
        search(tmp_path / "space.yaml", storage=tmp_path, name="r", gpu_hours=hours, console=quiet())
    assert not (tmp_path / "r").exists()


def quiet() -> Console:
    return Console(file=io.StringIO(), width=150)
