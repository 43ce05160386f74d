"""What a running search knows: the journal and the leaderboard folded from it, written to by searcher and scheduler.

Everything passes through here before it counts. Ray hands trials around under ids of its own; here they get theirs,
``0001`` and on, in the order in which they were suggested. A resumed search is told of what was by :meth:`replay`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tunelab.errors import TunelabError
from tunelab.fidelity import FULL, At
from tunelab.journal import Journal, Record
from tunelab.ranking import Leaderboard, Pooled, Status, Trial

FLOOR_ERRORS = 2.0
"""Standard errors above the share of positives up to which average precision is taken for chance."""


class Recorder:
    """One per search, shared by searcher, scheduler and reporter."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.board = Leaderboard()
        self.listeners: list[Callable[[str, Trial], None]] = []
        """Called with a record's kind and its trial, after the record is on disk."""
        self.fault: TunelabError | None = None
        """What ended the search from inside searcher or scheduler; Ray wraps it in an error of its own."""
        self._verdicts: dict[str, tuple[Status, str]] = {}

    def replay(self, followers: Iterable[Callable[[Record], None]] = ()) -> None:
        """Fold what the journal holds, a record at a time, and tell each to those who rebuild their state from it.

        Args:
            followers: called with a record after the leaderboard took it in; they find it as it was then.

        Raises:
            StateError: a record that is not what its kind says.
        """
        told = list(followers)
        for record in list(self._journal.records):
            self.board.apply(record)
            if record["kind"] == "decision" and "status" in record:
                self._verdicts[record["trial"]] = (record["status"], record["cause"])
            elif record["kind"] == "end":
                self._verdicts.pop(record["trial"], None)
            for follower in told:
                follower(record)

    @property
    def records(self) -> list[Record]:
        """All that is written, oldest first."""
        return self._journal.records

    def suggestion(
        self,
        trial: str,
        name: str,
        seed: int,
        params: Mapping[str, Any],
        point: Mapping[str, Any],
        *,
        fidelity: At = FULL,
        of: str = "",
    ) -> None:
        """A trial that may start; arguments as the fields of :class:`~tunelab.ranking.Trial`."""
        more = {"params": params, "point": point, "fidelity": dict(fidelity), "of": of}
        self._write("suggestion", trial=trial, name=name, seed=seed, family=params["family"], **more)

    def resumed(self, trial: str) -> None:
        """A trial that was unfinished or waited, and may go on."""
        self._write("resumed", trial=trial, epoch=epoch_of(self.board.trials[trial]))

    def started(self, trial: str, gpus: float) -> None:
        """A trial that has its place, and so many GPUs; again when it goes on at another one."""
        self._write("start", trial=trial, gpus=gpus)

    def result(self, trial: str, told: Mapping[str, Any]) -> bool:
        """An epoch's result, of whatever fold, unless it is known: a trial tells its newest again when it goes on.

        An epoch that was trained again and came out otherwise (another machine, a GPU) counts as it is told now: its
        weights are the ones that are stored.

        Args:
            trial: which.
            told: fold, epoch, seconds, parameters, ``weights`` (the digest of those stored with this epoch, when it is
                the chosen one so far), ``checkpoint``, ``ended`` and metrics.

        Returns:
            Whether it was new.
        """
        fold, epoch = told["fold"], told["epoch"]
        if self.board.trials[trial].knows(fold, epoch) and self._same(trial, fold, epoch, told):
            return False
        fields = {name: told[name] for name in ("epoch", "weights", "checkpoint", "metrics")}
        fields["seconds"] = round(told["seconds"], 3)
        if fold:
            self._write("fold", trial=trial, fold=fold, **fields)
        else:
            self._write("result", trial=trial, parameters=told["parameters"], ended=told["ended"], **fields)
        return True

    def pooled(self, trial: str, pooled: Pooled) -> None:
        """What all folds together came to, unless it is known."""
        if self.board.trials[trial].pooled is None:
            self._write("pooled", trial=trial, **pooled.record())

    def failure(self, trial: str, cause: str, *, counts: bool) -> int:
        """A process that was lost under a trial; the trial may go on in another.

        Args:
            trial: which.
            cause: in words.
            counts: whether it was the trial's own doing, as far as one can tell; a lost node is not.

        Returns:
            How many counted ones there are now.
        """
        self._write("failure", trial=trial, cause=cause, counts=counts)
        return self.board.trials[trial].failures

    def note(self, trial: str, text: str) -> None:
        """What is worth knowing of a trial that goes on, such as a damaged checkpoint."""
        self._write("note", trial=trial, text=text)

    def decision(self, trial: str, *, epoch: int, by: str, status: Status, cause: str) -> None:
        """A trial that is not to go on, and what its end will be called."""
        self._verdicts[trial] = (status, cause)
        self._write("decision", trial=trial, epoch=epoch, action="stop", by=by, status=status, cause=cause)

    def wait(self, trial: str, epoch: int) -> None:
        """A trial that waits at a rung."""
        self._write("wait", trial=trial, epoch=epoch)

    def decided(self, trial: str) -> bool:
        """Whether a trial is not to go on."""
        return trial in self._verdicts

    def end(self, trial: str, status: Status, cause: str = "") -> None:
        """A trial that is over; an earlier decision says more than the caller can."""
        status, cause = self._verdicts.pop(trial, (status, cause))
        self._write("end", trial=trial, status=status, cause=cause)

    def other(self, kind: str, **fields: object) -> Record:
        """A record of the run itself."""
        return self._journal.append(kind, **fields)

    def fail(self, error: TunelabError) -> TunelabError:
        """Remember what ends the search, for the one who finds Ray's error around it; gives it back to be raised."""
        self.fault = self.fault or error
        return error

    def best_dense(self, trial: str) -> float:
        """The highest average precision on the tune split so far, of the first fold where there are folds; else NaN.

        So that the values of all trials can be compared, of those too that were stopped on the first fold.
        """
        chosen = self.board.trials[trial].chosen
        return chosen["tune_average_precision"] if chosen else math.nan

    def floored(self, trial: str) -> bool:
        """Whether a trial is on the floor: what it came to at best is what chance comes to, as far as one can tell."""
        chosen = self.board.trials[trial].chosen
        return chosen is not None and chosen["tune_lift"] <= FLOOR_ERRORS

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles what it is given, and the journal alone is trusted."""
        return {}

    def _same(self, trial: str, fold: int, epoch: int, told: Mapping[str, Any]) -> bool:
        one = self.board.trials[trial]
        (known,) = [e for e in (one.folds[fold] if fold else one.epochs) if e.epoch == epoch]
        return not told["weights"] or known.weights == told["weights"]

    def _write(self, kind: str, **fields: object) -> None:
        try:
            record = self._journal.append(kind, **fields)
            self.board.apply(record)
            for listener in self.listeners:
                listener(kind, self.board.trials[record["trial"]])
        except TunelabError as error:
            raise self.fail(error) from error.__cause__


def epoch_of(trial: Trial) -> int:
    """The newest epoch of a trial's first fold that is known, 0 before there is one."""
    return trial.epochs[-1].epoch if trial.epochs else 0
