"""The leaderboard: trials by validation F1, folded from the journal's records.

A trial's *chosen epoch* is the one where average precision on the tune split is highest; that epoch's validation F1
ranks it, so that nothing is chosen on the split that judges it. NaN is worst, a failed trial is never ranked.

Where scans are few, a trial goes on to other folds after the first (:mod:`tunelab.crossfit`). Its epochs are still
those of the first fold; what ranks it are the counts pooled over all folds, once it has them. A trial that was stopped
on the first fold never has them: it ranks below those that do, whatever its F1 over that one fold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from tunelab.errors import StateError
from tunelab.fidelity import FULL, At, lessened
from tunelab.fidelity import checked as fidelity_in
from tunelab.metrics import Counts

_NAME = re.compile(r"[0-9]{1,12}")
_MOST = 10**15
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
            metrics=_defined(record["metrics"]),
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

    @property
    def configuration(self) -> str:
        """The first trial of these params; those of higher fidelity are more trials of it."""
        return self.of or self.trial

    @property
    def unfinished(self) -> bool:
        """Whether it is to go on: it runs, or it was interrupted."""
        return self.status in ("running", "interrupted")

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


class Leaderboard:
    """The trials of a run. Feed it records, oldest first; it keeps no file open."""

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self.trials: dict[str, Trial] = {}
        for record in records:
            self.apply(record)

    def apply(self, record: Mapping[str, Any]) -> None:
        """Take in one record of the journal; records of other kinds pass by.

        Raises:
            StateError: a record whose digest is right and whose content is not that of its kind.
        """
        try:
            self._apply(record)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            place = f"journal: record {record.get('seq')} ({record.get('kind')})"
            said = f"{type(error).__name__} {error!s:.200}"
            raise StateError(f"{place}: {said}; restore the journal from a copy") from error

    def _apply(self, record: Mapping[str, Any]) -> None:
        if record["kind"] == "suggestion":
            if not _NAME.fullmatch(record["trial"]):  # it becomes part of paths
                raise ValueError(f"{record['trial']!r} is no trial")
            fields = {key: record[key] for key in ("trial", "name", "family", "params", "point")}
            if not all(isinstance(record[key], str) for key in ("name", "family")):
                raise TypeError("name or family is no text")
            if not all(isinstance(record[key], Mapping) for key in ("params", "point")):
                raise TypeError("params or point is no mapping")
            of, fidelity = record.get("of", ""), fidelity_in(record.get("fidelity", FULL))  # older journals lack them
            if of and self.trials[of].of:
                raise ValueError(f"{of!r} is of another trial")
            self.trials[record["trial"]] = Trial(**fields, seed=record.get("seed", 0), fidelity=fidelity, of=of)
        elif record["kind"] == "result":
            trial = self.trials[record["trial"]]
            trial.epochs = _gone_on(trial.epochs, record)
            trial.folds, trial.pooled = {}, None  # begun anew after a restart: what later folds said is told again
            trial.parameters = _whole(record["parameters"])
        elif record["kind"] == "fold":
            trial, fold = self.trials[record["trial"]], record["fold"]
            trial.folds = {k: epochs for k, epochs in trial.folds.items() if k <= fold}
            trial.folds[fold] = _gone_on(trial.folds.get(fold, []), record)
            trial.pooled = None
        elif record["kind"] == "pooled":
            self.trials[record["trial"]].pooled = Pooled.of_record(record)
        elif record["kind"] == "end":
            trial = self.trials[record["trial"]]
            if record["status"] not in get_args(Status):
                raise ValueError(f"{record['status']!r:.40} is no status")
            trial.status, trial.cause = record["status"], str(record["cause"] or "")
        elif record["kind"] == "wait":
            self.trials[record["trial"]].status = "waiting"
        elif record["kind"] == "resumed":
            trial = self.trials[record["trial"]]
            trial.status, trial.cause = "running", ""
        elif record["kind"] == "failure":
            trial = self.trials[record["trial"]]
            trial.failures += bool(record["counts"])
            trial.loss = str(record["cause"])

    def snapshot(self) -> list[Trial]:
        """The trials there are now, oldest first; safe while another thread adds one."""
        return list(self.trials.values())

    def ranked(self) -> list[Trial]:
        """Trials with a chosen epoch, best first, failed ones left out.

        Those trained in full before those at a lower fidelity, higher ones first, whatever they came to: values of two
        fidelities cannot be compared. Then those judged on all folds before those judged on the first alone, as far as
        their F1 is defined; then by validation F1; equal ones by average precision on the tune split, then the smaller
        model, then the older.
        """
        there = [t for t in self.snapshot() if t.chosen and t.status != "failed"]
        return sorted(there, key=_order)  # stable: equal ones stay in the journal's order

    @property
    def best(self) -> Trial | None:
        """The first of :meth:`ranked` whose validation F1 is defined; never one at a lower fidelity."""
        ranked = self.ranked()
        return ranked[0] if ranked and not math.isnan(ranked[0].val_f1) and not ranked[0].fidelity else None

    @property
    def configurations(self) -> list[Trial]:
        """The first trial of each params."""
        return [trial for trial in self.snapshot() if not trial.of]

    @property
    def ended(self) -> int:
        """How many trials are over, or wait; those that go on at a higher fidelity are not counted once more."""
        return sum(t.status != "running" for t in self.configurations)


def _order(trial: Trial) -> tuple[float, bool, bool, float, float, int]:
    f1, dense = trial.val_f1, trial.measured("tune_average_precision")
    worst = lessened(trial.fidelity), math.isnan(f1), trial.pooled is None
    return *worst, -_worst_if_nan(f1), -_worst_if_nan(dense), trial.parameters


def _gone_on(epochs: list[Epoch], record: Mapping[str, Any]) -> list[Epoch]:
    """A trial's epochs with one more; those from its number on are told again after a restart."""
    newest = Epoch(
        epoch=_whole(record["epoch"]),
        seconds=float(record["seconds"]),
        metrics=_defined(record["metrics"]),
        weights=record.get("weights", ""),
    )
    return [*(e for e in epochs if e.epoch < newest.epoch), newest]


def _whole(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < _MOST:
        raise ValueError(f"{value!r:.40} is no number of epochs or parameters")
    return value


def _defined(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: math.nan if value is None else float(value) for name, value in metrics.items()}


def _dense(epoch: Epoch) -> float:
    return _worst_if_nan(epoch["tune_average_precision"])


def _worst_if_nan(value: float) -> float:
    return -math.inf if math.isnan(value) else value
