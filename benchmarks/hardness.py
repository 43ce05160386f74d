"""How hard the embedded set is beside scans computed with gprMax: probes without a deep net, and amplitudes.

    python -m benchmarks.hardness --data gprmax-small

One recipe for both sets: background removal, decimation to 200 samples at most, gain t^1.5, each scan over its root
mean square; then logistic regressions on features of single traces and of their neighbours. What a trace of a scan
gets comes from a fit that did not see the scan (five folds); F1 is that at the best threshold, flattered alike on both
sides. The embedded set is shown whole, and in sets of as many scans as the other side has, because a fit gains from
more scans. Without --data the embedded set stands alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.signal import hilbert

from benchmarks.sources import access, scratch
from tunelab.data.dataset import Dataset
from tunelab.data.prepared import AS_RECORDED
from tunelab.data.preprocess import apply
from tunelab.data.splits import assign_folds
from tunelab.data.synthetic import EMBEDDED, synthesize
from tunelab.metrics import average_precision, best_threshold, count
from tunelab.preprocessing import Preprocessing

Floats = NDArray[np.float64]

SAMPLES = 200
BANDS = 20
"""Bands of time that an envelope is averaged over."""
NEIGHBOURS = (-6, -4, -2, -1, 0, 1, 2, 4, 6)
CURVES = (1.0, 2.0, 3.0, 4.5, 6.5, 9.0)
"""Of the templates: samples by which a hyperbola's legs are late per trace, far from the apex."""
REACH = 10
"""Traces on either side of an apex that a template covers."""
BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A scan as the probes see it."""

    raw: Floats
    """As recorded, (trace, sample)."""
    traces: Floats
    """After the recipe."""
    labels: NDArray[np.int8]
    dt: float


def scans_of(data: Dataset) -> list[Scan]:
    """Every scan of a data set after the recipe."""
    assert data.dt is not None
    chain = Preprocessing(samples=min(SAMPLES, data.n_samples), background="scan", gain=1.5)
    found, start = [], 0
    for i, length in enumerate(data.lengths.tolist()):
        raw = data.samples.read(i)
        traces = apply(raw, data.dt, chain).astype(np.float64)
        traces /= np.sqrt(np.mean(traces**2)) + 1e-30
        labels = data.labels[start : start + length]
        found.append(Scan(raw=raw.astype(np.float64), traces=traces, labels=labels, dt=data.dt))
        start += length
    return found


def around(rows: Floats, steps: Sequence[int]) -> Floats:
    """Each row beside those so many traces away; the ends repeat."""
    at = np.arange(len(rows))
    return np.concatenate([rows[np.clip(at + step, 0, len(rows) - 1)] for step in steps], axis=1)


def bands(rows: Floats) -> Floats:
    """The mean over each of :data:`BANDS` stretches of time."""
    return np.stack([part.mean(1) for part in np.array_split(rows, BANDS, axis=1)], axis=1)


def envelope(rows: Floats) -> Floats:
    """Envelope along the samples."""
    return np.asarray(np.abs(hilbert(rows, axis=1)))


def of_samples(scan: Scan) -> Floats:
    """Probe: the samples of the trace alone."""
    return scan.traces


def of_envelope(scan: Scan) -> Floats:
    """Probe: the envelope of the trace alone."""
    return np.sqrt(bands(envelope(scan.traces)))


def of_neighbours(scan: Scan) -> Floats:
    """Probe: the envelopes of the trace and of its neighbours."""
    return around(of_envelope(scan), NEIGHBOURS)


def stacked(scan: Scan, curve: float) -> Floats:
    """Envelope of the traces summed along a hyperbola whose apex is at each point, (trace, sample)."""
    n, samples = scan.traces.shape
    zero = int(np.argmax(np.abs(scan.raw.mean(0)))) * samples / scan.raw.shape[1]
    t0 = np.maximum(np.arange(samples) - zero, 0.0)
    total, seen = np.zeros((n, samples)), np.zeros((n, 1))
    grid = np.arange(samples, dtype=np.float64)
    for k in range(-REACH, REACH + 1):
        at = np.hypot(t0, curve * k) + zero
        here = np.arange(max(0, -k), min(n, n - k))
        low = np.minimum(at.astype(np.int64), samples - 1)
        high, share = np.minimum(low + 1, samples - 1), at - np.floor(at)
        rows = scan.traces[here + k]
        total[here] += np.where(at < samples, rows[:, low] * (1 - share) + rows[:, high] * share, 0.0)
        seen[here] += 1
    total[:, grid < zero] = 0.0
    return envelope(total / np.sqrt(seen))


def lag(one: Floats, other: Floats, most: int) -> float:
    """Samples by which ``other`` comes later, from the peak of the correlation."""
    shifts = np.arange(-most, most + 1)
    padded = np.pad(other, most)
    return float(shifts[np.argmax([one @ padded[most + s : most + s + len(one)] for s in shifts])])


def of_apexes(scan: Scan) -> Floats:
    """Probe: how much of a hyperbola has its apex here, and how later its arrivals are in the traces beside."""
    stacks = np.stack([stacked(scan, curve) for curve in CURVES])
    peaks = np.log(stacks.max(2).T + 1e-6)  # (trace, curve)
    best = stacks.max(0)
    near = np.stack([around(peaks.max(1)[:, None], range(-w, w + 1)).mean(1) for w in (3, 6, 10)], axis=1)
    columns = [peaks, peaks.max(1)[:, None] - near, peaks - peaks.max(), np.argmax(stacks.max(2), axis=0)[:, None]]
    n, samples = scan.traces.shape
    width, lags = samples // 12, []
    for i in range(n):
        centre = int(np.argmax(best[i]))
        window = slice(max(0, centre - width), min(samples, centre + width))
        row = [centre / samples]
        for step in (1, 2, 4):
            left, right = (
                lag(scan.traces[i, window], scan.traces[min(max(i + s, 0), n - 1), window], 2 * step + 4)
                for s in (-step, step)
            )
            row += [left + right, abs(left - right), left - right]
        lags.append(row)
    columns.append(np.array(lags))
    return around(np.concatenate(columns, axis=1), (-4, -2, 0, 2, 4))


def standardised(train: Floats, test: Floats) -> tuple[Floats, Floats]:
    """Both by mean and deviation of the first."""
    mean, scale = train.mean(0), train.std(0) + 1e-9
    return (train - mean) / scale, (test - mean) / scale


def binned(train: Floats, test: Floats) -> tuple[Floats, Floats]:
    """Which of the first's quantiles each value lies in, one column a bin: a sum of curves instead of lines."""
    parts: tuple[list[Floats], list[Floats]] = ([], [])
    for column in range(train.shape[1]):
        edges = np.unique(np.quantile(train[:, column], np.linspace(0, 1, BINS + 1)[1:-1]))
        for rows, found in zip((train, test), parts, strict=True):
            found.append(np.eye(len(edges) + 1)[np.searchsorted(edges, rows[:, column])])
    return np.concatenate(parts[0], axis=1), np.concatenate(parts[1], axis=1)


