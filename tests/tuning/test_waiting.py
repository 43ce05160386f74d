"""Whole searches in which trials wait at rungs: nothing hangs for them, and they go on where they were."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from quick_run import QuickRun, check_run

pytestmark = pytest.mark.ray

FEW = """
epochs: {max: 9, patience: 9}
early_stopping: {grace: 1, reduction: 3}
families:
  simple_rnn: {units: [6], dropout: 0, l2: 0, learning_rate: {loguniform: [1e-3, 1.0]}}
"""


@pytest.fixture
def quick(tmp_path: Path) -> QuickRun:
    trained = tmp_path / "trained.txt"
    return QuickRun(
        folder=tmp_path, environment={"TUNELAB_QUICK_TRAINED": str(trained), "TUNELAB_QUICK_SHARE": "99999"}
    )


def trained(run: QuickRun) -> Counter[str]:
    """How often each epoch of each trial was trained."""
    return Counter((run.folder / "trained.txt").read_text().splitlines())


def waits(records: list[dict[str, Any]]) -> int:
    return sum(record["kind"] == "wait" for record in records)


def test_more_trials_wait_than_there_are_places_and_the_search_ends(quick: QuickRun) -> None:
    """Paused in Ray's way, two of them hold both places for ever, and those never taken up keep it from ending."""
    quick.search("--trials", "20", "--concurrent", "2", space=FEW)
    assert quick.end() == 0, quick.said
    check_run(quick.run, said=quick.said)
    records = quick.records()
    assert waits(records) > 4
    resumed = [r["trial"] for r in records if r["kind"] == "resumed"]
    assert resumed, "nobody was taken up again"
    assert set(trained(quick).values()) == {1}, "one that waited went on behind what it had trained"
    ends = {r["trial"]: r["status"] for r in records if r["kind"] == "end"}
    waited = {r["trial"] for r in records if r["kind"] == "wait"}
    assert {ends[trial] for trial in waited} == {"stopped", "finished"}
    assert max(r["epoch"] for r in records if r["kind"] == "result") == 9, "somebody was trained to the end"
    running = 0
    for record in records:
        running += (record["kind"] in ("suggestion", "resumed")) - (record["kind"] == "wait")
        running -= record["kind"] == "end" and record["trial"] not in waiting_at(records, record["seq"])
        assert running <= 2, record


def waiting_at(records: list[dict[str, Any]], seq: int) -> set[str]:
    found: set[str] = set()
    for record in records[:seq]:
        if record["kind"] == "wait":
            found.add(record["trial"])
        elif record["kind"] in ("resumed", "end"):
            found.discard(record["trial"])
    return found


def test_a_search_that_was_killed_while_trials_waited_takes_them_up_again(quick: QuickRun) -> None:
    quick.search("--trials", "12", "--concurrent", "2", space=FEW)
    quick.wait_for(lambda records: waits(records) >= 3)
    quick.kill_all()
    before = quick.journal.read_bytes()
    waited = waiting_at(quick.records(), len(quick.records()))
    assert waited
    said = quick.said
    assert quick.resume().end() == 0, quick.said
    check_run(quick.run, before=before, said=said + quick.said)
    suggested = [r["trial"] for r in quick.records() if r["kind"] == "suggestion"]
    assert len(suggested) == 12
    once = {line for line, times in trained(quick).items() if line.split()[0] in waited}
    assert all(trained(quick)[line] == 1 for line in once), "one that waited lost what it had trained"


def test_trials_wait_on_when_the_user_ends_the_search_and_end_with_it_when_the_time_is_over(quick: QuickRun) -> None:
    quick.search("--time-budget", "1h", "--concurrent", "2", space=FEW)
    quick.wait_for(lambda records: waits(records) >= 3)
    quick.kill(signal.SIGINT)
    assert quick.end() == 130
    waited = waiting_at(quick.records(), len(quick.records()))
    assert waited
    assert not waited & {r["trial"] for r in quick.records() if r["kind"] == "end"}
    assert quick.resume("--time-budget", "1s").end() == 0, quick.said
    ends = {r["trial"]: r["status"] for r in quick.records() if r["kind"] == "end"}
    assert {ends[trial] for trial in waited} == {"stopped"}
    assert not list((quick.run / "checkpoints").glob("*/*")) or "interrupted" in ends.values()
