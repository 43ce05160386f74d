"""What a chain of preprocessing makes of a scan. Its words and their order: :mod:`tunelab.preprocessing`.

Shapes are (trace, sample), and the traces are always those of one whole scan: background removal looks across them.
Everything is computed in float64, a block at a time, and kept in float32. Nothing here knows a split, a label or where
results are kept.

A trace may be several channels joined along the samples (components, offsets), each of the same number of samples.
Every channel is then treated as a scan of its own, and the results are joined again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tunelab.data.resample import read_rows, rows_at_once
from tunelab.errors import DataError
from tunelab.preprocessing import Preprocessing

_NEAR = 1e-6  # of a sample: times that differ by less are the same
_COLUMNS = 64  # samples whose traces are averaged at once


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A chain in samples of one channel."""

    dewow: int | None
    """Width of the running mean, odd."""
    first: float
    """Where the first sample that is kept lies, in samples as recorded."""
    step: float
    """Samples as recorded from one that is kept to the next; 1 where none is computed anew."""
    samples: int
    """How many are kept."""
    dt: float | None
    """Seconds between them."""

    @property
    def positions(self) -> NDArray[np.float64]:
        """Where those that are kept lie, in samples as recorded."""
        return self.first + self.step * np.arange(self.samples, dtype=np.float64)


def outcome(n_samples: int, dt: float | None, chain: Preprocessing, *, channels: int = 1) -> tuple[int, float | None]:
    """Samples of a trace, and seconds between them, after a chain.

    Args:
        n_samples: samples of a trace before, all channels together.
        dt: seconds between samples; None when unknown.
        chain: the steps.
        channels: how many are joined along the samples.

    Returns:
        What :func:`apply` gives: all channels together, and None where ``dt`` is.

    Raises:
        DataError: the chain cannot be computed on such traces; names the step, the value and the remedy.
    """
    if chain.is_identity:
        return n_samples, dt
    plan = _plan(_width(n_samples, channels), dt, chain)
    return channels * plan.samples, plan.dt


def apply(
    traces: NDArray[np.float32], dt: float | None, chain: Preprocessing, *, channels: int = 1
) -> NDArray[np.float32]:
    """The traces of one scan after a chain.

    * dewow: the mean over a width of time around each sample is subtracted from it; towards the ends over what there
      is of that width, so a width beyond the trace takes the trace's mean away.
    * window and decimation are one step: the low-pass runs over the whole trace, then the new samples are read from
      the window's start to its end. Without decimation the samples inside the window are kept as they are.
    * background: the mean trace of the scan, or of the nearest traces on both sides. At the ends of a scan, and in
      scans shorter than that number, these are the nearest ones that there are. What is the same in all of them goes
      exactly; a scan of a single trace comes out silent, as nothing tells it from its background.
    * gain: as in :attr:`~tunelab.preprocessing.Preprocessing.gain`.
    * compression: as in :attr:`~tunelab.preprocessing.Preprocessing.compression`; a silent scan stays silent.

    Args:
        traces: of one whole scan, shape (trace, sample); not changed.
        dt: seconds between samples; None when unknown.
        chain: the steps.
        channels: how many are joined along the samples.

    Returns:
        Shape (trace, sample), float32; the input itself where nothing changes.

    Raises:
        DataError: as :func:`outcome`.
    """
    if chain.is_identity:
        return traces
    width = _width(traces.shape[1], channels)
    plan = _plan(width, dt, chain)
    kept = plan.samples == width and plan.dewow is None
    if kept and chain.background == "none" and not chain.gain and not chain.compression:
        return traces
    out = np.empty((traces.shape[0], channels * plan.samples), dtype=np.float32)
    for channel in range(channels):
        before = traces[:, channel * width : (channel + 1) * width]
        after = out[:, channel * plan.samples : (channel + 1) * plan.samples]
        _along_samples(before, after, plan)
        if chain.background != "none":
            _remove_background(after, chain.background)
        if chain.gain:
            _amplify(after, plan, chain.gain)
        if chain.compression:
            _compress(after, chain.compression)
    return out


def _width(n_samples: int, channels: int) -> int:
    if n_samples % channels:
        raise DataError(f"{n_samples} samples are not {channels} channels of one length; give the channels joined")
    return n_samples // channels


def _plan(n: int, dt: float | None, chain: Preprocessing) -> _Plan:
    """A chain in samples of a channel of ``n``."""
    timed = [name for name in ("dewow", "window", "rate") if getattr(chain, name) is not None]
    if timed and dt is None:
        raise DataError(
            f"preprocessing.{timed[0]} is in time, and the time between samples (dt) is unknown or differs between "
            "scans; write dt into the files, or use samples, background and gain alone"
        )
    if n < 2:
        raise DataError(f"preprocessing: traces of {n} samples; at least 2 are needed, use no chain")
    first, last = 0.0, n - 1.0
    ns = math.nan if dt is None else dt * 1e9
    if chain.window is not None:
        start, end = chain.window
        if end / ns > n + _NEAR:  # the last sample may be taken to last as long as the others
            raise DataError(
                f"preprocessing.window: {start:g} to {end:g} ns, but the recording ends at {(n - 1) * ns:.6g} ns "
                f"({n} samples of {ns:.6g} ns); end there or before"
            )
        first, last = start / ns, min(end / ns, last)
    inside = math.floor(last + _NEAR) - math.ceil(first - _NEAR) + 1
    if inside < 2:
        raise DataError(
            f"preprocessing.window: {chain.window} ns holds {max(inside, 0)} of {n} samples of {ns:.6g} ns; "
            "2 are the fewest, widen it"
        )
    dewow = None if chain.dewow is None else min(_odd_width(chain.dewow, ns), 2 * n + 1)
    wanted = _thin(chain, _wanted(chain, inside, last - first, ns), inside)
    step = (last - first) / (wanted - 1) if wanted is not None else 1.0
    if wanted is None or step - 1 < _NEAR / wanted:
        return _Plan(dewow=dewow, first=float(math.ceil(first - _NEAR)), step=1.0, samples=inside, dt=dt)
    return _Plan(dewow=dewow, first=first, step=step, samples=wanted, dt=None if dt is None else dt * step)


