"""Answers of the models of all folds -> thresholds, pooled counts and a judgement. No model is known here.

Why, what is chosen and what judges it: :mod:`tunelab.crossfit`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab import metrics
from tunelab.data.dataset import Dataset
from tunelab.metrics import Counts
from tunelab.ranking import Pooled

Scores = NDArray[np.float64]


def thresholds_of(labels: Sequence[NDArray[Any]], scores: Sequence[Scores]) -> tuple[float, ...]:
    """For each fold the threshold whose F1 is best on the traces of all other folds, pooled.

    A NaN among those scores leaves the default 0.5, as :func:`~tunelab.metrics.best_threshold` does.

    Args:
        labels: of each fold's traces, each of shape (trace,).
        scores: out-of-fold, of the same shapes; two folds at least.
    """
    found = []
    for k in range(len(labels)):
        others = [i for i in range(len(labels)) if i != k]
        found.append(
            metrics.best_threshold(
                np.concatenate([labels[i] for i in others]), np.concatenate([scores[i] for i in others])
            )
        )
    return tuple(found)


def pool(data: Dataset, scores: Sequence[Scores], dense: Sequence[float]) -> Pooled:
    """What the models of all folds came to.

    Args:
        data: with folds.
        scores: of each fold's validation traces, by that fold's model, each of shape (trace,).
        dense: average precision of each fold's model on its own tune split.
    """
    parts = [data.fold(k).part("validation") for k in range(data.n_folds)]
    thresholds = thresholds_of([part.labels for part in parts], scores)
    by_scan: dict[str, Counts] = {}
    at_half = []
    for part, own, threshold in zip(parts, scores, thresholds, strict=True):
        counts = metrics.counts_by_scan(part.labels, own, part.scan_of_trace(), threshold)
        by_scan |= zip(part.scans, counts, strict=True)
        at_half.append(metrics.count(part.labels, own))
    scans = data.judged().scans
    counted = tuple(by_scan[scan] for scan in scans)
    total = _sum(counted)
    values = {
        "val_f1": total.f1,
        "val_f1_at_half": _sum(at_half).f1,
        "val_average_precision": _mean(
            [metrics.average_precision(part.labels, own) for part, own in zip(parts, scores, strict=True)]
        ),
        "tune_average_precision": _mean(dense),
        "precision": total.precision,
        "recall": total.recall,
        **{name: float(getattr(total, name)) for name in ("tp", "fp", "fn", "tn")},
        "mean_jaccard": _mean([one.jaccard for one in counted]),
    }
    return Pooled(metrics=values, thresholds=thresholds, scans=scans, counts=counted)


def judge_pooled(pooled: Pooled) -> dict[str, Any]:
    """The pooled counts as a judgement, like :func:`~tunelab.measures.judge`'s, with a bootstrap interval over scans.

    There is no one threshold, and no interval of average precision, for which the scores would be needed.
    """
    cells = np.array([(c.tp, c.fp, c.fn, c.tn) for c in pooled.counts])
    labels = np.repeat(np.tile([1, 0, 1, 0], len(cells)), cells.ravel())
    answers = np.repeat(np.tile([1.0, 1.0, 0.0, 0.0], len(cells)), cells.ravel())
    scans = np.repeat(np.arange(len(cells)), cells.sum(axis=1))
    interval = metrics.bootstrap_interval(labels, answers, scans, lambda truth, drawn: metrics.count(truth, drawn).f1)
    taken = {name: pooled.metrics[name] for name in ("precision", "recall", "mean_jaccard")}
    total = _sum(pooled.counts)
    return {
        "folds": len(pooled.thresholds),
        "scans": len(pooled.scans),
        "traces": int(cells.sum()),
        "positives": total.tp + total.fn,
        "f1": total.f1,
        "f1_low": interval.low,
        "f1_high": interval.high,
        "average_precision": pooled.metrics["val_average_precision"],
        "f1_at_half": pooled.metrics["val_f1_at_half"],
        **dataclasses.asdict(total),
        **taken,
    }


def centred(scores: Scores, threshold: float) -> Scores:
    """Scores with their threshold brought to 0.5, 0 and 1 left where they are, and straight lines between.

    ``0.5 s / t`` below the threshold t, ``0.5 + 0.5 (s - t) / (1 - t)`` from it on; no decision changes.

    Args:
        scores: from 0 to 1, shape (trace,).
        threshold: from 0 to 1.
    """
    below = 0.5 * (np.minimum(scores, threshold) / threshold) if threshold > 0 else np.zeros_like(scores)
    above = 0.5 + 0.5 * ((np.maximum(scores, threshold) - threshold) / (1 - threshold)) if threshold < 1 else 1.0
    return np.where(np.isnan(scores), np.nan, np.where(scores >= threshold, above, below))


def _sum(counts: Sequence[Counts]) -> Counts:
    return Counts(*(sum(getattr(c, name) for c in counts) for name in ("tp", "fp", "fn", "tn")))


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan
