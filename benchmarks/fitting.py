"""What the benchmarks of models share: configurations trained on deals of a data set.

A deal is a way to part the scans into splits, by the seed of that number. Weights are fitted on train, the epoch and
the threshold are chosen on tune, and what is told is of validation; test is not touched.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tunelab import metrics
from tunelab.compiled import clear
from tunelab.data.access import Access
from tunelab.data.dataset import Dataset
from tunelab.data.prepared import CacheOptions, access_to
from tunelab.preprocessing import chain_of
from tunelab.progress import progress_console, shown
from tunelab.sections import DataOptions
from tunelab.training import Schedule, Training

DRAWS = 2000
"""Of scans, for an interval."""


def deal_of(data: str | None, params: Iterable[Mapping[str, Any]], seed: int) -> Access:
    """A data set, prepared for these params, its scans dealt by this seed; None: the embedded one."""
    chains = list(dict.fromkeys(chain_of(one) for one in params))
    access = access_to(data, options=DataOptions(), chains=chains, seed=seed, cache=CacheOptions())
    with shown(progress_console()) as progress:
        return access.ready(progress).access


def fit(params: Mapping[str, Any], data: Dataset, *, epochs: int, seed: int) -> dict[str, Any]:
    """What params come to on the validation split.

    Args:
        params: of the model.
        data: scans prepared by the chain of these params, with their splits.
        epochs: of the training; none is left out.
        seed: of the training.

    Returns:
        Plain JSON types: epoch (the chosen one), seconds, threshold, average_precision, tune_average_precision, f1, and
        counts, true positives, false positives and false negatives of each scan by its id.
    """
    begun = time.perf_counter()
    clear()
    keras.backend.clear_session()
    training = Training(params, data, Schedule(max_epochs=epochs, patience=epochs, seed=seed))
    ended = ""
    while not ended:
        outcome = training.run_epoch()
        if outcome.failed:
            return {"failed": outcome.failed}
        ended = outcome.ended
    training.model.set_weights(training.best_weights)
    tune, validation = training.tune, training.validation
    tune_scores, scores = training.scores(tune), training.scores(validation)
    threshold = metrics.best_threshold(tune.labels, tune_scores)
    counts = metrics.counts_by_scan(validation.labels, scores, validation.scan_of_trace(), threshold)
    return {
        "epoch": training.best_epoch,
        "seconds": round(time.perf_counter() - begun, 1),
        "threshold": float(threshold),
        "tune_average_precision": metrics.average_precision(tune.labels, tune_scores),
        "average_precision": metrics.average_precision(validation.labels, scores),
        "f1": metrics.count(validation.labels, scores, threshold).f1,
        "counts": {name: [int(c.tp), int(c.fp), int(c.fn)] for name, c in zip(validation.scans, counts, strict=True)},
    }


def pooled_f1(counts: NDArray[np.float64]) -> float:
    """F1 of summed counts, shape (scan, 3): true positives, false positives, false negatives."""
    tp, fp, fn = counts.sum(axis=0)
    return float(2 * tp / (2 * tp + fp + fn)) if tp + fp + fn else float("nan")


def paired(base: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[float, float, float]:
    """F1 of ``other`` less that of ``base`` over the same answered scans, and the ends of its 95 % interval.

    The interval is that of a bootstrap over scans: one that several deals judged is drawn with all its answers.

    Args:
        base: deal -> counts of each scan, as :func:`fit` gives them.
        other: likewise.
    """
    deals = [deal for deal in base if deal in other]
    scans = sorted({scan for deal in deals for scan in base[deal]})
    sides = [
        np.array([sum((np.array(side[d][s]) for d in deals if s in side[d]), np.zeros(3)) for s in scans])
        for side in (base, other)
    ]
    rng = np.random.default_rng(0)
    drawn = [rng.integers(len(scans), size=len(scans)) for _ in range(DRAWS)]
    found = [pooled_f1(sides[1][rows]) - pooled_f1(sides[0][rows]) for rows in drawn]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return pooled_f1(sides[1]) - pooled_f1(sides[0]), float(low), float(high)
