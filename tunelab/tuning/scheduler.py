"""Which trials go on: Ray's asynchronous successive halving on a dense metric, every result recorded first.

Validation F1 is zero for most models most of the time, so halving on it stops nothing; average precision on the tune
split moves long before. NaN is worse than every value. A trial that trained all its epochs or shards, ran out of
patience or failed says so in its result, and is ended here too: all results take one way.

Where the data set has folds, trials are compared on the first one alone, so that a poor one costs one fold. Results of
later folds are recorded and nothing else.
"""

from __future__ import annotations

import math
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from tunelab.ranking import Pooled
from tunelab.space import EarlyStopping
from tunelab.tuning.record import Recorder

DENSE = "best_dense"
WORST = -1.0
"""Below every average precision; a number, since Ray's cutoff is a percentile."""


class RecordingScheduler(AsyncHyperBandScheduler):  # type: ignore[misc]
    """One bracket of ASHA over epochs, on the highest average precision on the tune split so far."""

    def __init__(self, rules: EarlyStopping, max_epochs: int, recorder: Recorder) -> None:
        super().__init__(
            time_attr="epoch",
            metric=DENSE,
            mode="max",
            max_t=max_epochs,
            grace_period=min(rules.grace, max_epochs),
            reduction_factor=rules.reduction,
            stop_last_trials=False,
        )
        self._grace = min(rules.grace, max_epochs)
        self._recorder = recorder

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Record the result, then decide."""
        ours: str = trial.config["trial"]
        epoch, fold = int(result["epoch"]), int(result["fold"])
        if epoch:
            told = {
                "epoch": epoch,
                "seconds": result["seconds"],
                "weights": result["weights"],
                "metrics": {k.removeprefix("metrics/"): v for k, v in result.items() if k.startswith("metrics/")},
            }
            if fold:
                self._recorder.fold(ours, fold=fold, **told)
            else:
                self._recorder.result(ours, parameters=result["parameters"], **told)
        for pooled in result["pooled"]:
            self._recorder.pooled(ours, Pooled.of_record(pooled))
        if result["failed"]:
            self._recorder.decision(ours, epoch=epoch, by="failure", status="failed", cause=result["failed"])
            return str(TrialScheduler.STOP)
        if fold:
            return self._after_the_first(ours, epoch, result["ended"])
        best = self._recorder.best_dense(ours)
        judged = {"epoch": epoch, DENSE: WORST if math.isnan(best) else best}
        action: str = super().on_trial_result(tune_controller, trial, judged)
        if math.isnan(best) and epoch >= self._grace:  # it would tie with a cutoff that is itself the worst
            action = str(TrialScheduler.STOP)
        if result["ended"]:
            self._recorder.decision(ours, epoch=epoch, by=result["ended"], status="finished", cause="")
            return str(TrialScheduler.STOP)
        if action == TrialScheduler.STOP:
            cause = f"not among the best at epoch {epoch}"
            self._recorder.decision(ours, epoch=epoch, by="asha", status="stopped", cause=cause)
        return action

    def _after_the_first(self, ours: str, epoch: int, ended: str) -> str:
        """A later fold is trained to its end: whether the trial is good enough was decided on the first."""
        if not ended:
            return str(TrialScheduler.CONTINUE)
        self._recorder.decision(ours, epoch=epoch, by=ended, status="finished", cause="")
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Forget the trial; its last result was judged when it came."""
        self._trial_info.pop(trial.trial_id, None)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Remember why Ray lost the trial's process, for the record of its end."""
        error = trial.get_error()
        cause = " ".join(str(error).split()) if error else "its process was lost"
        self._recorder.blame(trial.config["trial"], cause[:500])
