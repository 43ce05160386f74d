"""A model's scores on a split -> what they are worth, ready for a record. No model is known here."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab import metrics
from tunelab.data.dataset import Part


def measured(
    tune: Part, tune_scores: NDArray[np.float64], validation: Part, scores: NDArray[np.float64]
) -> dict[str, float]:
    """What a model's scores are worth after an epoch, validation at the threshold that is best on tune.

    Args:
        tune: the split that decides.
        tune_scores: its shares of "positive", shape (trace,).
        validation: the split that judges.
        scores: likewise.
    """
    threshold = metrics.best_threshold(tune.labels, tune_scores)
    on_tune = decided(tune, tune_scores, threshold)
    return {
        "tune_loss": cross_entropy(tune.labels, tune_scores),
        "tune_average_precision": metrics.average_precision(tune.labels, tune_scores),
        "tune_lift": metrics.lift(tune.labels, tune_scores, tune.scan_of_trace()),
        "tune_f1": metrics.count(tune.labels, tune_scores, threshold).f1,
        **{f"tune_{name}": on_tune[name] for name in ("precision", "recall", "mean_jaccard")},
        "threshold": threshold,
        "val_loss": cross_entropy(validation.labels, scores),
        "val_f1": metrics.count(validation.labels, scores, threshold).f1,
        "val_f1_at_half": metrics.count(validation.labels, scores).f1,
        "val_average_precision": metrics.average_precision(validation.labels, scores),
        **decided(validation, scores, threshold),
    }


def judge(part: Part, scores: NDArray[np.float64], threshold: float) -> dict[str, Any]:
    """What a model's scores are worth on a whole split, with 95 % bootstrap intervals over scans.

    Args:
        part: the split.
        scores: share of "positive", shape (trace,).
        threshold: chosen on the tune split.
    """
    scans = part.scan_of_trace()
    f1 = metrics.bootstrap_interval(
        part.labels, scores, scans, lambda labels, drawn: metrics.count(labels, drawn, threshold).f1
    )
    dense = metrics.bootstrap_interval(part.labels, scores, scans, metrics.average_precision)
    return {
        "scans": part.n_scans,
        "traces": part.n_traces,
        "positives": part.positives,
        "threshold": threshold,
        "f1": metrics.count(part.labels, scores, threshold).f1,
        "f1_low": f1.low,
        "f1_high": f1.high,
        "average_precision": metrics.average_precision(part.labels, scores),
        "average_precision_low": dense.low,
        "average_precision_high": dense.high,
        "f1_at_half": metrics.count(part.labels, scores).f1,
        **decided(part, scores, threshold),
    }


def decided(part: Part, scores: NDArray[np.float64], threshold: float) -> dict[str, float]:
    """Precision, recall, counts and mean Jaccard per scan at a threshold; arguments as of :func:`judge`."""
    counts = metrics.count(part.labels, scores, threshold)
    return {
        "precision": counts.precision,
        "recall": counts.recall,
        "tp": counts.tp,
        "fp": counts.fp,
        "fn": counts.fn,
        "tn": counts.tn,
        "mean_jaccard": metrics.mean_jaccard(part.labels, scores, part.scan_of_trace(), threshold),
    }


def cross_entropy(labels: NDArray[Any], scores: NDArray[np.float64]) -> float:
    """Mean of -log of the share given to the true label, in nats, without class weights or penalties.

    Args:
        labels: 0 or 1, shape (trace,).
        scores: share of "positive", shape (trace,); kept 1e-7 away from 0 and 1, as Keras does.
    """
    share = np.clip(np.where(np.asarray(labels) == 1, scores, 1 - scores), 1e-7, 1 - 1e-7)
    return float(-np.log(share).mean()) if share.size else math.nan
