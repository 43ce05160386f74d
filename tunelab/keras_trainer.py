"""The trainer of Keras models, as a trial's process imports it: the framework is there before the first trial."""

from __future__ import annotations

from typing import Any

from tunelab import backend
from tunelab.crossfit import CrossFit
from tunelab.evaluation import evaluate as evaluate_one
from tunelab.evaluation import evaluate_together
from tunelab.preprocessing import chain_of
from tunelab.task import Evaluation, Task, Trainer
from tunelab.training import Schedule


def begin(task: Task) -> Trainer:
    """A trainer of the task's model, its data set prepared on this node if it is not yet.

    Raises:
        TunelabError: the data set cannot be opened, or the model cannot be built on it.
    """
    backend.configure(max(1, int(task.cpus)), task.gpus)
    schedule = Schedule(max_epochs=task.max_epochs, patience=task.patience, seed=task.seed)
    return CrossFit(task.params, task.open(), schedule)


def evaluate(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """What stored weights are worth on the validation and test splits.

    Raises:
        StateError: a file is not the one that was journalled, or not of this model.
    """
    evaluation.check()
    backend.configure(max(1, int(evaluation.cpus)), evaluation.gpus)
    params, models, pooled = evaluation.params, evaluation.models, evaluation.pooled
    scans = evaluation.data.open(chain_of(params))
    if pooled is not None:
        return evaluate_together(params, scans, [(m.fold, raw, m.threshold) for raw, m in models], pooled)
    ((raw, stored),) = models
    return evaluate_one(params, scans, raw, stored.threshold, ("validation", "test"))