def logistic(x: Floats, y: Floats, penalty: float) -> Callable[[Floats], Floats]:
    """Logistic regression with a squared penalty on the weights, not on the constant."""

    def loss(w: Floats) -> tuple[float, Floats]:
        z = x @ w[1:] + w[0]
        residual = 1 / (1 + np.exp(-np.clip(z, -50, 50))) - y
        value = np.mean(np.logaddexp(0, z) - y * z) + penalty * (w[1:] @ w[1:]) / 2
        return float(value), np.concatenate([[residual.mean()], x.T @ residual / len(y) + penalty * w[1:]])

    w = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
    return lambda rows: np.asarray(rows @ w[1:] + w[0])


PROBES: dict[str, tuple[Callable[[Scan], Floats], Callable[[Floats, Floats], tuple[Floats, Floats]], float]] = {
    "samples": (of_samples, standardised, 0.1),
    "envelope": (of_envelope, standardised, 0.03),
    "envelope, neighbours": (of_neighbours, standardised, 0.03),
    "apexes and slopes": (of_apexes, binned, 0.003),
}
"""Features, what becomes of them, and the penalty, which was chosen once for both sets."""


def probed(scans: Sequence[Scan], probe: str, seed: int) -> tuple[float, float]:
    """F1 at the best threshold and average precision over all traces, each answered by a fit without its scan."""
    features, prepared, penalty = PROBES[probe]
    x = [features(scan) for scan in scans]
    names = [f"{i:04}" for i in range(len(scans))]
    dealt = assign_folds(names, [int(s.labels.sum()) for s in scans], [len(s.labels) for s in scans], seed)
    labels, scores = [], []
    for fold in sorted(set(dealt)):
        train, test = ([i for i, f in enumerate(dealt) if (f == fold) is held] for held in (False, True))
        inputs = prepared(np.concatenate([x[i] for i in train]), np.concatenate([x[i] for i in test]))
        fit = logistic(inputs[0], np.concatenate([scans[i].labels for i in train]).astype(np.float64), penalty)
        score = fit(inputs[1])
        labels.append(np.concatenate([scans[i].labels for i in test]))
        scores.append(score)
    truth, found = np.concatenate(labels), np.concatenate(scores)
    return count(truth, found, best_threshold(truth, found)).f1, average_precision(truth, found)


