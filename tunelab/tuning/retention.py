"""Which files of trials are kept: weights of the best, checkpoints of those that can go on; nothing else grows."""

from __future__ import annotations

from pathlib import Path

from tunelab.ranking import Leaderboard, Trial
from tunelab.storage import FolderStore
from tunelab.trial import left_over

CHECKPOINTS, WEIGHTS = "checkpoints/", "weights/"


class Retention:
    """Removes files of trials that ended from a run's folder.

    A trial that is over has no use for its checkpoints. Weights are kept of the ``keep`` best of those that are over:
    more of them end, so that one that is not among the best never comes back. Those of a trial that can still go on
    are never touched.

    Args:
        folder: the run's.
        board: its leaderboard.
        keep: how many, one at least.
    """

    def __init__(self, folder: Path, board: Leaderboard, keep: int) -> None:
        self._store = FolderStore(folder)
        self._board = board
        self._keep = keep
        self._kept: set[str] = set()

    def told(self, kind: str, trial: Trial) -> None:
        """A listener of the recorder.

        Raises:
            StorageError: a file cannot be removed.
        """
        if kind != "end" or trial.unfinished:
            return
        best = self._best()
        for name in (self._kept - best) | {trial.trial}:
            self._drop(self._board.trials[name], kept=name in best)
        self._kept = best

    def clean(self) -> None:
        """Once, after a journal was replayed: what an earlier process was killed before it removed.

        Raises:
            StorageError: as for :meth:`told`.
        """
        self._kept = self._best()
        for trial in self._board.snapshot():
            if not trial.unfinished:
                self._drop(trial, kept=trial.trial in self._kept)

    def _best(self) -> set[str]:
        over = [trial.trial for trial in self._board.ranked() if not trial.unfinished]
        return set(over[: self._keep])

    def _drop(self, trial: Trial, *, kept: bool) -> None:
        keys = [*self._store.list(f"{CHECKPOINTS}{trial.trial}/"), *self._store.list(f"{WEIGHTS}{trial.trial}")]
        for key in left_over(keys, trial.trial, [stored.file for stored in trial.stored()] if kept else []):
            self._store.delete(key)
