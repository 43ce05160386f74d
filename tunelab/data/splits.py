"""Dealing scans to the four splits: whole groups, positives everywhere, the same for a seed in any order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunelab.data.dataset import SPLITS
from tunelab.errors import DataError

FRACTIONS = {"train": 0.55, "tune": 0.15, "validation": 0.15, "test": 0.15}
"""Share of the traces, and of the positive ones, that each split is dealt."""

NO_TEST = "no positive trace in test: F1 of the finalists is undefined there"
"""The note on a data set whose positives did not suffice for the test split."""

_DEALS = 32  # several deals, of which the most even is kept: with tens of groups a single one is often lopsided
_WORK = 40_000  # groups times deals; thousands of groups are even after one deal


def assign_splits(
    groups: Sequence[str], positives: Sequence[int], lengths: Sequence[int], seed: int = 0
) -> tuple[str, ...]:
    """The split of each scan.

    Groups with positive traces are dealt first, each to the split that has the least of its share of positives;
    so the first four go to four splits. The others follow by number of traces.

    Args:
        groups: the group of each scan; scans of one group stay together. A scan of its own is a group of one.
        positives: positive traces of each scan.
        lengths: traces of each scan, at least 1.
        seed: fixes the deal.

    Returns:
        One of :data:`~tunelab.data.dataset.SPLITS` for each scan, in the order given.

    Raises:
        DataError: for fewer groups than splits.
    """
    if not len(groups) == len(positives) == len(lengths):
        raise ValueError(f"{len(groups)} groups, {len(positives)} positives, {len(lengths)} lengths: one each a scan")
    names = sorted(set(groups))
    if len(names) < len(SPLITS):
        raise DataError(
            f"{len(groups)} scans in {len(names)} groups, but the {len(SPLITS)} splits {', '.join(SPLITS)} need "
            f"one each: {len(SPLITS)} - {len(names)} = {len(SPLITS) - len(names)} missing; add scans, or give scans "
            "that were recorded independently different groups (scans.csv: group)"
        )
    index = {name: i for i, name in enumerate(names)}
    member = np.array([index[g] for g in groups])
    positive = np.bincount(member, weights=np.asarray(positives, dtype=np.float64), minlength=len(names))
    length = np.bincount(member, weights=np.asarray(lengths, dtype=np.float64), minlength=len(names))
    rng = np.random.default_rng(seed)
    deals = [_deal(positive, length, rng) for _ in range(max(1, min(_DEALS, _WORK // len(names))))]
    best = min(deals, key=lambda deal: _unevenness(deal, positive, length))  # the first of equals
    return tuple(SPLITS[best[i]] for i in member)


def without_positives(splits: Sequence[str], groups: Sequence[str], positives: Sequence[int]) -> list[str]:
    """The splits that hold no positive trace, of which only test is tolerable.

    Args:
        splits: the split of each scan.
        groups: the group of each scan.
        positives: positive traces of each scan.

    Raises:
        DataError: when train, tune or validation holds none: nothing could be learned, chosen or ranked.
    """
    without = [name for name in SPLITS if not any(p for p, s in zip(positives, splits, strict=True) if s == name)]
    if set(without) - {"test"}:
        holding = len({group for group, p in zip(groups, positives, strict=True) if p})
        raise DataError(
            f"no positive trace in {', '.join(without)}, so F1 is undefined there; {holding} groups of scans hold "
            f"positives and the {len(SPLITS)} splits need one each: add scans with positives, or deal them anew"
        )
    return without


def _deal(positive: np.ndarray, length: np.ndarray, rng: np.random.Generator) -> list[int]:
    shares = [FRACTIONS[s] for s in SPLITS]
    order = rng.permutation(positive.size)
    filled, dealt = [0.0] * len(SPLITS), [0.0] * len(SPLITS)
    split = [0] * positive.size
    for i in (*order[positive[order] > 0], *order[positive[order] == 0]):
        by = filled if positive[i] > 0 else dealt
        s = min(range(len(SPLITS)), key=lambda k: by[k] / shares[k])
        split[i] = s
        filled[s] += float(positive[i])
        dealt[s] += float(length[i])
    return split


def _unevenness(deal: list[int], positive: np.ndarray, length: np.ndarray) -> float:
    shares = np.array([FRACTIONS[s] for s in SPLITS])
    total = 0.0
    for weight in (positive, length, np.ones(positive.size)):
        if weight.sum() > 0:
            got = np.bincount(deal, weights=weight, minlength=len(SPLITS)) / weight.sum()
            total += float(np.sum((got / shares - 1) ** 2))
    return total
