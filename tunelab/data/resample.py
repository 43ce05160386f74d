"""Another number of samples for the same time window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import make_interp_spline
from scipy.signal import butter, sosfiltfilt

from tunelab.errors import UsageError

MOST_SAMPLES = 65_536
_KEPT = 0.8  # share of the new Nyquist frequency that passes
_ROWS = 256  # traces filtered at once: float64 scratch of at most a few tens of MB


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


def resample_traces(traces: NDArray[np.float32], samples: int) -> NDArray[np.float32]:
    """Traces with ``samples`` samples, of which the first and the last lie where they lay.

    New sample j lies at old position j q with q = (old - 1) / (new - 1). For q > 1 a Butterworth low-pass (order 12,
    edge 0.8 / q of the old Nyquist frequency) runs forwards and backwards first: nothing is shifted, 0 Hz passes
    unchanged, and what lies above the new Nyquist frequency is 46 dB down or more before it folds. A cubic spline
    reads between the samples.

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
    for start in range(0, traces.shape[0], _ROWS):
        rows = traces[start : start + _ROWS].astype(np.float64)
        if q > 1:
            sos = butter(12, _KEPT / q, output="sos")
            rows = sosfiltfilt(sos, rows, axis=1, padlen=min(old - 1, int(20 * q) + 27))
        out[start : start + _ROWS] = make_interp_spline(np.arange(old), rows, k=min(3, old - 1), axis=1)(at)
    return out
