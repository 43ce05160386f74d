"""Whole searches whose trials do all that a trial can do: each ends or goes on alone, with a cause that has a name."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import pytest
from quick_run import QuickRun, actors, check_run, workers

pytestmark = pytest.mark.ray

CAUSES = {
    "0001": ("raise@2/0001", "ValueError: the fault that was asked for"),
    "0002": ("nan@2/0002", "the loss is nan in epoch 2"),
    "0003": ("memory@2/0003", "out of memory: "),
    "0004": ("kill@3/0004", "its process was lost 2 times (--max-failures 1); the last time: killed by signal 9"),
    "0005": ("hang@2/0005", "its process was lost 2 times (--max-failures 1); the last time: no answer for 3 s"),
    "0006": ("leave@2/0006", "its process was lost 2 times (--max-failures 1); the last time: exit code 3 (leaving)"),
}
"""Trial -> what it does at an epoch, and the beginning of its cause."""
SPACE = """
name: quick
epochs: {max: 4, patience: 9}
early_stopping: {grace: 4, reduction: 2}
shared: {learning_rate: {loguniform: [1e-3, 1.0]}, batch_size: 4, dropout: 0, l2: 0}
families: {simple_rnn: {units: [6]}}
"""


def causes(run: Path) -> dict[str, tuple[str, str]]:
    with (run / "leaderboard.csv").open(newline="", encoding="utf-8") as file:
        return {row["trial"]: (row["status"], row["cause"]) for row in csv.DictReader(file)}


def test_each_fault_ends_its_trial_alone_and_is_named(tmp_path: Path) -> None:
    quick = QuickRun(folder=tmp_path)
    faults = [fault for fault, _ in CAUSES.values()]
    quick.environment["TUNELAB_QUICK_FAULTS"] = " ".join([*faults, "flood@2/0007"])
    quick.search("--trials", "9", "--max-failures", "1", "--step-timeout", "3s", space=SPACE)
    assert quick.end() == 0, quick.said
    check_run(quick.run)
    found = causes(quick.run)
    for trial, (_, cause) in CAUSES.items():
        status, said = found[trial]
        assert status == "failed"
        assert said.startswith(cause), f"{trial}: {said}"
    assert {found[trial][0] for trial in ("0007", "0008", "0009")} == {"finished"}
    assert "hang (quick_trainer.py:" in found["0005"][1]
    failures = [(r["trial"], r["counts"]) for r in quick.records() if r["kind"] == "failure"]
    assert sorted(failures) == [(t, True) for t in ("0004", "0004", "0005", "0005", "0006", "0006")]
    # of 300 MB that a trial printed nothing stays but its beginning and its end, where it failed
    assert sum(path.stat().st_size for path in quick.run.rglob("*") if path.is_file()) < 3e6
    assert "leaving" in (quick.run / "logs" / "0006.txt").read_text()
    assert len([r for r in quick.records() if r["kind"] == "result" and r["trial"] == "0004"]) == 2
    report = (quick.run / "report.html").read_text()
    assert "the fault that was asked for" in report


def test_when_all_fail_the_causes_are_grouped(tmp_path: Path) -> None:
    quick = QuickRun(folder=tmp_path)
    quick.environment["TUNELAB_QUICK_FAULTS"] = "raise@1 "
    quick.search("--trials", "3", space=SPACE)
    assert quick.end() == 4, quick.said
    assert "  3 x ValueError: the fault that was asked for" in quick.said
    assert (quick.run / "report.html").exists()
    quick.environment.clear()
    assert quick.resume("--trials", "5").end() == 0, quick.said
    assert [status for status, _ in causes(quick.run).values()].count("failed") == 3


def test_killed_processes_of_trials_and_of_ray_cost_an_epoch_at_most(tmp_path: Path) -> None:
    """The trial's own process, then the one of Ray that holds it: both go on where they were."""
    quick = QuickRun(folder=tmp_path)
    quick.environment |= {"TUNELAB_QUICK_SECONDS": "0.5", "TUNELAB_QUICK_SHARE": "0"}
    quick.search("--trials", "2", space=SPACE)
    for number, which in ((1, workers), (3, actors)):
        quick.wait_for(lambda records, number=number: sum(r["kind"] == "result" for r in records) >= number)
        for pid in which(quick):
            os.kill(pid, signal.SIGKILL)
    assert quick.end() == 0, quick.said
    counted = check_run(quick.run)
    assert (counted.trials, counted.results, counted.duplicated) == (2, 8, 0)
    failures = [r for r in quick.records() if r["kind"] == "failure"]
    assert {r["counts"] for r in failures} == {True}
    assert {r["trial"] for r in failures} == {"0001", "0002"}
    assert "goes on in another process: trial 000" in quick.said
