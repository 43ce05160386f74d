"""Means and variances over the traces of many scans, gathered scan by scan and merged.

What they are used for is not decided here: which scans count as training scans is said by whoever asks.
Shapes are (trace, sample); scans may be more than memory holds at once, so nothing larger than a block is copied.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tunelab.data.dataset import Part
from tunelab.errors import DataError
from tunelab.statistics import Statistics

__all__ = ["Statistics", "combine", "of_part", "of_traces"]

_VALUES = 2**21  # of float64 at once: 16 MB
_SCANS = 256  # whose means and variances are held at once


def combine(
    counts: ArrayLike,
    means: NDArray[np.floating],
    variances: NDArray[np.floating],
) -> Statistics:
    """What the traces of several scans come to together, from what each scan comes to.

    The parallel formula of Chan, Golub and LeVeque (1983), for any number of groups: squared distances add up, and
    those of the scans' means from the mean of all are added, weighted by traces. Nothing cancels, however far the
    means lie from zero.

    Args:
        counts: traces of each scan, shape (scan,); scans without any are left out.
        means: shape (scan, sample).
        variances: shape (scan, sample), divided by the number of traces, not by one less.

    Raises:
        DataError: no scan has a trace.
    """
    weights = np.asarray(counts, dtype=np.float64)
    if means.ndim != 2 or means.shape != variances.shape or weights.shape != means.shape[:1]:
        raise ValueError(f"{weights.shape} counts, means {means.shape}, variances {variances.shape}")
    if not weights.sum() > 0:
        raise DataError("statistics of no trace: no scan has any; give at least one training scan")
    total = 0.0
    mean = np.zeros(means.shape[1])
    squares = np.zeros(means.shape[1])
    rows = max(1, _VALUES // max(1, means.shape[1]))
    for start in range(0, len(weights), rows):
        some = weights[start : start + rows] > 0
        if not some.any():
            continue
        weight = weights[start : start + rows][some][:, None]
        theirs = means[start : start + rows][some].astype(np.float64)
        within = variances[start : start + rows][some].astype(np.float64)
        count = float(weight.sum())
        centre = (weight * theirs).sum(axis=0) / count
        off = (weight * (within + (theirs - centre) ** 2)).sum(axis=0)
        apart = centre - mean
        squares += off + apart**2 * (total * count / (total + count))
        mean += apart * (count / (total + count))
        total += count
    return Statistics(mean=mean, variance=squares / total)


def of_part(part: Part) -> Statistics:
    """Mean and variance of each sample over all traces of a part, from those of its scans.

    Args:
        part: for normalisation that of the training scans, and no other.

    Raises:
        DataError: the part has no scan.
    """
    counts, found = [], []
    for start in range(0, part.n_scans, _SCANS):
        some = slice(start, start + _SCANS)
        counts.append(int(part.lengths[some].sum()))
        means, deviations = part.samples.moments(part.positions[some]).astype(np.float64).swapaxes(0, 1)
        found.append(combine(part.lengths[some], means, deviations**2))
    shape = (len(found), part.samples.n_samples)
    every = np.reshape([one.mean for one in found], shape), np.reshape([one.variance for one in found], shape)
    return combine(counts, *every)


def of_traces(traces: NDArray[np.floating]) -> Statistics:
    """Mean and variance of each sample over traces, in float64.

    Args:
        traces: shape (trace, sample); not changed.

    Raises:
        DataError: there is no trace.
    """
    rows = max(1, _VALUES // max(1, traces.shape[1]))
    counts, means, variances = [], [], []
    for start in range(0, traces.shape[0], rows):
        block = traces[start : start + rows].astype(np.float64)
        counts.append(len(block))
        means.append(block.mean(axis=0))
        variances.append(block.var(axis=0))
    shape = (len(counts), traces.shape[1])
    return combine(counts, np.reshape(means, shape), np.reshape(variances, shape))
