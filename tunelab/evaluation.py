"""What stored weights are worth: of one model, or of those of all folds together (:mod:`tunelab.crossfit`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tunelab import metrics
from tunelab.checkpoint import unpack
from tunelab.data.dataset import Dataset
from tunelab.errors import StateError
from tunelab.measures import judge
from tunelab.pooling import centred, judge_pooled
from tunelab.ranking import Pooled
from tunelab.training import Schedule, Training


def evaluate(
    params: Mapping[str, Any], data: Dataset, weights: bytes, threshold: float, splits: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """What stored weights are worth on whole splits, with 95 % bootstrap intervals over scans.

    Args:
        params: the model's.
        data: the data set.
        weights: as :func:`~tunelab.checkpoint.pack` made them.
        threshold: chosen on the tune split.
        splits: names of the splits to answer.

    Raises:
        StateError: the weights are not this model's.
    """
    training = _holding(params, data, weights)
    return {split: judge(data.part(split), training.scores(data.part(split)), threshold) for split in splits}


def evaluate_together(
    params: Mapping[str, Any], data: Dataset, models: Sequence[tuple[int, bytes, float]], pooled: Pooled
) -> dict[str, dict[str, Any]]:
    """What the models of all folds are worth: pooled on the folds, and on test by the mean of their centred scores.

    ``f1_at_half`` of test is that of the mean of the scores as they are, at the default threshold: what the thresholds
    are worth shows beside it.

    Args:
        params: the models'.
        data: with folds.
        models: fold, stored weights and threshold of each.
        pooled: what they came to on the folds.

    Raises:
        StateError: the weights are not this model's.
    """
    test = data.part("test")
    scores = [_holding(params, data.fold(fold), raw).scores(test) for fold, raw, _ in models]
    moved = [centred(own, threshold) for own, (_, _, threshold) in zip(scores, models, strict=True)]
    judged = judge(test, np.mean(moved, axis=0), 0.5)
    judged["f1_at_half"] = metrics.count(test.labels, np.mean(scores, axis=0)).f1
    return {"validation": judge_pooled(pooled), "test": {**judged, "models": len(models)}}


def _holding(params: Mapping[str, Any], data: Dataset, weights: bytes) -> Training:
    """A training whose model has these weights, to be asked for answers."""
    training = Training(params, data, Schedule(max_epochs=1, patience=1, seed=0))
    try:
        training.model.set_weights(unpack(weights))
    except ValueError as error:
        raise StateError(f"the stored weights are not those of this model: {error}") from error
    return training
