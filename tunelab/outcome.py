"""What an epoch came to, of one training and of a trial over all folds. Who trains, and how, is not known here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunelab.ranking import Pooled


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an epoch of one training came to."""

    epoch: int
    """From 1; of an incremental training, how many shards it has been over."""
    seconds: float
    """Since the training began, epochs with their evaluation."""
    metrics: Mapping[str, float]
    improved: bool
    """Whether this is now the chosen epoch, the one with the highest average precision on the tune split."""
    ended: str
    """Why the training is over, or empty: "epochs" (as many as it may have), "patience", "shards" (an incremental
    training has been over the last one)."""
    failed: str
    """Why no more epochs are worth it (the loss is NaN), or empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What an epoch of one fold came to."""

    fold: int
    """From 0; always 0 where there are no folds."""
    outcome: Outcome
    """Of the fold's training; why that one ended."""
    ended: str
    """Why the whole trial is over, or empty: as the training says, or "folds" when all are done."""
    failed: str
    """Why no more steps are worth it, or empty."""
    pooled: Pooled | None
    """With the last step of the last fold."""
