"""The leaderboard: trials by validation F1, folded from the journal's records.

A trial's *chosen epoch* is the one where average precision on the tune split is highest; that epoch's validation F1
ranks it, so that nothing is chosen on the split that judges it. NaN is worst, a failed trial is never ranked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["running", "finished", "stopped", "failed", "interrupted"]
"""finished: all epochs or its own patience; stopped: by the scheduler; interrupted: by the user or the budget."""


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
    status: Status = "running"
    cause: str = ""
    """Why it failed or was stopped."""
    parameters: int = 0
    """Of the model, all of them."""
    epochs: list[Epoch] = field(default_factory=list)

    @property
    def chosen(self) -> Epoch | None:
        """The first epoch with the highest average precision on the tune split; None before there is one."""
        return max(self.epochs, key=_dense, default=None)

    @property
    def val_f1(self) -> float:
        """Validation F1 at the chosen epoch; NaN before there is one."""
        return self.chosen["val_f1"] if self.chosen else math.nan


class Leaderboard:
    """The trials of a run. Feed it records, oldest first; it keeps no file open."""

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self.trials: dict[str, Trial] = {}
        for record in records:
            self.apply(record)

    def apply(self, record: Mapping[str, Any]) -> None:
        """Take in one record of the journal; records of other kinds pass by."""
        if record["kind"] == "suggestion":
            fields = {key: record[key] for key in ("trial", "name", "family", "params", "point")}
            self.trials[record["trial"]] = Trial(**fields, seed=record.get("seed", 0))
        elif record["kind"] == "result":
            trial = self.trials[record["trial"]]
            metrics = {name: math.nan if value is None else float(value) for name, value in record["metrics"].items()}
            trial.epochs = [e for e in trial.epochs if e.epoch < record["epoch"]]
            weights = record.get("weights", "")
            trial.epochs.append(
                Epoch(epoch=record["epoch"], seconds=record["seconds"], metrics=metrics, weights=weights)
            )
            trial.parameters = record["parameters"]
        elif record["kind"] == "end":
            trial = self.trials[record["trial"]]
            trial.status, trial.cause = record["status"], record["cause"] or ""

    def snapshot(self) -> list[Trial]:
        """The trials there are now, oldest first; safe while another thread adds one."""
        return list(self.trials.values())

    def ranked(self) -> list[Trial]:
        """Trials with a chosen epoch, best first, failed ones left out.

        By validation F1; equal ones by average precision on the tune split, then the smaller model, then the older.
        """
        there = [t for t in self.snapshot() if t.chosen and t.status != "failed"]
        return sorted(there, key=_order)  # stable: equal ones stay in the journal's order

    @property
    def best(self) -> Trial | None:
        """The first of :meth:`ranked` whose validation F1 is defined."""
        ranked = self.ranked()
        return ranked[0] if ranked and not math.isnan(ranked[0].val_f1) else None

    @property
    def ended(self) -> int:
        """How many trials are over."""
        return sum(t.status != "running" for t in self.snapshot())


def _order(trial: Trial) -> tuple[float, float, int]:
    chosen = trial.chosen
    dense = _dense(chosen) if chosen else -math.inf
    return -_worst_if_nan(trial.val_f1), -dense, trial.parameters


def _dense(epoch: Epoch) -> float:
    return _worst_if_nan(epoch["tune_average_precision"])


def _worst_if_nan(value: float) -> float:
    return -math.inf if math.isnan(value) else value
