"""Whole searches whose trials do all that a trial can do: each ends or goes on alone, with a cause that has a name."""

from __future__ import annotations

import csv
import os
import signal
from pathlib import Path

import pytest
from quick_run import QuickRun, actors, check_run, workers

from tunelab.tuning.in_vain import LEAST

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


def test_a_search_whose_trials_all_fail_alike_ends_before_its_budget(tmp_path: Path) -> None:
    quick = QuickRun(folder=tmp_path)
    quick.environment["TUNELAB_QUICK_FAULTS"] = "raise"
    quick.search("--trials", "40", space=SPACE)
    assert quick.end() == 4, quick.said
    begun = quick.count("suggestion")
    assert LEAST <= begun <= LEAST + 2, "what trains meanwhile is waited for"
    failed = [status for status, _ in causes(quick.run).values()].count("failed")
    said = f"{failed} trials in a row failed for the same cause"
    assert (
        f"tunelab: {said}, and none told a result, so the search ended early; mend that, then go on with: "
        f"tunelab resume {quick.run}; report: {quick.run / 'report.html'}\n"
    ) in quick.said
    assert "x ValueError: the fault that was asked for" in quick.said
    close = quick.records()[-1]
    assert (close["kind"], close["status"]) == ("close", "interrupted")
    assert close["reason"] == said
    assert (quick.run / "report.html").exists()

    # a resume counts anew, and ends as early
    assert quick.resume().end() == 4, quick.said
    again = quick.count("suggestion")
    assert LEAST - 2 <= again - begun <= LEAST + 2, "those that were unfinished count"
    # once it is mended, it goes on to its end
    quick.environment.clear()
    assert quick.resume("--trials", str(again + 2)).end() == 0, quick.said
    assert check_run(quick.run).trials == again + 2
    statuses = [status for status, _ in causes(quick.run).values()]
    assert statuses.count("failed") >= 2 * LEAST
    assert statuses.count("finished") >= 2


def test_a_winner_of_before_does_not_answer_test_when_a_resume_is_in_vain(tmp_path: Path) -> None:
    quick = QuickRun(folder=tmp_path)
    quick.search("--trials", "40", space=SPACE)
    quick.wait_for(lambda records: any(r["kind"] == "end" and r["status"] == "finished" for r in records))
    quick.kill(signal.SIGINT)
    assert quick.end() == 130, quick.said
    quick.environment["TUNELAB_QUICK_FAULTS"] = "raise"
    assert quick.resume().end() == 4, quick.said
    assert " trials in a row failed for the same cause" in quick.said
    assert quick.count("final") == 0
    quick.environment.clear()
    assert quick.resume("--trials", str(quick.count("suggestion") + 1)).end() == 0, quick.said
    assert quick.count("final") == 1


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
