"""Mean and variance of each sample over traces, as a model's input is normalised by.

How they are gathered from scans is in :mod:`tunelab.data.statistics`. Shapes are (sample,).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SILENT = 1e-6
"""Share of the mean variance below which a sample counts as silent: 60 dB below the traces as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Of the traces of training scans; of no others, or what is measured elsewhere would have leaked into a model."""

    mean: NDArray[np.float64]
    """Of each sample, shape (sample,)."""
    variance: NDArray[np.float64]
    """Of each sample, the mean of the squared distances from its mean, shape (sample,)."""

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.mean.shape != self.variance.shape or not self.mean.size:
            raise ValueError(f"means {self.mean.shape} and variances {self.variance.shape}; both are one a sample")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.variance).all() and (self.variance >= 0).all()):
            raise ValueError("means and variances must be finite, and no variance below zero")

    def pooled(self) -> Statistics:
        """All samples taken together: at each the same mean, and the same variance of the mixture.

        The variance of all values is the mean of the samples' variances and the variance of their means.
        """
        mean, variance = self.mean.mean(), self.variance.mean() + self.mean.var()
        return Statistics(mean=np.full_like(self.mean, mean), variance=np.full_like(self.mean, variance))

    def clamped(self) -> Statistics:
        """No variance below :data:`SILENT` times the mean one; all are 1 where that is zero.

        A sample that is silent in training would otherwise be divided by almost nothing, and what another scan has
        there would drown the rest.
        """
        least = SILENT * self.variance.mean()
        return Statistics(
            mean=self.mean, variance=np.maximum(self.variance, least) if least else np.ones_like(self.mean)
        )
