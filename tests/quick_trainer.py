"""A trainer without a framework, for long loops: a linear model of a few features a trace, real metrics, and faults.

An epoch takes ``TUNELAB_QUICK_SECONDS`` more than it needs. ``TUNELAB_QUICK_FAULTS`` names faults, parted by spaces,
as ``what@epoch/trial``; without an epoch at each one, without a trial in each one. With ``TUNELAB_QUICK_ONCE``, a
folder, each fault comes once a trial, however often it is tried. ``TUNELAB_QUICK_SHARE`` sets
:data:`tunelab.trial.CHECKPOINT_SHARE`: with 0 every epoch has its checkpoint. ``TUNELAB_QUICK_TRAINED`` names a file
to which each epoch that is begun adds a line: trial, fold, epoch.

The linear model stands for the one that the params name: it tells that one's number of parameters, and a time to answer
that grows with it, the same each time.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import tunelab.trial
from tunelab import metrics
from tunelab.checkpoint import Arrays, unpack
from tunelab.data.dataset import Dataset, Part
from tunelab.errors import StateError
from tunelab.measures import cross_entropy, judge, measured
from tunelab.models import cost_of
from tunelab.outcome import Outcome, Step
from tunelab.pooling import centred, judge_pooled, pool
from tunelab.preprocessing import chain_of
from tunelab.task import Evaluation, Task, Trainer

if share := os.environ.get("TUNELAB_QUICK_SHARE"):
    tunelab.trial.CHECKPOINT_SHARE = int(share)

LEAKED: list[bytearray] = []
FLOOD = 300 * 10**6
PASSES = 3


def begin(task: Task) -> Trainer:
    return QuickTrainer(task)


def evaluate(evaluation: Evaluation) -> dict[str, Any]:
    evaluation.check()
    data = evaluation.data.open(chain_of(evaluation.params))
    weights = [unpack(raw) for raw, _ in evaluation.models]
    if any([w.shape for w in some] != [(4,)] for some in weights):
        raise StateError("the stored weights are not those of this model")
    if evaluation.pooled is None:
        ((_, stored),) = evaluation.models
        parts = {split: data.part(split) for split in ("validation", "test")}
        return {s: judge(part, answers(weights[0][0], features(part)), stored.threshold) for s, part in parts.items()}
    test = data.part("test")
    scores = [answers(some[0], features(test)) for some in weights]
    moved = [centred(own, stored.threshold) for own, (_, stored) in zip(scores, evaluation.models, strict=True)]
    judged = {**judge(test, np.mean(moved, axis=0), 0.5), "models": len(scores)}
    judged["f1_at_half"] = metrics.count(test.labels, np.mean(scores, axis=0)).f1
    return {"validation": judge_pooled(evaluation.pooled), "test": judged}


def features(part: Part) -> NDArray[np.float64]:
    """Shape (trace, 4)."""
    read = [np.asarray(part.read(scan), np.float64) for scan in range(part.n_scans)]
    rows = [np.stack([x.mean(1), np.abs(x).mean(1), x.std(1), np.ones(len(x))], axis=1) for x in read]
    found = np.concatenate(rows)
    return found / np.array([*np.maximum(found[:, :3].std(axis=0), 1e-12), 1.0])


def answers(weights: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))


class QuickTrainer:
    def __init__(self, task: Task) -> None:
        self._task = task
        self._data: Dataset = task.open()
        self._dense: list[float] = []
        self._scores: list[NDArray[np.float64]] = []
        cost = cost_of(task.params, self._data.n_samples) if "family" in task.params else None
        self.parameters = cost.parameters if cost else 4
        self._start(0)

    notes = ()

    def _start(self, fold: int) -> None:
        self._fold = fold
        data = self._data.fold(fold) if self._data.folds else self._data
        self._parts = {split: data.part(split) for split in ("train", "tune", "validation")}
        self._rows = {split: features(part) for split, part in self._parts.items()}
        self._weights = np.random.default_rng([self._task.seed, fold]).normal(size=4)
        self._best: NDArray[np.float64] = self._weights
        self._epoch = self._best_epoch = 0
        self._best_dense, self._seconds = -math.inf, 0.0

    def step(self) -> tuple[Step, Arrays]:
        if self._epoch and self._ended():
            self._start(self._fold + 1)
        fold, epoch = self._fold, self._epoch + 1
        if trained := os.environ.get("TUNELAB_QUICK_TRAINED"):
            with open(trained, "a") as file:
                file.write(f"{self._task.trial} {fold} {epoch}\n")
        values = fault(self._task, epoch)
        time.sleep(float(os.environ.get("TUNELAB_QUICK_SECONDS", "0")))
        self._epoch = epoch
        self._seconds += 0.25
        if values:
            outcome = self._outcome(values, failed=f"the loss is nan in epoch {epoch}")
            return Step(fold=fold, outcome=outcome, ended="", failed=outcome.failed, pooled=None), ()
        values = self._train(fold)
        dense = values["tune_average_precision"]
        improved = epoch == 1 or dense > self._best_dense
        if improved:
            self._best_epoch, self._best_dense, self._best = epoch, dense, self._weights.copy()
        outcome = self._outcome(values, improved=improved, ended=self._ended())
        ended, pooled = outcome.ended, None
        if self._data.folds and ended:
            self._scores.append(answers(self._best, self._rows["validation"]))
            self._dense.append(self._best_dense)
            ended = "folds" if len(self._scores) == self._data.n_folds else ""
            pooled = pool(self._data, self._scores, self._dense) if ended else None
        return Step(fold=fold, outcome=outcome, ended=ended, failed="", pooled=pooled), [self._best] if improved else []

    def save(self) -> tuple[Mapping[str, Arrays], Mapping[str, Any]]:
        arrays = {"model": [self._weights, self._best], "scores": self._scores}
        names = ("_fold", "_epoch", "_best_epoch", "_best_dense", "_seconds", "_dense")
        return arrays, {name: getattr(self, name) for name in names}

    def load(self, arrays: Mapping[str, Arrays], state: Mapping[str, Any], where: str) -> None:
        if [a.shape for a in arrays["model"]] != [(4,), (4,)]:
            raise StateError(f"{where}: holds the variables of another model")
        self._start(state["_fold"])
        self._weights, self._best = arrays["model"]
        self._scores = list(arrays["scores"])
        for name, value in state.items():
            setattr(self, name, value)

    def _train(self, fold: int) -> dict[str, float]:
        rows, labels = self._rows["train"], self._parts["train"].labels
        rate = float(self._task.params.get("learning_rate", 0.1))
        for number in range(PASSES):
            order = np.random.default_rng([self._task.seed, fold, self._epoch, number]).permutation(len(labels))
            for some in np.array_split(order, max(1, len(order) // 64)):
                self._weights = self._weights - rate * (
                    rows[some].T @ (answers(self._weights, rows[some]) - labels[some]) / len(some)
                )
        tune, validation = (answers(self._weights, self._rows[split]) for split in ("tune", "validation"))
        return {
            "loss": cross_entropy(labels, answers(self._weights, rows)),
            **measured(self._parts["tune"], tune, self._parts["validation"], validation),
            "predict_ms": self.parameters / 1000,
        }

    def _ended(self) -> str:
        if self._epoch >= self._task.max_epochs:
            return "epochs"
        return "patience" if self._epoch - self._best_epoch >= self._task.patience else ""

    def _outcome(
        self, values: Mapping[str, float], *, improved: bool = False, ended: str = "", failed: str = ""
    ) -> Outcome:
        return Outcome(
            epoch=self._epoch, seconds=self._seconds, metrics=values, improved=improved, ended=ended, failed=failed
        )


def fault(task: Task, epoch: int) -> dict[str, float]:
    """Do what the environment asks for at this epoch; metrics where the fault is in them."""
    for text in os.environ.get("TUNELAB_QUICK_FAULTS", "").split():
        place, _, trial = text.partition("/")
        what, _, when = place.partition("@")
        if (not when or int(when) == epoch) and trial in ("", task.trial) and due(f"{task.trial}-{what}-{epoch}"):
            FAULTS[what]()
            if what == "nan":
                return {"loss": math.nan}
    return {}


def due(name: str) -> bool:
    folder = os.environ.get("TUNELAB_QUICK_ONCE")
    if folder is None:
        return True
    try:
        Path(folder, name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def raise_value_error() -> None:
    raise ValueError("the fault that was asked for")


def hang() -> None:
    threading.Event().wait()


def hang_natively() -> None:
    """Hold the interpreter's lock, so that no other thread runs."""
    import ctypes

    ctypes.PyDLL(None).pause()


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave() -> None:
    print("leaving", flush=True)
    sys.exit(3)


def flood() -> None:
    print("the beginning", flush=True)
    line = "x" * 999_999 + "\n"
    for _ in range(FLOOD // len(line)):
        sys.stdout.write(line)
    print("the end", flush=True)


def flood_for_ever() -> None:
    while True:
        print("x" * 9999)


def take_all_memory() -> None:
    limit = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 10**8, limit[1]))
    try:
        np.ones(10**9)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)


def leak() -> None:
    LEAKED.append(bytearray(os.urandom(1000)) * (4 * 10**5))


def fork() -> None:
    """Leave a process behind that holds all that this one holds."""
    if os.fork() == 0:
        threading.Event().wait()
    kill()


FAULTS: dict[str, Callable[[], None]] = {
    "raise": raise_value_error,
    "hang": hang,
    "hang_natively": hang_natively,
    "kill": kill,
    "crash": crash,
    "leave": leave,
    "flood": flood,
    "flood_for_ever": flood_for_ever,
    "memory": take_all_memory,
    "leak": leak,
    "fork": fork,
    "nan": lambda: None,
}
