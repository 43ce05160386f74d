"""The Ray Tune Trainable that wraps the model builder: one step is one epoch, one process serves many trials.

Where the data set has folds, the trial goes over them one after another, an epoch a step all the same: the epochs of
later folds tell that the trial is alive, and name their fold.

A fault of the model or of its training is a result, with its cause in words, and ends that trial alone. Ray's own
machinery for failed trials is left to lost processes and nodes, where going on from a checkpoint makes sense.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from tunelab.data.access import Access
from tunelab.data.dataset import Dataset
from tunelab.errors import StateError, TunelabError
from tunelab.preprocessing import chain_of
from tunelab.ranking import Pooled, Stored, weights_file
from tunelab.storage import open_store

if TYPE_CHECKING:
    from tunelab.crossfit import CrossFit


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSettings:
    """What all trials of a search share."""

    max_epochs: int
    patience: int
    cpus: float
    gpus: float
    weights: str
    """Folder or s3:// prefix for the chosen epochs' weights, reachable from every node."""
    debug: bool
    """Whether a failed trial's cause carries its traceback."""


class KerasTrainable(tune.Trainable):  # type: ignore[misc]
    """Trains one params after another; ``config`` is what :class:`~tunelab.tuning.searcher.SpaceSearcher` suggests."""

    def setup(self, config: dict[str, Any], data: Access, settings: TrialSettings) -> None:
        """Take the first trial; the model is built in the first step, where a fault can be told."""
        self._data = data
        self._settings = settings
        self._training: CrossFit | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial in the same process."""
        self._training = None
        return True

    def step(self) -> dict[str, Any]:
        """One epoch."""
        try:
            return self._step()
        except TunelabError as error:
            return self._failed(str(error))
        except Exception as error:  # noqa: BLE001 - whatever a model does wrong ends its own trial, not the search
            if self._settings.debug:
                return self._failed(traceback.format_exc())
            return self._failed(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """All that another process needs to go on."""
        if self._training is not None:
            self._training.save(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from a checkpoint: now, since Ray removes the folder afterwards."""
        if any(Path(checkpoint_dir).rglob("*.npz")):
            self._begin().load(Path(checkpoint_dir))

    def _scans(self) -> Dataset:
        """The trial's data set, prepared on this node if it is not yet."""
        return self._data.open(chain_of(self.config["params"]))

    def _begin(self) -> CrossFit:
        from tunelab import backend, crossfit, training

        settings = self._settings
        backend.configure(max(1, int(settings.cpus)), settings.gpus)
        schedule = training.Schedule(
            max_epochs=settings.max_epochs, patience=settings.patience, seed=self.config["seed"]
        )
        self._training = crossfit.CrossFit(self.config["params"], self._scans(), schedule)
        return self._training

    def _step(self) -> dict[str, Any]:
        from tunelab import training

        current = self._training or self._begin()
        parameters = current.training.model.count_params()
        step, arrays = current.step()
        weights = ""
        if step.outcome.improved:
            raw = training.pack(arrays)
            weights = training.digest(raw)
            open_store(self._settings.weights).put(weights_file(self.config["trial"], step.fold), raw)
        return {
            "fold": step.fold,
            "epoch": step.outcome.epoch,
            "seconds": step.outcome.seconds,
            "parameters": parameters,
            "weights": weights,
            "ended": step.ended,
            "failed": step.failed,
            "metrics": dict(step.outcome.metrics),
            # a list of one or none: Ray takes mappings apart
            "pooled": [step.pooled.record()] if step.pooled else [],
        }

    def _failed(self, cause: str) -> dict[str, Any]:
        return {
            "fold": 0,
            "epoch": 0,
            "seconds": 0.0,
            "parameters": 0,
            "weights": "",
            "ended": "",
            "failed": cause,
            "metrics": {},
            "pooled": [],
        }


def evaluate_stored(
    params: dict[str, Any],
    data: Access,
    models: Sequence[tuple[bytes, Stored]],
    pooled: Pooled | None,
    cpus: float,
    gpus: float,
) -> dict[str, Any]:
    """A Ray task: what stored weights are worth on the validation and test splits.

    Args:
        params: the models'.
        data: the data set.
        models: the file of weights of each, as journalled: of one model, or of one for each fold.
        pooled: what the models came to on all folds; None: the only one is the first fold's, or there are no folds.
        cpus: as a trial's.
        gpus: as a trial's.

    Raises:
        StateError: a file is not the one that was journalled.
    """
    from tunelab import backend, crossfit, training

    for raw, stored in models:
        if training.digest(raw) != stored.digest:
            raise StateError(
                f"{stored.file}: the winner's stored weights do not match their digest in the journal; train it again"
            )
    backend.configure(max(1, int(cpus)), gpus)
    scans = data.open(chain_of(params))
    if pooled is not None:
        return crossfit.evaluate_together(params, scans, [(m.fold, raw, m.threshold) for raw, m in models], pooled)
    ((raw, stored),) = models
    return training.evaluate(params, scans, raw, stored.threshold, ("validation", "test"))
