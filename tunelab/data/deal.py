"""Which split, or which fold, each scan of a data set gets: the one given, else one that is dealt with a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunelab.data.folds import places_of
from tunelab.data.splits import FEW_SCANS, NO_TEST, assign_folds, assign_splits, without_positives
from tunelab.errors import DataError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """What each scan got."""

    splits: tuple[str, ...]
    """One of :data:`~tunelab.data.dataset.SPLITS` for each scan; empty where folds were dealt."""
    folds: tuple[int, ...]
    """Of each scan, -1 for the test part; empty where splits were given or dealt."""
    notes: tuple[str, ...]

    @property
    def places(self) -> tuple[str, ...]:
        """Where each scan was dealt: ``train``, or ``fold 3``."""
        return places_of(self.splits, self.folds)


def deal(
    place: str,
    *,
    given: Sequence[str | None],
    groups: Sequence[str],
    positives: Sequence[int],
    lengths: Sequence[int],
    seed: int,
) -> Deal:
    """The splits that are given; else folds for fewer than :data:`~tunelab.data.splits.FEW_SCANS` scans, else splits.

    Args:
        place: where the scans come from, for messages.
        given: the split of each scan as its table has it: all of them, or none.
        groups: of each scan.
        positives: positive traces of each scan.
        lengths: traces of each scan.
        seed: fixes what is dealt.

    Raises:
        DataError: too few groups, or positives, for what is to be dealt or was given.
        UsageError: a seed below zero.
    """
    if seed < 0:
        raise UsageError(f"--seed: {seed} is less than zero")
    splits = [split for split in given if split is not None]
    try:
        if not splits and len(groups) < FEW_SCANS:
            folds = assign_folds(groups, positives, lengths, seed)
            without = not any(p for p, fold in zip(positives, folds, strict=True) if fold < 0)
            return Deal(splits=(), folds=folds, notes=(NO_TEST,) if without else ())
        splits = splits or list(assign_splits(groups, positives, lengths, seed))
        notes = (NO_TEST,) if without_positives(splits, groups, positives) else ()
    except DataError as error:
        raise DataError(f"{place}: {error}") from None
    return Deal(splits=tuple(splits), folds=(), notes=notes)
