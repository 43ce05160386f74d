"""The samples of scans, wherever they are, and what is told of one scan by its samples. Labels and splits are not here.

Shapes are (trace, sample) for a scan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)
Moments = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Means and variances, each of shape (scan, sample)."""


class Samples(Protocol):
    """The samples of every scan, by the scan's position. Holders are picklable, and on disk cheap to pickle."""

    @property
    def n_samples(self) -> int:
        """Samples of every trace."""

    def read(self, scan: int) -> NDArray[np.float32]:
        """A scan, shape (trace, sample); not to be written to."""

    def moments(self, scans: NDArray[np.intp]) -> Moments:
        """Mean and variance over the traces of each of these scans, shapes (scan, sample)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InMemory:
    """Samples as one array, the scans one after another."""

    traces: NDArray[np.float32]
    """Shape (trace, sample)."""
    lengths: NDArray[np.int64]
    """Traces of each scan, shape (scan,)."""

    @property
    def n_samples(self) -> int:
        """See :class:`Samples`."""
        return int(self.traces.shape[1])

    def read(self, scan: int) -> NDArray[np.float32]:
        """See :class:`Samples`; a view."""
        end = int(self.lengths[: scan + 1].sum())
        return self.traces[end - int(self.lengths[scan]) : end]

    def moments(self, scans: NDArray[np.intp]) -> Moments:
        """See :class:`Samples`."""
        return gathered([moments_of(self.read(int(scan))) for scan in scans])


def digest_of(traces: NDArray[np.float32]) -> str:
    """SHA-256, in hex, over the samples of a scan as little-endian float32."""
    return hashlib.sha256(np.ascontiguousarray(traces, dtype="<f4").data).hexdigest()


def silent_traces(traces: NDArray[np.float32]) -> int:
    """Traces that hold one value only: dead channels or padding, yet valid to a model."""
    return int(np.count_nonzero((traces == traces[:, :1]).all(axis=1)))


def moments_of(traces: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each sample over the traces of a scan, (trace, sample) -> two of (sample,).

    Not the variance, which float32 could not hold for all samples that it holds.
    """
    return (
        traces.mean(axis=0, dtype=np.float64).astype(np.float32),
        traces.std(axis=0, dtype=np.float64).astype(np.float32),
    )


def gathered(moments: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]) -> Moments:
    """Those of several scans, the deviations squared."""
    means = np.stack([mean for mean, _ in moments]).astype(np.float64)
    return means, np.stack([deviation for _, deviation in moments]).astype(np.float64) ** 2


def read_only(array: NDArray[Number]) -> NDArray[Number]:
    """A view that cannot be written to."""
    view = array.view()
    view.flags.writeable = False
    return view
