"""Which files of trials are kept: weights of the best, checkpoints of those that can go on; nothing else grows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

from tunelab.ranking import Leaderboard, Trial
from tunelab.storage import FolderStore
from tunelab.trial import ahead, left_over

_OF_A_TRIAL = re.compile(r"(checkpoints|weights)/(?P<trial>[0-9]+)[-/]")
CHECKPOINTS, WEIGHTS = "checkpoints/", "weights/"


class Retention:
    """Removes files of trials that ended from a run's folder.

    A trial that is over has no use for its checkpoints. Weights are kept of the ``keep`` best of those that are over,
    and, where there are several objectives, of those that no other one that is over beats: more of them end, so that
    one that is neither never comes back. Those of a trial that can still go on are never touched.

    Args:
        folder: the run's.
        board: its leaderboard.
        keep: how many of the best, one at least.
    """

    def __init__(self, folder: Path, board: Leaderboard, keep: int) -> None:
        self._folder = folder
        self._store = FolderStore(folder)
        self._board = board
        self._keep = keep
        self._kept: set[str] | None = None
        """Trials whose weights are kept; None before all were looked at."""

    def told(self, kind: str, trial: Trial) -> None:
        """A listener of the recorder.

        Raises:
            StorageError: a file cannot be removed.
        """
        if kind != "end" or not trial.over:
            return
        if self._kept is None:
            best = before = self._best()
        else:  # a trial that is over stays what it is: one that others beat once is beaten for ever
            before = self._kept
            best = self._best(before | {trial.trial})
        for name in (before - best) | {trial.trial}:
            self._drop(self._board.trials[name], kept=name in best)
        self._kept = best

    def clean(self) -> list[str]:
        """Once, after a journal was replayed: what an earlier process was killed before it removed.

        So are checkpoints of which the journal, an older copy of itself, does not know enough: a trial that went on
        from one would lack the epochs between, and perhaps the one that is to be chosen.

        Returns:
            What a user should know of that.

        Raises:
            StorageError: a file cannot be removed.
        """
        kept = self._kept = self._best()
        for trial in self._board.snapshot():
            if trial.over:
                self._drop(trial, kept=trial.trial in kept)
        found = self._store.list(CHECKPOINTS)
        known = dict.fromkeys(sorted({key.split("/")[1] for key in found}), 0)
        known |= {t.trial: len(t.epochs) + sum(map(len, t.folds.values())) for t in self._board.snapshot()}
        gone = [key for name, epochs in known.items() for key in ahead(found, name, epochs)]
        for key in gone:
            self._store.delete(key)
        say = f"{len(gone)} checkpoints are of epochs that the journal does not know, and are not gone on from"
        return [f"{say}: {', '.join(gone[:5])}."] if gone else []

    def spare(self, key: str) -> bool:
        """Whether a file of a trial, in the folder or in its copy, is one that is not kept.

        Args:
            key: below the run.
        """
        found = _OF_A_TRIAL.match(key)
        trial = self._board.trials.get(found["trial"]) if found else None
        if trial is None or not trial.over:
            return False
        return bool(left_over([key], trial.trial, self._files(trial, kept=trial.trial in self._best())))

    @staticmethod
    def _files(trial: Trial, *, kept: bool) -> list[str]:
        return [stored.file for stored in trial.stored()] if kept else []

    def _best(self, among: Iterable[str] | None = None) -> set[str]:
        board = self._board
        there = board.snapshot() if among is None else [board.trials[name] for name in sorted(among, key=int)]
        over = board.ranked(trial for trial in there if trial.over)
        front = self._board.front(over) if self._board.aims.several else []
        return {trial.trial for trial in (*over[: self._keep], *front)}

    def _drop(self, trial: Trial, *, kept: bool) -> None:
        keys = [*self._store.list(f"{CHECKPOINTS}{trial.trial}/"), *self._store.list(f"{WEIGHTS}{trial.trial}")]
        for key in left_over(keys, trial.trial, self._files(trial, kept=kept)):
            self._store.delete(key)
        with contextlib.suppress(OSError):  # another process put something there, or it was never made
            (self._folder / CHECKPOINTS / trial.trial).rmdir()
