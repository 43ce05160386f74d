"""What a set of labels and scores is worth: counts, precision, recall, F1, Jaccard, average precision, thresholds.

Plain numpy on one-dimensional arrays over the *valid* traces of a split; padding is taken out before it gets here.
An undefined value is NaN, never an exception: F1 of a split without positives that is answered "negative" everywhere,
average precision without a positive. Nothing here knows about models or trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_GROUPS = 50
"""Of scans, that are left out in turn."""
MOST_LIFT = 1000.0
"""Standard errors; what a journal can hold instead of infinity."""


@dataclass(frozen=True, slots=True)
class Counts:
    """True and false positives and negatives of a decision."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def precision(self) -> float:
        """tp / (tp + fp); NaN when nothing was answered positive."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """tp / (tp + fn); NaN when nothing is positive."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        """2 tp / (2 tp + fp + fn); NaN when nothing is positive and nothing was answered positive."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def jaccard(self) -> float:
        """tp / (tp + fp + fn); NaN when nothing is positive and nothing was answered positive."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)


def count(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> Counts:
    """Counts of the decision ``score >= threshold``.

    Args:
        labels: 0 or 1, shape (trace,).
        scores: the share of "positive" in a model's answer, shape (trace,). NaN counts as "negative".
        threshold: where "positive" begins.
    """
    truth, answer = _labels(labels), np.asarray(scores, dtype=np.float64) >= threshold
    _same_length(truth, answer)
    tp = int(np.count_nonzero(truth & answer))
    fp = int(np.count_nonzero(~truth & answer))
    fn = int(np.count_nonzero(truth & ~answer))
    return Counts(tp, fp, fn, truth.size - tp - fp - fn)


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the steps of the precision-recall curve, sum of (R_n - R_{n-1}) P_n over falling thresholds.

    Equal scores are one step, as in scikit-learn's ``average_precision_score``.

    Args:
        labels: 0 or 1, shape (trace,).
        scores: higher is more positive, shape (trace,).

    Returns:
        A value in (0, 1]; NaN without a positive label or when a score is NaN.
    """
    tp, fp, _ = _steps(labels, scores)
    if tp.size == 0 or tp[-1] == 0:
        return math.nan
    gained = np.diff(tp, prepend=0.0)
    return float(np.sum(gained / tp[-1] * tp / (tp + fp)))


def lift(labels: ArrayLike, scores: ArrayLike, scans: ArrayLike) -> float:
    """By how many standard errors average precision lies above the share of positives, which is that of pure chance.

    The standard error is over scans, by the delete-a-group jackknife (Kott 2001): with up to 50 scans each is left out
    once, with more each of 50 groups of them.

    Args:
        labels: 0 or 1, shape (trace,).
        scores: higher is more positive, shape (trace,).
        scans: which scan each trace belongs to, shape (trace,).

    Returns:
        A value from -1000 to 1000; NaN where average precision is, or with positives in fewer than two groups.
    """
    truth, values, scan = _labels(labels), np.asarray(scores, dtype=np.float64), np.asarray(scans)
    _same_length(truth, values)
    _same_length(truth, scan)
    whole = average_precision(truth, values)
    if math.isnan(whole):
        return math.nan
    order = np.argsort(-values, kind="stable")  # each part of what is in order is sorted again at little cost
    truth, values, scan = truth[order], values[order], scan[order]
    group = np.unique(scan, return_inverse=True)[1] % MOST_GROUPS
    groups = int(group.max()) + 1
    with_positives = np.unique(group[truth])
    if with_positives.size < 2:
        return math.nan
    without = np.array([average_precision(truth[group != one], values[group != one]) for one in range(groups)])
    error = math.sqrt((groups - 1) / groups * float(np.sum((without - without.mean()) ** 2)))
    above = whole - float(truth.mean())
    if error == 0:
        return math.copysign(MOST_LIFT, above) if above else 0.0
    return float(np.clip(above / error, -MOST_LIFT, MOST_LIFT))


def best_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """The threshold whose F1 on these traces is highest; of equal ones the highest threshold.

    The value lies halfway between the two neighbouring scores that it parts, so that rounding does not move a
    decision; scores with no number between them are parted at the upper one. Without a positive label, or with a NaN
    score, the default 0.5.

    Args:
        labels: 0 or 1, shape (trace,).
        scores: higher is more positive, shape (trace,).
    """
    tp, fp, values = _steps(labels, scores)
    if tp.size == 0 or tp[-1] == 0:
        return 0.5
    f1 = 2 * tp / (tp + fp + tp[-1])
    best = int(np.argmax(f1))
    if best + 1 == values.size:
        return float(values[best])
    with np.errstate(invalid="ignore"):  # nothing lies halfway between -inf and inf
        halfway = values[best] / 2 + values[best + 1] / 2
    return float(halfway if values[best + 1] < halfway <= values[best] else values[best])


