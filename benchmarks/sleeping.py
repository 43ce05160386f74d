"""A trainer that sleeps a second for each epoch and tells a made-up curve, so that the driver is what is measured.

As a script it is the command line of tunelab with that trainer: ``python -m benchmarks.sleeping search SPACE ...``.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from tunelab.checkpoint import Arrays
from tunelab.measures import judge
from tunelab.outcome import Outcome, Step
from tunelab.preprocessing import chain_of
from tunelab.task import Evaluation, Task, Trainer

SECONDS = (0.8, 1.2)
"""Of an epoch, drawn evenly, so that not all end at once."""
LEAVE = 0.3
"""Of the trials this share leaves the floor."""
OTHERS = 18
"""Other measures of an epoch, so that a line of the journal is as long as it really is."""


def curve(trial: int, epoch: int) -> dict[str, float]:
    """What a trial comes to at an epoch; the same each time."""
    rng = np.random.default_rng(trial)
    leaves, height = rng.random() < LEAVE, float(rng.beta(2, 3))
    grown = height * (1 - math.exp(-epoch / 3)) if leaves else 0.01 * height
    noise = float(np.random.default_rng([trial, epoch]).normal(scale=0.01))
    dense = min(max(0.2 + 0.8 * grown + noise, 0.0), 1.0)
    told = {"tune_average_precision": dense, "val_average_precision": dense - 0.02, "val_f1": 0.9 * dense}
    return {**told, "tune_lift": 4.0 if leaves else 0.0, **{f"measure_{i}": dense for i in range(OTHERS)}}


def begin(task: Task) -> Trainer:
    """See :class:`tunelab.task.Trainer`."""
    return Sleeping(task)


def evaluate(evaluation: Evaluation) -> dict[str, Any]:
    """The winner's answers: one and the same to every trace."""
    data = evaluation.data.open(chain_of(evaluation.params))
    parts = {split: data.part(split) for split in ("validation", "test")}
    return {split: judge(part, np.full(part.n_traces, 0.5), 0.5) for split, part in parts.items()}


class Sleeping:
    """A trial."""

    notes = ()
    parameters = 1000

    def __init__(self, task: Task) -> None:
        self._trial = int(task.trial)
        self._max_epochs = task.max_epochs
        self._epoch = 0
        self._seconds = 0.0
        self._best = -math.inf

    def step(self) -> tuple[Step, Arrays]:
        """One epoch."""
        began = time.monotonic()
        self._epoch += 1
        time.sleep(float(np.random.default_rng([self._trial, self._epoch]).uniform(*SECONDS)))
        metrics = curve(self._trial, self._epoch)
        improved = metrics["tune_average_precision"] > self._best
        self._best = max(self._best, metrics["tune_average_precision"])
        self._seconds += time.monotonic() - began
        ended = "epochs" if self._epoch >= self._max_epochs else ""
        outcome = Outcome(
            epoch=self._epoch, seconds=self._seconds, metrics=metrics, improved=improved, ended=ended, failed=""
        )
        weights = [np.full(4, self._epoch, np.float32)] if improved else []
        return Step(fold=0, outcome=outcome, ended=ended, failed="", pooled=None), weights

    def save(self) -> tuple[Mapping[str, Arrays], Mapping[str, Any]]:
        """See :class:`tunelab.task.Trainer`."""
        return {"model": [np.zeros(4, np.float32)]}, {
            "epoch": self._epoch,
            "seconds": self._seconds,
            "best": self._best,
        }

    def load(self, arrays: Mapping[str, Arrays], state: Mapping[str, Any], where: str) -> None:
        """See :class:`tunelab.task.Trainer`."""
        self._epoch, self._seconds, self._best = state["epoch"], state["seconds"], state["best"]


if __name__ == "__main__":
    import tunelab.tuning.run
    from tunelab.cli import main

    tunelab.tuning.run.TRAINER = "benchmarks.sleeping"
    sys.exit(main(sys.argv[1:]))
