"""Which trials go on: early stopping on a dense metric, every result recorded first.

Validation F1 is zero for most models most of the time, so halving on it stops nothing; average precision on the tune
split moves long before. How it is compared is in :mod:`tunelab.stopping`; this is its place in Ray. A trial that
trained all its epochs or shards, ran out of patience or failed says so in its result, and is ended here too: all
results take one way.

A trial that waits at a rung is over for Ray, so that it holds no place among those that run at the same time and
nothing can hang for it: Ray's own PAUSE does (``max_concurrent_trials`` counts paused trials, and ``fit`` ends only
when none is left). When it may go on, the searcher hands it out again as it does an unfinished one, and it goes on
from its checkpoint.

Where the data set has folds, trials are compared on the first one alone, so that a poor one costs one fold. Results of
later folds are recorded and nothing else.

A trial whose process was lost goes on in another one, from its newest checkpoint: a lost node never counts against it,
more than ``max_failures`` losses of its own end it. Ray keeps nothing of all that; after a restart the rungs are filled
from the journal, by the same code that fills them while the search goes on.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tunelab.errors import StorageError
from tunelab.halving import Verdict
from tunelab.journal import Record
from tunelab.ranking import Pooled
from tunelab.sections import EarlyStopping
from tunelab.stopping import stopping
from tunelab.tuning.losses import cause_of, is_doubtful, is_node_lost, last_error, nodes_alive
from tunelab.tuning.record import Recorder, epoch_of

NODE_SECONDS = 60.0
"""After which Ray knows whether a node is gone: it asks every 3 s, waits 10 s and asks five times."""
STOP, CONTINUE = str(TrialScheduler.STOP), str(TrialScheduler.CONTINUE)


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A loss that may have been a node's: it counts if all nodes are still there after a while."""

    trial: str
    nodes: frozenset[str]
    cause: str
    until: float


