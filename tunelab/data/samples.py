"""The samples of scans, wherever they are, and what is told of one scan by its samples. Labels and splits are not here.

Shapes are (trace, sample) for a scan.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)
Moments = NDArray[np.float32]
"""Mean and standard deviation of each sample over the traces of each scan, shape (scan, 2, sample).

Not the variance, which float32 could not hold for all samples that it holds."""


class Samples(Protocol):
    """The samples of every scan, by the scan's position. Holders are picklable, and on disk cheap to pickle."""

    @property
    def n_samples(self) -> int:
        """Samples of every trace."""

    def read(self, scan: int) -> NDArray[np.float32]:
        """A scan, shape (trace, sample); not to be written to."""

    def moments(self, scans: NDArray[np.intp]) -> Moments:
        """Of each of these scans; shape (scan, 2, sample)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InMemory:
    """Samples as one array, the scans one after another."""

    traces: NDArray[np.float32]
    """Shape (trace, sample)."""
    lengths: NDArray[np.int64]
    """Traces of each scan, shape (scan,)."""
    known: dict[int, Moments] = field(default_factory=dict, repr=False, compare=False)
    """Moments that have been asked for before, by scan."""

    @property
    def n_samples(self) -> int:
        """See :class:`Samples`."""
        return int(self.traces.shape[1])

    def read(self, scan: int) -> NDArray[np.float32]:
        """See :class:`Samples`; a view."""
        end = int(self.lengths[: scan + 1].sum())
        return self.traces[end - int(self.lengths[scan]) : end]

    def moments(self, scans: NDArray[np.intp]) -> Moments:
        """See :class:`Samples`; computed once."""
        for scan in scans:
            if int(scan) not in self.known:
                self.known[int(scan)] = moments_of(self.read(int(scan)))
        return np.stack([self.known[int(scan)] for scan in scans])


def digest_of(traces: NDArray[np.float32]) -> str:
    """SHA-256, in hex, over the samples of a scan as little-endian float32."""
    return hashlib.sha256(np.ascontiguousarray(traces, dtype="<f4").data).hexdigest()


def silent_traces(traces: NDArray[np.float32]) -> int:
    """Traces that hold one value only: dead channels or padding, yet valid to a model."""
    return int(np.count_nonzero((traces == traces[:, :1]).all(axis=1)))


def moments_of(traces: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean and standard deviation of each sample over the traces of a scan, (trace, sample) -> (2, sample)."""
    return np.stack((traces.mean(axis=0, dtype=np.float64), traces.std(axis=0, dtype=np.float64))).astype(np.float32)


def read_only(array: NDArray[Number]) -> NDArray[Number]:
    """A view that cannot be written to."""
    view = array.view()
    view.flags.writeable = False
    return view