def _wanted(chain: Preprocessing, inside: int, span: float, ns: float) -> int | None:
    """How many samples to compute over a window of ``span`` samples; None to keep those inside."""
    if chain.samples is not None:
        if chain.samples > inside:
            raise DataError(
                f"preprocessing.samples: {chain.samples} is more than the {inside} samples that the window holds; "
                f"decimation adds none, take {inside} or fewer"
            )
        return chain.samples
    if chain.rate is None or chain.rate * ns >= 1 - _NEAR:
        return None
    wanted = math.floor(span * chain.rate * ns + _NEAR) + 1
    if wanted < 2:
        raise DataError(
            f"preprocessing.rate: {chain.rate:g} GHz leaves {wanted} sample of a window of {span * ns:.6g} ns; "
            f"take at least {1 / (span * ns):.3g} GHz"
        )
    return wanted


def _thin(chain: Preprocessing, wanted: int | None, inside: int) -> int | None:
    """How many samples there are to be of those that the chain's own steps leave."""
    if chain.thinning == 1:
        return wanted
    there = inside if wanted is None else wanted
    if there <= chain.thinning:
        raise DataError(
            f"fidelity.decimation: {chain.thinning} leaves 1 of {there} samples, and 2 are the fewest; thin by "
            f"{there - 1} or less"
        )
    return (there - 1) // chain.thinning + 1


def _odd_width(width: float, ns: float) -> int:
    """The odd number of samples that is nearest to a width in ns."""
    samples = 2 * round((width / ns - 1) / 2) + 1
    if samples < 3:
        raise DataError(
            f"preprocessing.dewow: a mean over {width:g} ns is one over {width / ns:.3g} samples of {ns:.6g} ns, and "
            f"would leave nothing of the pulse; take several times the pulse, and at least {3 * ns:.3g} ns"
        )
    return samples


def _along_samples(before: NDArray[np.float32], after: NDArray[np.float32], plan: _Plan) -> None:
    """Dewow, window and decimation, into ``after``."""
    at = plan.positions
    size = rows_at_once(before.shape[1])
    for start in range(0, before.shape[0], size):
        rows = before[start : start + size].astype(np.float64)
        if plan.dewow is not None:
            rows -= _running_mean(rows, plan.dewow)
        if plan.step == 1:
            after[start : start + size] = rows[:, int(plan.first) : int(plan.first) + plan.samples]
        else:
            after[start : start + size] = read_rows(rows, np.minimum(at, before.shape[1] - 1), plan.step)


def _running_mean(rows: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """The mean over ``width`` samples around each, towards the ends over those of them that there are."""
    n, half = rows.shape[1], width // 2
    sums = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(rows, axis=1)], axis=1)
    low = np.maximum(np.arange(n) - half, 0)
    high = np.minimum(np.arange(n) + half + 1, n)
    mean: NDArray[np.float64] = (sums[:, high] - sums[:, low]) / (high - low)
    return mean


def _remove_background(traces: NDArray[np.float32], over: str | int) -> None:
    """Subtract the mean trace, in place: of the scan, or of the ``over`` nearest traces."""
    n = traces.shape[0]
    width = n if over == "scan" else min(int(over), n)
    low = np.clip(np.arange(n) - width // 2, 0, n - width)
    for start in range(0, traces.shape[1], _COLUMNS):
        some = traces[:, start : start + _COLUMNS].astype(np.float64)
        sums = np.concatenate([np.zeros((1, some.shape[1])), np.cumsum(some, axis=0)])
        traces[:, start : start + _COLUMNS] = some - (sums[low + width] - sums[low]) / width


def _amplify(traces: NDArray[np.float32], plan: _Plan, power: float) -> None:
    """Multiply by (t / end)^power, in place."""
    at = plan.positions
    factor = (at / at[-1]) ** power
    size = rows_at_once(traces.shape[1])
    for start in range(0, traces.shape[0], size):
        traces[start : start + size] = traces[start : start + size].astype(np.float64) * factor


def _compress(traces: NDArray[np.float32], factor: float) -> None:
    """asinh(factor x / r) / asinh(factor), r the root mean square of all samples, in place."""
    size = rows_at_once(traces.shape[1])
    blocks = [slice(start, start + size) for start in range(0, traces.shape[0], size)]
    largest = float(np.abs(traces).max(initial=0))
    if not largest:
        return
    # by the largest first: squares of amplitudes in V or A/m may be below what a number holds
    squares = sum(float(np.square(traces[block].astype(np.float64) / largest).sum()) for block in blocks)
    level = largest * math.sqrt(squares / traces.size)
    factor = max(factor, 1e-6)  # below, it is linear to float32
    for block in blocks:
        rows = traces[block].astype(np.float64)
        traces[block] = np.arcsinh(factor / level * rows) / math.asinh(factor)
