"""A data set in words: what is in it, what is odd about it, and what can be told apart with it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from tunelab.data.dataset import SPLITS, Dataset, Part
from tunelab.data.splits import FEW_SCANS
from tunelab.data.tables import first_five
from tunelab.files import size_text
from tunelab.metrics import always_positive_f1

SPREAD = 0.35
"""Standard deviation of F1 times the square root of the scans it is taken over: near 0.18 over 4 scans, 0.03 over
100, on scans of some fifty traces of which a tenth are positive."""

APART = 1_000
"""How many times larger or smaller than the median the largest sample of a scan may be before the scan is named.
Soils and depths alone make tens; a thousand is V/m beside mV/m, or counts beside volts."""

WIDTH = 100
"""Characters of a line, where words allow it."""
_LONGEST = 40  # characters of an id in a list of them


def describe(dataset: Dataset) -> str:
    """The text of ``tunelab data check``: size, amplitude, positives, splits or folds, oddities, notes and warnings.

    Reads every sample once, scan by scan in the order of the shards, and holds one scan at a time; so it may be
    larger than memory. A mapped shard is besides read by its holder, which verifies it at its first use in a process.
    All else is told from the labels and columns, which are in memory.

    Args:
        dataset: as loaded or generated.

    Returns:
        Lines without a final line break.
    """
    peaks = _peaks(dataset)
    facts = {
        "data set": dataset.source,
        "fingerprint": dataset.fingerprint,
        "scans": _scans(dataset),
        "traces": f"{dataset.n_traces:,} in all, {_spread(dataset.lengths, 'a scan')}",
        "samples": f"{dataset.n_samples:,} a trace, {_rate(dataset)}",
        "memory": f"{size_text(dataset.n_traces * dataset.n_samples * 4)} of float32",
        "shards": _shards(dataset),
        "amplitude": _amplitude(peaks),
        "positives": _positives(dataset),
    }
    if dataset.folds:
        facts["dealt"] = dataset.dealt
    remarks = [
        *(_oddities(dataset) or ["no silent traces, no identical scans"]),
        *_far_apart(dataset, peaks),
        *(f"note: {note}" for note in dataset.notes),
        *_warnings(dataset),
    ]
    return "\n".join(
        [
            *(f"{name:<14}{fact}" for name, fact in facts.items()),
            "",
            *_table(dataset),
            "",
            *map(_wrapped, remarks),
        ]
    )


def f1_deviation(scans: int) -> float:
    """Standard deviation to expect of F1 over this many scans, 0.35 / sqrt(scans); NaN for none."""
    return SPREAD / math.sqrt(scans) if scans else math.nan


def identical_scans(dataset: Dataset) -> list[tuple[str, ...]]:
    """Groups of scans whose samples are the same to the last bit."""
    same: dict[str, list[str]] = {}
    for scan, digest in zip(dataset.scans, dataset.digests, strict=True):
        same.setdefault(digest, []).append(scan)
    return [tuple(group) for group in same.values() if len(group) > 1]


def positive_runs(dataset: Dataset) -> NDArray[np.int64]:
    """Lengths of the runs of positive traces, none of which reaches from one scan into the next, shape (run,).

    A run is about what one object leaves; two objects close to each other may share one.
    """
    first = np.zeros(dataset.n_traces, dtype=bool)
    first[np.cumsum(dataset.lengths) - dataset.lengths] = True
    positive = dataset.labels == 1
    begins = positive & (first | ~np.roll(positive, 1))
    return np.bincount(np.cumsum(begins)[positive] - 1).astype(np.int64)


def _peaks(dataset: Dataset) -> NDArray[np.float64]:
    """The largest magnitude of each scan, shape (scan,)."""
    peaks = np.empty(dataset.n_scans)
    for scan in np.argsort(dataset.shards, kind="stable"):  # a shard's scans together, as they lie on disk
        traces = dataset.samples.read(int(scan))
        peaks[scan] = max(float(traces.max()), -float(traces.min()))  # abs() would make a copy of the scan
    return peaks


def _scans(dataset: Dataset) -> str:
    _, sizes = np.unique(dataset.groups, return_counts=True)
    if sizes.size == dataset.n_scans:
        return f"{dataset.n_scans:,}"
    return f"{dataset.n_scans:,} in {sizes.size:,} groups that are never parted, {_spread(sizes, 'a group')}"


def _shards(dataset: Dataset) -> str:
    _, member = np.unique(dataset.shards, return_inverse=True)
    traces = np.bincount(member, weights=dataset.lengths).astype(np.int64)
    return f"{traces.size:,} of {_spread(traces, 'traces')}"


def _amplitude(peaks: NDArray[np.float64]) -> str:
    heard = peaks[peaks > 0]
    if not heard.size:
        return "every sample is 0"
    return f"largest of a scan: median {np.median(heard):.3g}, from {heard.min():.3g} to {heard.max():.3g}"


def _positives(dataset: Dataset) -> str:
    runs, without = positive_runs(dataset), int(np.count_nonzero(dataset.positives_of_scans() == 0))
    lengths = f" of {_spread(runs, 'traces')}" if runs.size else ""
    return f"{runs.size:,} runs{lengths}; {without:,} of {dataset.n_scans:,} scans have none"


def _table(dataset: Dataset) -> list[str]:
    lines = [f"{_word(dataset):<12}{'scans':>7}{'traces':>12}{'positive':>11}{'share':>8}{'always-positive F1':>20}"]
    where, positives = np.array(dataset.places), dataset.positives_of_scans()
    for name in [*(f"fold {k}" for k in range(dataset.n_folds)), "test"] if dataset.folds else SPLITS:
        there = where == name
        lines.append(_line(name, int(there.sum()), int(dataset.lengths[there].sum()), int(positives[there].sum())))
    return [*lines, _line("all", dataset.n_scans, dataset.n_traces, int(positives.sum()))]


def _word(dataset: Dataset) -> str:
    return "fold" if dataset.folds else "split"


def _line(name: str, scans: int, traces: int, positive: int) -> str:
    share = f"{positive / traces:.1%}" if traces else "-"
    f1 = always_positive_f1(positive, traces)
    return f"{name:<12}{scans:>7,}{traces:>12,}{positive:>11,}{share:>8}{'-' if math.isnan(f1) else f'{f1:.3f}':>20}"


def _oddities(dataset: Dataset) -> list[str]:
    lines = []
    silent = {scan: int(n) for scan, n in zip(dataset.scans, dataset.silent, strict=True) if n}
    if silent:
        n = sum(silent.values())
        lines.append(f"silent traces: {n:,} in {len(silent):,} scans hold one value only ({_named(silent)})")
    place = dict(zip(dataset.scans, dataset.places, strict=True))
    same = identical_scans(dataset)
    across = [group for group in same if len({place[scan] for scan in group}) > 1]
    if across:
        where = first_five(_one_of_each(group, place) for group in across)
        lines.append(
            f"warning: {len(across):,} sets of identical scans lie in different {_word(dataset)}s ({where}); what is "
            "learned on one is tested on the other: give them one group (scans.csv)"
        )
    if within := len(same) - len(across):
        lines.append(f"{within:,} sets of identical scans, each within a {_word(dataset)}")
    return lines


def _one_of_each(group: Iterable[str], place: Mapping[str, str]) -> str:
    """One scan of each place, as a set of identical ones may have thousands."""
    first: dict[str, str] = {}
    for scan in group:
        first.setdefault(place[scan], scan)
    return " = ".join(f"{_cut(s)} ({f'fold {at}' if at.isdigit() else at})" for at, s in first.items())


def _far_apart(dataset: Dataset, peaks: NDArray[np.float64]) -> list[str]:
    heard = peaks > 0  # a silent scan is told of as such
    if not heard.any():
        return []
    median = float(np.median(peaks[heard]))
    far = heard & ((peaks > median * APART) | (peaks < median / APART))
    if not far.any():
        return []
    named = _named({dataset.scans[i]: f"{peaks[i]:.3g}" for i in np.flatnonzero(far)})
    return [
        f"warning: the largest sample of {int(far.sum()):,} scans is more than {APART:,} times larger or smaller than "
        f"the median of {median:.3g} ({named}); units or gains may be mixed up: bring all scans to one, or leave "
        "these out"
    ]


def _warnings(dataset: Dataset) -> list[str]:
    judging = {"validation": dataset.judged(), "test": dataset.part("test")}
    if not dataset.folds:
        judging = {"tune": dataset.part("tune"), **judging}
    few = {name: part for name, part in judging.items() if part.n_scans < FEW_SCANS}
    if not few:
        return []
    words = {"validation": f"validation, pooled over {dataset.n_folds} folds,"} if dataset.folds else {}
    sizes = ", ".join(f"{words.get(name, name)} has {part.n_scans} scans" for name, part in few.items())
    # models are told apart on validation; where that is large enough, the smallest of the others limits most
    name = "validation" if "validation" in few else min(few, key=lambda s: few[s].n_scans)
    n, deviation = few[name].n_scans, f1_deviation(few[name].n_scans)
    others = {f"{s}, {part.n_scans}": part.n_scans for s, part in few.items() if part.n_scans != n} | {"100": 100}
    compared = "; ".join(f"{scans} scans: {f1_deviation(k):.2f}" for scans, k in others.items())
    groups = _groups(dataset, few[name])
    bound = f", and more as these are {groups} independent groups only" if groups < n else ""
    return [
        f"warning: {sizes}, fewer than {FEW_SCANS}. F1 over {n} scans has a standard deviation near "
        f"{SPREAD} / sqrt({n}) = {deviation:.2f} ({compared}){bound}. Two models on different scans must differ by "
        f"2 x sqrt(2) x {deviation:.2f} = {2 * math.sqrt(2) * deviation:.2f} to be told apart: add scans, or read the "
        "ranking with its interval"
    ]


def _groups(dataset: Dataset, part: Part) -> int:
    return len({dataset.groups[scan] for scan in part.positions})


def _named(values: Mapping[str, object]) -> str:
    return first_five(f"{_cut(scan)}: {value}" for scan, value in values.items())


def _cut(scan: str) -> str:
    return scan if len(scan) <= _LONGEST else scan[: _LONGEST - 3] + "..."


def _wrapped(line: str) -> str:
    return textwrap.fill(line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _spread(sizes: NDArray[np.int64], word: str) -> str:
    """``5 traces``, or ``3 to 9 traces, median 5``."""
    low, high = int(sizes.min()), int(sizes.max())
    median = f"{np.median(sizes):,.1f}".removesuffix(".0")
    return f"{low:,} {word}" if low == high else f"{low:,} to {high:,} {word}, median {median}"


def _rate(dataset: Dataset) -> str:
    if dataset.dt is None:
        return "interval unknown or mixed"
    window = dataset.dt * (dataset.n_samples - 1)
    return f"{dataset.dt * 1e12:.4g} ps apart ({1e-9 / dataset.dt:.4g} GHz), {window * 1e9:.4g} ns"
