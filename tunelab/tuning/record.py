"""What a running search knows: the journal and the leaderboard folded from it, written to by searcher and scheduler.

Everything passes through here before it counts. Ray hands trials around under ids of its own; here they get theirs,
``0001`` and on, in the order in which they were suggested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tunelab.errors import TunelabError
from tunelab.journal import Journal, Record
from tunelab.ranking import Leaderboard, Pooled, Status, Trial


class Recorder:
    """One per search, shared by searcher, scheduler and reporter."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.board = Leaderboard(journal.records)
        self.listeners: list[Callable[[str, Trial], None]] = []
        """Called with a record's kind and its trial, after the record is on disk."""
        self.fault: TunelabError | None = None
        """What ended the search from inside searcher or scheduler; Ray wraps it in an error of its own."""
        self._verdicts: dict[str, tuple[Status, str]] = {}

    def suggestion(self, trial: str, name: str, seed: int, params: Mapping[str, Any], point: Mapping[str, Any]) -> None:
        """A trial that may start."""
        family = params["family"]
        self._write("suggestion", trial=trial, name=name, seed=seed, family=family, params=params, point=point)

    def result(
        self, trial: str, *, epoch: int, seconds: float, parameters: int, weights: str, metrics: Mapping[str, float]
    ) -> None:
        """An epoch's result; ``weights`` is the digest of the chosen epoch's weights when this is that epoch."""
        fields = {"epoch": epoch, "seconds": round(seconds, 3), "parameters": parameters, "weights": weights}
        self._write("result", trial=trial, **fields, metrics=metrics)

    def fold(
        self, trial: str, *, fold: int, epoch: int, seconds: float, weights: str, metrics: Mapping[str, float]
    ) -> None:
        """An epoch's result on a later fold than the first; otherwise as :meth:`result`."""
        fields = {"fold": fold, "epoch": epoch, "seconds": round(seconds, 3), "weights": weights}
        self._write("fold", trial=trial, **fields, metrics=metrics)

    def pooled(self, trial: str, pooled: Pooled) -> None:
        """What all folds together came to."""
        self._write("pooled", trial=trial, **pooled.record())

    def decision(self, trial: str, *, epoch: int, by: str, status: Status, cause: str) -> None:
        """A trial that is not to go on, and what its end will be called."""
        self._verdicts[trial] = (status, cause)
        self._write("decision", trial=trial, epoch=epoch, action="stop", by=by)

    def blame(self, trial: str, cause: str) -> None:
        """Remember why Ray gave a trial up, until :meth:`end` is called for it."""
        self._verdicts[trial] = ("failed", cause)

    def end(self, trial: str, status: Status, cause: str = "") -> None:
        """A trial that is over; an earlier decision or blame says more than the caller can."""
        status, cause = self._verdicts.pop(trial, (status, cause))
        self._write("end", trial=trial, status=status, cause=cause)

    def other(self, kind: str, **fields: object) -> Record:
        """A record of the run itself."""
        return self._journal.append(kind, **fields)

    def best_dense(self, trial: str) -> float:
        """The highest average precision on the tune split so far, of the first fold where there are folds; else NaN.

        So that the values of all trials can be compared, of those too that were stopped on the first fold.
        """
        chosen = self.board.trials[trial].chosen
        return chosen["tune_average_precision"] if chosen else math.nan

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles what it is given, and the journal alone is trusted."""
        return {}

    def _write(self, kind: str, **fields: object) -> None:
        try:
            record = self._journal.append(kind, **fields)
        except TunelabError as error:
            self.fault = error
            raise
        self.board.apply(record)
        for listener in self.listeners:
            listener(kind, self.board.trials[record["trial"]])
