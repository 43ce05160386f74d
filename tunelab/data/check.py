"""A data set in words: what is in it, what is odd about it, and what can be told apart with it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tunelab.data.dataset import SPLITS, Dataset
from tunelab.data.splits import FEW_SCANS
from tunelab.data.tables import first_five
from tunelab.metrics import always_positive_f1

SPREAD = 0.35
"""Standard deviation of F1 times the square root of the scans it is taken over: near 0.18 over 4 scans, 0.03 over
100, on scans of some fifty traces of which a tenth are positive."""


def describe(dataset: Dataset) -> str:
    """The text of ``tunelab data check``: size, splits, trivial baseline, oddities, notes and warnings.

    Args:
        dataset: as loaded or generated.

    Returns:
        Lines without a final line break.
    """
    return "\n".join(
        [
            f"data set      {dataset.source}",
            f"fingerprint   {dataset.fingerprint}",
            f"scans         {dataset.n_scans:,} of {_range(dataset.lengths)} traces, {dataset.n_traces:,} in all",
            f"samples       {dataset.n_samples:,} a trace, {_rate(dataset)}",
            f"memory        {dataset.n_traces * dataset.n_samples * 4 / 2**20:,.1f} MiB of float32",
            "",
            *_table(dataset),
            "",
            *_oddities(dataset),
            *(f"note: {note}" for note in dataset.notes),
            *_warnings(dataset),
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


def _table(dataset: Dataset) -> list[str]:
    lines = [f"{_word(dataset):<12}{'scans':>7}{'traces':>9}{'positive':>10}{'share':>8}{'always-positive F1':>20}"]
    where, positives = np.array(_places(dataset)), dataset.positives_of_scans()
    for name in [*map(str, range(dataset.n_folds)), "test"] if dataset.folds else SPLITS:
        there = where == name
        lines.append(_line(name, int(there.sum()), int(dataset.lengths[there].sum()), int(positives[there].sum())))
    return [*lines, _line("all", dataset.n_scans, dataset.n_traces, int(positives.sum()))]


def _word(dataset: Dataset) -> str:
    return "fold" if dataset.folds else "split"


def _places(dataset: Dataset) -> list[str]:
    """Where each scan was dealt: its split, or the number of its fold."""
    return ["test" if fold < 0 else str(fold) for fold in dataset.folds] or list(dataset.splits)


def _line(name: str, scans: int, traces: int, positive: int) -> str:
    share = f"{positive / traces:.1%}" if traces else "-"
    f1 = always_positive_f1(positive, traces)
    return f"{name:<12}{scans:>7,}{traces:>9,}{positive:>10,}{share:>8}{'-' if math.isnan(f1) else f'{f1:.3f}':>20}"


def _oddities(dataset: Dataset) -> list[str]:
    lines = []
    silent = {scan: int(n) for scan, n in zip(dataset.scans, dataset.silent, strict=True) if n}
    if silent:
        where = first_five(f"{scan}: {n}" for scan, n in silent.items())
        lines.append(f"silent traces: {sum(silent.values())} in {len(silent)} scans hold one value only ({where})")
    split = dict(zip(dataset.scans, _places(dataset), strict=True))
    same = identical_scans(dataset)
    across = [group for group in same if len({split[scan] for scan in group}) > 1]
    if across:
        where = first_five(" = ".join(f"{s} ({split[s]})" for s in group) for group in across)
        lines.append(
            f"warning: {len(across)} sets of identical scans lie in different {_word(dataset)}s ({where}); what is "
            "learned on one is tested on the other: give them one group (scans.csv)"
        )
    within = len(same) - len(across)
    if within:
        lines.append(f"{within} sets of identical scans, each within a {_word(dataset)}")
    return lines or ["no silent traces, no identical scans"]


def _warnings(dataset: Dataset) -> list[str]:
    judging = {"validation": dataset.judged().n_scans, "test": dataset.part("test").n_scans}
    if not dataset.folds:
        judging = {"tune": dataset.part("tune").n_scans, **judging}
    few = {s: n for s, n in judging.items() if n < FEW_SCANS}
    if not few:
        return []
    name = min(few, key=lambda s: (few[s], s != "validation"))
    n, deviation = few[name], f1_deviation(few[name])
    words = {"validation": f"validation, pooled over {dataset.n_folds} folds,"} if dataset.folds else {}
    sizes = ", ".join(f"{words.get(s, s)} has {k} scans" for s, k in few.items())
    return [
        f"warning: {sizes}, fewer than {FEW_SCANS}. F1 over {n} scans has a standard deviation near "
        f"{SPREAD} / sqrt({n}) = {deviation:.2f} (4 scans: {f1_deviation(4):.2f}, 100: {f1_deviation(100):.2f}); two "
        f"models on different scans must differ by 2 x sqrt(2) x {deviation:.2f} = {2 * math.sqrt(2) * deviation:.2f} "
        "to be told apart: add scans, or read the ranking with its interval"
    ]


def _range(lengths: Sequence[int] | np.ndarray) -> str:
    low, high = int(min(lengths)), int(max(lengths))
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _rate(dataset: Dataset) -> str:
    if dataset.dt is None:
        return "interval unknown or mixed"
    window = dataset.dt * (dataset.n_samples - 1)
    return f"{dataset.dt * 1e12:.4g} ps apart ({1e-9 / dataset.dt:.4g} GHz), {window * 1e9:.4g} ns"
