"""Decisions of the scheduler: recorded first, NaN worst, ends that the trial itself announced."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from tunelab.journal import read
from tunelab.space import EarlyStopping
from tunelab.tuning.record import Recorder
from tunelab.tuning.scheduler import RecordingScheduler

pytestmark = pytest.mark.ray

STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE


class Bench:
    """A scheduler, its journal, and trials that report what they are told to."""

    def __init__(self, folder: Path, recorder: Recorder) -> None:
        self.path = folder / "journal.jsonl"
        self.recorder = recorder
        self.scheduler = RecordingScheduler(EarlyStopping(grace=2, reduction=2), 8, recorder)
        self.trials: dict[str, Any] = {}

    def report(self, trial: str, epoch: int, dense: float, *, ended: str = "", failed: str = "") -> str:
        if trial not in self.trials:
            self.recorder.suggestion(trial, "", 0, {"family": "lstm"}, {})
            self.trials[trial] = SimpleNamespace(trial_id=f"ray-{trial}", config={"trial": trial})
            self.scheduler.on_trial_add(None, self.trials[trial])
        result = {"fold": 0, "epoch": epoch, "seconds": 1.0, "parameters": 7, "weights": ""}
        result |= {"ended": ended, "failed": failed, "pooled": []}
        metrics = {"metrics/tune_average_precision": dense, "metrics/val_f1": 0.5}
        return self.scheduler.on_trial_result(None, self.trials[trial], result | metrics)


@pytest.fixture
def bench(tmp_path: Path, recorder_in: Callable[[Path], Recorder]) -> Bench:
    return Bench(tmp_path, recorder_in(tmp_path))


def test_the_better_half_goes_on_at_a_rung_and_nobody_is_stopped_before(bench: Bench) -> None:
    for trial, dense in (("0001", 0.8), ("0002", 0.6), ("0003", 0.1)):
        assert bench.report(trial, 1, dense) == CONTINUE
    assert bench.report("0001", 2, 0.8) == CONTINUE
    assert bench.report("0002", 2, 0.6) == STOP
    assert bench.report("0003", 2, 0.1) == STOP
    bench.recorder.end("0003", "interrupted")
    ended = bench.recorder.board.trials["0003"]
    assert (ended.status, ended.cause) == ("stopped", "not among the best at epoch 2")


def test_nan_is_worst_and_is_stopped(bench: Bench) -> None:
    assert bench.report("0001", 2, 0.1) == CONTINUE
    assert bench.report("0002", 2, math.nan) == STOP
    assert bench.report("0003", 2, 0.2) == CONTINUE


def test_when_nearly_all_are_nan_the_rest_goes_on(bench: Bench) -> None:
    """Ray's own rule takes a percentile that leaves NaN out, and stops healthy trials instead."""
    for i in range(8):
        bench.report(f"{i:04d}", 2, math.nan)
    for i in range(8, 12):
        assert bench.report(f"{i:04d}", 2, 0.3) == CONTINUE
    assert bench.report("0099", 2, math.nan) == STOP


def test_it_judges_the_best_so_far_not_the_last(bench: Bench) -> None:
    bench.report("0001", 2, 0.5)
    bench.report("0002", 1, 0.9)
    assert bench.report("0002", 2, 0.1) == CONTINUE


def test_a_result_is_on_disk_before_the_decision(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    inner = type(bench.scheduler).__mro__[1].on_trial_result

    def spy(self: Any, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        seen.append([record["kind"] for record in read(bench.path)])
        return str(inner(self, controller, trial, result))

    monkeypatch.setattr(type(bench.scheduler).__mro__[1], "on_trial_result", spy)
    bench.report("0001", 1, 0.5)
    assert seen == [["suggestion", "result"]]


@pytest.mark.parametrize(
    ("said", "status", "cause"),
    [({"ended": "patience"}, "finished", ""), ({"failed": "the loss is nan"}, "failed", "the loss is nan")],
)
def test_what_a_trial_says_of_its_end_is_what_is_recorded(
    bench: Bench, said: dict[str, str], status: str, cause: str
) -> None:
    assert bench.report("0001", 1, 0.5, **said) == STOP
    bench.recorder.end("0001", "interrupted")
    ended = bench.recorder.board.trials["0001"]
    assert (ended.status, ended.cause) == (status, cause)
    assert [r["kind"] for r in read(bench.path)] == ["suggestion", "result", "decision", "end"]


def test_a_failure_before_the_first_epoch_has_no_result(bench: Bench) -> None:
    assert bench.report("0001", 0, math.nan, failed="cannot be built") == STOP
    assert [r["kind"] for r in read(bench.path)] == ["suggestion", "decision"]
