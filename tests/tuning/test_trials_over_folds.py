"""Trials over folds, as a search sees them: what is recorded, decided, told to the sampler, and shown."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from held_trainable import hold, settings_in
from ray.tune.schedulers import TrialScheduler
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tunelab.data.dataset import Dataset
from tunelab.data.generated import Generated
from tunelab.data.splits import assign_folds
from tunelab.errors import StateError
from tunelab.journal import read
from tunelab.metrics import Counts
from tunelab.models import normalise
from tunelab.ranking import Leaderboard, Pooled
from tunelab.sections import EarlyStopping
from tunelab.storage import FolderStore
from tunelab.task import Evaluation
from tunelab.tuning.hparams import COLUMNS, POOLED, TensorBoardLogs
from tunelab.tuning.record import Recorder
from tunelab.tuning.reporter import Goal, Reporter
from tunelab.tuning.scheduler import RecordingScheduler
from tunelab.tuning.trainable import KerasTrainable, evaluate_stored

pytestmark = pytest.mark.ray

STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE
POINT = {"family": "lstm"}


def pooled(f1: float, folds: int = 3) -> Pooled:
    measures = {"val_f1": f1, "val_average_precision": 0.44, "tune_average_precision": 0.41, "precision": math.nan}
    counts = tuple(Counts(1, k, 0, 5) for k in range(folds))
    scans = tuple(f"s{k}" for k in range(folds))
    return Pooled(metrics=measures, thresholds=(0.3,) * folds, scans=scans, counts=counts)


class Bench:
    """A scheduler with its journal, and trials over three folds that report what they are told to."""

    def __init__(self, folder: Path, recorder: Recorder) -> None:
        self.path = folder / "journal.jsonl"
        self.recorder = recorder
        self.scheduler = RecordingScheduler(EarlyStopping(grace=2, reduction=2, promote=False), 8, recorder)
        self.trials: dict[str, Any] = {}

    def report(self, trial: str, fold: int, epoch: int, dense: float, **said: Any) -> str:
        if trial not in self.trials:
            self.recorder.suggestion(trial, "", 0, POINT, {})
            self.trials[trial] = SimpleNamespace(trial_id=f"ray-{trial}", config={"trial": trial})
            self.scheduler.on_trial_add(None, self.trials[trial])
        result = {"fold": fold, "epoch": epoch, "seconds": 1.0, "parameters": 7, "weights": f"w{fold}{epoch}"}
        result |= {
            "ended": "",
            "failed": "",
            "pooled": [],
            "checkpoint": "",
            "storage": "",
            "lost": "",
            "notes": [],
            **said,
        }
        metrics = {"metrics/tune_average_precision": dense, "metrics/val_f1": 0.5}
        return self.scheduler.on_trial_result(None, self.trials[trial], result | metrics)

    def through(self, trial: str, f1: float, dense: float) -> None:
        """All folds, of two epochs each."""
        for fold in range(3):
            last = fold == 2
            assert self.report(trial, fold, 1, dense) == CONTINUE
            ended = {"ended": "folds", "pooled": [pooled(f1).record()]} if last else {}
            assert self.report(trial, fold, 2, dense - 0.1, **ended) == (STOP if last else CONTINUE)
        self.recorder.end(trial, "interrupted")


@pytest.fixture
def bench(tmp_path: Path, recorder_in: Callable[[Path], Recorder]) -> Bench:
    return Bench(tmp_path, recorder_in(tmp_path))


def test_a_trial_over_all_folds_is_recorded_and_ranked_by_what_they_came_to(bench: Bench) -> None:
    bench.through("0001", 0.25, 0.6)
    kinds = ["suggestion", "result", "result", "fold", "fold", "fold", "fold", "pooled", "decision", "end"]
    assert [record["kind"] for record in read(bench.path)] == kinds
    again = Leaderboard(read(bench.path)).trials["0001"]
    assert (again.status, again.val_f1, again.pooled) == ("finished", 0.25, bench.recorder.board.trials["0001"].pooled)
    assert again.pooled is not None
    assert again.pooled.counts == pooled(0.25).counts
    assert [e.epoch for e in again.epochs] == [1, 2]
    assert [(s.file, s.fold, s.digest, s.threshold) for s in again.stored()] == [
        ("0001-e0001.npz", 0, "w01", 0.3),
        ("0001-fold1-e0001.npz", 1, "w11", 0.3),
        ("0001-fold2-e0001.npz", 2, "w21", 0.3),
    ]


def test_trials_are_compared_on_the_first_fold_alone(bench: Bench) -> None:
    for trial, dense in (("0001", 0.8), ("0002", 0.7)):
        bench.report(trial, 0, 1, dense)
    assert bench.report("0001", 0, 2, 0.8) == CONTINUE
    # later folds, however poor, are neither stopped at a rung nor entered in it
    for epoch in range(1, 9):
        assert bench.report("0001", 1, epoch, 0.01) == CONTINUE
    assert bench.report("0002", 0, 2, 0.7) == STOP
    bench.recorder.end("0002", "interrupted")
    assert bench.recorder.board.trials["0002"].status == "stopped"


def test_a_failure_in_a_later_fold_fails_the_trial(bench: Bench) -> None:
    bench.report("0001", 0, 1, 0.8)
    assert bench.report("0001", 1, 1, math.nan, failed="fold 1: the loss is nan in epoch 1") == STOP
    bench.recorder.end("0001", "interrupted")
    ended = bench.recorder.board.trials["0001"]
    assert (ended.status, ended.cause) == ("failed", "fold 1: the loss is nan in epoch 1")


def test_what_a_later_fold_came_to_is_not_what_the_sampler_is_told(bench: Bench) -> None:
    bench.report("0001", 0, 1, 0.3)
    bench.report("0001", 1, 1, 0.9)
    assert bench.recorder.best_dense("0001") == 0.3
    bench.recorder.pooled("0001", pooled(0.8))
    assert bench.recorder.best_dense("0001") == 0.3


def test_a_trial_that_begins_anew_forgets_its_folds(bench: Bench) -> None:
    bench.through("0001", 0.25, 0.6)
    again = {"fold": 0, "epoch": 1, "seconds": 1, "parameters": 7, "weights": "w", "checkpoint": "", "ended": ""}
    assert bench.recorder.result("0001", {**again, "metrics": {"val_f1": 0.1}})
    one = bench.recorder.board.trials["0001"]
    assert (one.pooled, one.folds, one.val_f1) == (None, {}, 0.1)


def test_the_table_marks_trials_judged_on_the_first_fold_only(bench: Bench) -> None:
    out = io.StringIO()
    console = Console(file=out, width=150, legacy_windows=False)
    goal = Goal(trials=2, seconds=None, begun=time.monotonic(), always_positive_f1=0.2, columns=(), folds=3)
    with Reporter(bench.recorder.board, goal, console) as reporter:
        bench.recorder.listeners.append(reporter.told)
        bench.report("0002", 0, 1, 0.1)
        bench.recorder.end("0002", "stopped")
        bench.through("0001", 0.25, 0.6)
    lines = out.getvalue().splitlines()
    assert "leads: trial 0002 lstm epoch 1/1 F1 0.500 average precision – on the first fold" in lines[0]  # noqa: RUF001
    led = [line for line in lines if "leads: trial 0001" in line]
    assert len(led) == 2, "once on the first fold, and once over all"
    assert led[1].endswith("F1 0.250 average precision 0.440 over 3 folds")
    rows = [line.replace("│", " ").split() for line in lines if "│ 000" in line]
    assert [(row[0], row[1], "0.250" in row, "0.500*" in row) for row in rows] == [
        ("1", "0001", True, False),
        ("2", "0002", False, True),
    ]
    text = " ".join(" ".join(lines).split())
    assert "always answering positive: F1 0.200 on the scans of all 3 folds" in text
    assert "* on the first fold only, ranked below those judged on all" in text


def test_tensorboard_has_columns_of_their_own_for_all_folds(bench: Bench, tmp_path: Path) -> None:
    bench.through("0001", 0.25, 0.6)
    bench.report("0002", 0, 1, 0.1)
    logs = TensorBoardLogs(tmp_path / "tb", ["l2"], pooled=True)
    for trial in bench.recorder.board.snapshot():
        logs.start(trial)
        logs.end(trial)
    found = {}
    for trial in ("0001", "0002"):
        reader = EventAccumulator(str(tmp_path / "tb" / f"{trial}_lstm"))
        reader.Reload()
        found[trial] = {name: [(e.step, round(e.value, 6)) for e in reader.Scalars(name)] for name in scalars(reader)}
    assert {name: found["0001"][name] for name in POOLED} == {
        "pooled/validation_f1": [(2, 0.25)],
        "pooled/validation_average_precision": [(2, 0.44)],
        "pooled/tune_average_precision": [(2, 0.41)],
    }
    assert found["0001"]["chosen/validation_f1"] == [(1, 0.5), (2, 0.5)]
    assert not set(POOLED) & set(found["0002"])
    assert not set(POOLED) & set(COLUMNS)


def scalars(reader: EventAccumulator) -> list[str]:
    return list(reader.Tags()["scalars"])


PARAMS = {"family": "simple_rnn", "units": [4], "dropout": 0.1, "l2": 1e-4, "learning_rate": 0.02, "batch_size": 8}


class Trials:
    """Real trials on real folds, with a folder for weights; no Ray is running."""

    def __init__(self, data: Dataset, folder: Path) -> None:
        self.access = Generated(dataset=data, chains=())
        self.settings = settings_in(folder / "run", max_epochs=1)
        self.store = FolderStore(folder / "run" / "weights")

    def begin(self) -> KerasTrainable:
        return hold(
            {"trial": "0001", "seed": 3, "params": normalise(PARAMS), "fidelity": {}}, self.access, self.settings
        )


@pytest.fixture
def trials(small_data: Dataset, tmp_path: Path) -> Trials:
    positives = [int(n) for n in small_data.positives_of_scans()]
    folds = assign_folds(small_data.groups, positives, [int(n) for n in small_data.lengths], 1)
    return Trials(small_data.with_folds([fold % 3 if fold >= 0 else -1 for fold in folds]), tmp_path)


def test_steps_of_a_trial_its_checkpoints_and_the_winners_test(
    trials: Trials, tmp_path: Path, recorder_in: Callable[[Path], Recorder]
) -> None:
    recorder = recorder_in(tmp_path)
    scheduler = RecordingScheduler(EarlyStopping(grace=1, reduction=2), 1, recorder)
    told = SimpleNamespace(trial_id="ray", config={"trial": "0001"})
    recorder.suggestion("0001", "", 3, normalise(PARAMS), {})
    scheduler.on_trial_add(None, told)
    actions = []
    for number in range(3):  # each step in a process of its own, as if the last one had been lost
        one = trials.begin()
        if number:
            again = one.step()
            assert (again["fold"], again["again"]) == (number - 1, True)
        result = one.step()
        one.cleanup()
        assert (result["fold"], result["epoch"], result["failed"]) == (number, 1, "")
        flat = {f"metrics/{name}": value for name, value in result["metrics"].items()}
        actions.append(scheduler.on_trial_result(None, told, result | flat))
    assert actions == [CONTINUE, CONTINUE, STOP]
    recorder.end("0001", "interrupted")
    best = recorder.board.best
    assert best is not None
    assert best.status == "finished"
    assert sorted(trials.store.list()) == ["0001-e0001.npz", "0001-fold1-e0001.npz", "0001-fold2-e0001.npz"]
    models = [(trials.store.get(stored.file), stored) for stored in best.stored()]
    asked = Evaluation(params=dict(best.params), data=trials.access, models=models, pooled=best.pooled, cpus=1, gpus=0)
    answer = evaluate_stored(asked, trials.settings)
    assert answer["validation"]["f1"] == pytest.approx(best.val_f1)
    assert answer["test"]["models"] == 3
    models[1] = (models[0][0], models[1][1])
    with pytest.raises(
        StateError, match=r"0001-fold1-e0001\.npz: the winner's stored weights do not match their digest"
    ):
        evaluate_stored(replace(asked, models=models), trials.settings)
