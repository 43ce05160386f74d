"""Another number of samples for the same time window: a low-pass that shifts nothing, and reading between samples.

Which samples a chain of preprocessing keeps is decided in :mod:`tunelab.data.preprocess`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tunelab.errors import UsageError
from tunelab.preprocessing import MOST_SAMPLES

_KEPT = 0.8  # share of the new Nyquist frequency that passes
_VALUES = 2**21  # of float64 at once: scratch of 16 MB a step


def check_samples(samples: int) -> None:
    """Refuses a number of samples that no trace can be brought to.

    Raises:
        UsageError: below 2 or above :data:`MOST_SAMPLES`.
    """
    if not 2 <= samples <= MOST_SAMPLES:
        raise UsageError(f"resample = {samples}: give a number of samples from 2 to {MOST_SAMPLES:,}")


def resampled_dt(dt: float, before: int, after: int) -> float:
    """Seconds between samples once ``before`` samples over a window became ``after``: dt (before - 1) / (after - 1)."""
    return dt * (before - 1) / (after - 1)


def rows_at_once(samples: int) -> int:
    """How many traces of so many samples are worked on at once, so that scratch in float64 stays bounded."""
    return max(1, _VALUES // max(1, samples))


def read_rows(rows: NDArray[np.float64], at: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """The values of traces at other positions, without what the new rate cannot hold.

    For ``step`` > 1 a Butterworth low-pass (order 12, edge 0.8 / step of the old Nyquist frequency) runs forwards and
    backwards over the whole trace first: nothing is shifted, 0 Hz passes unchanged, and what lies above the new
    Nyquist frequency is 46 dB down or more before it folds. A cubic spline reads between the samples.

    Args:
        rows: shape (trace, old sample), at least 2 samples.
        at: where to read, in old samples from the first one, shape (sample,); all within the trace.
        step: old samples from one new sample to the next.

    Returns:
        Shape (trace, sample).
    """
    # imported here: a process that reads scans as they are starts in a third of the time without
    from scipy.interpolate import make_interp_spline
    from scipy.signal import butter, sosfiltfilt

    old = rows.shape[1]
    if step > 1:
        sos = butter(12, _KEPT / step, output="sos")
        rows = np.asarray(sosfiltfilt(sos, rows, axis=1, padlen=min(old - 1, int(20 * step) + 27)), dtype=np.float64)
    read: NDArray[np.float64] = make_interp_spline(np.arange(old), rows, k=min(3, old - 1), axis=1)(at)
    return read


def resample_traces(traces: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    """Traces with ``samples`` samples, of which the first and the last lie where they lay.

    New sample j lies at old position j q with q = (old - 1) / (new - 1), and is read by :func:`read_rows`.

    Args:
        traces: shape (trace, old sample), at least 2 samples; not changed.
        samples: the number wanted.

    Returns:
        Shape (trace, samples), float32. The input itself when nothing changes.

    Raises:
        UsageError: for a number of samples out of range.
    """
    check_samples(samples)
    old = traces.shape[1]
    if old == samples:
        return traces
    q = (old - 1) / (samples - 1)
    at = np.arange(samples) * q
    at[-1] = old - 1  # rounding must not step outside
    out = np.empty((traces.shape[0], samples), dtype=np.float32)
    size = rows_at_once(old)
    for start in range(0, traces.shape[0], size):
        out[start : start + size] = read_rows(traces[start : start + size].astype(np.float64), at, q)
    return out
