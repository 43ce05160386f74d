"""What the journal tells of one trial: its epochs, the chosen one, what ranks it, and its weights.

A trial's *chosen epoch* is the one where average precision on the tune split is highest; that epoch's validation F1
ranks it, so that nothing is chosen on the split that judges it.

Where scans are few, a trial goes on to other folds after the first (:mod:`tunelab.crossfit`). Its epochs are still
those of the first fold; what ranks it are the counts pooled over all folds, once it has them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tunelab.fidelity import At
from tunelab.metrics import Counts

Status = Literal["running", "waiting", "finished", "stopped", "failed", "interrupted"]
"""waiting: at a rung, until others turn out worse; finished: all epochs or shards, or its own patience; stopped: by the
scheduler; interrupted: by user or budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """What one epoch of a trial reported."""

    epoch: int
    """From 1."""
    seconds: float
    """Since the trial began, epochs and their evaluation only."""
    metrics: Mapping[str, float]
    """By name; undefined values are NaN."""
    weights: str = ""
    """SHA-256 of the stored weights when this epoch was the best so far; empty otherwise."""

    def __getitem__(self, name: str) -> float:
        """The metric of that name, NaN when it was not reported."""
        return self.metrics.get(name, math.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """What the models of all folds together came to, each on the fold that it never saw."""

    metrics: Mapping[str, float]
    """By the names of an epoch's; undefined values are NaN."""
    thresholds: tuple[float, ...]
    """Of each fold, chosen on the others."""
    scans: tuple[str, ...]
    """Every scan but those of test, in order."""
    counts: tuple[Counts, ...]
    """Of each scan."""

    def record(self) -> dict[str, Any]:
        """As plain JSON types but for NaN."""
        return {
            "metrics": dict(self.metrics),
            "thresholds": list(self.thresholds),
            "scans": {scan: [c.tp, c.fp, c.fn, c.tn] for scan, c in zip(self.scans, self.counts, strict=True)},
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Pooled:
        """What :meth:`record` gave, also from a journal, where NaN is None."""
        return cls(
            metrics=defined(record["metrics"]),
            thresholds=tuple(record["thresholds"]),
            scans=tuple(record["scans"]),
            counts=tuple(Counts(*counts) for counts in record["scans"].values()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The stored weights of a chosen epoch."""

    file: str
    """Name in the folder of weights."""
    fold: int
    digest: str
    """SHA-256 of the file."""
    threshold: float
    """Where this model's "positive" begins."""


@dataclass(slots=True, kw_only=True)
class Trial:
    """One params under training, as far as the journal tells."""

    trial: str
    name: str
    """Of a configuration from ``start_from``; empty for a proposed one."""
    family: str
    params: Mapping[str, Any]
    point: Mapping[str, Any]
    """Dimension -> value, only those that exist for this family."""
    seed: int = 0
    """Of its weights, dropout and order of scans."""
    fidelity: At = field(default_factory=dict)
    """What it was trained on less than all of; empty: trained in full."""
    of: str = ""
    """The trial for which its params were proposed, at the lowest fidelity; empty: itself."""
    status: Status = "running"
    cause: str = ""
    """Why it failed or was stopped."""
    parameters: int = 0
    """Of the model, all of them."""
    epochs: list[Epoch] = field(default_factory=list)
    """Where there are folds, those of the first."""
    folds: dict[int, list[Epoch]] = field(default_factory=dict)
    """The epochs of each later fold, by its number."""
    pooled: Pooled | None = None
    """Once all folds are done."""
    failures: int = 0
    """How often it lost its process by its own doing; lost nodes and killed drivers are not counted."""
    loss: str = ""
    """Why it lost its process last."""
    placed: bool = False
    """Whether it had a place on a machine."""

    @property
    def configuration(self) -> str:
        """The first trial of these params; those of higher fidelity are more trials of it."""
        return self.of or self.trial

    @property
    def unfinished(self) -> bool:
        """Whether it is to go on: it runs, or it was interrupted."""
        return self.status in ("running", "interrupted")

    @property
    def state(self) -> str:
        """Its status, for people: one that was handed out and waits for its first place is yet to begin."""
        return "to begin" if self.status == "running" and not (self.placed or self.epochs) else self.status

    @property
    def over(self) -> bool:
        """Whether it never goes on; one that waits may."""
        return not self.unfinished and self.status != "waiting"

    def knows(self, fold: int, epoch: int) -> bool:
        """Whether the result of this epoch has been told."""
        return any(e.epoch == epoch for e in (self.folds.get(fold, ()) if fold else self.epochs))

    @property
    def chosen(self) -> Epoch | None:
        """The first epoch with the highest average precision on the tune split; None before there is one."""
        return self.chosen_of(0)

    def chosen_of(self, fold: int) -> Epoch | None:
        """The chosen epoch of a fold; None before there is one."""
        return max(self.folds.get(fold, ()) if fold else self.epochs, key=_dense, default=None)

    def measured(self, name: str) -> float:
        """The metric of that name that ranks and describes the trial: pooled, or else at the chosen epoch; or NaN."""
        if self.pooled is not None:
            return self.pooled.metrics.get(name, math.nan)
        return self.chosen[name] if self.chosen else math.nan

    def decided_by(self, name: str) -> float:
        """The metric of that name at the chosen epoch of the first fold, which decisions go by; or NaN.

        So that the values of all trials can be compared, of those too that were stopped on the first fold.
        """
        return self.chosen[name] if self.chosen else math.nan

    @property
    def predict_ms(self) -> float:
        """Milliseconds to answer a scan, the median over all epochs of all folds; NaN before there is one.

        Of one epoch the number says little: other trials share the machine.
        """
        told = [epoch["predict_ms"] for epochs in (self.epochs, *self.folds.values()) for epoch in epochs]
        return statistics.median([value for value in told if not math.isnan(value)] or [math.nan])

    @property
    def val_f1(self) -> float:
        """Validation F1, pooled over the folds or at the chosen epoch; NaN before there is one."""
        return self.measured("val_f1")

    def stored(self) -> list[Stored]:
        """The weights that answer for the trial: of every fold when all are done, else of the first alone."""
        thresholds = (self.measured("threshold"),) if self.pooled is None else self.pooled.thresholds
        return [
            Stored(
                file=weights_file(self.trial, fold, chosen.epoch if chosen else 0),
                fold=fold,
                digest=chosen.weights if chosen else "",
                threshold=threshold,
            )
            for fold, threshold in enumerate(thresholds)
            for chosen in [self.chosen_of(fold)]
        ]


def weights_file(trial: str, fold: int, epoch: int) -> str:
    """The name under which an epoch's weights are stored: ``0001-e0003.npz``, of later folds ``0001-fold1-e0003.npz``.

    It tells the epoch, so that no file is ever overwritten by another epoch's while the journal still names it.
    """
    return f"{trial}-fold{fold}-e{epoch:04d}.npz" if fold else f"{trial}-e{epoch:04d}.npz"


def defined(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as a journal has them, NaN where it has None."""
    return {name: math.nan if value is None else float(value) for name, value in metrics.items()}


def worst_if_nan(value: float) -> float:
    """A number to compare by, where higher is better."""
    return -math.inf if math.isnan(value) else value


def _dense(epoch: Epoch) -> float:
    return worst_if_nan(epoch["tune_average_precision"])
