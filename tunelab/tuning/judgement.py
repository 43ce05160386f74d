"""The winner's answer to the test split, the first and only time. What is recorded of it is the search's concern."""

from __future__ import annotations

from typing import Any

import ray

from tunelab.errors import StateError, TunelabError
from tunelab.ranking import Trial
from tunelab.storage import FolderStore
from tunelab.task import Evaluation
from tunelab.tuning.plan import Plan
from tunelab.tuning.retention import WEIGHTS
from tunelab.tuning.trainable import TrialSettings, evaluate_stored


def judge(best: Trial, plan: Plan, settings: TrialSettings) -> dict[str, Any]:
    """Let the winner's stored weights answer validation again, and the test split.

    Where there are folds the models of all of them answer, and validation is what they came to together.

    Args:
        best: the winner.
        plan: of the search.
        settings: of its trials; the answer takes what a trial takes.

    Returns:
        The chosen epoch, and the judgement of each split by name.

    Raises:
        StateError: the weights are not those that were journalled, or the process that answered was lost.
        StorageError: they cannot be read.
    """
    chosen = best.chosen
    if chosen is None:
        raise StateError(f"trial {best.trial}: ranked without an epoch")
    store = FolderStore(plan.folder / WEIGHTS)
    evaluation = Evaluation(
        params=dict(best.params),
        data=plan.access,
        models=[(store.get(stored.file), stored) for stored in best.stored()],
        pooled=best.pooled,
        cpus=settings.cpus,
        gpus=settings.gpus,
    )
    asked = {"num_cpus": settings.cpus, "num_gpus": settings.gpus, "resources": dict(settings.custom)}
    task = ray.remote(evaluate_stored).options(**asked)
    try:
        answer: dict[str, Any] = ray.get(task.remote(evaluation, settings))
    except ray.exceptions.RayTaskError as error:
        raise error.cause if isinstance(error.cause, TunelabError) else error from None
    return {"epoch": chosen.epoch, **answer}