def decibels(ratio: Floats | float) -> Floats:
    """Of amplitudes."""
    return np.asarray(20 * np.log10(np.maximum(ratio, 1e-30)))


def amplitudes(scans: Sequence[Scan]) -> dict[str, str]:
    """Lines on amplitudes: median over the scans, with the tenth and ninetieth percentile."""
    with_objects = [s for s in scans if s.labels.any()]
    parts: dict[str, list[float]] = {
        "direct wave over target, dB": [],
        "early over late residual, dB": [],
        "floor under target, dB": [],
    }
    for scan in with_objects:
        residual = scan.raw - scan.raw.mean(0)
        late = residual[:, int(np.argmax(np.abs(scan.raw.mean(0)))) + round(2e-9 / scan.dt) :]
        early = residual[:, : residual.shape[1] - late.shape[1]]
        target = np.abs(late[scan.labels == 1]).max()
        parts["direct wave over target, dB"].append(float(decibels(np.abs(scan.raw).max() / target)))
        parts["early over late residual, dB"].append(float(decibels(np.sqrt((early**2).sum() / (late**2).sum()))))
        parts["floor under target, dB"].append(float(decibels(target / np.median(np.abs(late)))))
    energy = [float((s.traces[s.labels == 1] ** 2).mean() / (s.traces**2).mean()) for s in with_objects]
    parts["energy of a positive trace over the mean"] = energy
    kept = [float(decibels(np.sqrt(((s.raw - s.raw.mean(0)) ** 2).mean() / (s.raw**2).mean()))) for s in scans]
    parts["what the mean trace leaves, dB"] = kept
    rms = {
        "rms over the scans, dB, spread": [s.raw for s in scans],
        "the same without mean trace": [s.raw - s.raw.mean(0) for s in scans],
    }
    lines = {name: "{1:.1f} ({0:.1f} to {2:.1f})".format(*np.quantile(v, (0.1, 0.5, 0.9))) for name, v in parts.items()}
    for name, values in rms.items():
        lines[name] = f"{np.std([decibels(np.sqrt((v**2).mean())) for v in values]):.1f}"
    return lines


def contents(sets: Sequence[Sequence[Scan]]) -> dict[str, str]:
    """Lines on what is in sets of one size."""
    scans = [scan for some in sets for scan in some]
    labels = np.concatenate([s.labels for s in scans])
    runs = [int(np.count_nonzero(np.diff(s.labels, prepend=0) == 1)) for s in scans]
    return {
        "scans": f"{len(sets)} x {len(sets[0])}" if len(sets) > 1 else f"{len(scans)}",
        "traces": f"{labels.size} ({min(len(s.labels) for s in scans)} to {max(len(s.labels) for s in scans)})",
        "positive traces": f"{labels.mean():.1%}",
        "scans without, with two runs": f"{runs.count(0) / len(runs):.0%}, {sum(r > 1 for r in runs) / len(runs):.0%}",
    }


def side(sets: Sequence[Sequence[Scan]], deals: int) -> dict[str, str]:
    """A column of the table: probes as means over sets and deals, the rest over all scans."""
    column = contents(sets)
    for probe in PROBES:
        found = np.array([probed(scans, probe, seed) for scans in sets for seed in range(deals)])
        f1, precision = (f"{mean:.2f}±{spread:.2f}" for mean, spread in zip(found.mean(0), found.std(0), strict=True))
        column[probe] = f"F1 {f1}, AP {precision}"
    return column | amplitudes([scan for scans in sets for scan in scans])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="PATH", help="folder of scans to compare with")
    parser.add_argument("--deals", type=int, default=2, help="of folds (default: %(default)s)")
    parser.add_argument("--sets", type=int, default=6, help="synthetic sets of as many scans (default: %(default)s)")
    args = parser.parse_args()
    columns = {}
    if args.data is not None:
        data = access(args.data, scratch() / "hardness").open(AS_RECORDED)
        columns[str(args.data.name)] = side([scans_of(data)], args.deals)
        few = [replace(EMBEDDED, scans=data.n_scans, seed=seed) for seed in range(1, args.sets + 1)]
        columns["synthetic, as many"] = side([scans_of(synthesize(one)) for one in few], args.deals)
    columns["embedded"] = side([scans_of(synthesize(EMBEDDED))], args.deals)
    print(f"{'':42}" + "".join(f"{name:>28}" for name in columns))
    for name in next(iter(columns.values())):
        print(f"{name:42}" + "".join(f"{column[name]:>28}" for column in columns.values()))


if __name__ == "__main__":
    main()
