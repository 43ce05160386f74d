"""What Ray calls while trials run: whether all of it is over, and that a trial has got its place, or left it."""

from __future__ import annotations

from typing import Any

from ray import tune

from tunelab.tuning.budget import Budget
from tunelab.tuning.interrupt import InterruptStopper
from tunelab.tuning.record import Recorder


class BudgetStopper(InterruptStopper):
    """Ends all trials once a signal has come, GPU-hours or money are used, or all is in vain; Ray looks at the time."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget

    def stop_all(self) -> bool:
        """Whether it is over."""
        return super().stop_all() or self._budget.used()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Ray pickles what it is given, and the journal alone is trusted."""
        return {}


class Places(tune.Callback):  # type: ignore[misc]
    """Records when a trial has got its place: Ray hands trials to nodes as places come free.

    When it leaves that, what Ray keeps of its metrics goes: extremes and moving averages of each, which nobody asks
    for, take ten times the memory of all else that Ray keeps of a trial.

    Args:
        recorder: of the run.
        gpus: of a trial.
    """

    def __init__(self, recorder: Recorder, gpus: float) -> None:
        self._recorder = recorder
        self._gpus = gpus

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called before a trial's first step in a process, whether new or kept from another trial."""
        self._recorder.started(trial.config["trial"], self._gpus)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called when a trial has ended, or waits, which is an end to Ray."""
        self._forget(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called when a trial has failed for good."""
        self._forget(trial)

    def _forget(self, trial: Any) -> None:
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()
        trial.run_metadata.invalidate_cache()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as there."""
        return {}
