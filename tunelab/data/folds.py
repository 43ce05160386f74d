"""What a deal to folds comes to: the splits of one fold, and its words. Scans and samples are not known here."""

from __future__ import annotations

from collections.abc import Sequence


def splits_of_fold(folds: Sequence[int], k: int) -> tuple[str, ...]:
    """The split of each scan as of one fold: that one is validation, the next one tune, the others train.

    Args:
        folds: the fold of each scan, from 0 without a gap, and -1 for test scans; three at least.
        k: the fold.

    Raises:
        ValueError: for fewer folds, a gap, or a fold that is not there.
    """
    count = max(folds, default=-1) + 1
    if count < 3 or set(folds) - {-1} != set(range(count)):
        raise ValueError(f"folds 0 to {count - 1}: three at least, and none without a scan")
    if not 0 <= k < count:
        raise ValueError(f"fold {k}: not from 0 to {count - 1}")
    names = {-1: "test", k: "validation", (k + 1) % count: "tune"}
    return tuple(names.get(fold, "train") for fold in folds)


def places_of(splits: Sequence[str], folds: Sequence[int]) -> tuple[str, ...]:
    """In words: the fold of each scan where there are folds, ``test`` for -1, else its split."""
    return tuple("test" if fold < 0 else f"fold {fold}" for fold in folds) or tuple(splits)
