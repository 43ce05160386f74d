"""The leaderboard: trials by validation F1, folded from the journal's records.

What ranks one trial is told by :mod:`tunelab.results`. NaN is worst, a failed trial is never ranked. A trial that was
stopped on the first of several folds ranks below those that were judged on all, whatever its F1 over that one fold.
One that breaks a constraint of the space ranks below all that keep them, and never leads.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from tunelab.aims import Aims
from tunelab.errors import StateError
from tunelab.fidelity import FULL, lessened
from tunelab.fidelity import checked as fidelity_in
from tunelab.results import Epoch, Pooled, Status, Stored, Trial, defined, weights_file, worst_if_nan

__all__ = ["Epoch", "Leaderboard", "Pooled", "Status", "Stored", "Trial", "weights_file"]

_NAME = re.compile(r"[0-9]{1,12}")
_MOST = 10**15


class Leaderboard:
    """The trials of a run. Feed it records, oldest first; it keeps no file open."""

    def __init__(self, records: Iterable[Mapping[str, Any]] = ()) -> None:
        self.trials: dict[str, Trial] = {}
        self.aims = Aims()
        """Those of the space, as it was begun with or changed to last."""
        self.tried = 0
        """How many configurations there are."""
        self._running: set[str] = set()
        """The first trials of params that run."""
        self._led = ""
        """The trial that :meth:`leads` said last led; most others are worse than that one."""
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
        if record["kind"] in ("run", "change"):
            self._aim(record.get("identity"))
        elif record["kind"] == "suggestion":
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
            self.tried += not of and record["trial"] not in self.trials
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
        elif record["kind"] == "start":
            self.trials[record["trial"]].placed = True
        elif record["kind"] == "wait":
            self.trials[record["trial"]].status = "waiting"
        elif record["kind"] == "resumed":
            trial = self.trials[record["trial"]]
            trial.status, trial.cause = "running", ""
        elif record["kind"] == "failure":
            trial = self.trials[record["trial"]]
            trial.failures += bool(record["counts"])
            trial.loss = str(record["cause"])
        if record["kind"] in ("suggestion", "resumed", "wait", "end") and not (one := self.trials[record["trial"]]).of:
            (self._running.add if one.status == "running" else self._running.discard)(one.trial)

    def snapshot(self) -> list[Trial]:
        """The trials there are now, oldest first; safe while another thread adds one."""
        return list(self.trials.values())

    def ranked(self, trials: Iterable[Trial] | None = None) -> list[Trial]:
        """Trials with a chosen epoch, best first, failed ones left out.

        Those trained in full before those at a lower fidelity, higher ones first, whatever they came to: values of two
        fidelities cannot be compared. Then those that keep all constraints before those that do not; those judged on
        all folds before those judged on the first alone, as far as their F1 is defined; then by validation F1; equal
        ones by average precision on the tune split, then the smaller model, then the older.

        Args:
            trials: some of them, the oldest first; None: all.
        """
        there = self._rankable(self.snapshot() if trials is None else trials)
        return sorted(there, key=self._order)  # stable: equal ones stay in the journal's order

    def front(self, trials: Sequence[Trial] | None = None) -> list[Trial]:
        """The trials that no other one beats in all objectives together, best validation F1 first.

        What was judged on all folds cannot be compared with what was judged on the first alone: once one is judged on
        all, so are those on the front.

        Args:
            trials: of those of :meth:`ranked`, in that order; None: all of them.
        """
        there = self.ranked() if trials is None else list(trials)
        there = [trial for trial in there if not trial.fidelity]
        whole = [trial for trial in there if trial.pooled is not None and not self.aims.broken(trial)]
        return self.aims.front(whole or there)

    @property
    def best(self) -> Trial | None:
        """The first of :meth:`ranked`, if its F1 is defined, it was trained in full and it keeps all constraints."""
        first = min(self._rankable(self.snapshot()), key=self._order, default=None)  # the older one of equal ones
        return first if first is not None and self._may_win(first) else None

    def leads(self, trial: Trial) -> bool:
        """Whether a trial is :attr:`best`, without a look at all others where one that led is better."""
        if not (self._rankable([trial]) and self._may_win(trial)):
            return False
        before = self.trials.get(self._led)
        if before is not None and before is not trial and self._rankable([before]):
            mine, theirs = self._order(trial), self._order(before)
            if theirs < mine:
                return False
        if self.best is not trial:
            return False
        self._led = trial.trial
        return True

    @property
    def configurations(self) -> list[Trial]:
        """The first trial of each params."""
        return [trial for trial in self.snapshot() if not trial.of]

    @property
    def ended(self) -> int:
        """How many trials are over, or wait; those that go on at a higher fidelity are not counted once more."""
        return self.tried - len(self._running)

    def _rankable(self, trials: Iterable[Trial]) -> list[Trial]:
        return [trial for trial in trials if trial.epochs and trial.status != "failed"]

    def _may_win(self, trial: Trial) -> bool:
        return not (math.isnan(trial.val_f1) or trial.fidelity or self.aims.broken(trial))

    def _order(self, trial: Trial) -> tuple[float, bool, bool, bool, float, float, int]:
        f1, dense = trial.val_f1, trial.measured("tune_average_precision")
        worst = lessened(trial.fidelity), bool(self.aims.broken(trial)), math.isnan(f1), trial.pooled is None
        return *worst, -worst_if_nan(f1), -worst_if_nan(dense), trial.parameters

    def _aim(self, identity: Any) -> None:
        """Take over the aims of a run's space; older journals name none, and :mod:`tunelab.difference` checks it."""
        space = identity.get("space") if isinstance(identity, Mapping) else None
        if isinstance(space, Mapping):
            self.aims = Aims.of(space)


def _gone_on(epochs: list[Epoch], record: Mapping[str, Any]) -> list[Epoch]:
    """A trial's epochs with one more; those from its number on are told again after a restart."""
    newest = Epoch(
        epoch=_whole(record["epoch"]),
        seconds=float(record["seconds"]),
        metrics=defined(record["metrics"]),
        weights=record.get("weights", ""),
    )
    return [*(e for e in epochs if e.epoch < newest.epoch), newest]


def _whole(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < _MOST:
        raise ValueError(f"{value!r:.40} is no number of epochs or parameters")
    return value
