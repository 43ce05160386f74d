"""GPU-hours and seconds of a run, from records as a search writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunelab.errors import StateError
from tunelab.journal import Journal
from tunelab.spending import Spending, session_seconds


def record(clock: float, kind: str, trial: str = "", **fields: Any) -> dict[str, Any]:
    return {"clock": clock, "kind": kind, **({"trial": trial} if trial else {}), **fields}


def hours(*records: dict[str, Any], clock: float | None = None) -> float:
    return Spending(records).hours(clock) * 3600


def test_a_trial_counts_from_its_place_to_its_end():
    run = [record(0, "run"), record(1, "session"), record(5, "suggestion", "0001"), record(10, "start", "0001", gpus=1)]
    assert hours(*run) == 0
    assert hours(*run, clock=25) == 15
    assert hours(*run, record(40, "result", "0001")) == 30
    over = [*run, record(40, "result", "0001"), record(50, "end", "0001")]
    assert hours(*over) == hours(*over, clock=1000) == 40


def test_what_waits_for_a_place_uses_none():
    run = [record(1, "session"), record(2, "suggestion", "0001"), record(2, "suggestion", "0002")]
    assert hours(*run, record(10, "start", "0001", gpus=2), clock=11) == 2
    waits = [*run, record(10, "start", "0001", gpus=2), record(20, "wait", "0001")]
    assert hours(*waits, clock=500) == 20
    assert hours(*waits, record(500, "start", "0001", gpus=2), record(501, "end", "0001")) == 22


def test_a_decision_to_stop_is_not_yet_the_end():
    run = [record(0, "session"), record(0, "start", "0001", gpus=1), record(10, "decision", "0001", action="stop")]
    assert hours(*run, record(12, "end", "0001")) == 12


def test_trials_beside_each_other_add_up_by_their_shares():
    run = [record(0, "session"), *[record(t, "start", f"000{t}", gpus=0.25) for t in range(4)]]
    assert hours(*run, clock=10) == 0.25 * (10 + 9 + 8 + 7)


def test_a_killed_session_counts_to_its_newest_record_and_the_next_begins_at_nothing():
    first = [record(0, "run"), record(0, "session"), record(10, "start", "0001", gpus=1), record(70, "note", "0001")]
    assert hours(*first) == 60
    second = [*first, record(0.5, "session"), record(2, "resumed", "0001")]
    assert hours(*second, clock=100) == 60, "it waits for a place"
    assert hours(*second, record(20, "start", "0001", gpus=3), clock=30) == 60 + 30
    assert session_seconds(second) == 70
    assert session_seconds(first) == 0


def test_while_a_lost_trial_waits_for_another_place_nothing_counts():
    run = [record(0, "session"), record(0, "start", "0001", gpus=1), record(10, "failure", "0001")]
    assert hours(*run, clock=15) == 15, "a child that crashed goes on where it is"
    assert hours(*run, record(12, "result", "0001"), record(20, "end", "0001")) == 20
    node = [*run, record(14, "failure", "0001"), record(100, "start", "0001", gpus=1)]
    assert hours(*node, clock=103) == 10 + 3
    again = [*run, record(12, "fold", "0001"), record(14, "failure", "0001"), record(100, "start", "0001", gpus=1)]
    assert hours(*again, clock=103) == 14 + 3


def test_trials_without_a_gpu_and_journals_of_older_versions_count_nothing():
    run = [record(0, "session"), record(0, "start", "0001", gpus=0), record(0, "suggestion", "0002")]
    assert hours(*run, record(90, "end", "0001"), record(90, "end", "0002"), clock=99) == 0
    assert Spending().hours() == Spending().hours(50) == 0


def test_from_a_real_journal(tmp_path: Path):
    journal = Journal.open(tmp_path / "journal.jsonl")
    journal.append("session")
    journal.append("start", trial="0001", gpus=2)
    spending = Spending(journal.records)
    between = journal.append("end", trial="0001")
    spending.apply(between)
    journal.close()
    started, ended = (r["clock"] for r in journal.records[1:])
    assert spending.hours() == pytest.approx(2 * (ended - started) / 3600)


@pytest.mark.parametrize(
    "fields",
    [{"gpus": "x"}, {"gpus": -1}, {"gpus": float("nan")}, {"gpus": None}, {}, {"gpus": 1, "trial": ["0001"]}],
)
def test_a_start_that_is_none_is_refused(fields: dict[str, Any]):
    with pytest.raises(StateError, match=r"journal: record 7 \(start\): .*; restore the journal from a copy"):
        Spending([{"seq": 7, "clock": 0, "kind": "start", "trial": "0001", **fields}])
