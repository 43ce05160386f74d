"""What a sampler is told of the trials there are: one observation of each configuration, and no more than it can use.

A configuration that was trained at several fidelities is told as it was at the highest one where it came to a value;
while it is trained at the next one too, since what it came to stays true. Values of two fidelities are never compared:
one that has not come to the full one is *pruned*, at the step that it came to, as one that was stopped early is at its
epoch, and Optuna puts those first that came furthest. One that goes on is told as if it had been stopped now.

A proposal asks for them after each trial, of which there may be a hundred thousand: :class:`Observations` looks anew at
those alone that may have changed since it was asked last.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tunelab.fidelity import Fidelity
from tunelab.ranking import Trial

BEST = 40
"""Of the trials that a model is made from the best; the model's good ones are at most 25 (Optuna), or a tenth where
there are several aims."""
RUNNING = 100
"""Of the trials that run so many; the others are drawn from, as a model takes longer the more there are."""

Values = Callable[[Trial], Sequence[float]]
"""What a sampler is told of a trial, more is better; NaN where a value is undefined."""
Reached = Callable[[Trial], int | None]
"""How far a trial that is over came, by which pruned ones are ordered; None: to its end."""

_Rows = npt.NDArray[np.intp]


def reached_by(fidelity: Fidelity, floored: Callable[[Trial], bool]) -> Reached:
    """How far trials of a space came: the epoch of one that was stopped, or the step of one at a lower fidelity.

    One on the floor came nowhere, however long it was trained, so that it is ordered behind all that left it; those of
    a lower fidelity stand behind the others there too.

    Args:
        fidelity: of the space.
        floored: whether a trial is on the floor.
    """

    def reached(trial: Trial) -> int | None:
        step = fidelity.number(trial.fidelity) or 0
        if floored(trial):
            return step - len(fidelity.steps)
        if trial.fidelity:
            return 1 + step
        return None if trial.status == "finished" else trial.epochs[-1].epoch

    return reached


class Observations:
    """The trials that a model is made from; tell it of each that is new or changed.

    Args:
        values: as the sampler is told.
        reached: how far trials came.
    """

    def __init__(self, values: Values, reached: Reached) -> None:
        self._values = values
        self._reached = reached
        self._changed: dict[str, Trial] = {}
        """Those to be looked at; one that runs changes with each epoch, so that it stays here."""
        self._trials: list[list[Trial]] = []
        """A row for each configuration, in the order of their first trials."""
        self._standing: list[Trial] = []
        """The trial that stands for each."""
        self._row: dict[str, int] = {}
        self._table = _Table()

    def changed(self, trial: Trial) -> None:
        """A trial is new, or is no more what it was.

        Args:
            trial: as the board has it, which is read when it is asked for.
        """
        self._changed[trial.trial] = trial

    def kept(self, most: int) -> list[Trial]:
        """Those that a model is made from, the oldest first: what runs, the best, and an even draw of the rest.

        A model parts what it knows into few good ones and all others. The good ones stay as they are; of the others a
        part gives the same picture, and so it does of those that run, where they are more than :data:`RUNNING`.

        Args:
            most: how many, besides those that run.
        """
        for trial in self._changed.values():
            self._look(trial)
        self._changed = {name: trial for name, trial in self._changed.items() if trial.unfinished}
        over, running = self._table.rows(over=True), self._table.rows(over=False)
        if len(over) > most:
            best = self._best(over)
            rest = np.setdiff1d(over, best, assume_unique=True)
            over = np.concatenate([best, _drawn(rest, most - len(best))])
        rows = np.sort(np.concatenate([over, _drawn(running, RUNNING)]))
        return [self._standing[row] for row in rows]

    def _look(self, trial: Trial) -> None:
        """Take a trial over, and what its configuration came to by it."""
        row = self._row.setdefault(trial.configuration, len(self._trials))
        if row == len(self._trials):
            self._trials.append([])
            self._standing.append(trial)
        there = self._trials[row]
        for place, known in enumerate(there):
            if known.trial == trial.trial:
                there[place] = trial
                break
        else:
            there.append(trial)
        self._standing[row] = one = standing(there, self._values)
        told = [] if one.unfinished or one.status == "failed" else self._values(one)
        if any(map(math.isnan, told)):
            told = []
        far = self._reached(one) if told else None
        self._table.put(row, over=not one.unfinished, full=not one.fidelity, told=told, far=far)

    def _best(self, over: _Rows) -> _Rows:
        """The :data:`BEST` ones in the order of Optuna: complete ones first, then those that came furthest.

        With several aims, by the sum of their ranks in each; only those of full fidelity, where there are such.
        """
        table = self._table
        there = over[table.tells[over]]
        values = table.values[there]
        if values.shape[1] > 1:
            if (full := table.full[there]).any():
                there, values = there[full], values[full]
            ranks = np.argsort(np.argsort(-values, axis=0), axis=0).sum(axis=1)
            return there[np.argsort(ranks, kind="stable")[:BEST]]
        order = np.lexsort([-values[:, 0], -table.far[there]])  # equal ones stay in the order of their rows
        return there[order[:BEST]]


class _Table:
    """What the best are found by, a row for each configuration; it grows by doubling."""

    def __init__(self) -> None:
        self._used = 0
        self.over = np.zeros(0, bool)
        self.full = np.zeros(0, bool)
        """Whether it was trained in full fidelity."""
        self.tells = np.zeros(0, bool)
        """Whether it is over and came to a value."""
        self.far = np.zeros(0)
        """How far it came; infinite: to its end."""
        self.values = np.zeros((0, 1))

    def put(self, row: int, *, over: bool, full: bool, told: Sequence[float], far: int | None) -> None:
        """Set a row."""
        self._make_room(row, len(told))
        self.over[row], self.full[row], self.tells[row] = over, full, bool(told)
        self.far[row] = math.inf if far is None else far
        if told:
            self.values[row] = told

    def rows(self, *, over: bool) -> _Rows:
        """Those that are over, or that run."""
        return np.flatnonzero(self.over[: self._used] == over)

    def _make_room(self, row: int, width: int) -> None:
        self._used = max(self._used, row + 1)
        if width > self.values.shape[1]:  # several aims, of which the first trial tells; no row has told before it
            self.values = np.zeros((len(self.values), width))
        if row >= len(self.over):
            more = max(row + 1, 1024, 2 * len(self.over)) - len(self.over)
            for name in ("over", "full", "tells", "far"):
                column = getattr(self, name)
                setattr(self, name, np.concatenate([column, np.zeros(more, column.dtype)]))
            self.values = np.concatenate([self.values, np.zeros((more, self.values.shape[1]))])


def standing(trials: Sequence[Trial], values: Values) -> Trial:
    """The trial that stands for a configuration: the last one that came to a value, else one that may yet.

    Args:
        trials: of the configuration, oldest first; at least one.
        values: as the sampler is told.
    """
    stands = trials[0]
    for trial in trials[1:]:
        if _tells(trial, values) or not (_tells(stands, values) or stands.unfinished):
            stands = trial
    return stands


def _tells(trial: Trial, values: Values) -> bool:
    """Whether it came to a value."""
    return not trial.unfinished and trial.status != "failed" and not any(map(math.isnan, values(trial)))


def _drawn(rows: _Rows, most: int) -> _Rows:
    """So many of them, evenly; all where there are no more."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.intp)]
