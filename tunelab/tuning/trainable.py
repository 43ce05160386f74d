"""The Ray Tune Trainable that wraps the model builder: one step is one epoch, one process serves many trials.

A fault of the model or of its training is a result, with its cause in words, and ends that trial alone. Ray's own
machinery for failed trials is left to lost processes and nodes, where going on from a checkpoint makes sense.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune

from tunelab.data.dataset import Dataset
from tunelab.errors import StateError, TunelabError
from tunelab.storage import open_store

if TYPE_CHECKING:
    from tunelab.training import Training


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

    def setup(self, config: dict[str, Any], data: Dataset, settings: TrialSettings) -> None:
        """Take the first trial; the model is built in the first step, where a fault can be told."""
        self._data = data
        self._settings = settings
        self._training: Training | None = None
        self._checkpoint: Path | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial in the same process."""
        self._training = self._checkpoint = None
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
        if (Path(checkpoint_dir) / "state.json").exists():
            self._begin().load(Path(checkpoint_dir))

    def _begin(self) -> Training:
        import keras

        from tunelab import training

        settings = self._settings
        training.configure(max(1, int(settings.cpus)), settings.gpus)
        keras.backend.clear_session()
        schedule = training.Schedule(
            max_epochs=settings.max_epochs, patience=settings.patience, seed=self.config["seed"]
        )
        self._training = training.Training(self.config["params"], self._data, schedule)
        return self._training

    def _step(self) -> dict[str, Any]:
        from tunelab import training

        current = self._training or self._begin()
        outcome = current.run_epoch()
        weights = ""
        if outcome.improved:
            raw = training.pack(current.best_weights)
            weights = training.digest(raw)
            open_store(self._settings.weights).put(f"{self.config['trial']}.npz", raw)
        return {
            "epoch": outcome.epoch,
            "seconds": outcome.seconds,
            "parameters": current.model.count_params(),
            "weights": weights,
            "ended": outcome.ended,
            "failed": outcome.failed,
            "metrics": dict(outcome.metrics),
        }

    def _failed(self, cause: str) -> dict[str, Any]:
        return {
            "epoch": 0,
            "seconds": 0.0,
            "parameters": 0,
            "weights": "",
            "ended": "",
            "failed": cause,
            "metrics": {},
        }


def evaluate_stored(
    params: dict[str, Any], data: Dataset, raw: bytes, digest: str, threshold: float, cpus: float, gpus: float
) -> dict[str, Any]:
    """A Ray task: what stored weights are worth on the validation and test splits.

    Args:
        params: the model's.
        data: the data set.
        raw: the weights' file.
        digest: its SHA-256, as journalled.
        threshold: chosen on the tune split.
        cpus: as a trial's.
        gpus: as a trial's.

    Raises:
        StateError: the file is not the one that was journalled.
    """
    from tunelab import training

    if training.digest(raw) != digest:
        raise StateError("the winner's stored weights do not match their digest in the journal; train it again")
    training.configure(max(1, int(cpus)), gpus)
    return training.evaluate(params, data, raw, threshold, ("validation", "test"))