def mean_jaccard(labels: ArrayLike, scores: ArrayLike, scans: ArrayLike, threshold: float = 0.5) -> float:
    """Mean of the Jaccard index over the scans where it is defined.

    Args:
        labels: 0 or 1, shape (trace,).
        scores: shape (trace,).
        scans: which scan each trace belongs to, shape (trace,).
        threshold: where "positive" begins.

    Returns:
        NaN when no scan holds a positive label or a positive answer.
    """
    values = [c.jaccard for c in counts_by_scan(labels, scores, scans, threshold)]
    defined = [v for v in values if not math.isnan(v)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def counts_by_scan(labels: ArrayLike, scores: ArrayLike, scans: ArrayLike, threshold: float = 0.5) -> list[Counts]:
    """:func:`count` of every scan, in the order of the scans' first traces.

    Args:
        labels: 0 or 1, shape (trace,).
        scores: shape (trace,).
        scans: which scan each trace belongs to, shape (trace,).
        threshold: where "positive" begins.
    """
    truth, answer = _labels(labels), np.asarray(scores, dtype=np.float64)
    _same_length(truth, answer, np.asarray(scans))
    return [count(truth[where], answer[where], threshold) for where in _positions(np.asarray(scans))]


def always_positive_f1(positive: int, traces: int) -> float:
    """F1 of answering "positive" everywhere, 2p / (1 + p) with p the share of positives.

    Args:
        positive: traces labelled positive.
        traces: all traces.

    Returns:
        NaN without traces or without positives.
    """
    return Counts(positive, traces - positive, 0, 0).f1 if positive else math.nan


@dataclass(frozen=True, slots=True)
class Interval:
    """A percentile interval; both ends NaN when the value was never defined."""

    low: float
    high: float


def bootstrap_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    scans: ArrayLike,
    statistic: Callable[[NDArray[np.bool_], Floats], float],
    *,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over scans, the unit that is drawn independently (Efron and Tibshirani 1993, ch. 13).

    Args:
        labels: 0 or 1, shape (trace,).
        scores: shape (trace,).
        scans: which scan each trace belongs to, shape (trace,).
        statistic: of the labels and scores of a draw; draws where it is NaN are left out.
        level: coverage of the interval.
        draws: number of resamples.
        seed: fixes the draws.
    """
    truth, answer = _labels(labels), np.asarray(scores, dtype=np.float64)
    _same_length(truth, answer, np.asarray(scans))
    positions = _positions(np.asarray(scans))
    if not positions:
        return Interval(math.nan, math.nan)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        drawn = np.concatenate([positions[i] for i in rng.integers(len(positions), size=len(positions))])
        values.append(statistic(truth[drawn], answer[drawn]))
    defined = [v for v in values if not math.isnan(v)]
    if not defined:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _labels(labels: ArrayLike) -> NDArray[np.bool_]:
    return np.asarray(labels).astype(bool)


def _same_length(labels: NDArray[np.bool_], *others: NDArray[np.generic]) -> None:
    if labels.ndim != 1 or any(labels.shape != other.shape for other in others):
        shapes = ", ".join(str(array.shape) for array in (labels, *others))
        raise ValueError(f"labels, scores and scans are one-dimensional and of one length, not {shapes}")


def _positions(scans: NDArray[np.generic]) -> list[NDArray[np.intp]]:
    _, first, inverse = np.unique(scans, return_index=True, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(inverse, minlength=first.size))[:-1]) if scans.size else []
    return [groups[i] for i in np.argsort(first)]


def _steps(labels: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Cumulative true and false positives at each distinct score, and the scores, from the highest down."""
    truth, answer = _labels(labels), np.asarray(scores, dtype=np.float64)
    _same_length(truth, answer)
    if truth.size == 0 or np.isnan(answer).any():
        empty = np.zeros(0)
        return empty, empty, empty
    order = np.argsort(-answer, kind="stable")
    truth, answer = truth[order], answer[order]
    last = np.append(np.flatnonzero(answer[1:] != answer[:-1]), truth.size - 1)  # a difference of infinities is NaN
    tp = np.cumsum(truth, dtype=np.float64)[last]
    return tp, last + 1 - tp, answer[last]
