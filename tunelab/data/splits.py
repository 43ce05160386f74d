"""Dealing scans to the four splits, or to folds: whole groups, positives everywhere, the same for a seed in any order.

Few scans make thin splits, which cannot rank models. They are dealt to folds and a test part instead; what is then
trained and judged on which fold is said in :mod:`tunelab.crossfit`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunelab.data.dataset import SPLITS
from tunelab.errors import DataError

FRACTIONS = {"train": 0.55, "tune": 0.15, "validation": 0.15, "test": 0.15}
"""Share of the traces, and of the positive ones, that each split is dealt."""

NO_TEST = "no positive trace in test: F1 of the finalists is undefined there"
"""The note on a data set whose positives did not suffice for the test split."""

FEW_SCANS = 60
"""Scans below which a split ranks models poorly: below it scans are dealt to folds, and thin splits are warned of."""
FOLDS = 5
"""Folds that few scans are dealt to."""
LEAST_FOLDS = 3
"""One to validate on, one to tune on, one to train on."""

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
    names, member, positive, length = _by_group(groups, positives, lengths)
    if len(names) < len(SPLITS):
        raise DataError(
            f"{len(groups)} scans in {len(names)} groups, but the {len(SPLITS)} splits {', '.join(SPLITS)} need "
            f"one each: {len(SPLITS)} - {len(names)} = {len(SPLITS) - len(names)} missing; {_REMEDY}"
        )
    dealt = _most_even(positive, length, [FRACTIONS[name] for name in SPLITS], seed)
    return tuple(SPLITS[dealt[i]] for i in member)


def assign_folds(
    groups: Sequence[str], positives: Sequence[int], lengths: Sequence[int], seed: int = 0
) -> tuple[int, ...]:
    """The fold of each scan, or -1 for one of the test part.

    Dealt as by :func:`assign_splits`: the test part has its share as there, the folds have equal shares of the rest.
    There are :data:`FOLDS` of them, or as many as leave a group with positives for each and one for the test part.
    Three such groups make three folds, and a test part without positives, as where three are dealt to four splits.

    Args:
        groups: the group of each scan; scans of one group stay together. A scan of its own is a group of one.
        positives: positive traces of each scan.
        lengths: traces of each scan, at least 1.
        seed: fixes the deal.

    Returns:
        From -1 to the number of folds less one for each scan, in the order given; every fold holds positives.

    Raises:
        DataError: for fewer groups, or groups with positives, than that takes.
    """
    names, member, positive, length = _by_group(groups, positives, lengths)
    if len(names) <= LEAST_FOLDS:
        raise DataError(
            f"{len(groups)} scans in {len(names)} groups, but {LEAST_FOLDS} folds and a test part need one each: "
            f"{LEAST_FOLDS + 1} - {len(names)} = {LEAST_FOLDS + 1 - len(names)} missing; {_REMEDY}"
        )
    holding = int(np.count_nonzero(positive))
    if holding < LEAST_FOLDS:
        raise DataError(
            f"{holding} of {len(names)} groups of scans hold positive traces, and {LEAST_FOLDS} folds need one each: "
            f"{LEAST_FOLDS} - {holding} = {LEAST_FOLDS - holding} missing; add scans with positives"
        )
    folds = max(LEAST_FOLDS, min(FOLDS, holding - 1))
    test = FRACTIONS["test"]
    dealt = _most_even(positive, length, [(1 - test) / folds] * folds + [test], seed)
    return tuple(-1 if dealt[i] == folds else dealt[i] for i in member)


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


_REMEDY = "add scans, or give scans that were recorded independently different groups (scans.csv: group)"


def _by_group(
    groups: Sequence[str], positives: Sequence[int], lengths: Sequence[int]
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """The groups by name; the index of each scan's group; positives and length of each group."""
    if not len(groups) == len(positives) == len(lengths):
        raise ValueError(f"{len(groups)} groups, {len(positives)} positives, {len(lengths)} lengths: one each a scan")
    names = sorted(set(groups))
    index = {name: i for i, name in enumerate(names)}
    member = np.array([index[g] for g in groups], dtype=np.intp)
    positive = np.bincount(member, weights=np.asarray(positives, dtype=np.float64), minlength=len(names))
    length = np.bincount(member, weights=np.asarray(lengths, dtype=np.float64), minlength=len(names))
    return names, member, positive, length


def _most_even(positive: np.ndarray, length: np.ndarray, shares: Sequence[float], seed: int) -> list[int]:
    """The place of each group, by number; ``shares`` has one for each place."""
    rng = np.random.default_rng(seed)
    deals = [_deal(positive, length, shares, rng) for _ in range(max(1, min(_DEALS, _WORK // positive.size)))]
    return min(deals, key=lambda deal: _unevenness(deal, positive, length, shares))  # the first of equals


def _deal(positive: np.ndarray, length: np.ndarray, shares: Sequence[float], rng: np.random.Generator) -> list[int]:
    order = rng.permutation(positive.size)
    filled, dealt = [0.0] * len(shares), [0.0] * len(shares)
    place = [0] * positive.size
    for i in (*order[positive[order] > 0], *order[positive[order] == 0]):
        by = filled if positive[i] > 0 else dealt
        s = min(range(len(shares)), key=lambda k: by[k] / shares[k])
        place[i] = s
        filled[s] += float(positive[i])
        dealt[s] += float(length[i])
    return place


def _unevenness(deal: list[int], positive: np.ndarray, length: np.ndarray, shares: Sequence[float]) -> float:
    wanted = np.asarray(shares)
    total = 0.0
    for weight in (positive, length, np.ones(positive.size)):
        if weight.sum() > 0:
            got = np.bincount(deal, weights=weight, minlength=len(shares)) / weight.sum()
            total += float(np.sum((got / wanted - 1) ** 2))
    return total