class RecordingScheduler(FIFOScheduler):  # type: ignore[misc]
    """Early stopping on the highest average precision on the tune split so far.

    Args:
        rules: of early stopping.
        max_epochs: of a trial.
        recorder: of the run.
        max_failures: how many losses of its process a trial survives.
    """

    def __init__(self, rules: EarlyStopping, max_epochs: int, recorder: Recorder, max_failures: int = 3) -> None:
        super().__init__()
        self.stopping = stopping(rules, max_epochs)
        self._most_waiting = rules.waiting
        self._recorder = recorder
        self._max_failures = max_failures
        self._nodes: set[str] = set()
        """That were there when a trial was taken up last."""
        self._doubts: list[_Doubt] = []
        self._due: dict[str, tuple[int, str]] = {}

    def replayed(self, record: Record) -> None:
        """Take in one record of a journal, as if it had just been written; a follower of :meth:`Recorder.replay`."""
        if record["kind"] == "result":
            trial, epoch = record["trial"], record["epoch"]
            verdict = self._judge(trial, epoch)
            self._due.pop(trial, None)
            if by := record.get("ended") or verdict:
                self._due[trial] = (epoch, by)
        elif record["kind"] in ("decision", "wait", "end", "resumed"):
            self._due.pop(record["trial"], None)
            if record["kind"] in ("end", "resumed"):
                self.stopping.promote(record["trial"])

    def settle(self) -> None:
        """Decide what the results of an earlier process called for and it was killed before it wrote down."""
        for trial, (epoch, by) in list(self._due.items()):
            if not self._recorder.decided(trial):
                self._decide(trial, epoch, by)
        self._due.clear()

    def promotable(self, *, last: bool) -> str | None:
        """A trial that waits and may go on; it goes on once the recorder has said so to :meth:`promoted`.

        Args:
            last: whether no new trials will come.
        """
        return self.stopping.promotable(last=last)

    def promoted(self, trial: str) -> None:
        """A trial goes on, or is over: it waits no longer."""
        self.stopping.promote(trial)

    def give_up(self, most: int = 0) -> None:
        """End the trials that wait, all or but for those most likely to go on.

        Args:
            most: that may wait on.
        """
        for trial in self.stopping.waiting()[most:]:
            self.stopping.promote(trial)
            waited = self._recorder.board.trials[trial]
            self._recorder.end(trial, "stopped", not_among_the_best(epoch_of(waited)))

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Look which nodes there are. There is one bracket, which a trial enters with its first result."""
        self._nodes = nodes_alive()

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Record the result, then decide.

        Raises:
            StorageError: the trial could not store its weights or a checkpoint; the search ends, and can be resumed.
            RunBusyError: another process took the run over.
        """
        if self._recorder.fault is not None:
            raise self._recorder.fault
        ours: str = trial.config["trial"]
        if result["storage"]:
            raise self._recorder.fail(StorageError(result["storage"]))
        if result["lost"]:
            return self._lost(ours, result["lost"], counts=True)
        self._settle_doubts()
        for text in result["notes"]:
            self._recorder.note(ours, text)
        epoch, fold = int(result["epoch"]), int(result["fold"])
        news = False
        if epoch:
            # the same few names each time: one text of each, however many results there are
            told = {k: v for k, v in result.items() if k.startswith("metrics/")}
            metrics = {sys.intern(k.removeprefix("metrics/")): v for k, v in told.items()}
            news = self._recorder.result(ours, {**result, "metrics": metrics})
        for pooled in result["pooled"]:
            self._recorder.pooled(ours, Pooled.of_record(pooled))
        if result["failed"]:
            self._recorder.decision(ours, epoch=epoch, by="failure", status="failed", cause=result["failed"])
        if self._recorder.decided(ours):
            return STOP
        if fold:  # trained to its end: whether the trial is good enough was decided on the first
            return self._decide(ours, epoch, result["ended"]) if result["ended"] else CONTINUE
        by = self._judge(ours, epoch) if news else ""  # what is told again was judged when it was news
        if result["ended"] or by:
            return self._decide(ours, epoch, result["ended"] or by)
        return CONTINUE

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Nothing: its last result was judged when it came."""

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Nothing: what it told stays in the rungs."""

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Record that Ray lost the process or the node below a trial, and whether the trial may go on.

        Ray is told to try for ever; a trial that may not is given up with its next sign of life, good or bad.
        """
        ours, error = trial.config["trial"], last_error(trial)
        cause, doubtful = cause_of(error), is_doubtful(error)
        if doubtful:
            there = frozenset(self._nodes | nodes_alive())
            self._doubts.append(_Doubt(ours, there, cause, time.monotonic() + NODE_SECONDS))
        action = self._lost(ours, cause, counts=not (doubtful or is_node_lost(error)))
        self._settle_doubts()
        if action == STOP or self._recorder.decided(ours):
            trial.max_failures = 0

    def _settle_doubts(self) -> None:
        """Count the losses of which it is plain by now that no node was lost with the process."""
        due = [doubt for doubt in self._doubts if time.monotonic() >= doubt.until]
        if due:
            self._doubts = [doubt for doubt in self._doubts if doubt not in due]
            there = nodes_alive()
            for doubt in due:
                if doubt.nodes <= there:
                    self._lost(doubt.trial, f"{doubt.cause}, and no node was lost", counts=True)

    def _lost(self, ours: str, cause: str, *, counts: bool) -> str:
        if self._recorder.decided(ours):
            return STOP
        failures = self._recorder.failure(ours, cause, counts=counts)
        if failures <= self._max_failures:
            return CONTINUE
        epoch = epoch_of(self._recorder.board.trials[ours])
        said = f"its process was lost {failures} times (--max-failures {self._max_failures}); the last time: {cause}"
        self._recorder.decision(ours, epoch=epoch, by="failure", status="failed", cause=said)
        return STOP

    def _judge(self, ours: str, epoch: int) -> Verdict:
        """What is said of a trial at an epoch of its first fold; the same from the journal as from a live trial."""
        recorder = self._recorder
        return self.stopping.tell(
            ours,
            epoch,
            recorder.best_dense(ours),
            floored=recorder.floored(ours),
            spared=bool(recorder.board.trials[ours].name),
        )

    def _decide(self, ours: str, epoch: int, by: str) -> str:
        if by == "wait":
            self._recorder.wait(ours, epoch)
            self.give_up(self._most_waiting)
            return STOP
        cause = {
            "asha": not_among_the_best(epoch),
            "collapse": f"still on the floor at epoch {epoch}: its average precision is that of chance",
        }.get(by, "")
        self._recorder.decision(ours, epoch=epoch, by=by, status="stopped" if cause else "finished", cause=cause)
        return STOP


def not_among_the_best(epoch: int) -> str:
    """Why a trial that was compared with others ended."""
    return f"not among the best at epoch {epoch}"
